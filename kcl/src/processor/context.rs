//! What a processor is given beside records: its shard, and the two ways to end.

use std::fmt;

use bytes::Bytes;
use kinesis_aggregation::HashKeyRange;
use tokio_util::sync::CancellationToken;

use super::Checkpointer;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::lease::{FencingToken, HeldLease, Lease, WeakHeldLease};
use crate::shard_state::ShutdownReason;

/// The signals that reach a call of the processor while it runs.
#[derive(Debug, Clone)]
pub(crate) struct CallTokens {
    /// The lease is lost.
    pub(crate) lost: CancellationToken,
    /// The shard is to be given up on request.
    pub(crate) shutdown: CancellationToken,
}

/// What tells this worker to give a shard up.
pub(crate) struct StopSignals {
    lost: CancellationToken,
    /// Cancelled by a planned stop of the worker, or because the lease moves to another worker.
    shutdown: CancellationToken,
}

impl StopSignals {
    pub(crate) fn new(held_lease: &HeldLease) -> Self {
        Self { lost: held_lease.lost(), shutdown: held_lease.shutdown_requested() }
    }

    /// What a call of the processor is given. User code that cancels one of these tokens stops nothing
    /// else.
    pub(crate) fn for_call(&self) -> CallTokens {
        CallTokens { lost: self.lost.child_token(), shutdown: self.shutdown.child_token() }
    }

    /// Waits until the shard is to be given up. A lost lease comes before a request.
    pub(crate) async fn raised(&self) -> ShutdownReason {
        tokio::select! {
            biased;
            () = self.lost.cancelled() => ShutdownReason::LeaseLost,
            () = self.shutdown.cancelled() => ShutdownReason::Requested,
        }
    }

    /// Why the shard is to be given up, if it is.
    pub(crate) fn now(&self) -> Option<ShutdownReason> {
        if self.lost.is_cancelled() {
            return Some(ShutdownReason::LeaseLost);
        }
        self.shutdown.is_cancelled().then_some(ShutdownReason::Requested)
    }
}

/// The shard that a processor is made for.
#[derive(Debug, Clone)]
pub struct ShardContext {
    lease: Lease,
    pub(crate) held_lease: WeakHeldLease,
    tokens: CallTokens,
    application: String,
    stream: String,
    worker_id: String,
}

impl ShardContext {
    pub(crate) fn new(
        held_lease: &HeldLease,
        tokens: CallTokens,
        application: &str,
        stream: &str,
        worker_id: &str,
    ) -> Self {
        Self {
            lease: held_lease.lease(),
            held_lease: held_lease.downgrade(),
            tokens,
            application: application.to_owned(),
            stream: stream.to_owned(),
            worker_id: worker_id.to_owned(),
        }
    }

    /// The shard's id.
    pub fn shard_id(&self) -> &str {
        self.lease.shard_id()
    }

    /// Its hash keys; `None` if the lease (of an old Java worker) does not say.
    pub fn hash_key_range(&self) -> Option<HashKeyRange> {
        self.lease.hash_key_range
    }

    /// Where processing starts.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.lease.checkpoint
    }

    /// A checkpoint that an earlier owner prepared and did not commit.
    pub fn pending_checkpoint(&self) -> Option<&Checkpoint> {
        self.lease.pending.as_ref().map(|pending| &pending.checkpoint)
    }

    /// The state that an earlier owner stored with that checkpoint.
    pub fn pending_state(&self) -> Option<&Bytes> {
        self.lease.pending.as_ref()?.state.as_ref()
    }

    /// Tells owners of this shard apart, in order: pass it to your own store's conditional writes,
    /// so that a former owner cannot overwrite a later one's.
    pub fn fencing_token(&self) -> &FencingToken {
        self.held_lease.fencing_token()
    }

    /// Cancelled when this worker loses the lease of the shard, at any time: another worker may process
    /// it, and checkpoints fail from now on.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.tokens.lost
    }

    /// Cancelled when the shard is to be given up on request, at any time: by a planned stop of the worker,
    /// or because the lease moves to another worker. The lease is still this worker's. See
    /// [`RecordBatch::shutdown_token`](crate::RecordBatch::shutdown_token).
    pub fn shutdown_token(&self) -> &CancellationToken {
        &self.tokens.shutdown
    }

    /// The application's name.
    pub fn application(&self) -> &str {
        &self.application
    }

    /// The stream, as it was given to the builder.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// This worker.
    pub fn worker_id(&self) -> &str {
        &self.worker_id
    }
}

/// The end of a shard.
#[derive(Clone, Copy)]
pub struct ShardEnd<'a> {
    checkpointer: &'a Checkpointer,
    tokens: &'a CallTokens,
}

impl<'a> ShardEnd<'a> {
    pub(crate) fn new(checkpointer: &'a Checkpointer, tokens: &'a CallTokens) -> Self {
        Self { checkpointer, tokens }
    }

    /// Says that the whole shard is done: writes `SHARD_END`, after which its children start.
    ///
    /// # Errors
    /// As [`Checkpointer::checkpoint`].
    ///
    /// # Cancel safety
    /// A call that is dropped may or may not have written; call again.
    pub async fn checkpoint(&self) -> Result<(), CheckpointError> {
        self.checkpointer.end_shard().await
    }

    /// For checkpoints at records, when finishing takes several steps.
    pub fn checkpointer(&self) -> &'a Checkpointer {
        self.checkpointer
    }

    /// Cancelled when the lease is lost while the call runs.
    pub fn cancellation(&self) -> &'a CancellationToken {
        &self.tokens.lost
    }

    /// Cancelled when the shard is to be given up on request while the call runs; see
    /// [`RecordBatch::shutdown_token`](crate::RecordBatch::shutdown_token). Return an error if the end cannot be checkpointed in time: the
    /// shard's next owner is asked for it again.
    pub fn shutdown_token(&self) -> &'a CancellationToken {
        &self.tokens.shutdown
    }
}

impl fmt::Debug for ShardEnd<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardEnd").finish_non_exhaustive()
    }
}

/// A planned stop, or the move of the shard to another worker.
#[derive(Clone, Copy)]
pub struct Shutdown<'a> {
    checkpointer: &'a Checkpointer,
    tokens: &'a CallTokens,
}

impl<'a> Shutdown<'a> {
    pub(crate) fn new(checkpointer: &'a Checkpointer, tokens: &'a CallTokens) -> Self {
        Self { checkpointer, tokens }
    }

    /// Writes the last checkpoints. `checkpoint()` covers all batches that succeeded; not one that
    /// the processor failed on.
    pub fn checkpointer(&self) -> &'a Checkpointer {
        self.checkpointer
    }

    /// Cancelled when the lease is lost while the call runs.
    pub fn cancellation(&self) -> &'a CancellationToken {
        &self.tokens.lost
    }
}

impl fmt::Debug for Shutdown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").finish_non_exhaustive()
    }
}
