//! One unbroken ownership of a lease by this worker, as the shard's consumer sees it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use futures::future::BoxFuture;
use kinesis_aggregation::HashKeyRange;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::error::LeaseStoreError;
use super::fence::Fence;
use super::model::{Lease, PendingCheckpoint};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::clock::Clock;
use crate::progress::ShardProgress;

/// Proves to a store of the user's which ownership of a shard a write belongs to.
///
/// Counters of later owners are larger: a store that remembers the largest counter per lease key,
/// and refuses smaller ones, is safe from a worker that was suspended and woke up late.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct FencingToken {
    /// The lease: the shard's id.
    pub lease_key: String,
    /// The lease counter when this worker acquired it.
    pub counter: u64,
}

/// A lease that this worker holds, in one unbroken ownership. Renewal stops when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct HeldLease {
    pub(super) state: Arc<HeldLeaseState>,
    pub(super) requests: mpsc::Sender<Request>,
}

/// How an ownership ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseEnd {
    /// The shard was drained: complete the pending handoff.
    Transfer,
    /// A planned stop: hand the lease over, release it or keep it, as the settings say. A pending
    /// handoff is completed.
    Relinquish,
    /// The processor did not stop in time, and may still be at work: the item stays as it is, and the
    /// lease expires.
    Aborted,
    /// The lease is at `SHARD_END`: nothing to renew any more.
    ShardEnded,
    /// A fence fell, or the consumer gave up: forget the lease, the item stays as it is.
    Lost,
}

/// The state of a lease after this worker ended its ownership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LeaseOutcome {
    /// It is this worker's now.
    HandedOver { to: String },
    /// It has no owner.
    Released,
    /// It waits for the next process of this worker id.
    Kept,
    /// The shard was processed to its end.
    Ended,
    /// It was lost before: another worker has it, or it expired.
    Lost,
    /// It still names this worker, which renews it no more.
    LeftToExpire { cause: String },
}

/// Whether a checkpoint that failed for a reason that may pass is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// By the renewer, until the lease's local deadline or that of a planned stop.
    UntilDeadline,
    /// By the caller, if at all.
    Never,
}

/// A shard that a split or merge made of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildShard {
    pub shard_id: String,
    pub parents: Vec<String>,
    pub hash_key_range: HashKeyRange,
}

/// What held leases and their renewers ask of the rest of the worker.
pub(crate) trait RenewerServices: Send + Sync + fmt::Debug {
    /// The worker that should get a lease that this one relinquishes; the next call counts it in.
    fn receiver(&self) -> Option<String>;

    /// Whether the other workers take leases and discover none that are assigned to them.
    fn workers_take_leases(&self) -> bool {
        false
    }

    /// Creates the leases of a shard's children (none given: as the stream lists them) where they
    /// are missing; answers with all their ids.
    fn create_children<'a>(
        &'a self,
        parent: &'a Lease,
        children: Vec<ChildShard>,
    ) -> BoxFuture<'a, Result<Vec<String>, LeaseStoreError>>;

    /// Reads a lease: one of a parent shard.
    fn lease<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Lease>, LeaseStoreError>>;

    /// Notes in a lease that everything which arrived before this time was checkpointed.
    fn note_read_to<'a>(
        &'a self,
        _key: &'a str,
        _time: SystemTime,
    ) -> BoxFuture<'a, Result<(), LeaseStoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// The ownership's fence fell, or it was ended: look around again.
    fn changed(&self);
}

/// What a held lease and its renewer share. It must not hold a request sender: the renewer ends when the
/// last [`HeldLease`] is dropped.
#[derive(Debug)]
pub(crate) struct HeldLeaseState {
    pub(super) token: FencingToken,
    pub(crate) clock: Arc<dyn Clock>,
    pub(super) services: Arc<dyn RenewerServices>,
    pub(super) known: Mutex<Known>,
    /// How far the shard is.
    pub(super) progress: ShardProgress,
    pub(super) lost: CancellationToken,
    pub(super) handoff: CancellationToken,
    /// Cancelled by a planned stop of the worker, and with `handoff`.
    pub(super) shutdown: CancellationToken,
    pub(super) delivered: AtomicU64,
    /// Ended by [`LeaseEnd::Aborted`].
    pub(super) aborted: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct Known {
    pub(super) lease: Lease,
    pub(crate) fence: Fence,
}

impl HeldLeaseState {
    /// Notes the lease as it was read or written.
    pub(super) fn learn(&self, lease: Lease) {
        // While a checkpoint is pending, one at the same position must be written all the same: it removes
        // the pending one.
        if lease.pending.is_none() {
            self.progress.lock().found(&lease.checkpoint);
        }
        self.known().lease = lease;
    }

    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is one assignment: a panic elsewhere cannot leave it half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_held(&self) -> bool {
        !self.lost.is_cancelled() && !self.known().fence.has_fallen(self.clock.now())
    }

