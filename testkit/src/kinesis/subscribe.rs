//! SubscribeToShard: who is subscribed to a shard, and what each is sent next.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::Kinesis;
use super::error::ApiError;
use super::get::{ChildShard, records_json};
use super::iterator::StartingPosition;
use super::limits::{CallRate, SubscriptionRate};
use super::sequence::SequenceNumber;
use super::shard::{Position, Record, ShardId};
use super::wire::{StreamRef, required};
use crate::clock::Timestamp;

/// For so long a subscription cannot be taken over.
const TAKEOVER_AFTER: Duration = Duration::from_secs(5);
/// Where nothing is written, an event without records is sent this often.
const HEARTBEAT: Duration = Duration::from_secs(5);
const MAX_RECORDS: usize = 10_000;
const MAX_BYTES: usize = 2 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SubscribeRequest {
    #[serde(rename = "ConsumerARN")]
    consumer_arn: Option<String>,
    shard_id: Option<String>,
    starting_position: Option<StartingPositionShape>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StartingPositionShape {
    r#type: Option<String>,
    sequence_number: Option<String>,
    timestamp: Option<super::wire::EpochSeconds>,
}

/// The subscription a consumer has to a shard, or had last.
#[derive(Debug, Clone)]
pub(crate) struct Holder {
    id: u64,
    since: Timestamp,
    /// Whether its client is there.
    connected: bool,
    /// Whether its connection is to be cut.
    cut: bool,
}

/// A subscription that is being served.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) stream: String,
    pub(crate) shard: ShardId,
    /// Woken when the shard gets records or ends.
    pub(crate) changed: Arc<Notify>,
    id: u64,
    consumer: u64,
    position: Position,
    expires: Timestamp,
    last_event: Timestamp,
    rate: Option<SubscriptionRate>,
    ended: bool,
}

