//! The lease table as a trait. All coordination works through it, so that coordination can be simulated.

use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use kinesis_aggregation::HashKeyRange;

use super::error::LeaseStoreError;
use super::item::CorruptItem;
use super::model::{Lease, PendingCheckpoint, StreamIdentity};
use crate::checkpoint::Checkpoint;
use crate::progress::Failing;

/// The lease table of one application.
pub trait LeaseStore: Send + Sync + Debug {
    /// Writes one lease, if the condition of `write` holds for the lease as the caller has read it (`known`).
    /// Returns the item as it is after the call. If the answer does not tell whether the write was done, the
    /// item is [read back](super::readback::read_back).
    fn write<'a>(&'a self, known: &'a Lease, write: LeaseWrite) -> StoreFuture<'a, Outcome>;

    /// Reads one lease (a consistent read).
    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Lease>>;

    /// Reads every lease and every worker row. Unless `consistent`, the writes of the last second may be
    /// missing.
    fn list(&self, consistent: bool) -> StoreFuture<'_, Snapshot>;

    /// Whether the table and its index exist. It asks by a kind of call that neither reads nor writes items.
    fn exists(&self) -> StoreFuture<'_, bool>;

    /// Reads the lock of the fleet's leader (a consistent read). `None`: no worker holds it.
    fn leader(&self) -> StoreFuture<'_, Option<LeaderLock>>;

    /// Replaces the lock of the fleet's leader by `next`, if the lock is still `known`. `None` stands for a lock
    /// that no worker holds. Returns false if the lock is another one now.
    fn change_leader<'a>(
        &'a self,
        known: Option<&'a LeaderLock>,
        next: Option<&'a LeaderLock>,
    ) -> StoreFuture<'a, bool>;

    /// Reads the keys of the leases that name `owner` from the index, which may lag behind the table.
    fn owned_by<'a>(&'a self, owner: &'a str) -> StoreFuture<'a, Vec<String>>;

    /// Writes this worker's row, the proof that it is alive at `epoch_seconds`.
    fn put_worker<'a>(&'a self, worker: &'a str, epoch_seconds: u64) -> StoreFuture<'a, ()>;

    /// Removes this worker's row, if it was written at one of these times, in seconds since 1970.
    fn delete_worker<'a>(
        &'a self,
        worker: &'a str,
        written: RangeInclusive<u64>,
    ) -> StoreFuture<'a, ()>;
}

pub type StoreFuture<'a, T> = BoxFuture<'a, Result<T, LeaseStoreError>>;

/// A conditional write of one lease. "As known": as the caller has read the lease.
///
/// `Renew`, `Checkpoint`, `Move` and `Take` stamp the lease with the process that writes. If a worker of another library
/// owned the lease since the last stamp, they also remove [`Lease::read_to`].
#[derive(Debug, Clone, PartialEq)]
pub enum LeaseWrite {
    /// Adds the known lease, unless there is one with its key.
    Create,
    /// Proves that `owner` is alive: adds one to the counter, if the counter is as known and `owner` processes
    /// the shard. The condition fails if a handoff began that the caller does not know yet.
    Renew { owner: String, report: OwnerReport },
    /// Writes progress and adds one to the counter, if the counter is as known and `owner` processes the shard,
    /// with or without a pending handoff.
    Checkpoint {
        owner: String,
        checkpoint: Checkpoint,
        pending: Option<PendingCheckpoint>,
        report: OwnerReport,
    },
    /// Moves the checkpoint to another position, also to one before it, on the condition of `Checkpoint`. Replaces
    /// [`Lease::resume_from`], and removes [`Lease::read_to`], [`Lease::failing`] and a pending checkpoint.
    Move { owner: String, checkpoint: Checkpoint, resume_from: Option<SystemTime> },
    /// Makes `owner` the owner, if the counter and the owners are as known; ends a pending handoff; adds one to the
    /// counter. For a lease that is unassigned or expired, or that its owner gives up while its processor may be
    /// at work.
    ///
    /// It counts as a switch of owners if `owner` did not process the shard. (Java: if `owner` was not named.)
    /// By that count, other workers tell a new owner from one that was heard.
    Take { owner: String },
    /// Makes `to` the owner, if the owners are as known; completes a pending handoff; adds one to the counter.
    /// The counter is not part of the condition, because a live owner moves it.
    ///
    /// `released`: the caller is the owner and its processor has stopped. Then the known counter is part of the
    /// condition, and the lease is marked so that `to` may start at once.
    Assign { to: String, released: bool },
    /// Names `to` as the next owner while the present one still drains the shard, if the owner is as known and
    /// no handoff is pending. Leaves the counter.
    StartHandoff { to: String },
    /// Makes the lease unassigned, or leaves it to the next owner if a handoff is pending, if the counter and the
    /// owners are as known; adds one to the counter. (Java does not ask for the counter. A write that arrives
    /// late could then free the lease under a later ownership of the same worker.)
    Evict,
    /// Puts `new`, a lease of the present stream, in the place of the known lease, which is of a stream that was
    /// deleted, if the counter and the owners are as known.
    ///
    /// The owner stays, because its processor may be at work: all workers wait for it as for a worker that has
    /// fallen silent. The counter grows by two, so that no earlier write of the owner can be taken for this one.
    Replace { new: Box<Lease> },
    /// Stores facts about the shard, if there is a lease with the known lease's key. Leaves the counter.
    SetFacts(ShardFacts),
    /// Deletes the lease, if its checkpoint is as known. [`Outcome::ConditionFailed`] with `None`: there was no
    /// lease.
    Delete,
}

