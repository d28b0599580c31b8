//! Log lines about aggregates that are not as they should be: once for each shard, with counts, where
//! one for each aggregate would say the same again and again.

use std::time::{Duration, SystemTime};

/// Arrival time without a record out of range after which a reshard is over.
const QUIET: Duration = Duration::from_secs(10);

/// Aggregates of one reshard with records out of the shard's range, and those records.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Burst {
    aggregates: u64,
    records: u64,
    last_arrival: Option<SystemTime>,
}

/// What the log of one shard has said, and what it is yet to say.
#[derive(Debug)]
pub(crate) struct AggregateLog {
    shard_id: String,
    /// Dropped records that their producer sends again.
    resent: Burst,
    /// Records that a setting drops.
    dropped: Burst,
    has_told_of_kept: bool,
    has_told_of_hash_keys: bool,
}

impl AggregateLog {
    pub(crate) fn new(shard_id: &str) -> Self {
        Self {
            shard_id: shard_id.to_owned(),
            resent: Burst::default(),
            dropped: Burst::default(),
            has_told_of_kept: false,
            has_told_of_hash_keys: false,
        }
    }

    pub(crate) fn shard_id(&self) -> &str {
        &self.shard_id
    }

    /// Notes records of an aggregate that were dropped because their producer sends them again.
    pub(crate) fn resent(&mut self, records: u64, arrival: Option<SystemTime>) {
        self.resent.add(records, arrival);
    }

    /// Notes records of an aggregate that a setting dropped. Nothing says that they come again.
    pub(crate) fn dropped(&mut self, records: u64, arrival: Option<SystemTime>) {
        if self.dropped == Burst::default() {
            tracing::warn!(
                shard_id = self.shard_id,
                "records of aggregates are outside the shard's hash key range: the setting \
                 aggregate_range drops them, and they are lost unless their producer sends them again"
            );
        }
        self.dropped.add(records, arrival);
    }

    /// Notes an aggregate that was delivered although records of it are out of range.
    pub(crate) fn kept(&mut self) {
        if !std::mem::replace(&mut self.has_told_of_kept, true) {
            tracing::warn!(
                shard_id = self.shard_id,
                "aggregates have records outside the shard's hash key range: all are delivered, so a \
                 partition key may be processed in two shards; said once, counted in the snapshot"
            );
        }
    }

    /// Notes an aggregate with explicit hash keys that are no numbers.
    pub(crate) fn invalid_hash_keys(&mut self) {
        if !std::mem::replace(&mut self.has_told_of_hash_keys, true) {
            tracing::warn!(
                shard_id = self.shard_id,
                "aggregates have explicit hash keys that are no numbers, as old JavaScript writers \
                 leave them: the partition keys decide instead; said once, counted in the snapshot"
            );
        }
    }

    /// A record arrived then: if a reshard is over by that time, its count is logged.
    pub(crate) fn passed(&mut self, arrival: Option<SystemTime>) {
        if self.resent.is_over(arrival) {
            self.tell_of_resent();
        }
    }

    fn tell_of_resent(&mut self) {
        let Burst {
            aggregates,
            records,
            ..
        } = std::mem::take(&mut self.resent);
        tracing::info!(
            shard_id = self.shard_id,
            aggregates,
            records,
            "records of aggregates were outside the shard's hash key range, as happens around a split \
             or merge: they were dropped, their producer sends them again"
        );
    }
}

impl Drop for AggregateLog {
    fn drop(&mut self) {
        if self.resent != Burst::default() {
            self.tell_of_resent();
        }
        let Burst {
            aggregates,
            records,
            ..
        } = self.dropped;
        if aggregates > 0 {
            tracing::warn!(
                shard_id = self.shard_id,
                aggregates,
                records,
                "records outside the shard's hash key range that aggregate_range dropped, in all"
            );
        }
    }
}

impl Burst {
    fn add(&mut self, records: u64, arrival: Option<SystemTime>) {
        self.aggregates += 1;
        self.records += records;
        self.last_arrival = self.last_arrival.max(arrival);
    }

    fn is_over(&self, arrival: Option<SystemTime>) -> bool {
        let quiet = self.last_arrival.zip(arrival);
        let quiet = quiet.and_then(|(last, now)| now.duration_since(last).ok());
        quiet.is_some_and(|quiet| quiet >= QUIET)
    }
}
