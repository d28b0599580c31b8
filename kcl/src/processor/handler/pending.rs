//! Records that a stream yields one by one: the handler of such a stream offers each record, and waits for its
//! acknowledgement.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;

use futures::FutureExt as _;
use tokio::sync::{mpsc, oneshot};

use super::HandleRecord;
use super::record::ShardRecord;
use crate::checkpoint::CheckpointError;
use crate::error::ProcessorError;
use crate::processor::offer::{Answer, Delivery, Offer, Offered};

/// Offers that wait in the channel, of all shards. With some of them, the stream yields record after record without a
/// switch of tasks for each.
const OFFERS: usize = 64;

/// A record from a [`RecordStream`](crate::RecordStream), which is to be acknowledged.
///
/// **Every record must be acknowledged**: the stream yields the next record of its partition key after
/// [`ack`](Self::ack), and the checkpoint waits for it. A record that is dropped without it, also by a panic, counts as
/// [failed](Self::nack): it comes again.
///
/// It may be sent to other tasks. Data, key and shard are those of the [`ShardRecord`] inside.
#[must_use = "a record that is dropped without ack() is delivered again"]
pub struct PendingRecord {
    record: ShardRecord,
    answer: oneshot::Sender<Answer>,
}

impl PendingRecord {
    /// Acknowledges the record: it is done. The acknowledgement takes effect with the call, not with the first poll of the
    /// future, which waits until the worker has noted it.
    ///
    /// A checkpoint covers the record when all records before it are acknowledged, too. It is written as for a
    /// [handler](crate::SchedulerBuilder::handler).
    ///
    /// # Errors
    /// [`CheckpointError::LeaseLost`] if this worker does not hold the lease of the shard any more, or has ended: the
    /// record is delivered again by its next owner.
    ///
    /// # Cancel safety
    /// Dropping the future does not take the acknowledgement back. Only its result is lost.
    pub fn ack(self) -> impl Future<Output = Result<(), CheckpointError>> + Send + 'static {
        let Self { record, answer } = self;
        let shard = Arc::clone(&record.shard);
        // Before the acknowledgement, so that the memory is free when the next record comes.
        drop(record);
        let (reply, outcome) = oneshot::channel();
        // If the worker has given the shard up, the reply is dropped, which `outcome` reports.
        let _ = answer.send(Answer::Done(reply));
        async move { outcome.await.unwrap_or_else(|_| Err(shard.lease_lost())) }
    }

    /// Reports that the record failed. It comes again after a pause, as one whose handler returned an error, with
    /// [`attempt`](ShardRecord::attempt) one higher. Meanwhile its partition key waits. The error appears in logs,
    /// snapshots and health.
    ///
    /// After a planned stop or the loss of the lease, the failure does not count, and the record goes to the next owner of
    /// the shard.
    pub fn nack(self, error: impl Into<ProcessorError>) {
        // If the worker has given the shard up, the record is delivered again anyway.
        let _ = self.answer.send(Answer::Failed(error.into()));
    }
}

impl Deref for PendingRecord {
    type Target = ShardRecord;

    fn deref(&self) -> &ShardRecord {
        &self.record
    }
}

impl fmt::Debug for PendingRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PendingRecord").field(&self.record).finish()
    }
}

impl Offered for PendingRecord {
    fn is_current(&self) -> bool {
        let shard = &self.record.shard;
        shard.tokens().now().is_none() && shard.held_lease.state.is_held()
    }
}

/// The handler of a stream of records, and the receiver of what it offers.
pub(crate) fn streamed_records() -> (Arc<HandleRecord>, mpsc::Receiver<Offer<PendingRecord>>) {
    let (offers, receiver) = mpsc::channel(OFFERS);
    let handler = move |record| offer(offers.clone(), record).boxed();
    (Arc::new(handler), receiver)
}

/// Offers a record, and returns when it is acknowledged.
async fn offer(
    offers: mpsc::Sender<Offer<PendingRecord>>,
    record: ShardRecord,
) -> Result<(), ProcessorError> {
    let shard = Arc::clone(&record.shard);
    let (answer, answered) = oneshot::channel();
    // The token of the shard is cancelled when its handlers are dropped.
    let cancel = shard.cancellation().child_token();
    let mut delivery = Delivery::new(PendingRecord { record, answer }, answered, cancel);
    let reply = delivery.acknowledged(&offers, shard.tokens()).await?;
    let held = shard.held_lease.state.is_held();
    let outcome = if held { Ok(()) } else { Err(shard.lease_lost()) };
    let result = outcome.clone().map_err(ProcessorError::from);
    // The application may not wait for the outcome.
    let _ = reply.send(outcome);
    result
}
