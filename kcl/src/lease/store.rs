//! What a lease table can do. All coordination works through this trait, so that it can be simulated.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use kinesis_aggregation::HashKeyRange;

use super::error::LeaseStoreError;
use super::item::CorruptItem;
use super::model::{Lease, PendingCheckpoint, StreamIdentity};
use crate::checkpoint::Checkpoint;

/// The conditional operations of a lease table.
///
/// A write is conditional on the lease as the caller knows it, and answers with the item as it is
/// now. An implementation reads an ambiguous write back before it calls it failed.
///
/// [`renew`](Self::renew), [`checkpoint`](Self::checkpoint) and [`take`](Self::take) stamp the lease with
/// the process that writes. If a worker of another library owned the lease since the last stamp, they also
/// remove the note up to when the shard was read ([`Lease::read_to`]).
pub trait LeaseStore: Send + Sync + Debug {
    /// Adds the lease unless there is one with its key.
    fn create<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, Outcome>;

    /// Proves that `owner` lives: adds one to the counter, if the counter is as known and `owner`
    /// processes the shard. A handoff that the caller does not know yet makes it fail.
    fn renew<'a>(
        &'a self,
        lease: &'a Lease,
        owner: &'a str,
        throughput: Option<f64>,
    ) -> StoreFuture<'a, Outcome>;

    /// Writes progress, if the counter is as known and `owner` processes the shard, with or without
    /// a pending handoff; adds one to the counter.
    fn checkpoint<'a>(
        &'a self,
        lease: &'a Lease,
        owner: &'a str,
        progress: &'a Progress,
    ) -> StoreFuture<'a, Outcome>;

    /// Makes `owner` the owner of a lease that is unassigned or expired, or that its present owner
    /// gives up while its processor may be at work, if nothing about its ownership changed since it
    /// was read; ends a pending handoff; adds one to the counter. A switch counts if `owner` did not
    /// process the shard (Java asks who was named): by that others tell a new owner from one that was heard.
    fn take<'a>(&'a self, lease: &'a Lease, owner: &'a str) -> StoreFuture<'a, Outcome>;

    /// Makes `to` the owner, if the owners are as known (not: the counter, which a live owner
    /// moves); completes a pending handoff; adds one to the counter. `released`: the caller is the
    /// owner, has stopped, and knows the counter; then that is a condition too, and `to` may start
    /// at once.
    fn assign<'a>(
        &'a self,
        lease: &'a Lease,
        to: &'a str,
        released: bool,
    ) -> StoreFuture<'a, Outcome>;

    /// Names `to` as the next owner while the present one still drains, if the owner is as known and
    /// no handoff is pending. Leaves the counter.
    fn start_handoff<'a>(&'a self, lease: &'a Lease, to: &'a str) -> StoreFuture<'a, Outcome>;

    /// Makes the lease unassigned (with a handoff pending: leaves it to the next owner), if the
    /// owners and the counter are as known; adds one to the counter. (Java asks for the owners only:
    /// arriving late, that could free the lease under a later ownership of the same worker.)
    fn evict<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, Outcome>;

    /// Puts a lease of the present stream in the place of `former`, which is of a stream that was
    /// deleted, if the counter and the owners of `former` are as known. The owner stays: its processor
    /// may be at work, so it and all others wait as for a worker that has fallen silent. The counter
    /// moves by two: no earlier write of the owner can be taken for this one.
    fn replace<'a>(&'a self, former: &'a Lease, new: &'a Lease) -> StoreFuture<'a, Outcome>;

    /// Stores facts about the shard, if the lease exists. Leaves the counter.
    fn set_shard_facts<'a>(&'a self, key: &'a str, facts: ShardFacts) -> StoreFuture<'a, Outcome>;

    /// Deletes a lease whose checkpoint is as known. [`Outcome::ConditionFailed`] of `None`: it was
    /// gone already.
    fn delete<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, Outcome>;

    /// The lease as it is now (a consistent read).
    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Lease>>;

    /// Every lease and every worker row. Unless `consistent`, it may miss the last second.
    fn list(&self, consistent: bool) -> StoreFuture<'_, Snapshot>;

    /// Whether the table and its index exist, asked by another kind of call than reads and writes are.
    fn exists(&self) -> StoreFuture<'_, bool>;

    /// The lock of the fleet's leader as it is now (a consistent read). `None`: free.
    fn leader(&self) -> StoreFuture<'_, Option<LeaderLock>>;

    /// Replaces the lock of the fleet's leader by `next` (`None`: frees it), if it is still `known`
    /// (`None`: free). False: it is another one now.
    fn change_leader<'a>(
        &'a self,
        known: Option<&'a LeaderLock>,
        next: Option<&'a LeaderLock>,
    ) -> StoreFuture<'a, bool>;

    /// Keys of leases that name `owner`, from the index: it may lag.
    fn owned_by<'a>(&'a self, owner: &'a str) -> StoreFuture<'a, Vec<String>>;

    /// Writes this worker's row: it lives, at `epoch_seconds`.
    fn put_worker<'a>(&'a self, worker: &'a str, epoch_seconds: u64) -> StoreFuture<'a, ()>;

    /// Removes this worker's row, if it was written at one of these times, in seconds since 1970.
    fn delete_worker<'a>(
        &'a self,
        worker: &'a str,
        written: RangeInclusive<u64>,
    ) -> StoreFuture<'a, ()>;
}

pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, LeaseStoreError>>;

/// How a conditional write ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Written; the item as it is now.
    Applied(Lease),
    /// A read found the item as this write, or an earlier ambiguous one of the same kind, leaves it.
    AppliedBefore(Lease),
    /// Not written; the item as it is now, if there is one.
    ConditionFailed(Option<Lease>),
}

impl Outcome {
    /// The item, if the write was done.
    pub fn applied(self) -> Option<Lease> {
        match self {
            Self::Applied(lease) | Self::AppliedBefore(lease) => Some(lease),
            Self::ConditionFailed(_) => None,
        }
    }
}

/// What a checkpoint writes.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    pub checkpoint: Checkpoint,
    pub pending: Option<PendingCheckpoint>,
    pub throughput: Option<f64>,
}

/// What is learned about a shard after its lease was created.
#[derive(Debug, Clone, PartialEq)]
pub enum ShardFacts {
    Children(Vec<String>),
    HashKeyRange(HashKeyRange),
    /// The stream that it belongs to, unless the lease says so already.
    Stream(StreamIdentity),
    /// Everything that arrived before this time was checkpointed.
    ReadTo(SystemTime),
}

/// A whole table, read page by page: not one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub leases: Vec<Lease>,
    pub workers: Vec<WorkerRow>,
    /// The lock of the worker that assigns leases for the fleet.
    pub leader: Option<LeaderLock>,
    /// Items that could not be read; they were skipped.
    pub corrupt: Vec<CorruptItem>,
}

impl Snapshot {
    /// How many items were read.
    pub fn items(&self) -> usize {
        self.leases.len()
            + self.workers.len()
            + usize::from(self.leader.is_some())
            + self.corrupt.len()
    }
}

/// The lock of the lock client for Java, as its item holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderLock {
    pub owner: String,
    /// Another one with each heartbeat.
    pub version: String,
    /// Without a heartbeat for this long, it is nobody's.
    pub duration: Duration,
    /// Its holder creates the first leases, and assigns none: to a running worker, there is no leader.
    pub is_starter: bool,
}

/// A worker's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRow {
    pub worker: String,
    /// When it last wrote the row, in seconds since 1970, by its clock.
    pub last_update: u64,
    /// It reports more than that it lives: of its CPU, for one.
    pub measures: bool,
    /// Ours: the process that wrote it. Two may use one worker id.
    pub process: Option<u64>,
}