/// What the owner of a lease writes beside the counter. `None` leaves the attribute as it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OwnerReport {
    /// Moving average in KiB per second.
    pub throughput: Option<f64>,
    pub failing: Option<Failing>,
}

impl LeaseWrite {
    /// The write by which a worker transfers a lease to `to`, or releases it. `stopped`: no processor of this worker is
    /// at work, so the next owner may start at once.
    ///
    /// Each of these writes is conditional on the counter. So one that arrives late does not move the lease of a later
    /// owner.
    pub fn relinquish(to: Option<String>, stopped: bool) -> Self {
        match to {
            Some(to) if stopped => Self::Assign { to, released: true },
            Some(owner) => Self::Take { owner },
            None => Self::Evict,
        }
    }

    /// The DynamoDB operation, with the purpose where that is not plain.
    pub fn operation(&self) -> &'static str {
        match self {
            Self::Create | Self::Replace { .. } => "PutItem",
            Self::Renew { .. } => "UpdateItem (renew)",
            Self::Checkpoint { .. } => "UpdateItem (checkpoint)",
            Self::Move { .. } => "UpdateItem (move)",
            Self::Take { .. } => "UpdateItem (take)",
            Self::Assign { .. } => "UpdateItem (assign)",
            Self::StartHandoff { .. } => "UpdateItem (start handoff)",
            Self::Evict => "UpdateItem (evict)",
            Self::SetFacts(_) => "UpdateItem (shard facts)",
            Self::Delete => "DeleteItem",
        }
    }
}

/// Result of a conditional write.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The write was done. The item as it is now; for a deletion, as it was.
    Applied(Lease),
    /// A read found the item as this write, or an earlier ambiguous one of the same kind, leaves it.
    AppliedBefore(Lease),
    /// The condition did not hold. The item as it is now, if there is one.
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

/// A fact about a shard that is learned after its lease was created.
#[derive(Debug, Clone, PartialEq)]
pub enum ShardFacts {
    Children(Vec<String>),
    HashKeyRange(HashKeyRange),
    /// The stream of the shard. It is not written if the lease names a stream already.
    Stream(StreamIdentity),
    /// Everything that arrived before this time was checkpointed.
    ReadTo(SystemTime),
}

/// The items of the table. They are read page by page, so they are not of one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub leases: Vec<Lease>,
    pub workers: Vec<WorkerRow>,
    /// The lock of the worker that assigns leases for the fleet.
    pub leader: Option<LeaderLock>,
    /// Items that could not be decoded. They are not in the other lists.
    pub corrupt: Vec<CorruptItem>,
}

impl Snapshot {
    /// Number of items that were read.
    pub fn items(&self) -> usize {
        self.leases.len()
            + self.workers.len()
            + usize::from(self.leader.is_some())
            + self.corrupt.len()
    }
}

/// The item of the DynamoDB lock client for Java that elects a leader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderLock {
    pub owner: String,
    /// Random text that changes with each heartbeat of the owner.
    pub version: String,
    /// Time without a heartbeat after which the lock is free.
    pub duration: Duration,
    /// The owner creates the first leases and assigns none. Running workers treat the fleet as one without a
    /// leader.
    pub is_starter: bool,
}

/// The row by which a worker shows that it is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRow {
    pub worker: String,
    /// Time of the last write by the worker's clock, in seconds since 1970.
    pub last_update: u64,
    /// The row reports utilisation, such as CPU, too.
    pub measures: bool,
    /// The process that wrote the row, if it is of this library. Two processes may use one worker id.
    pub process: Option<u64>,
}
