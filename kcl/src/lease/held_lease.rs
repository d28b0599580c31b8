//! A lease that this worker holds, as the consumer of its shard sees it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;
use futures::future::BoxFuture;
use kinesis_aggregation::HashKeyRange;
use kinesis_common::sync::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::error::LeaseStoreError;
use super::fence::Fence;
use super::model::{Lease, PendingCheckpoint};
use super::store::ShardFacts;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::clock::Clock;
use crate::progress::{Progress, ShardProgress};
use crate::shard_state::ShardShutdown;

/// Identifies an ownership of a shard, for writes to a store of the user's own.
///
/// Later owners have larger counters. A store that remembers the largest counter per lease key, and refuses smaller
/// ones, is safe from a worker that resumes late after a suspend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct FencingToken {
    /// The key of the lease, which is the shard's id.
    pub lease_key: String,
    /// The counter of the lease when this worker acquired it.
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
    /// The shard was drained for a handoff, which the renewer completes.
    Transfer,
    /// The worker stops as planned. The renewer completes a pending handoff. Without one, it hands the lease over,
    /// releases it or keeps it, as the settings say.
    Relinquish,
    /// The checkpoint is `SHARD_END`, so there is nothing to renew any more.
    ShardEnded,
    /// The lease was lost or its local deadline passed, or a planned stop ran out of time. The item stays as it is.
    Lost,
}

/// Whether the renewer tries a checkpoint again that failed for a reason that may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    /// Until the lease's local deadline, or that of a planned stop.
    UntilDeadline,
    Never,
}

/// A shard that a split or merge made of another shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildShard {
    pub shard_id: String,
    pub parents: Vec<String>,
    pub hash_key_range: HashKeyRange,
}

/// Requests of held leases and their renewers to the rest of the worker.
pub(crate) trait RenewerServices: Send + Sync + fmt::Debug {
    /// The worker that should get a lease that this worker relinquishes. Each call counts one more lease for the
    /// worker that it returns.
    fn receiver(&self) -> Option<String>;

    /// True if the other workers only take leases: they would not find a lease that is assigned to them.
    fn workers_take_leases(&self) -> bool {
        false
    }

    /// Creates the leases of a shard's children where they are missing, and notes the children in `parent`. Without
    /// `children`, those that the stream lists are used.
    fn create_children<'a>(
        &'a self,
        parent: &'a Lease,
        children: Vec<ChildShard>,
    ) -> BoxFuture<'a, Result<(), LeaseStoreError>>;

    /// Reads the lease of a parent shard.
    fn lease<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Lease>, LeaseStoreError>>;

    /// Notes a fact in a lease.
    fn set_facts<'a>(
        &'a self,
        _lease: &'a Lease,
        _facts: ShardFacts,
    ) -> BoxFuture<'a, Result<(), LeaseStoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Asks for a scan of the lease table, because a lease was lost or ended.
    fn changed(&self);
}

/// Number of requests that may wait for the renewer.
const QUEUE: usize = 16;

/// The state that a held lease and its renewer share. It must not hold a request sender, because the renewer ends when
/// the last [`HeldLease`] is dropped.
#[derive(Debug)]
pub(crate) struct HeldLeaseState {
    pub(super) token: FencingToken,
    pub(crate) clock: Arc<dyn Clock>,
    pub(super) services: Arc<dyn RenewerServices>,
    pub(crate) known: Mutex<Known>,
    pub(super) progress: ShardProgress,
    /// Cancelled when the lease is lost, or when its consumer has ended.
    pub(super) lost: CancellationToken,
    /// Cancelled when another worker waits for the lease.
    pub(super) handoff: CancellationToken,
    /// Cancelled when a planned stop of the worker begins, and with `handoff`.
    pub(super) shutdown: CancellationToken,
    /// Bytes delivered since the last renewal.
    pub(super) delivered: AtomicU64,
    /// The consumer [aborted](HeldLease::abort) it.
    pub(super) aborted: AtomicBool,
}

/// The lease as it was last read or written, and how long this worker may count on it.
#[derive(Debug)]
pub(crate) struct Known {
    pub(super) lease: Lease,
    pub(crate) fence: Fence,
}

impl HeldLeaseState {
    /// Notes the lease as it was read or written.
    pub(super) fn learn(&self, lease: Lease) {
        // While a checkpoint is pending, a checkpoint at the same position must still be written, because it removes
        // the pending one.
        if lease.pending.is_none() {
            self.progress.lock().found(&lease.checkpoint, self.clock.now());
        }
        self.known.lock().lease = lease;
    }