    pub(super) fn lease_lost(&self) -> CheckpointError {
        CheckpointError::LeaseLost { shard_id: self.token.lease_key.clone() }
    }
}

/// What only the renewer may do.
#[derive(Debug)]
pub(super) enum Request {
    Checkpoint(CheckpointRequest),
    StartHandoff { to: String },
    End { how: LeaseEnd, reply: oneshot::Sender<LeaseOutcome> },
}

/// A checkpoint that a caller waits for.
#[derive(Debug)]
pub(crate) struct CheckpointRequest {
    /// `None`: leave the checkpoint, set the pending one.
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) pending: Option<PendingCheckpoint>,
    pub(crate) retry: Retry,
    /// Closed: the caller was cancelled, and nothing needs to be written for it.
    pub(crate) reply: oneshot::Sender<Result<(), CheckpointError>>,
}

impl HeldLease {
    pub(crate) fn shard_id(&self) -> &str {
        &self.state.token.lease_key
    }

    /// The lease as last read or written.
    pub(crate) fn lease(&self) -> Lease {
        self.state.known().lease.clone()
    }

    /// How far the shard is.
    pub(crate) fn progress(&self) -> &ShardProgress {
        &self.state.progress
    }

    pub(crate) fn fencing_token(&self) -> FencingToken {
        self.state.token.clone()
    }

    /// No fence has fallen: nobody else may process the shard yet.
    pub(crate) fn is_held(&self) -> bool {
        self.state.is_held()
    }

    /// Cancelled when a fence falls: stop delivering.
    pub(crate) fn lost(&self) -> CancellationToken {
        self.state.lost.clone()
    }

    /// Cancelled when the lease is wanted elsewhere: drain, checkpoint, then
    /// [`end`](Self::end) with [`LeaseEnd::Transfer`].
    pub(crate) fn handoff_requested(&self) -> CancellationToken {
        self.state.handoff.clone()
    }

    /// Cancelled when the shard is to be given up on request: by a planned stop of the worker, or
    /// since the lease is wanted elsewhere.
    pub(crate) fn shutdown_requested(&self) -> CancellationToken {
        self.state.shutdown.clone()
    }

