//! What one GetRecords call brought.

use std::fmt;
use std::time::SystemTime;

use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::types;
use bytes::Bytes;
use kinesis_aggregation::HashKeyRange;

use super::budget::Held;
use crate::lease::ChildShard;
use crate::sequence::SequenceNumber;

/// Memory that a record takes beside its data and keys, charged to the byte budget.
const RECORD_OVERHEAD: usize = 256;

/// A Kinesis record as it was received.
#[derive(Clone)]
pub struct RawRecord {
    pub sequence_number: SequenceNumber,
    /// `None`: the record was put without a key, on a stream whose service places the records.
    pub partition_key: Option<String>,
    pub data: Bytes,
    pub arrival: Option<SystemTime>,
}

impl RawRecord {
    /// Bytes that the service counts.
    pub(crate) fn size(&self) -> usize {
        self.data.len() + self.partition_key.as_ref().map_or(0, String::len)
    }
}

impl fmt::Debug for RawRecord {
    /// Shows neither data nor key, which must not land in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawRecord")
            .field("sequence_number", &self.sequence_number)
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}

/// One page of a shard.
#[derive(Debug)]
pub struct Page {
    pub records: Vec<RawRecord>,
    pub millis_behind_latest: Option<u64>,
    /// Set on the last page of the shard: its children, if the service named them.
    pub end: Option<Vec<ChildShard>>,
    pub held: Held,
}

/// A response taken over from the SDK.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) records: Vec<RawRecord>,
    /// Data and keys.
    pub(crate) bytes: usize,
    pub(crate) millis_behind_latest: Option<u64>,
    /// The next iterator, or the end of the shard.
    pub(crate) next: Result<String, Vec<ChildShard>>,
}

impl Answer {
    /// `None` if a record has no usable sequence number: the page is asked for again, never skipped.
    pub(crate) fn read(output: GetRecordsOutput) -> Option<Self> {
        let records = output.records.into_iter().map(read_record);
        let records = records.collect::<Option<Vec<_>>>()?;
        let children = output.child_shards.unwrap_or_default();
        Some(Self {
            bytes: records.iter().map(RawRecord::size).sum(),
            records,
            millis_behind_latest: output.millis_behind_latest.and_then(|ms| ms.try_into().ok()),
            next: output
                .next_shard_iterator
                .ok_or_else(|| read_children(children).unwrap_or_default()),
        })
    }

    /// The tip was reached, or the shard's end: there is nothing more.
    pub(crate) fn is_last(&self) -> bool {
        self.next.is_err() || self.millis_behind_latest == Some(0)
    }

    /// Memory that its records take.
    pub(crate) fn memory(&self) -> usize {
        self.bytes + self.records.len() * RECORD_OVERHEAD
    }
}

fn read_record(record: types::Record) -> Option<RawRecord> {
    Some(RawRecord {
        sequence_number: record.sequence_number.parse().ok()?,
        // A key is never empty: the service may say "none" either way.
        partition_key: record.partition_key.filter(|key| !key.is_empty()),
        data: record.data.into_bytes(),
        arrival: record.approximate_arrival_timestamp.and_then(|time| time.try_into().ok()),
    })
}

/// `None` if one of them can not be read: they are then learned from ListShards.
fn read_children(children: Vec<types::ChildShard>) -> Option<Vec<ChildShard>> {
    children.into_iter().map(read_child).collect()
}

fn read_child(child: types::ChildShard) -> Option<ChildShard> {
    let range = child.hash_key_range?;
    Some(ChildShard {
        shard_id: child.shard_id,
        parents: child.parent_shards,
        hash_key_range: HashKeyRange::new(
            range.starting_hash_key.parse().ok()?,
            range.ending_hash_key.parse().ok()?,
        )
        .ok()?,
    })
}
