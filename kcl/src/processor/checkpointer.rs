//! Checkpoints, as a processor writes them.

use std::fmt;
use std::sync::{Arc, MutexGuard};

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::batch::Record;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::lease::{HeldLease, Retry};
use crate::progress::Progress;
use crate::sequence::{ExtendedSequenceNumber, SequenceNumber};

/// Writes checkpoints of one shard for as long as this worker owns its lease.
///
/// A checkpoint says that a record and all before it are done: after a restart, or in another
/// worker, processing goes on behind it. It is always a sequence *and* a sub-sequence number, so an
/// aggregate is not read again from its start (the Java library's `checkpoint(Record)` forgets the
/// latter).
///
/// A checkpoint must not be before the checkpoint in force, nor after the last record delivered. Records of a batch that
/// the processor failed on count as delivered again only with its next attempt. The checkpoint in force is not written
/// again. Clones share their state and write one after the other.
///
/// A write that fails for a reason that may pass (a throttle, a timeout, an error of the service, a lost
/// connection) is tried again, with backoff and jitter, for as long as this worker can be sure to own the
/// lease: a call waits for at most the [`failover_time`](crate::ConsumerConfig::failover_time), and then
/// fails with [`CheckpointError::LeaseLost`]. During a planned stop it waits until shortly before the
/// stop's deadline, and then fails with the last error.
///
/// # Cancel safety
/// A call that is dropped may or may not have written, and is not tried again; call again to be sure.
#[derive(Clone)]
pub struct Checkpointer {
    inner: Arc<Inner>,
}

struct Inner {
    held_lease: HeldLease,
    /// One write at a time, so that a later checkpoint is never overwritten by an earlier one.
    turn: Semaphore,
}

impl Checkpointer {
    pub(crate) fn new(held_lease: HeldLease) -> Self {
        Self { inner: Arc::new(Inner { held_lease, turn: Semaphore::new(1) }) }
    }

    /// Checkpoints all that was delivered so far: the batch in hand included, a batch that the
    /// processor failed on not. Nothing is written when there is nothing new.
    ///
    /// # Errors
    /// [`CheckpointError::LeaseLost`] when the shard is another worker's now, or the lease table did not
    /// answer until the lease expired: stop. `Throttled` and `Store` when the lease table refused the
    /// write for good, or a planned stop ran out of time.
    pub async fn checkpoint(&self) -> Result<(), CheckpointError> {
        self.write_all(Retry::UntilDeadline).await
    }

    /// As [`checkpoint`](Self::checkpoint), with one attempt, for a caller that comes again.
    pub(crate) async fn try_checkpoint(&self) -> Result<(), CheckpointError> {
        self.write_all(Retry::Never).await
    }

    async fn write_all(&self, retry: Retry) -> Result<(), CheckpointError> {
        let _turn = self.turn().await;
        let unwritten = self.progress().unwritten();
        match unwritten {
            Some(position) => self.write(Checkpoint::At(position), retry).await,
            None => Ok(()),
        }
    }

    /// Checkpoints `record` and all before it.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint), and [`CheckpointError::OutOfRange`] when a later record
    /// was checkpointed already.
    pub async fn checkpoint_at(&self, record: &Record<'_>) -> Result<(), CheckpointError> {
        self.checkpoint_to(record.position()).await
    }

    /// Checkpoints the record at this position and all before it.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint), and [`CheckpointError::OutOfRange`] when the position
    /// was not delivered yet or lies before the checkpoint.
    pub async fn checkpoint_at_position(
        &self,
        sequence_number: &SequenceNumber,
        sub_sequence_number: u64,
    ) -> Result<(), CheckpointError> {
        let position = ExtendedSequenceNumber::new(sequence_number.clone(), sub_sequence_number);
        self.checkpoint_to(position).await
    }

    /// First phase of a checkpoint of all that was delivered so far: the position and `state` are
    /// stored beside the checkpoint in force, and handed to the next owner's `initialize` if
    /// [`commit`](PreparedCheckpoint::commit) does not follow.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint).
    pub async fn prepare(
        &self,
        state: Option<Bytes>,
    ) -> Result<PreparedCheckpoint, CheckpointError> {
        let _turn = self.turn().await;
        let unwritten = self.progress().unwritten();
        self.prepare_to(unwritten, state).await
    }

    /// As [`prepare`](Self::prepare), for `record` and all before it.
    ///
    /// # Errors
    /// As [`checkpoint_at`](Self::checkpoint_at).
    pub async fn prepare_at(
        &self,
        record: &Record<'_>,
        state: Option<Bytes>,
    ) -> Result<PreparedCheckpoint, CheckpointError> {
        let _turn = self.turn().await;
        let position = record.position();
        let new = self.progress().admit(&position)?;
        self.prepare_to(new.then_some(position), state).await
    }

    async fn prepare_to(
        &self,
        position: Option<ExtendedSequenceNumber>,
        state: Option<Bytes>,
    ) -> Result<PreparedCheckpoint, CheckpointError> {
        if let Some(position) = &position {
            let pending = Checkpoint::At(position.clone());
            let retry = Retry::UntilDeadline;
            let held_lease = &self.inner.held_lease;
            held_lease.prepare_checkpoint(pending, state, retry).await?;
        }
        Ok(PreparedCheckpoint { checkpointer: self.clone(), position })
    }

    async fn checkpoint_to(&self, position: ExtendedSequenceNumber) -> Result<(), CheckpointError> {
        let _turn = self.turn().await;
        let new = self.progress().admit(&position)?;
        if new {
            let checkpoint = Checkpoint::At(position);
            self.write(checkpoint, Retry::UntilDeadline).await
        } else {
            Ok(())
        }
    }

    /// Writes `SHARD_END`.
    pub(crate) async fn end_shard(&self) -> Result<(), CheckpointError> {
        let _turn = self.turn().await;
        if self.progress().has_ended() {
            return Ok(());
        }
        self.write(Checkpoint::ShardEnd, Retry::UntilDeadline).await
    }

    async fn write(&self, checkpoint: Checkpoint, retry: Retry) -> Result<(), CheckpointError> {
        // The renewer notes it in the shard's progress before it answers.
        self.inner.held_lease.checkpoint(checkpoint, retry).await
    }

    /// How far the shard is.
    pub(crate) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.inner.held_lease.progress().lock()
    }

    async fn turn(&self) -> SemaphorePermit<'_> {
        self.inner.turn.acquire().await.expect("the semaphore is never closed")
    }
}

impl fmt::Debug for Checkpointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpointer")
            .field("shard_id", &self.inner.held_lease.shard_id())
            .finish_non_exhaustive()
    }
}

/// The second phase of a checkpoint.
#[derive(Debug)]
#[must_use = "the checkpoint is not in force before commit()"]
pub struct PreparedCheckpoint {
    checkpointer: Checkpointer,
    position: Option<ExtendedSequenceNumber>,
}

impl PreparedCheckpoint {
    /// Where it will be; `None` if that was checkpointed already.
    pub fn position(&self) -> Option<&ExtendedSequenceNumber> {
        self.position.as_ref()
    }

    /// Makes it the checkpoint, and removes the pending one.
    ///
    /// # Errors
    /// As [`Checkpointer::checkpoint_at`].
    ///
    /// # Cancel safety
    /// A call that is dropped may or may not have written.
    pub async fn commit(self) -> Result<(), CheckpointError> {
        match self.position {
            Some(position) => self.checkpointer.checkpoint_to(position).await,
            None => Ok(()),
        }
    }
}
