//! The lease table as a worker last saw it.

use std::time::Duration;

use crate::checkpoint::Checkpoint;
#[cfg(feature = "serde")]
use crate::millis;

/// All leases of the application, as this worker last read them.
///
/// Made by [`WorkerHandle::lease_table`](crate::WorkerHandle::lease_table). It costs no call: a worker
/// reads the table each second, and a large one (above 100 leases) less often.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LeaseTableSnapshot {
    /// How long ago the table was read.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
    pub age: Duration,
    /// The leases by shard id, those of finished shards included until they are cleaned up.
    pub leases: Vec<LeaseSnapshot>,
    /// Items that could not be read, by lease key. The worker leaves them alone: their shards do not
    /// run.
    pub corrupt: Vec<CorruptLease>,
}

/// One lease.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LeaseSnapshot {
    /// The shard.
    pub shard_id: String,
    /// The worker that processes it. `None` if no worker does.
    pub owner: Option<String>,
    /// While a handoff is pending, the worker that gets it when `owner` has let go.
    pub pending_owner: Option<String>,
    /// Heartbeat and version: each renewal, checkpoint or change of owner adds one.
    pub counter: u64,
    /// How far the shard was processed.
    pub checkpoint: Checkpoint,
    /// The shards that it was split or merged from, by id.
    pub parents: Vec<String>,
    /// The shards that were made of it, by id.
    pub children: Vec<String>,
    /// How long this worker has seen this owner (or none); it may be longer.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
    pub owned_for: Duration,
    /// How long this worker has seen this counter. If it was longer than the failover time when
    /// the table was read, `age` ago, the owner has stopped.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
    pub heartbeat_age: Duration,
    /// How long this worker has seen this checkpoint. On a shard that gets no records, or whose
    /// records were all processed, it grows too: see [`millis_behind_latest`].
    ///
    /// [`millis_behind_latest`]: crate::ShardSnapshot::millis_behind_latest
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
    pub checkpoint_age: Duration,
}

/// An item of the lease table that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CorruptLease {
    /// Its `leaseKey`.
    pub key: String,
    /// What is wrong with it.
    pub problem: String,
}