    pub(crate) fn is_held(&self) -> bool {
        !self.lost.is_cancelled() && !self.known.lock().fence.has_fallen(self.clock.now())
    }

    pub(super) fn lease_lost(&self) -> CheckpointError {
        CheckpointError::LeaseLost { shard_id: self.token.lease_key.clone() }
    }
}

/// A request to the renewer.
#[derive(Debug)]
pub(super) enum Request {
    /// Boxed, because a channel takes memory for 32 requests even if it is empty.
    Checkpoint(Box<CheckpointRequest>),
    StartHandoff {
        to: String,
    },
    End {
        how: LeaseEnd,
        reply: oneshot::Sender<ShardShutdown>,
    },
}

/// A checkpoint that a caller waits for.
#[derive(Debug)]
pub(super) struct CheckpointRequest {
    /// `None`: the checkpoint stays, and `pending` is set.
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) pending: Option<PendingCheckpoint>,
    /// The checkpoint may lie before that of the lease. With the time of a sentinel.
    pub(super) moved: Option<Option<SystemTime>>,
    pub(super) retry: Retry,
    /// Closed if the caller was cancelled. Then nothing needs to be written for it.
    pub(super) reply: oneshot::Sender<Result<(), CheckpointError>>,
}

impl HeldLease {
    /// A lease without a renewer, and the requests that its renewer must serve.
    pub(super) fn new(
        lease: Lease,
        fence: Fence,
        clock: Arc<dyn Clock>,
        services: Arc<dyn RenewerServices>,
        shutdown: CancellationToken,
    ) -> (Self, mpsc::Receiver<Request>) {
        let (sender, requests) = mpsc::channel(QUEUE);
        let state = HeldLeaseState {
            token: FencingToken { lease_key: lease.key.clone(), counter: lease.counter },
            clock,
            services,
            progress: Arc::new(Mutex::new(Progress::of(&lease.checkpoint, lease.failing.clone()))),
            known: Mutex::new(Known { lease, fence }),
            lost: CancellationToken::new(),
            handoff: CancellationToken::new(),
            shutdown,
            delivered: AtomicU64::new(0),
            aborted: AtomicBool::new(false),
        };
        (Self { state: Arc::new(state), requests: sender }, requests)
    }

    pub(crate) fn shard_id(&self) -> &str {
        &self.state.token.lease_key
    }

    /// The lease as last read or written.
    pub(crate) fn lease(&self) -> Lease {
        self.state.known.lock().lease.clone()
    }

    pub(crate) fn progress(&self) -> &ShardProgress {
        &self.state.progress
    }

    pub(crate) fn fencing_token(&self) -> FencingToken {
        self.state.token.clone()
    }

    /// True while no other worker may process the shard.
    pub(crate) fn is_held(&self) -> bool {
        self.state.is_held()
    }

    /// Cancelled when the lease is lost. Nothing may be delivered any more.
    pub(crate) fn lost(&self) -> CancellationToken {
        self.state.lost.clone()
    }

    /// Cancelled when another worker waits for the lease. The consumer then drains the shard, checkpoints, and
    /// [ends](Self::end) the ownership by [`LeaseEnd::Transfer`].
    pub(crate) fn handoff_requested(&self) -> CancellationToken {
        self.state.handoff.clone()
    }

    /// Cancelled when the consumer must stop on request: the worker stops as planned, or another worker waits for the
    /// lease.
    pub(crate) fn shutdown_requested(&self) -> CancellationToken {
        self.state.shutdown.clone()
    }

    /// Returns true if each parent shard is done: its lease is gone, or its checkpoint is `SHARD_END`.
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

    /// Writes a checkpoint. This also renews the lease and removes a pending checkpoint.
    ///
    /// # Cancel safety
    /// If the call is dropped, the checkpoint may or may not be written.
    pub(crate) async fn checkpoint(
        &self,
        checkpoint: Checkpoint,
        retry: Retry,
    ) -> Result<(), CheckpointError> {
        self.write(Some(checkpoint), None, None, retry).await
    }

    /// Writes the first phase of a two-phase checkpoint. The checkpoint itself stays.
    ///
    /// # Cancel safety
    /// If the call is dropped, the checkpoint may or may not be written.
    pub(crate) async fn prepare_checkpoint(
        &self,
        pending: Checkpoint,
        state: Option<Bytes>,
        retry: Retry,
    ) -> Result<(), CheckpointError> {
        let pending = PendingCheckpoint { checkpoint: pending, state };
        self.write(None, Some(pending), None, retry).await
    }

