//! The records both sides put.

use bytes::Bytes;
use kinesis_benchmark::stream::Stream;
use kpl::Record;

const KEYS: usize = 100_003;
pub(crate) const STREAM: Stream = Stream { shards: 4 };
pub(crate) const AGGREGATE_BYTES: usize = 50 * 1024;
pub(crate) const BATCH_BYTES: usize = 5_000_000;

pub(crate) struct Workload {
    keys: Vec<String>,
    pub(crate) payload: Bytes,
}

impl Workload {
    /// `record_bytes` of data, shared by all records: what a side copies is its own.
    pub(crate) fn new(record_bytes: usize) -> Self {
        Self {
            keys: (0..KEYS).map(|n| format!("key-{n}")).collect(),
            payload: (0..record_bytes).map(|n| n as u8).collect(),
        }
    }

    pub(crate) fn key(&self, n: usize) -> &str {
        &self.keys[n % KEYS]
    }

    /// A record with borrowed key and data, which the producer copies into an aggregate, as the floor does.
    pub(crate) fn record(&self, n: usize) -> Record<'_> {
        Record::new(self.key(n), &*self.payload)
    }
}

/// The shard of a hash key, as [`Stream::shard_of`] tells it, without a division.
pub(crate) fn shard_of(hash_key: u128) -> usize {
    (hash_key >> 126) as usize
}
