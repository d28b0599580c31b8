//! Counters of a producer.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a producer has done since it was built. Counts user records unless it says otherwise.
///
/// Taken while records are under way, the numbers are each exact but not of one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ProducerStats {
    /// User records that `send` or `try_send` accepted.
    pub user_records_accepted: u64,
    /// User records acknowledged.
    pub user_records_delivered: u64,
    /// User records given up, the abandoned ones not counted.
    pub user_records_failed: u64,
    /// Droppable user records that gave way to others; counted among the failed, too.
    pub user_records_dropped: u64,
    /// User records whose producer stopped before they were settled.
    pub user_records_abandoned: u64,
    /// User records that failed or were abandoned and whose `Delivery` nobody held any more.
    pub failures_unobserved: u64,
    /// User records sent again because a shard took an aggregate that was not all its own.
    pub resent_for_wrong_shard: u64,
    /// Kinesis records (single records and aggregates) that were written.
    pub kinesis_records: u64,
    /// Bytes of data and partition keys of those.
    pub kinesis_bytes: u64,
    /// PutRecords calls made.
    pub put_records_calls: u64,
    /// Kinesis records that were put again after a failed attempt.
    pub retries: u64,
    /// Kinesis records refused because their shard was full.
    pub throttled: u64,
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
    user_records_dropped,
    user_records_abandoned,
    failures_unobserved,
    resent_for_wrong_shard,
    kinesis_records,
    kinesis_bytes,
    put_records_calls,
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
