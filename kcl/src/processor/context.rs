//! The shard of a processor, and the two ways to end: the shard's end, and a shutdown on request.

use bytes::Bytes;
use kinesis_aggregation::HashKeyRange;
use tokio_util::sync::CancellationToken;

use super::Checkpointer;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::lease::{FencingToken, HeldLease, Lease, WeakHeldLease};
use crate::shard_state::ShutdownReason;

/// The signals for this worker, or for a call of the processor, to give a shard up.
#[derive(Debug, Clone)]
pub(crate) struct StopSignals {
    /// The lease is lost.
    pub(super) lost: CancellationToken,
    /// Cancelled by a planned stop of the worker, or because the lease moves to another worker.
    pub(super) shutdown: CancellationToken,
}

impl StopSignals {
    pub(crate) fn new(held_lease: &HeldLease) -> Self {
        Self { lost: held_lease.lost(), shutdown: held_lease.shutdown_requested() }
    }

    /// Returns the signals for a call of the processor. User code that cancels one of them stops nothing else.
    pub(crate) fn for_call(&self) -> Self {
        Self { lost: self.lost.child_token(), shutdown: self.shutdown.child_token() }
    }

    /// Waits until the shard is to be given up. A lost lease takes precedence over a request.
    pub(crate) async fn raised(&self) -> ShutdownReason {
        tokio::select! {
            biased;
            () = self.lost.cancelled() => ShutdownReason::LeaseLost,
            () = self.shutdown.cancelled() => ShutdownReason::Requested,
        }
    }

    /// The reason for which the shard is to be given up now.
    pub(crate) fn now(&self) -> Option<ShutdownReason> {
        if self.lost.is_cancelled() {
            return Some(ShutdownReason::LeaseLost);
        }
        self.shutdown.is_cancelled().then_some(ShutdownReason::Requested)
    }
}

/// The shard of a processor.
#[derive(Debug, Clone)]
pub struct ShardContext {
    lease: Lease,
    pub(crate) held_lease: WeakHeldLease,
    tokens: StopSignals,
    application: String,
    stream: String,
    worker_id: String,
}

impl ShardContext {
    pub(crate) fn new(
        held_lease: &HeldLease,
        tokens: StopSignals,
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

    /// Id of the shard.
    pub fn shard_id(&self) -> &str {
        self.lease.shard_id()
    }

    /// Hash key range of the shard. `None` if the lease, of an old Java worker, does not hold it.
    pub fn hash_key_range(&self) -> Option<HashKeyRange> {
        self.lease.hash_key_range
    }

    /// Checkpoint at which processing starts.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.lease.checkpoint
    }

    /// Checkpoint that an earlier owner prepared and did not commit.
    pub fn pending_checkpoint(&self) -> Option<&Checkpoint> {
        self.lease.pending.as_ref().map(|pending| &pending.checkpoint)
    }

    /// State that an earlier owner stored with that checkpoint.
    pub fn pending_state(&self) -> Option<&Bytes> {
        self.lease.pending.as_ref()?.state.as_ref()
    }

    /// Token that rises with each owner of the shard. Use it in conditional writes to your own store, so that a former
    /// owner cannot overwrite the writes of a later one.
    pub fn fencing_token(&self) -> &FencingToken {
        self.held_lease.fencing_token()
    }

    /// Cancelled when this worker loses the lease of the shard, at any time. Then another worker may process the shard,
    /// and checkpoints fail.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.tokens.lost
    }

    /// Cancelled when the shard is to be given up on request, at any time: by a planned stop of the worker,
    /// or because the lease moves to another worker. This worker still holds the lease. See
    /// [`RecordBatch::shutdown_token`](crate::RecordBatch::shutdown_token).
    pub fn shutdown_token(&self) -> &CancellationToken {
        &self.tokens.shutdown
    }

    pub(super) fn tokens(&self) -> &StopSignals {
        &self.tokens
    }

    /// The error of a write to the lease after this worker has lost it.
    pub(super) fn lease_lost(&self) -> CheckpointError {
        CheckpointError::LeaseLost { shard_id: self.shard_id().to_owned() }
    }

    /// Name of the application.
    pub fn application(&self) -> &str {
        &self.application
    }

    /// Name or ARN of the stream, as given to the builder.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Id of this worker.
    pub fn worker_id(&self) -> &str {
        &self.worker_id
    }
}

/// The end of a shard.
#[derive(Debug, Clone, Copy)]
pub struct ShardEnd<'a> {
    checkpointer: &'a Checkpointer,
    tokens: &'a StopSignals,
}

impl<'a> ShardEnd<'a> {
    pub(crate) fn new(checkpointer: &'a Checkpointer, tokens: &'a StopSignals) -> Self {
        Self { checkpointer, tokens }
    }

    /// Checkpoints the end of the shard: writes `SHARD_END`, after which its children start.
    ///
    /// # Errors
    /// As [`Checkpointer::checkpoint`].
    ///
    /// # Cancel safety
    /// A call that is dropped may or may not have written. Call it again.
    pub async fn checkpoint(&self) -> Result<(), CheckpointError> {
        self.checkpointer.end_shard().await
    }

    /// Checkpointer of the shard, for checkpoints at records if finishing takes several steps.
    pub fn checkpointer(&self) -> &'a Checkpointer {
        self.checkpointer
    }

    /// Cancelled when the lease is lost while the call runs.
    pub fn cancellation(&self) -> &'a CancellationToken {
        &self.tokens.lost
    }

    /// Cancelled when the shard is to be given up on request while the call runs; see
    /// [`RecordBatch::shutdown_token`](crate::RecordBatch::shutdown_token). Return an error if the end cannot be
    /// checkpointed in time: the shard's next owner is asked for it again.
    pub fn shutdown_token(&self) -> &'a CancellationToken {
        &self.tokens.shutdown
    }
}

/// A planned stop, the move of the shard to another worker, or the end of a bounded replay.
#[derive(Debug, Clone, Copy)]
pub struct Shutdown<'a> {
    checkpointer: &'a Checkpointer,
    tokens: &'a StopSignals,
    reason: ShutdownReason,
}

impl<'a> Shutdown<'a> {
    pub(crate) fn new(
        checkpointer: &'a Checkpointer,
        tokens: &'a StopSignals,
        reason: ShutdownReason,
    ) -> Self {
        Self { checkpointer, tokens, reason }
    }

    /// Reason: [`Finished`](ShutdownReason::Finished) if all records up to [`until`](crate::ConsumerConfig::until) were
    /// delivered, otherwise [`Requested`](ShutdownReason::Requested).
    pub fn reason(&self) -> ShutdownReason {
        self.reason
    }

    /// Checkpointer of the shard. `checkpoint()` covers all batches that succeeded, but not a batch on which the
    /// processor failed.
    pub fn checkpointer(&self) -> &'a Checkpointer {
        self.checkpointer
    }

    /// Cancelled when the lease is lost while the call runs.
    pub fn cancellation(&self) -> &'a CancellationToken {
        &self.tokens.lost
    }
}
