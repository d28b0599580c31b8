//! Confirmation: whether the shard that took an aggregate may keep it.
//!
//! A KCL drops an aggregate with a member whose hash key does not belong to the shard. So if a shard was split or
//! merged while an aggregate was in flight, the aggregate is not acknowledged when it is written:
//! 1. The shard map has the range of the shard that took the aggregate. If all members are inside, the aggregate is
//!    delivered.
//! 2. If not, or if the map does not know the shard, the aggregate waits as [`Written`] for a fresh map.
//! 3. If a member is outside under the fresh map, too, all members are sent again, to the shards that they belong to
//!    now. The receipts then say that the records may be duplicates.
//! 4. If no fresh map comes in half of the time between the start of the attempt and the expiry of the aggregate, its
//!    members, and all records that wait in the same queue, are sent one by one. A record that is sent alone is never
//!    in the wrong shard.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kinesis_aggregation::HashKeyRange;

use super::Sender;
use crate::aggregate::kinesis_record::{HashKeySpan, KinesisRecord};
use crate::clock::{self, Instant};

/// Whether the shard that took a Kinesis record may keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShardCheck {
    /// Consumers see every member.
    Delivered,
    /// Consumers drop the record: all members must be sent again, under a fresh map.
    WrongShard,
    /// The map does not know the shard: check again after a refresh.
    UnknownShard,
}

/// Checks a record against `range`, the hash keys of the shard that took it, if the map knows them. `is_framed`:
/// whether it is an aggregate, perhaps of one member. Consumers do not filter other records, so these are in no wrong
/// shard.
fn check_shard(is_framed: bool, span: HashKeySpan, range: Option<HashKeyRange>) -> ShardCheck {
    match range {
        _ if !is_framed => ShardCheck::Delivered,
        None => ShardCheck::UnknownShard,
        Some(range) if span.is_within(range) => ShardCheck::Delivered,
        Some(_) => ShardCheck::WrongShard,
    }
}

/// A record that was written, and that waits for a fresh shard map.
pub(super) struct Written {
    pub(super) record: KinesisRecord,
    shard_id: Arc<str>,
    sequence_number: String,
    /// The first generation of the shard map that decides.
    pub(super) generation: u64,
}

impl Written {
    /// When the record no longer waits: an aggregate after half of its time, so that its members have time to be sent
    /// alone.
    pub(super) fn gives_up(&self) -> Instant {
        let began = self.record.history.started;
        let left = self.record.expires().saturating_duration_since(began);
        match self.record.members.len() {
            1 => self.record.expires(),
            _ => began + left / 2,
        }
    }
}

impl Sender {
    /// Checks a record that was written just now. Requests a shard map if the map in place does not explain its shard.
    pub(super) fn check_written(
        &self,
        record: &KinesisRecord,
        shard_id: &str,
        predicted: Option<&str>,
    ) -> ShardCheck {
        let is_explained = match predicted {
            // Otherwise the stream was resharded under way.
            Some(predicted) => predicted == shard_id,
            // The map has no open shard for the key, so an open shard is news.
            None => !self.keys_decide() || self.table.map.is_open(shard_id),
        };
        if !is_explained {
            self.shards.refreshes.request();
        }
        let range = self.table.map.range_of(shard_id);
        self.look_for_placement(record, range);
        match self.check_shard(record, range) {
            // Wait for a map that is known to be of this stream.
            ShardCheck::Delivered if record.sealed.is_framed && self.distrusts_map() => {
                ShardCheck::UnknownShard
            }
            check => check,
        }
    }

    /// Holds a written record until a fresh shard map is in place.
    pub(super) fn wait_for_map(
        &mut self,
        record: KinesisRecord,
        shard_id: Arc<str>,
        sequence_number: String,
    ) {
        if self.table.map.range_of(&shard_id).is_none() {
            self.shards.refreshes.note_unknown(&shard_id);
        }
        let generation = self.shards.refreshes.request();
        let written = Written { record, shard_id, sequence_number, generation };
        self.next_sweep = self.next_sweep.min(written.gives_up());
        self.unconfirmed.push(written);
    }

    /// Whether the map in place may be of a deleted stream of the same name.
    fn distrusts_map(&self) -> bool {
        self.table.generation < self.shards.refreshes.trusted_from() && !self.table.map.is_blank()
    }

    /// Whether the key of a record decides its shard, as far as the map shows.
    fn keys_decide(&self) -> bool {
        let map = &self.table.map;
        !map.is_blank() && !map.is_service_placed
    }

