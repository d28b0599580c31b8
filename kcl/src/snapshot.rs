//! Snapshots of a running worker.

mod calls;
mod rate;
mod status;

use std::collections::BTreeMap;
use std::time::Duration;

use kinesis_common::metrics::histogram::Percentiles;

pub(crate) use self::status::{ShardStatus, Totals};
use crate::health::ProblemKind;
#[cfg(feature = "serde")]
use crate::millis;
use crate::shard_state::ShardState;

/// State of a worker at one moment.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct WorkerSnapshot {
    /// Id of the worker.
    pub worker_id: String,
    /// Shards that it owns, by id.
    pub shards: Vec<ShardSnapshot>,
    /// User records for which `process_records`, or their handler, has returned `Ok`, since the start.
    pub records_delivered: u64,
    /// Payload bytes of those records.
    pub bytes_delivered: u64,
    /// Sum of the [rates](ShardSnapshot::records_per_second) of its shards.
    pub records_per_second: f64,
    /// Payload bytes of those records.
    pub bytes_per_second: f64,
    /// Time from the arrival of records in Kinesis to their first delivery, since the start, also of shards that the
    /// worker does not own any more. See [`ShardSnapshot::propagation_delay`].
    pub propagation_delay: Percentiles,
    /// Aggregates that had records outside their shard's hash key range.
    pub aggregates_out_of_range: u64,
    /// Records that were dropped because they were out of range, as
    /// [`aggregate_range`](crate::ConsumerConfig::aggregate_range) says.
    pub records_out_of_range_dropped: u64,
    /// Broken aggregates. The records before the first broken one were delivered.
    pub aggregate_defects: u64,
    /// Records of aggregates whose explicit hash key is not a number. Old JavaScript producers write such keys.
    /// Unless [`aggregate_range`](crate::ConsumerConfig::aggregate_range) is `Strict`, the hash of the partition
    /// key counts instead.
    pub invalid_hash_keys: u64,
    /// Compressed records that could not be decompressed. They were delivered as received.
    pub frame_errors: u64,
    /// Failures since the start by kind, also those that are over. [`health`](crate::WorkerHandle::health) has
    /// the present ones.
    pub failures: BTreeMap<ProblemKind, u64>,
    /// Bytes of fetched records that are held now. See
    /// [`max_buffered_bytes`](crate::ConsumerConfig::max_buffered_bytes).
    pub buffered_bytes: usize,
}

/// One shard of a worker.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ShardSnapshot {
    /// Id of the shard.
    pub shard_id: String,
    /// State of its consumer.
    pub state: ShardState,
    /// Whether it is [paused](crate::WorkerHandle::pause): nothing is read, and no batch is in hand.
    pub is_paused: bool,
    /// User records for which `process_records`, or their handler, has returned `Ok`.
    pub records_delivered: u64,
    /// Those records per second: a mean of about the last 10 s, in which a later second weighs more.
    pub records_per_second: f64,
    /// Payload bytes of those records.
    pub bytes_per_second: f64,
    /// Time from the arrival of records in Kinesis to their first delivery, since this worker took the lease. The oldest
    /// and the newest Kinesis record of each page are measured, by the clock of this host, or that of the service if
    /// this host's is wrong by more than five seconds. Zero if the clock is behind.
    pub propagation_delay: Percentiles,
    /// Time since this worker saw the checkpoint of the shard move, or took the lease. `None` before its first renewal.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize_option"))]
    pub since_checkpoint: Option<Duration>,
    /// Time by which the last page read was behind the tip, to the millisecond. `None` before the first page. It
    /// describes the reads only. [`lag`](Self::lag) describes the processing.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize_option"))]
    pub millis_behind_latest: Option<Duration>,
    /// Time by which processing is behind: an upper bound of the age of the oldest record that is not
    /// processed. It grows while the processor fails or does not return, and while the shard cannot be read. At
    /// the tip it is the time since the last read. `None` before the first read.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize_option"))]
    pub lag: Option<Duration>,
    /// Time since the current batch was first given to the processor. `None`: there is no batch. With a
    /// [handler](crate::SchedulerBuilder::handler): the time for which the longest of its calls has run.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize_option"))]
    pub batch_in_hand_for: Option<Duration>,
    /// Call of the processor that is under way. `None`: there is none. With a [handler](crate::SchedulerBuilder::handler): the one that
    /// has run for longest.
    pub call: Option<ProcessorCall>,
    /// Calls of the processor that failed since the last one that succeeded.
    pub failures: u32,
    /// Last error of the processor. `None` after a call has succeeded.
    pub last_failure: Option<String>,
    /// Reads of the shard that failed since the last one that succeeded. The first two throttles in a row do not
    /// count.
    pub read_failures: u32,
    /// Cause of the last failed read, and what to do. `None` after a read has succeeded.
    pub last_read_failure: Option<String>,
    /// Records that retention deleted before they were read. Shown for an hour, or as long as the shard stands
    /// still because of it: see [`on_trimmed_gap`](crate::ConsumerConfig::on_trimmed_gap).
    pub records_trimmed: Option<String>,
}

/// A call of a processor that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ProcessorCall {
    /// Method of [`RecordProcessor`](crate::RecordProcessor), or `handler`.
    pub name: &'static str,
    /// Time since the call began.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
    pub running_for: Duration,
}

impl WorkerSnapshot {
    /// The largest [`lag`](ShardSnapshot::lag) of its shards. `None`: no shard has one.
    pub fn lag(&self) -> Option<Duration> {
        self.shards.iter().filter_map(|shard| shard.lag).max()
    }

    /// The largest [`millis_behind_latest`](ShardSnapshot::millis_behind_latest) of its shards. `None`: no shard has one.
    pub fn millis_behind_latest(&self) -> Option<Duration> {
        self.shards.iter().filter_map(|shard| shard.millis_behind_latest).max()
    }
}

/// Counts of aggregates and their records, from de-aggregation.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AggregateCounts {
    pub(crate) aggregates: u64,
    /// Aggregates with a member outside the shard's hash key range.
    pub(crate) aggregates_out_of_range: u64,
    /// Members that the range policy dropped.
    pub(crate) members_dropped: u64,
    /// Aggregates whose broken members were lost.
    pub(crate) defects: u64,
    /// Members whose explicit hash key is not a number.
    pub(crate) invalid_hash_keys: u64,
    /// Compressed frames that could not be decompressed.
    pub(crate) frame_errors: u64,
    /// Bytes of the decompressed frames.
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
