//! One subscription to a shard: its events, as the service sends them.

use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::types::{
    StartingPosition, SubscribeToShardEvent, SubscribeToShardEventStream,
};
use aws_smithy_types::DateTime;
use kinesis_common::record_buffer::RecordBufferBuilder;
use kinesis_common::timestamp::whole_millis;

use crate::clock::Clock;
use crate::lease::ChildShard;
use crate::retrieval::failure::Failure;
use crate::retrieval::{Position, RawRecords, read_children};
use crate::sequence::SequenceNumber;
use crate::service_time::AnswerDate;

/// Time without an event that shows that none was waiting.
const REALLY_WAITED: Duration = Duration::from_secs(1);

/// A subscription that is open. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Subscription {
    output: SubscribeToShardOutput,
    /// The service's time when it answered, and the time of the answer by the worker's clock.
    answered: AnswerDate,
    pub(super) opened: Duration,
    /// The last time at which no event was waiting to be read. The service sent the last event after it.
    drained: Duration,
    /// True after the first event.
    pub(super) has_sent: bool,
}

/// An event of a subscription.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) records: RawRecords,
    /// The next subscription starts after this. `None`: the shard has ended.
    pub(super) continuation: Option<SequenceNumber>,
    pub(super) millis_behind_latest: Option<u64>,
    /// The children of the shard on its last event, if the service named them.
    pub(super) children: Vec<ChildShard>,
}

impl Subscription {
    /// Subscribes to a shard.
    ///
    /// # Errors
    /// The call failed. `timeout` is its time limit.
    pub(super) async fn open(
        client: &Client,
        (consumer, shard_id): (&str, &str),
        position: &Position,
        timeout: Duration,
        clock: &dyn Clock,
    ) -> Result<Self, Failure> {
        let answered = AnswerDate::default();
        let request = client
            .subscribe_to_shard()
            .consumer_arn(consumer)
            .shard_id(shard_id)
            .starting_position(starting_position(position))
            .customize()
            .interceptor(answered.clone());
        // `send` waits for the first event, which no time limit of the SDK covers.
        let sent = tokio::time::timeout(timeout, request.send()).await;
        let sent = sent.map_err(|_| {
            Failure::unusable(&format!("SubscribeToShard was not answered within {timeout:?}"))
        })?;
        let output = sent.map_err(|error| Failure::of_subscribe(&error))?;
        let opened = clock.now();
        Ok(Self { output, answered, opened, drained: opened, has_sent: false })
    }

    /// A time before which no record arrives that is put after the subscription was opened.
    pub(super) fn no_later_than_opened(&self) -> Option<SystemTime> {
        self.answered.no_later_than_answer()
    }

    /// The service's time now: the `Date` of its answer, and the time that has passed since.
    pub(super) fn service_time(&self, now: Duration) -> Option<SystemTime> {
        self.answered.date()?.checked_add(now.saturating_sub(self.opened))
    }

    /// A time before which no record arrives that was put after the last event was sent. The event may have waited for
    /// the processor. Then records that arrived since are in the events behind it.
    pub(super) fn no_later_than_sent(&self) -> Option<SystemTime> {
        self.no_later_than_opened()?.checked_add(self.drained.saturating_sub(self.opened))
    }

    /// Waits for the next event. `None`: the service has ended the subscription.
    ///
    /// # Errors
    /// The subscription is over, because it failed or because the service says why it ended it.
    ///
    /// # Cancel safety
    /// A call that is dropped loses no event.
    pub(super) async fn next(&mut self, clock: &dyn Clock) -> Result<Option<Event>, Failure> {
        loop {
            let since = clock.now();
            let received = self.output.event_stream.recv().await;
            // An event that comes at once may have waited, here or on the connection.
            if clock.now().saturating_sub(since) >= REALLY_WAITED {
                self.drained = since;
            }
            match received {
                Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event))) => {
                    self.has_sent = true;
                    return Event::new(event).map(Some).map_err(Failure::unusable);
                }
                // A kind of event that this version of the SDK does not know.
                Ok(Some(_)) => {}
                Ok(None) => return Ok(None),
                Err(error) => return Err(Failure::of_event(&error)),
            }
        }
    }
}