    /// Requests the stream's record distribution strategy again, if a record is in a shard other than that of its key.
    fn look_for_placement(&self, record: &KinesisRecord, range: Option<HashKeyRange>) {
        let address = record.sealed.explicit_hash_key.unwrap_or(record.span.low);
        if range.is_some_and(|range| !range.contains(address))
            && self.keys_decide()
            && !self.distrusts_map()
        {
            self.shards.refreshes.seen_placed.store(true, Ordering::Relaxed);
            self.shards.refreshes.request();
        }
    }

    fn check_shard(&self, record: &KinesisRecord, range: Option<HashKeyRange>) -> ShardCheck {
        // A frame of one goes by its own key; without a map there is nothing to wait for.
        let is_blank = record.members.len() == 1 && self.table.map.is_blank();
        check_shard(record.sealed.is_framed && !is_blank, record.span, range)
    }

    /// A map is in place that was requested after the record was written: the record is delivered, or all members are
    /// sent again to the shards they belong to now.
    pub(super) fn check_again(&mut self, written: Written) {
        let Written { mut record, shard_id, sequence_number, .. } = written;
        let range = self.table.map.range_of(&shard_id);
        // The map decides even if the stream was not found since: if the stream that took the record was deleted, the
        // record is gone with it, whatever is acknowledged.
        match self.check_shard(&record, range) {
            ShardCheck::Delivered => return self.deliver(record, shard_id, &sequence_number),
            ShardCheck::UnknownShard => {
                return self.wait_for_map(record, shard_id, sequence_number);
            }
            ShardCheck::WrongShard => {}
        }
        self.look_for_placement(&record, range);
        let message = format!("{shard_id} took an aggregate with members of other shards").into();
        record.history.failed(clock::now(), &"WrongShard".into(), &message, true);
        self.leave(record.queue_id);
        self.count_resent(&record);
        self.requeue_by_shard(record);
    }

    /// No fresh map came in time: sends the members again one by one, because a single record is never in the wrong
    /// shard. Returns the records that have expired.
    pub(super) fn give_up_unconfirmed(&mut self, now: Instant) -> Vec<KinesisRecord> {
        let mut expired = Vec::new();
        let overdue = self.unconfirmed.extract_if(.., |written| written.gives_up() <= now);
        for Written { mut record, shard_id, .. } in overdue.collect::<Vec<_>>() {
            let (code, what) = match self.table.map.range_of(&shard_id) {
                None => ("UnknownShard", "its range"),
                Some(_) => ("WrongShard", "where its members belong"),
            };
            let message =
                format!("{shard_id} took the aggregate, and no fresh shard map tells {what}");
            let history = &mut record.history;
            history.failed(now, &code.into(), &message.into(), true);
            let queue_id = record.queue_id;
            self.leave(queue_id);
            if record.expires() <= now {
                expired.push(record);
            } else {
                self.count_resent(&record);
                self.requeue_as_singles(record);
                self.requeue_all_as_singles(queue_id);
            }
        }
        expired
    }

    fn count_resent(&self, record: &KinesisRecord) {
        let counters = &self.context.outcomes.counters;
        counters.resent_for_wrong_shard.add(record.members.len());
    }
}

#[cfg(test)]
mod tests {
    use kinesis_aggregation::HashKey;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_aggregate_succeeds_if_and_only_if_every_member_is_in_range(
            start in any::<u128>(),
            length in any::<u128>(),
            offsets in proptest::collection::vec(-3_i128..=3, 1..12),
            at_end in any::<bool>(),
            is_framed in any::<bool>(),
        ) {
            let end = start.saturating_add(length);
            let range = HashKeyRange::new(HashKey::new(start), HashKey::new(end)).unwrap();
            let edge = if at_end { end } else { start };
            let keys: Vec<_> = offsets.iter().map(|&o| HashKey::new(edge.saturating_add_signed(o))).collect();
            let mut span = HashKeySpan::of(keys[0]);
            keys.iter().for_each(|&key| span.include(key));
            let expected = if !is_framed || keys.iter().all(|&key| range.contains(key)) {
                ShardCheck::Delivered
            } else {
                ShardCheck::WrongShard
            };
            prop_assert_eq!(check_shard(is_framed, span, Some(range)), expected);
        }
    }

    #[test]
    fn an_unknown_shard_holds_an_aggregate_but_not_plain_data() {
        let span = HashKeySpan::of(HashKey::MIN);
        assert_eq!(check_shard(true, span, None), ShardCheck::UnknownShard);
        assert_eq!(check_shard(false, span, None), ShardCheck::Delivered);
    }
}
