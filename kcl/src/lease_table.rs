//! The lease table as a worker last read it.

use std::time::Duration;

use crate::checkpoint::Checkpoint;
use crate::lease::{Lease, Snapshot};
#[cfg(feature = "serde")]
use crate::millis;

/// All leases of the application, as this worker last read them.
///
/// [`WorkerHandle::lease_table`](crate::WorkerHandle::lease_table) returns it without a call to AWS. A worker reads the
/// table each second, and a table of more than 100 leases less often.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LeaseTableSnapshot {
    /// Time since the table was read.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
    pub age: Duration,
    /// The leases, by shard id. Leases of finished shards are included until they are deleted.
    pub leases: Vec<LeaseSnapshot>,
    /// Items that could not be read, by lease key. The worker does not change them, and their shards are not processed.
    pub corrupt: Vec<CorruptLease>,
}

impl LeaseTableSnapshot {
    /// `scan`, which is `age` old, with these of its leases.
    pub(crate) fn new(age: Duration, scan: &Snapshot, mut leases: Vec<LeaseSnapshot>) -> Self {
        leases.sort_by(|a, b| a.shard_id.cmp(&b.shard_id));
        let corrupt = scan.corrupt.iter();
        let corrupt =
            corrupt.map(|item| CorruptLease { key: item.key.clone(), problem: item.to_string() });
        Self { age, leases, corrupt: corrupt.collect() }
    }
}

/// A lease, as last read.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LeaseSnapshot {
    /// Id of the shard.
    pub shard_id: String,
    /// Id of the worker that processes the shard. `None`: no worker does.
    pub owner: Option<String>,
    /// Id of the worker that gets the lease from `owner` in a pending handoff.
    pub pending_owner: Option<String>,
    /// Version of the item. Each renewal, checkpoint or change of owner adds one.
    pub counter: u64,
    /// Checkpoint of the shard.
    pub checkpoint: Checkpoint,
    /// Ids of the shards that it was split or merged from.
    pub parents: Vec<String>,
    /// Ids of the shards into which it was split or merged.
    pub children: Vec<String>,
    /// Time for which this worker has observed this owner, or no owner. The true time may be longer.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
    pub owned_for: Duration,
    /// Time for which this worker has observed this counter. If it exceeded the failover time when the table was read,
    /// `age` ago, the owner has stopped.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
    pub heartbeat_age: Duration,
    /// Time for which this worker has observed this checkpoint. It also grows on a shard that gets no records, or whose
    /// records were all processed: see [`millis_behind_latest`].
    ///
    /// [`millis_behind_latest`]: crate::ShardSnapshot::millis_behind_latest
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
    pub checkpoint_age: Duration,
}

impl LeaseSnapshot {
    /// A lease that was observed for no time.
    pub(crate) fn new(lease: &Lease) -> Self {
        Self {
            shard_id: lease.key.clone(),
            owner: lease.actual_owner().map(str::to_owned),
            pending_owner: lease.owner.clone().filter(|_| lease.is_handoff_pending()),
            counter: lease.counter,
            checkpoint: lease.checkpoint.clone(),
            parents: lease.parents.iter().cloned().collect(),
            children: lease.children.iter().cloned().collect(),
            owned_for: Duration::ZERO,
            heartbeat_age: Duration::ZERO,
            checkpoint_age: Duration::ZERO,
        }
    }
}

/// An item of the lease table that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CorruptLease {
    /// `leaseKey` of the item.
    pub key: String,
    /// What is wrong with the item.
    pub problem: String,
}
