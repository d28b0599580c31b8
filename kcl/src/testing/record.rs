//! Records of a batch in memory.

use std::time::SystemTime;

use bytes::Bytes;
use kinesis_aggregation::AggregateBuilder;

use crate::sequence::SequenceNumber;

/// The key that the KPL gives to an aggregate.
const AGGREGATE_KEY: &str = "a";
/// Largest size of the records of one aggregate, in bytes.
const AGGREGATE_SIZE: usize = 1 << 20;

/// Record of a [`TestBatch`](super::TestBatch).
#[derive(Debug, Clone)]
pub struct TestRecord {
    pub(super) partition_key: Option<String>,
    pub(super) data: Bytes,
    pub(super) sequence_number: Option<SequenceNumber>,
    pub(super) arrival: Option<SystemTime>,
}

impl TestRecord {
    /// Creates a record with this key and payload.
    pub fn new(partition_key: impl Into<String>, data: impl AsRef<[u8]>) -> Self {
        Self {
            partition_key: Some(partition_key.into()),
            data: Bytes::copy_from_slice(data.as_ref()),
            sequence_number: None,
            arrival: None,
        }
    }

    /// Creates one Kinesis record that aggregates these records, as producers write it. The processor receives each
    /// of them, all with the same sequence number.
    ///
    /// # Panics
    /// A record has no key, or the records have more than 1 MiB.
    pub fn aggregate(records: impl IntoIterator<Item = Self>) -> Self {
        let mut aggregate = AggregateBuilder::new(AGGREGATE_SIZE);
        for record in records {
            let key = record.partition_key.expect("a record of an aggregate has a key");
            let pushed = aggregate.push(&key, None, &record.data);
            pushed.expect("an aggregate has up to 1 MiB");
        }
        Self { data: aggregate.seal().into_bytes(), ..Self::new(AGGREGATE_KEY, []) }
    }

    /// Sets the sequence number. Default: the number after the largest one of the shard so far. See
    /// [`TestShard::batch`](super::TestShard::batch).
    #[must_use]
    pub fn with_sequence_number(mut self, sequence_number: SequenceNumber) -> Self {
        self.sequence_number = Some(sequence_number);
        self
    }

    /// Sets the time of arrival. Default: unknown.
    #[must_use]
    pub fn with_approximate_arrival(mut self, arrival: SystemTime) -> Self {
        self.arrival = Some(arrival);
        self
    }

    /// Removes the partition key. A stream whose record distribution strategy is `AUTO` allows that.
    #[must_use]
    pub fn without_partition_key(mut self) -> Self {
        self.partition_key = None;
        self
    }
}
