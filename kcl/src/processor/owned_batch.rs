//! Batches that outlive a call, with their acknowledgement, as a stream of batches yields them.

use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::batch::Records;
use super::offer::Answer;
use super::record::Record;
use super::user_records::UserRecords;
use super::{ShardContext, StopSignals};
use crate::checkpoint::CheckpointError;
use crate::error::ProcessorError;

/// User records of one shard, in order, from a [`BatchStream`](crate::BatchStream). It is never empty.
///
/// **Every batch must be acknowledged**: its shard yields the next batch after [`ack`](Self::ack). A batch that is
/// dropped without it, also by a panic, counts as [failed](Self::nack): its records come again.
///
/// The batch may be sent to other tasks. Its records count against
/// [`max_buffered_bytes`](crate::ConsumerConfig::max_buffered_bytes) until it is acknowledged, and longer if an
/// [`OwnedRecord`](crate::OwnedRecord) keeps them.
#[must_use = "a batch that is dropped without ack() is delivered again"]
pub struct OwnedBatch {
    pub(super) page: Arc<UserRecords>,
    pub(super) records: Box<[Range<usize>]>,
    pub(super) millis_behind_latest: Option<u64>,
    pub(super) attempt: u32,
    pub(super) shard: Arc<ShardContext>,
    pub(super) tokens: StopSignals,
    pub(super) answer: oneshot::Sender<Answer>,
}

impl OwnedBatch {
    /// The shard of the records. It has the shard's id and the [fencing token](ShardContext::fencing_token).
    pub fn shard(&self) -> &ShardContext {
        &self.shard
    }

    /// The records, in the order of the shard. [`Record::to_owned_record`] returns one that outlives the batch.
    pub fn records(&self) -> Records<'_> {
        Records::new(&self.page, &self.records)
    }

    /// The number of records, at least one.
    pub fn len(&self) -> usize {
        self.records().len()
    }

    /// Always false, because a batch without records is not delivered.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Time by which the end of this batch was behind the tip of the shard when it was read, to the millisecond. Zero
    /// at the tip. `None` if the service did not report it.
    pub fn millis_behind_latest(&self) -> Option<Duration> {
        self.millis_behind_latest.map(Duration::from_millis)
    }

    /// Number of this delivery of the batch: 1, and one more after each failure.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Cancelled when the lease of the shard is lost before the batch is acknowledged. Then another worker may process
    /// these records, and [`ack`](Self::ack) fails. Stop working on the batch and drop it soon: this worker does not
    /// take the shard again before that.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.tokens.lost
    }

    /// Cancelled when the shard is to be given up on request before the batch is acknowledged: by a planned stop of the
    /// worker, or because the lease moves to another worker.
    ///
    /// The batch can still be acknowledged until the deadline of the stop (25 s for a move to another worker). If it
    /// cannot be finished in time, drop it: its records go to the next owner of the shard, and it does not count as
    /// failed. At the deadline, the lease is lost, which cancels [`cancellation`](Self::cancellation), too.
    pub fn shutdown_token(&self) -> &CancellationToken {
        &self.tokens.shutdown
    }

    /// Acknowledges the batch: all of its records are done. The acknowledgement takes effect with the call, not with
    /// the first poll of the future. After it, the shard yields its next batch.
    ///
    /// The [`checkpoint`](crate::ConsumerConfig::checkpoint) setting decides when the checkpoint is written and what the
    /// future waits for:
    ///
    /// | setting | checkpoint | the future waits for |
    /// |---|---|---|
    /// | `Manual` | with this call, before the next batch | the write: after `Ok`, the batch never comes again |
    /// | `AfterBatch` | after this call, before the next batch | the worker, which has noted the batch as done |
    /// | `Interval` | at least once per interval | the worker, which has noted the batch as done |
    ///
    /// # Errors
    /// [`CheckpointError::LeaseLost`] if this worker does not hold the lease of the shard any more, or has ended: the
    /// records are delivered again by their next owner. With `Manual` also [`Throttled`](CheckpointError::Throttled)
    /// and [`Store`](CheckpointError::Store), as [`Checkpointer::checkpoint`](crate::Checkpointer::checkpoint) returns
    /// them: the batch then comes again, here or in another worker.
    ///
    /// # Cancel safety
    /// Dropping the future does not take the acknowledgement back. Only its result is lost.
    pub fn ack(self) -> impl Future<Output = Result<(), CheckpointError>> + Send + 'static {
        let Self { page, shard, answer, .. } = self;
        // Before the acknowledgement, so that the memory is free when the shard yields its next batch.
        drop(page);
        let (reply, outcome) = oneshot::channel();
        // If the processor is gone, the reply is dropped, which `outcome` reports.
        let _ = answer.send(Answer::Done(reply));
        async move { outcome.await.unwrap_or_else(|_| Err(shard.lease_lost())) }
    }

    /// Reports that the batch failed. It is delivered again after a pause, as a processor's batch that returned an
    /// error, with [`attempt`](Self::attempt) one higher. The error appears in logs, snapshots and health.
    ///
    /// The pauses are [`retry_initial_delay`](crate::ConsumerConfig::retry_initial_delay) and
    /// [`retry_max_delay`](crate::ConsumerConfig::retry_max_delay). After a planned stop or the loss of the lease, the
    /// failure does not count, and the records go to the next owner of the shard.
    pub fn nack(self, error: impl Into<ProcessorError>) {
        // If the processor is gone, the records are delivered again anyway.
        let _ = self.answer.send(Answer::Failed(error.into()));
    }
}

impl fmt::Debug for OwnedBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedBatch")
            .field("shard_id", &self.shard.shard_id())
            .field("records", &self.records)
            .field("millis_behind_latest", &self.millis_behind_latest)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl<'a> IntoIterator for &'a OwnedBatch {
    type Item = Record<'a>;
    type IntoIter = Records<'a>;

    fn into_iter(self) -> Records<'a> {
        self.records()
    }
}