    /// True if each parent shard is done: its lease is gone, or at `SHARD_END`.
    ///
    /// # Cancel safety
    /// Reads only.
    pub(crate) async fn parents_ended(&self) -> Result<bool, LeaseStoreError> {
        for parent in self.lease().parents {
            if let Some(lease) = self.state.services.lease(&parent).await?
                && !lease.has_ended()
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes a checkpoint, which also renews the lease and clears a pending checkpoint.
    ///
    /// # Cancel safety
    /// A dropped call may or may not be written.
    pub(crate) async fn checkpoint(
        &self,
        checkpoint: Checkpoint,
        retry: Retry,
    ) -> Result<(), CheckpointError> {
        self.write(Some(checkpoint), None, retry).await
    }

    /// Writes the first phase of a two-phase checkpoint; the checkpoint itself stays.
    ///
    /// # Cancel safety
    /// A dropped call may or may not be written.
    pub(crate) async fn prepare_checkpoint(
        &self,
        pending: Checkpoint,
        state: Option<Bytes>,
        retry: Retry,
    ) -> Result<(), CheckpointError> {
        let pending = PendingCheckpoint { checkpoint: pending, state };
        self.write(None, Some(pending), retry).await
    }

    async fn write(
        &self,
        checkpoint: Option<Checkpoint>,
        pending: Option<PendingCheckpoint>,
        retry: Retry,
    ) -> Result<(), CheckpointError> {
        if !self.is_held() {
            return Err(self.state.lease_lost());
        }
        let (reply, answer) = oneshot::channel();
        let request = Request::Checkpoint(CheckpointRequest { checkpoint, pending, retry, reply });
        // A closed channel: the ownership has ended.
        self.requests.send(request).await.map_err(|_| self.state.lease_lost())?;
        answer.await.unwrap_or_else(|_| Err(self.state.lease_lost()))
    }

    /// Creates the leases of the shard's children where they are missing, then notes them in this
    /// lease. No children given: those that the stream lists.
    ///
    /// # Cancel safety
    /// Call it again: every step is idempotent.
    pub(crate) async fn record_children(
        &self,
        children: Vec<ChildShard>,
    ) -> Result<(), LeaseStoreError> {
        // After that, the children may have been finished and deleted.
        if !self.is_held() {
            return Err(LeaseStoreError::Lost);
        }
        self.state.services.create_children(&self.lease(), children).await?;
        self.state.services.changed();
        Ok(())
    }

    /// Notes in the lease that everything which arrived before this time was checkpointed.
    ///
    /// # Cancel safety
    /// A call that is dropped may or may not be written.
    pub(crate) async fn note_read_to(&self, time: SystemTime) -> Result<(), LeaseStoreError> {
        if !self.is_held() {
            return Err(LeaseStoreError::Lost);
        }
        self.state.services.note_read_to(self.shard_id(), time).await
    }

    /// Counts delivered bytes into the throughput that renewals write.
    pub(crate) fn record_bytes(&self, bytes: u64) {
        self.state.delivered.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Ends the ownership; answers with what became of its lease. A failure is logged: the lease then
    /// expires. Later calls do nothing, and answer that it is lost.
    ///
    /// # Cancel safety
    /// The end goes on in the background.
    pub(crate) async fn end(&self, how: LeaseEnd) -> LeaseOutcome {
        if how == LeaseEnd::Aborted {
            // Noted here: the renewer of a lost lease takes no notice of how it ends, and one that waits
            // for an answer of the table serves no request.
            self.state.aborted.store(true, Ordering::Relaxed);
            self.state.lost.cancel();
        }
        let (reply, done) = oneshot::channel();
        let request = Request::End { how, reply };
        if self.requests.send(request).await.is_err() {
            return LeaseOutcome::Lost;
        }
        // An error: the renewer ended by another request.
        done.await.unwrap_or(LeaseOutcome::Lost)
    }

    /// A handle that does not keep the ownership alive.
    pub(crate) fn downgrade(&self) -> WeakHeldLease {
        WeakHeldLease { state: Arc::clone(&self.state), requests: self.requests.downgrade() }
    }

    /// Asks the renewer to hand the lease to `to`; the consumer is told by
    /// [`handoff_requested`](Self::handoff_requested).
    pub(crate) fn start_handoff(&self, to: &str) {
        // A full queue: the next look at the fleet asks again.
        let _ = self.requests.try_send(Request::StartHandoff { to: to.to_owned() });
    }
}

/// A held lease that its consumer may have dropped.
#[derive(Clone)]
pub(crate) struct WeakHeldLease {
    pub(crate) state: Arc<HeldLeaseState>,
    requests: mpsc::WeakSender<Request>,
}

impl WeakHeldLease {
    pub(crate) fn upgrade(&self) -> Option<HeldLease> {
        let requests = self.requests.upgrade()?;
        Some(HeldLease { state: Arc::clone(&self.state), requests })
    }

    pub(crate) fn fencing_token(&self) -> &FencingToken {
        &self.state.token
    }

    /// The counter of the lease as last read or written.
    pub(crate) fn counter(&self) -> u64 {
        self.state.known().lease.counter
    }

    /// It was ended by [`LeaseEnd::Aborted`].
    pub(crate) fn was_aborted(&self) -> bool {
        self.state.aborted.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for WeakHeldLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakHeldLease").field("token", &self.state.token).finish_non_exhaustive()
    }
}

impl fmt::Debug for HeldLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldLease").field("token", &self.state.token).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