    async fn write(
        &self,
        checkpoint: Option<Checkpoint>,
        pending: Option<PendingCheckpoint>,
        moved: Option<Option<SystemTime>>,
        retry: Retry,
    ) -> Result<(), CheckpointError> {
        if !self.is_held() {
            return Err(self.state.lease_lost());
        }
        let (reply, answer) = oneshot::channel();
        let request = CheckpointRequest { checkpoint, pending, moved, retry, reply };
        let request = Request::Checkpoint(Box::new(request));
        // The channel is closed if the ownership has ended.
        self.requests.send(request).await.map_err(|_| self.state.lease_lost())?;
        answer.await.unwrap_or_else(|_| Err(self.state.lease_lost()))
    }

    /// Moves the lease to another position, also to one before its checkpoint. `time`: that of a sentinel. Meanwhile, no
    /// other task may checkpoint. Afterwards, the progress is that of a lease that was acquired there.
    ///
    /// # Errors
    /// The position is not written. If an answer was lost, it may be written.
    ///
    /// # Cancel safety
    /// If the call is dropped, the position may or may not be written, and is not known here.
    pub(crate) async fn move_to(
        &self,
        checkpoint: Checkpoint,
        time: Option<SystemTime>,
    ) -> Result<(), CheckpointError> {
        // Renewals must not carry the former progress after the move.
        let former = self.progress().lock().withdraw();
        let write = self.write(Some(checkpoint.clone()), None, Some(time), Retry::Never);
        let written = write.await;
        let mut progress = self.progress().lock();
        match written {
            Ok(()) => *progress = Progress::new(checkpoint),
            Err(_) => progress.restore(former),
        }
        written
    }

    /// Creates the leases of the shard's children where they are missing, and notes the children in this lease.
    /// Without `children`, those that the stream lists are used.
    ///
    /// # Cancel safety
    /// Every step is idempotent, so a dropped call can be repeated.
    pub(crate) async fn record_children(
        &self,
        children: Vec<ChildShard>,
    ) -> Result<(), LeaseStoreError> {
        // Once the lease is lost, the children's leases may have been finished and deleted.
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
    /// If the call is dropped, the note may or may not be written.
    pub(crate) async fn note_read_to(&self, time: SystemTime) -> Result<(), LeaseStoreError> {
        if !self.is_held() {
            return Err(LeaseStoreError::Lost);
        }
        self.state.services.set_facts(&self.lease(), ShardFacts::ReadTo(time)).await
    }

    /// Adds delivered bytes to the throughput that renewals write.
    pub(crate) fn record_bytes(&self, bytes: u64) {
        self.state.delivered.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Ends the ownership, and returns what became of the lease. If the lease table cannot be written, that is logged
    /// and the lease expires. Later calls do nothing, and return that the lease is lost.
    ///
    /// # Cancel safety
    /// If the call is dropped, the end goes on in the background.
    pub(crate) async fn end(&self, how: LeaseEnd) -> ShardShutdown {
        let (reply, done) = oneshot::channel();
        let request = Request::End { how, reply };
        if self.requests.send(request).await.is_err() {
            return ShardShutdown::Lost;
        }
        // The renewer may have ended by another request.
        done.await.unwrap_or(ShardShutdown::Lost)
    }

    /// Gives the lease up although the processor may still be at work. The item stays as it is, and the lease expires.
    /// [`LeaseEnd::Lost`] then ends the ownership.
    pub(crate) fn abort(&self) {
        // Without a request, because a renewer that waits for an answer of the table serves none.
        self.state.aborted.store(true, Ordering::Relaxed);
        self.state.lost.cancel();
    }

    /// Returns a handle that does not keep the ownership alive.
    pub(crate) fn downgrade(&self) -> WeakHeldLease {
        WeakHeldLease { state: Arc::clone(&self.state), requests: self.requests.downgrade() }
    }

    /// Asks the renewer to start a handoff to `to`. Once it has started, [`handoff_requested`](Self::handoff_requested)
    /// is cancelled.
    pub(crate) fn start_handoff(&self, to: &str) {
        // If the queue is full, the next scan asks again.
        let _ = self.requests.try_send(Request::StartHandoff { to: to.to_owned() });
    }
}

/// A handle to a held lease that does not keep the ownership alive.
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
        self.state.known.lock().lease.counter
    }

    /// True if the consumer [aborted](HeldLease::abort) the ownership.
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
