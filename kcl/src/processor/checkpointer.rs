//! The checkpoints of a processor.

use std::sync::{Arc, MutexGuard};
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::record::Record;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::lease::{HeldLease, Retry};
use crate::progress::Progress;
use crate::sequence::{ExtendedSequenceNumber, SequenceNumber};

/// Writes checkpoints of one shard for as long as this worker owns its lease.
///
/// A checkpoint says that a record and all records before it are done. After a restart, or in another worker,
/// processing goes on after that record. A checkpoint has a sequence number and a sub-sequence number, so an aggregate
/// is not read again from its start. (The Java library's `checkpoint(Record)` omits the sub-sequence number.)
///
/// A checkpoint must not lie before the checkpoint in force, nor after the last record delivered. After the processor
/// failed on a batch, the records of the batch count as delivered again with its next attempt. The checkpoint in force
/// is not written again. Clones share their state and write one after the other.
///
/// A write that fails for a reason that may pass (a throttle, a timeout, an error of the service, a lost connection) is
/// tried again with backoff and jitter, as long as this worker is sure to own the lease. So a call waits for at most
/// the [`failover_time`](crate::ConsumerConfig::failover_time), and then fails with [`CheckpointError::LeaseLost`].
/// During a planned stop, it waits until shortly before the deadline of the stop, and then fails with the last error.
///
/// # Cancel safety
/// If a call is dropped, the checkpoint may or may not be written. Call again to be sure.
#[derive(Debug, Clone)]
pub struct Checkpointer {
    held_lease: HeldLease,
    /// One write at a time, so that a later checkpoint is never overwritten by an earlier one.
    turn: Arc<Semaphore>,
}

impl Checkpointer {
    pub(crate) fn new(held_lease: HeldLease) -> Self {
        Self { held_lease, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Checkpoints all records delivered so far. That includes the batch in hand, but not a batch that the processor
    /// failed on. If there is nothing new, nothing is written and the lease is not looked at.
    ///
    /// # Errors
    /// [`CheckpointError::LeaseLost`] if another worker owns the shard now, or the lease table did not answer until the
    /// lease expired: stop processing the shard. [`Throttled`](CheckpointError::Throttled) and
    /// [`Store`](CheckpointError::Store) if the lease table refused the write for good, or a planned stop ran out of
    /// time.
    pub async fn checkpoint(&self) -> Result<(), CheckpointError> {
        self.checkpoint_delivered(Retry::UntilDeadline).await
    }

    /// As [`checkpoint`](Self::checkpoint). `retry`: whether a failed write is tried again.
    pub(crate) async fn checkpoint_delivered(&self, retry: Retry) -> Result<(), CheckpointError> {
        let _turn = self.turn().await;
        let unwritten = self.progress().unwritten();
        match unwritten {
            Some(position) => self.write(Checkpoint::At(position), retry).await,
            None => Ok(()),
        }
    }

    /// Checkpoints `record` and all records before it.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint), and [`CheckpointError::OutOfRange`] if a later record was checkpointed
    /// already.
    pub async fn checkpoint_at(&self, record: &Record<'_>) -> Result<(), CheckpointError> {
        self.checkpoint_to(record.position()).await
    }

    /// Checkpoints the record at this position and all records before it.
    ///
    /// # Errors
    /// As [`checkpoint`](Self::checkpoint), and [`CheckpointError::OutOfRange`] if the position was not delivered yet or
    /// lies before the checkpoint.
    pub async fn checkpoint_at_position(
        &self,
        sequence_number: &SequenceNumber,
        sub_sequence_number: u64,
    ) -> Result<(), CheckpointError> {
        let position = ExtendedSequenceNumber::new(sequence_number.clone(), sub_sequence_number);
        self.checkpoint_to(position).await
    }

    /// Writes the first phase of a checkpoint of all records delivered so far. The position and `state` are stored beside
    /// the checkpoint in force. The `initialize` of the next owner gets them if
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

    /// As [`prepare`](Self::prepare), for `record` and all records before it.
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
            self.held_lease.prepare_checkpoint(pending, state, Retry::UntilDeadline).await?;
        }
        Ok(PreparedCheckpoint { checkpointer: self.clone(), position })
    }

    async fn checkpoint_to(&self, position: ExtendedSequenceNumber) -> Result<(), CheckpointError> {
        let _turn = self.turn().await;
        if !self.progress().admit(&position)? {
            return Ok(());
        }
        self.write(Checkpoint::At(position), Retry::UntilDeadline).await
    }

    /// Writes `SHARD_END`.
    pub(crate) async fn end_shard(&self) -> Result<(), CheckpointError> {
        let _turn = self.turn().await;
        if self.progress().has_ended() {
            return Ok(());
        }
        self.write(Checkpoint::ShardEnd, Retry::UntilDeadline).await
    }

    /// Moves the shard to another position: see [`HeldLease::move_to`].
    pub(crate) async fn move_to(
        &self,
        checkpoint: Checkpoint,
        time: Option<SystemTime>,
    ) -> Result<(), CheckpointError> {
        let _turn = self.turn().await;
        self.held_lease.move_to(checkpoint, time).await
    }

    async fn write(&self, checkpoint: Checkpoint, retry: Retry) -> Result<(), CheckpointError> {
        // The renewer notes the checkpoint in the shard's progress before it answers.
        self.held_lease.checkpoint(checkpoint, retry).await
    }

    pub(crate) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.held_lease.progress().lock()
    }

    async fn turn(&self) -> SemaphorePermit<'_> {
        self.turn.acquire().await.expect("the semaphore is never closed")
    }
}

/// A checkpoint whose second phase is still to be written.
#[derive(Debug)]
#[must_use = "the checkpoint is not in force before commit()"]
pub struct PreparedCheckpoint {
    checkpointer: Checkpointer,
    position: Option<ExtendedSequenceNumber>,
}

impl PreparedCheckpoint {
    /// The position of the checkpoint. `None` if it was checkpointed already.
    pub fn position(&self) -> Option<&ExtendedSequenceNumber> {
        self.position.as_ref()
    }

    /// Makes the position the checkpoint in force, and removes the pending one.
    ///
    /// # Errors
    /// As [`Checkpointer::checkpoint_at`].
    ///
    /// # Cancel safety
    /// If the call is dropped, the checkpoint may or may not be written.
    pub async fn commit(self) -> Result<(), CheckpointError> {
        match self.position {
            Some(position) => self.checkpointer.checkpoint_to(position).await,
            None => Ok(()),
        }
    }
}
