//! Counters of a producer.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// Counters of a producer since it was built. They count user records unless they say otherwise.
        ///
        /// Each number is exact, but while records are under way the numbers are not of one instant.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize))]
        #[non_exhaustive]
        pub struct ProducerStats { $($(#[$doc])* pub $field: u64,)* }

        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $field: Counter,)* }

        impl Counters {
            pub(crate) fn snapshot(&self) -> ProducerStats {
                ProducerStats { $($field: self.$field.get(),)* }
            }
        }
    };
}

counters! {
    /// User records that `send` or `try_send` accepted.
    user_records_accepted,
    /// User records acknowledged.
    user_records_delivered,
    /// User records given up, the abandoned ones not counted.
    user_records_failed,
    /// User records that failed because their time to live passed; counted among the failed, too.
    user_records_expired,
    /// Droppable user records that gave way to others; counted among the failed, too.
    user_records_dropped,
    /// User records whose producer stopped before they were completed.
    user_records_abandoned,
    /// User records that failed or were abandoned and whose `Delivery` had been dropped.
    failures_unobserved,
    /// User records sent again because a shard took an aggregate with members of other shards, or may have done so.
    resent_for_wrong_shard,
    /// Kinesis records (single records and aggregates) that were written.
    kinesis_records,
    /// Bytes of data and partition keys of those.
    kinesis_bytes,
    /// PutRecords calls made.
    put_records_calls,
    /// Kinesis records in those calls. A record that was put again counts each time.
    put_records_entries,
    /// Bytes of data and partition keys in those calls.
    put_records_bytes,
    /// Aggregates of two or more user records that were sealed.
    aggregates,
    /// User records in those.
    aggregated_user_records,
    /// Bytes of those aggregates, before compression.
    aggregate_bytes,
    /// Largest size of those aggregates, in bytes, summed up.
    aggregate_bytes_allowed,
    /// Kinesis records, single ones included, that were sealed at their largest size.
    sealed_by_size,
    /// Those sealed at their largest number of records.
    sealed_by_count,
    /// Those of one user record that shares an aggregate with no other: raw, or without a key.
    sealed_alone,
    /// Those sealed because the next record was raw, or without a key.
    sealed_before_single,
    /// Those sealed because their shard could take them and `record_max_buffered_time` was over, or a record with less
    /// than twice that time to live was among them. Where that time is zero, because nothing of their shard was under
    /// way.
    sealed_by_linger,
    /// Those sealed because a record in them expired while their shard took nothing; in ordered mode, also because the
    /// next record had another time to live.
    sealed_by_time_to_live,
    /// Those sealed for `flush` or `close`.
    sealed_by_flush,
    /// Those sealed because others waited for room in the buffer.
    sealed_by_pressure,
    /// Those sealed because their shard closed, or because an earlier record failed in ordered mode.
    sealed_by_handover,
    /// Kinesis records that were put again after a failed attempt.
    retries,
    /// Kinesis records refused because a limit was reached: of their shard, of the stream, of the account or of its KMS
    /// key. Where a whole request was refused for that, each of its records counts.
    throttled,
}

impl ProducerStats {
    /// Mean number of user records in an aggregate. `None` before the first.
    #[must_use]
    pub fn records_per_aggregate(&self) -> Option<f64> {
        ratio(self.aggregated_user_records, self.aggregates)
    }

    /// Mean size of aggregates as a fraction of their largest size, from 0 to 1. `None` before the first.
    #[must_use]
    pub fn aggregate_fill(&self) -> Option<f64> {
        ratio(self.aggregate_bytes, self.aggregate_bytes_allowed)
    }

    /// Mean number of Kinesis records in a PutRecords request. `None` before the first.
    #[must_use]
    pub fn entries_per_request(&self) -> Option<f64> {
        ratio(self.put_records_entries, self.put_records_calls)
    }

    /// Mean number of bytes in a PutRecords request. `None` before the first.
    #[must_use]
    pub fn bytes_per_request(&self) -> Option<f64> {
        ratio(self.put_records_bytes, self.put_records_calls)
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

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
