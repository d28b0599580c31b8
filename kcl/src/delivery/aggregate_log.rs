//! Log lines about irregular aggregates. They are rate limited and hold counts, so that a shard full of such
//! aggregates does not flood the log.

use std::fmt::Display;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::Clock;
use crate::sequence::SequenceNumber;

/// Shortest time between two lines about one kind of record that cannot be read.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Time of arrivals without a record out of range after which a reshard is over.
const QUIET: Duration = Duration::from_secs(10);

/// Counts of one reshard: aggregates with records out of the shard's range, and those records.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Burst {
    aggregates: u64,
    records: u64,
    last_arrival: Option<SystemTime>,
}

/// Rate limit of the lines about one kind of record that cannot be read.
#[derive(Debug, Default, Clone, Copy)]
struct Gate {
    logged: Option<Duration>,
    /// Records since the last line.
    records: u64,
}

impl Gate {
    /// Notes a record. If a line is due, returns the number of records since the last line, with this one.
    fn noted(&mut self, now: Duration) -> Option<u64> {
        self.records += 1;
        let since = self.logged.map(|logged| now.saturating_sub(logged));
        if since.is_some_and(|since| since < LOG_INTERVAL) {
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.records))
    }
}

/// The lines of one shard that were logged, and the counts of the next ones.
#[derive(Debug)]
pub(crate) struct AggregateLog {
    shard_id: String,
    clock: Arc<dyn Clock>,
    /// Compressed records that cannot be decompressed.
    not_opened: Gate,
    /// Aggregates whose broken records are lost.
    broken: Gate,
    /// Dropped records that their producer sends again.
    resent: Burst,
    /// Records that a setting drops.
    dropped: Burst,
    has_logged_kept: bool,
    has_logged_hash_keys: bool,
}

impl AggregateLog {
    pub(crate) fn new(shard_id: &str, clock: Arc<dyn Clock>) -> Self {
        Self {
            shard_id: shard_id.to_owned(),
            clock,
            not_opened: Gate::default(),
            broken: Gate::default(),
            resent: Burst::default(),
            dropped: Burst::default(),
            has_logged_kept: false,
            has_logged_hash_keys: false,
        }
    }

    /// Notes a compressed record that cannot be decompressed.
    pub(crate) fn not_opened(&mut self, sequence_number: &SequenceNumber, error: &dyn Display) {
        if let Some(records) = self.not_opened.noted(self.clock.now()) {
            tracing::warn!(
                shard_id = self.shard_id, %sequence_number, %error, records,
                "a compressed record cannot be decompressed: it is delivered as received, with its frame_error; \
                 logged at most every 30 s, with the count since the last line"
            );
        }
    }

    /// Notes an aggregate whose broken records are lost.
    pub(crate) fn broken(&mut self, sequence_number: &SequenceNumber, defect: &dyn Display) {
        if let Some(aggregates) = self.broken.noted(self.clock.now()) {
            tracing::warn!(
                shard_id = self.shard_id, %sequence_number, %defect, aggregates,
                "an aggregate is broken; logged at most every 30 s, with the count since the last line"
            );
        }
    }

    /// Notes records of an aggregate that were dropped because their producer sends them again.
    pub(crate) fn resent(&mut self, records: u64, arrival: Option<SystemTime>) {
        self.resent.add(records, arrival);
    }

    /// Notes records of an aggregate that a setting dropped. Their producer may not send them again.
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

    /// Notes an aggregate that was delivered although some of its records are out of range.
    pub(crate) fn kept(&mut self) {
        if !std::mem::replace(&mut self.has_logged_kept, true) {
            tracing::warn!(
                shard_id = self.shard_id,
                "aggregates have records outside the shard's hash key range: all are delivered, so a \
                 partition key may be processed in two shards; logged once, counted in the snapshot"
            );
        }
    }

    /// Notes an aggregate with explicit hash keys that are not numbers.
    pub(crate) fn invalid_hash_keys(&mut self) {
        if !std::mem::replace(&mut self.has_logged_hash_keys, true) {
            tracing::warn!(
                shard_id = self.shard_id,
                "aggregates have explicit hash keys that are not numbers, as old JavaScript producers \
                 write them: the partition keys decide instead; logged once, counted in the snapshot"
            );
        }
    }

    /// True while a reshard goes on, whose end [`passed`](Self::passed) notes.
    pub(crate) fn awaits_arrivals(&self) -> bool {
        self.resent != Burst::default()
    }

    /// Notes the arrival time of a record. If a reshard is over by then, its counts are logged.
    pub(crate) fn passed(&mut self, arrival: Option<SystemTime>) {
        if self.resent.is_over(arrival) {
            self.log_resent();
        }
    }

    fn log_resent(&mut self) {
        let Burst { aggregates, records, .. } = std::mem::take(&mut self.resent);
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
            self.log_resent();
        }
        let (not_opened, broken) = (self.not_opened.records, self.broken.records);
        if not_opened + broken > 0 {
            tracing::warn!(
                shard_id = self.shard_id,
                not_opened,
                broken,
                "further compressed records could not be decompressed, or aggregates were broken, since the last \
                 lines about that"
            );
        }
        let Burst { aggregates, records, .. } = self.dropped;
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