/// What a subscription is to do.
#[derive(Debug)]
pub(crate) enum Next {
    Send(SubscribeToShardEvent),
    /// Nothing, until the shard changes or so much time has passed.
    Wait(Duration),
    End,
    /// The connection is to be cut.
    Cut,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct SubscribeToShardEvent {
    #[serde(skip)]
    records: Vec<Record>,
    /// None at the end of the shard.
    #[serde(skip_serializing_if = "Option::is_none")]
    continuation_sequence_number: Option<SequenceNumber>,
    millis_behind_latest: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    child_shards: Option<Vec<ChildShard>>,
}

impl SubscribeToShardEvent {
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, std::io::Error> {
        records_json(&self.records, self)
    }
}

impl Kinesis {
    pub(crate) fn subscribe_to_shard(
        &mut self,
        now: Timestamp,
        request: &SubscribeRequest,
    ) -> Result<Subscription, ApiError> {
        let arn = required("consumerARN", request.consumer_arn.as_deref())?;
        let shard_text = required("shardId", request.shard_id.as_deref())?;
        let start = required("startingPosition", request.starting_position.as_ref())?;
        let start = StartingPosition {
            kind: required("startingPosition.type", start.r#type.as_deref())?,
            sequence_number: start.sequence_number.as_deref(),
            timestamp: start.timestamp.map(|time| time.0),
        };
        let session = self.settings.subscription_time;
        let limited = self.settings.shard_limits;
        let rate = limited.then(|| SubscriptionRate::new(now));
        let id = self.next_incarnation();
        let (name, consumer) = self.consumer_by_arn(now, arn)?;
        consumer.check_active(now)?;
        let consumer = consumer.incarnation;
        let stream = self.serving(now, named(&name))?;
        let shard = stream.find_shard(now, shard_text)?;
        if limited && !stream.admit_subscribe_call(now, consumer, shard) {
            return Err(ApiError::limit_exceeded(format!(
                "Rate exceeded for consumer {arn}, shard {shard}"
            )));
        }
        let position = start.position(now, stream, stream.shard(shard))?;
        let changed = Arc::clone(&stream.shard(shard).changed);
        if let Some(holder) = stream.holder(consumer, shard)
            && now < holder.since.plus(TAKEOVER_AFTER)
        {
            return Err(ApiError::in_use(format!(
                "Another active subscription exists for this consumer: {arn}, shard {shard}"
            )));
        }
        let holder = Holder { id, since: now, connected: true, cut: false };
        stream.hold(consumer, shard, holder);
        Ok(Subscription {
            stream: name,
            shard,
            changed,
            id,
            consumer,
            position,
            expires: now.plus(session),
            last_event: now,
            rate,
            ended: false,
        })
    }

    /// What comes next. An error ends the subscription; the client is told.
    pub(crate) fn next_event(
        &mut self,
        now: Timestamp,
        subscription: &mut Subscription,
    ) -> Result<Next, ApiError> {
        let keep_expired = self.settings.keep_expired;
        let stream = self.serving(now, named(&subscription.stream))?;
        let (consumer, shard) = (subscription.consumer, subscription.shard);
        if !stream.consumers.iter().any(|known| known.incarnation == consumer) {
            return Err(ApiError::not_found("The consumer has been deregistered."));
        }
        let holder = stream.holder(consumer, shard).filter(|holder| holder.id == subscription.id);
        let Some(holder) = holder else {
            return Err(ApiError::in_use(
                "Another subscription of this consumer has taken over this shard.",
            ));
        };
        if holder.cut {
            return Ok(Next::Cut);
        }
        if subscription.ended || now >= subscription.expires {
            // Ended by the service: the consumer may subscribe again at once.
            stream.release(consumer, shard);
            return Ok(Next::End);
        }
        let until_end = Duration::from_millis(subscription.expires.since(now));
        if let Some(rate) = &mut subscription.rate
            && let Some(wait) = rate.wait(now)
        {
            return Ok(Next::Wait(wait.min(until_end)));
        }
        let (limit, max_bytes) = (MAX_RECORDS, MAX_BYTES);
        let page =
            stream.read_page(now, shard, subscription.position, limit, max_bytes, keep_expired);
        let heartbeat = subscription.last_event.plus(HEARTBEAT);
        if page.records.is_empty() && page.child_shards.is_none() && now < heartbeat {
            let until_heartbeat = Duration::from_millis(heartbeat.since(now));
            return Ok(Next::Wait(until_heartbeat.min(until_end)));
        }
        if let Some(rate) = &mut subscription.rate {
            rate.charge(page.bytes());
        }
        subscription.position = page.next;
        subscription.last_event = now;
        subscription.ended = page.child_shards.is_some();
        let before = || stream.shard(shard).number_before(page.next);
        Ok(Next::Send(SubscribeToShardEvent {
            continuation_sequence_number: (!subscription.ended).then(before),
            records: page.records,
            millis_behind_latest: page.millis_behind_latest,
            child_shards: page.child_shards,
        }))
    }

    /// The client of a subscription is no longer there.
    pub(crate) fn leave(&mut self, subscription: &Subscription) {
        let Some(stream) = self.streams.get_mut(&subscription.stream) else {
            return;
        };
        let consumer =
            (stream.consumers.iter_mut()).find(|known| known.incarnation == subscription.consumer);
        let holder =
            consumer.and_then(|consumer| consumer.subscriptions.get_mut(&subscription.shard));
        if let Some(holder) = holder.filter(|holder| holder.id == subscription.id) {
            holder.connected = false;
        }
    }

    /// Has the connections of all subscriptions cut that have a client, and says how many these are.
    pub(crate) fn cut_subscriptions(&mut self) -> usize {
        let mut cut = 0;
        for stream in self.streams.values_mut() {
            let mut shards = BTreeSet::new();
            for consumer in &mut stream.consumers {
                for (shard, holder) in &mut consumer.subscriptions {
                    if holder.connected && !holder.cut {
                        holder.cut = true;
                        shards.insert(*shard);
                        cut += 1;
                    }
                }
            }
            for shard in shards {
                stream.shard(shard).changed.notify_waiters();
            }
        }
        cut
    }

    /// How many subscriptions have a client.
    pub(crate) fn subscriptions(&self) -> usize {
        let consumers = self.streams.values().flat_map(|stream| &stream.consumers);
        consumers
            .flat_map(|consumer| consumer.subscriptions.values())
            .filter(|holder| holder.connected)
            .count()
    }
}

impl super::stream::Stream {
    fn holder(&self, consumer: u64, shard: ShardId) -> Option<&Holder> {
        let consumer = self.consumers.iter().find(|known| known.incarnation == consumer)?;
        consumer.subscriptions.get(&shard)
    }

    fn admit_subscribe_call(&mut self, now: Timestamp, consumer: u64, shard: ShardId) -> bool {
        let consumer = self.consumers.iter_mut().find(|known| known.incarnation == consumer);
        consumer.is_none_or(|consumer| {
            let calls = consumer.subscribe_calls.entry(shard);
            calls.or_insert_with(|| CallRate::of_subscribe_calls(now)).admit(now)
        })
    }

    fn hold(&mut self, consumer: u64, shard: ShardId, holder: Holder) {
        let consumer = self.consumers.iter_mut().find(|known| known.incarnation == consumer);
        if let Some(consumer) = consumer {
            consumer.subscriptions.insert(shard, holder);
        }
        // Whoever held it learns that it no longer does.
        self.shard(shard).changed.notify_waiters();
    }

    fn release(&mut self, consumer: u64, shard: ShardId) {
        let consumer = self.consumers.iter_mut().find(|known| known.incarnation == consumer);
        if let Some(consumer) = consumer {
            consumer.subscriptions.remove(&shard);
        }
    }
}

fn named(name: &str) -> StreamRef<'_> {
    StreamRef { name: Some(name), arn: None }
}

#[cfg(test)]
mod tests;
