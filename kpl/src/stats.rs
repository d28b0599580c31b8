//! Counters of a producer.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a producer has done since it was built. Counts user records unless it says otherwise.
///
/// Taken while records are under way, the numbers are each exact but not of one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ProducerStats {
    /// User records that `send` or `try_send` accepted.
    pub user_records_accepted: u64,
    /// User records acknowledged.
    pub user_records_delivered: u64,
    /// User records given up, the abandoned ones not counted.
    pub user_records_failed: u64,
    /// User records that failed because their time to live passed; counted among the failed, too.
    pub user_records_expired: u64,
    /// Droppable user records that gave way to others; counted among the failed, too.
    pub user_records_dropped: u64,
    /// User records whose producer stopped before they were completed.
    pub user_records_abandoned: u64,
    /// User records that failed or were abandoned and whose `Delivery` had been dropped.
    pub failures_unobserved: u64,
    /// User records sent again because a shard took an aggregate that was not all its own, or that was not known to be.
    pub resent_for_wrong_shard: u64,
    /// Kinesis records (single records and aggregates) that were written.
    pub kinesis_records: u64,
    /// Bytes of data and partition keys of those.
    pub kinesis_bytes: u64,
    /// PutRecords calls made.
    pub put_records_calls: u64,
    /// Kinesis records in those calls, those that were put again counted each time.
    pub put_records_entries: u64,
    /// Bytes of data and partition keys in those calls.
    pub put_records_bytes: u64,
    /// Aggregates of two or more user records that were sealed.
    pub aggregates: u64,
    /// User records in those.
    pub aggregated_user_records: u64,
    /// Bytes of those aggregates, before compression.
    pub aggregate_bytes: u64,
    /// Bytes that those aggregates were allowed to have.
    pub aggregate_bytes_allowed: u64,
    /// Kinesis records, single ones included, that were sealed because they were as large as they may be.
    pub sealed_by_size: u64,
    /// Those sealed because they had as many records as they may have.
    pub sealed_by_count: u64,
    /// Those of one user record that shares an aggregate with no other: raw, or without a key.
    pub sealed_alone: u64,
    /// Those sealed because the next record was raw, or without a key.
    pub sealed_before_single: u64,
    /// Those sealed because their shard could take them and `record_max_buffered_time` was over, or a record with less than
    /// twice that time to live was among them. Where that time is zero, because nothing of their shard was under way.
    pub sealed_by_linger: u64,
    /// Those sealed because a record in them expired while their shard took nothing; in ordered mode, also because a record
    /// with another time to live came behind them.
    pub sealed_by_time_to_live: u64,
    /// Those sealed for `flush` or `close`.
    pub sealed_by_flush: u64,
    /// Those sealed because others waited for room in the buffer.
    pub sealed_by_pressure: u64,
    /// Those sealed because their shard closed, or because an earlier record failed in ordered mode.
    pub sealed_by_handover: u64,
    /// Kinesis records that were put again after a failed attempt.
    pub retries: u64,
    /// Kinesis records refused because a limit was reached: of their shard, of the stream, of the account or of its KMS key.
    /// Where a whole request was refused for that, each of its records counts.
    pub throttled: u64,
}

impl ProducerStats {
    /// User records in an aggregate, on average; `None` before the first.
    #[must_use]
    pub fn records_per_aggregate(&self) -> Option<f64> {
        ratio(self.aggregated_user_records, self.aggregates)
    }

    /// How full aggregates are on average, of 1; `None` before the first.
    #[must_use]
    pub fn aggregate_fill(&self) -> Option<f64> {
        ratio(self.aggregate_bytes, self.aggregate_bytes_allowed)
    }

    /// Kinesis records in a PutRecords request, on average; `None` before the first.
    #[must_use]
    pub fn entries_per_request(&self) -> Option<f64> {
        ratio(self.put_records_entries, self.put_records_calls)
    }

    /// Bytes in a PutRecords request, on average; `None` before the first.
    #[must_use]
    pub fn bytes_per_request(&self) -> Option<f64> {
        ratio(self.put_records_bytes, self.put_records_calls)
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

macro_rules! counters {
    ($($field:ident),* $(,)?) => {
        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $field: Counter,)* }

        impl Counters {
            pub(crate) fn snapshot(&self) -> ProducerStats {
                ProducerStats { $($field: self.$field.get(),)* }
            }
        }
    };
}

counters!(
    user_records_accepted,
    user_records_delivered,
    user_records_failed,
    user_records_expired,
    user_records_dropped,
    user_records_abandoned,
    failures_unobserved,
    resent_for_wrong_shard,
    kinesis_records,
    kinesis_bytes,
    put_records_calls,
    put_records_entries,
    put_records_bytes,
    aggregates,
    aggregated_user_records,
    aggregate_bytes,
    aggregate_bytes_allowed,
    sealed_by_size,
    sealed_by_count,
    sealed_alone,
    sealed_before_single,
    sealed_by_linger,
    sealed_by_time_to_live,
    sealed_by_flush,
    sealed_by_pressure,
    sealed_by_handover,
    retries,
    throttled,
);

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: usize) {
        self.0.fetch_add(n as u64, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
