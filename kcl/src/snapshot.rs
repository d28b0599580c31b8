//! What a worker is doing, readable at any time.

mod calls;
mod status;

use std::collections::BTreeMap;
use std::time::Duration;

pub(crate) use self::status::{ShardStatus, Totals};
use crate::health::ProblemKind;
#[cfg(feature = "serde")]
use crate::millis;
use crate::shard_state::ShardState;

/// What a worker is doing at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct WorkerSnapshot {
    /// The worker.
    pub worker_id: String,
    /// The shards it owns, by id.
    pub shards: Vec<ShardSnapshot>,
    /// User records for which `process_records` has returned `Ok`, since the start.
    pub records_delivered: u64,
    /// Payload bytes of those.
    pub bytes_delivered: u64,
    /// Aggregates that had records outside their shard's hash key range.
    pub aggregates_out_of_range: u64,
    /// Records that were dropped for that, by
    /// [`aggregate_range`](crate::ConsumerConfig::aggregate_range).
    pub records_out_of_range_dropped: u64,
    /// Broken aggregates, of which the records before the broken one were delivered.
    pub aggregate_defects: u64,
    /// Records of aggregates whose explicit hash key is no number, as old JavaScript writers leave
    /// them. They were delivered, if [`aggregate_range`](crate::ConsumerConfig::aggregate_range)
    /// allows, by the hash key of their partition key.
    pub invalid_hash_keys: u64,
    /// Compressed records that could not be opened; delivered as received.
    pub frame_errors: u64,
    /// Failures since the start, by what failed, those that passed included: of renewals, of scans of the lease
    /// table, of shard syncs, of the worker's row and more. [`health`](crate::WorkerHandle::health) has those of now.
    pub failures: BTreeMap<ProblemKind, u64>,
    /// Bytes of fetched records held now; see
    /// [`max_buffered_bytes`](crate::ConsumerConfig::max_buffered_bytes).
    pub buffered_bytes: usize,
}

/// One shard of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ShardSnapshot {
    /// The shard's id.
    pub shard_id: String,
    /// Where it is in its life.
    pub state: ShardState,
    /// User records for which `process_records` has returned `Ok`.
    pub records_delivered: u64,
    /// How far the last page read was behind the tip, to the millisecond. `None` before the first. It
    /// tells of reads only: see [`lag`](Self::lag).
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize_option"))]
    pub millis_behind_latest: Option<Duration>,
    /// How far processing is behind: the age of the oldest record that is not processed, at most. All
    /// records that arrived before are processed. It grows while a processor fails or does not return,
    /// and while the shard cannot be read. At the tip it is the time since the last read. `None` before
    /// the first read.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize_option"))]
    pub lag: Option<Duration>,
    /// Time since the batch in hand was first given to the processor. `None`: there is none.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize_option"))]
    pub batch_in_hand_for: Option<Duration>,
    /// The call of the processor that is under way. `None`: there is none.
    pub call: Option<ProcessorCall>,
    /// Calls of the processor that failed since the last one that succeeded.
    pub failures: u32,
    /// The last of them. `None` once a call has succeeded.
    pub last_failure: Option<String>,
    /// Reads of the shard that failed since the last one that succeeded. Throttles count from the third
    /// in a row on.
    pub read_failures: u32,
    /// The cause of the last of them, and what to do. `None` once a read has succeeded.
    pub last_read_failure: Option<String>,
    /// What retention deleted before it was read, within the last hour, or since the shard stands still for
    /// it: see [`on_trimmed_gap`](crate::ConsumerConfig::on_trimmed_gap).
    pub records_trimmed: Option<String>,
}

/// A call of a processor that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ProcessorCall {
    /// The method of [`RecordProcessor`](crate::RecordProcessor).
    pub name: &'static str,
    /// Time since it was called.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
    pub running_for: Duration,
}

impl WorkerSnapshot {
    /// The largest [`lag`](ShardSnapshot::lag) of its shards. `None`: it knows of none.
    pub fn lag(&self) -> Option<Duration> {
        self.shards.iter().filter_map(|shard| shard.lag).max()
    }
}

/// What was found while aggregates were split into user records.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AggregateCounts {
    pub(crate) aggregates: u64,
    /// Aggregates with a member outside the shard's hash key range.
    pub(crate) aggregates_out_of_range: u64,
    /// Members that the range policy dropped.
    pub(crate) members_dropped: u64,
    /// Aggregates of which broken members were lost.
    pub(crate) defects: u64,
    /// Members whose explicit hash key is no number.
    pub(crate) invalid_hash_keys: u64,
    /// Compressed frames that could not be opened.
    pub(crate) frame_errors: u64,
    /// Bytes that compressed frames expanded to.
    pub(crate) decompressed_bytes: u64,
}

impl AggregateCounts {
    pub(crate) fn add(&mut self, more: &Self) {
        self.aggregates += more.aggregates;
        self.aggregates_out_of_range += more.aggregates_out_of_range;
        self.members_dropped += more.members_dropped;
        self.defects += more.defects;
        self.invalid_hash_keys += more.invalid_hash_keys;
        self.frame_errors += more.frame_errors;
        self.decompressed_bytes += more.decompressed_bytes;
    }
}