impl Event {
    /// True if there is no further record: the tip was reached, or the shard's end.
    pub(super) fn is_last(&self) -> bool {
        self.continuation.is_none() || self.millis_behind_latest == Some(0)
    }

    /// Returns what is wrong with an event that cannot be used. It is then received again, never skipped.
    fn new(event: SubscribeToShardEvent) -> Result<Self, &'static str> {
        let children = event.child_shards.unwrap_or_default();
        // The last event of a shard has the children, and no number to continue after.
        let continuation = match &*event.continuation_sequence_number {
            _ if !children.is_empty() => None,
            // A shard ends with its children. Otherwise the checkpoint would leave out the rest of an open shard.
            "" => return Err(NEITHER),
            number => Some(number.parse().map_err(|_| "an event has an unusable number")?),
        };
        let mut buffer = RecordBufferBuilder::default();
        for record in &event.records {
            let arrival = record.approximate_arrival_timestamp.as_ref().and_then(whole_millis);
            let key = record.partition_key.as_deref();
            let data = record.data.as_ref();
            let pushed = buffer.push(&record.sequence_number, key, data, arrival);
            pushed.map_err(|_| "an event has more than 4 GiB")?;
        }
        let records = RawRecords::new(buffer.build());
        Ok(Self {
            records: records.ok_or("an event has a record without a sequence number")?,
            continuation,
            millis_behind_latest: event.millis_behind_latest.try_into().ok(),
            children: read_children(children).unwrap_or_default(),
        })
    }
}

const NEITHER: &str = "an event has neither a number to continue after nor the end of the shard";

fn starting_position(position: &Position) -> StartingPosition {
    let (kind, number, time) = position.parts();
    StartingPosition::builder()
        .r#type(kind)
        .set_sequence_number(number.map(ToString::to_string))
        .set_timestamp(time.map(DateTime::from))
        .build()
        .expect("it has a type")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use kinesis_testkit::LocalAws;

    use super::*;
    use crate::retrieval::embedded::{SHARD, STREAM, put_by};

    #[test]
    fn a_shard_ends_only_with_its_children() {
        let event = SubscribeToShardEvent::builder().set_records(Some(Vec::new()));
        let event = event.continuation_sequence_number("").millis_behind_latest(0).build();
        assert!(Event::new(event.unwrap()).is_err());
    }

    /// Stands still until the test moves it. In seconds.
    #[derive(Debug, Default)]
    struct Seconds(AtomicU64);

    impl Seconds {
        fn advance(&self, by: u64) {
            self.0.fetch_add(by, Ordering::SeqCst);
        }
    }

    impl Clock for Seconds {
        fn now(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::SeqCst))
        }

        fn wall(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
        }
    }

    #[tokio::test]
    async fn an_event_that_may_have_waited_tells_nothing_about_later_records() {
        let (aws, clock) = (LocalAws::start().await.unwrap(), Seconds::default());
        aws.create_stream(STREAM, 1).await.unwrap();
        let client = aws.kinesis();
        let summary = client.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
        let arn = summary.stream_description_summary.unwrap().stream_arn;
        let register = client.register_stream_consumer().stream_arn(arn).consumer_name("billing");
        let consumer = register.send().await.unwrap().consumer.unwrap().consumer_arn;
        let (names, timeout) = ((&*consumer, SHARD), Duration::from_secs(60));
        let mut subscription = loop {
            let position = Position::TrimHorizon;
            match Subscription::open(&client, names, &position, timeout, &clock).await {
                Ok(subscription) => break subscription,
                // The consumer is not active yet.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let opened = subscription.no_later_than_opened().unwrap();
        put_by(&client, 0..1, 0).await;
        clock.advance(100);
        let event = subscription.next(&clock).await.unwrap().unwrap();
        assert!(event.is_last() && !event.records.is_empty());
        assert_eq!(subscription.no_later_than_sent(), Some(opened));

        let later = async {
            clock.advance(100);
            put_by(&client, 1..2, 0).await;
        };
        let (event, ()) = tokio::join!(subscription.next(&clock), later);
        assert!(!event.unwrap().unwrap().records.is_empty());
        let waited_from = opened + Duration::from_secs(100);
        assert_eq!(subscription.no_later_than_sent(), Some(waited_from));
    }
}
