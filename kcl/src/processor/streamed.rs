//! The record processor behind a stream of batches: it offers each batch to the stream, and waits for its
//! acknowledgement.

use std::sync::Arc;

use kinesis_common::sync::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::owned_batch::{Answer, OwnedBatch};
use super::{
    ProcessorFactory, RecordBatch, RecordProcessor, ShardContext, ShardEnd, Shutdown, StopSignals,
};
use crate::checkpoint::CheckpointError;
use crate::config::CheckpointPolicy;
use crate::error::ProcessorError;

const NOT_TAKEN: &str = "the shard is given up, and the batch was not taken from the stream";
const NOT_ACKNOWLEDGED: &str = "the batch was dropped without an acknowledgement";
const STREAM_DROPPED: &str = "the stream of batches was dropped";

/// Creates the processors of a stream of batches, and the receiver of what they offer.
///
/// The channel holds one offer. Each shard offers one batch at a time, and the shards wait for the channel in the order
/// in which they came, so a busy shard does not keep others from the stream.
pub(crate) fn streamed(policy: CheckpointPolicy) -> (StreamFactory, mpsc::Receiver<Offer>) {
    let (offers, receiver) = mpsc::channel(1);
    (StreamFactory { offers, writes: policy == CheckpointPolicy::Manual }, receiver)
}

/// A batch on its way to the stream. Its processor takes it back if the shard is given up before the stream takes it.
#[derive(Debug, Clone)]
pub(crate) struct Offer(Arc<Mutex<Option<OwnedBatch>>>);

impl Offer {
    /// Takes the batch for the application. `None`: its shard was given up meanwhile.
    pub(crate) fn take(&self) -> Option<OwnedBatch> {
        let batch = self.0.lock().take()?;
        // The processor may not have noticed yet. If so, it sees that the batch is dropped.
        let is_current = batch.tokens.now().is_none() && batch.shard.held_lease.state.is_held();
        is_current.then_some(batch)
    }

    /// Takes the batch back. Returns false if the application has it.
    fn withdraw(&self) -> bool {
        self.0.lock().take().is_some()
    }
}

pub(crate) struct StreamFactory {
    offers: mpsc::Sender<Offer>,
    writes: bool,
}

impl ProcessorFactory for StreamFactory {
    type Processor = StreamProcessor;

    fn create(&self, shard: &ShardContext) -> StreamProcessor {
        StreamProcessor {
            shard: Arc::new(shard.clone()),
            offers: self.offers.clone(),
            writes: self.writes,
        }
    }
}

/// Offers the batches of one shard.
pub(crate) struct StreamProcessor {
    shard: Arc<ShardContext>,
    offers: mpsc::Sender<Offer>,
    /// True if it writes a checkpoint with each acknowledgement. Otherwise the library does.
    writes: bool,
}

impl RecordProcessor for StreamProcessor {
    /// Returns when the application has acknowledged the batch, has reported its failure, or has dropped it. If the
    /// shard is given up before the application has the batch, it returns at once.
    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        let tokens = batch.tokens();
        let (answer, answered) = oneshot::channel();
        let mut delivery = Delivery::new(batch.to_owned_batch(&self.shard, answer), answered);
        tokio::select! {
            biased;
            _ = tokens.raised() => return Err(NOT_TAKEN.into()),
            sent = self.offers.send(delivery.offer.clone()) => if sent.is_err() {
                return Err(stream_dropped(tokens).await);
            },
        }
        match delivery.answer(tokens).await? {
            Some(Answer::Done(reply)) => {
                let outcome = self.acknowledge(&batch).await;
                let result = outcome.clone().map_err(ProcessorError::from);
                // The application may not wait for the outcome.
                let _ = reply.send(outcome);
                result
            }
            Some(Answer::Failed(error)) => Err(error),
            // Batches that the stream had not yielded are dropped with it. They have not failed.
            None if self.offers.is_closed() => Err(stream_dropped(tokens).await),
            None => Err(NOT_ACKNOWLEDGED.into()),
        }
    }

    /// All batches are acknowledged, so the end needs no consent of the application.
    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(end.checkpoint().await?)
    }

    /// Each acknowledgement was checkpointed, or the library does it.
    async fn shutdown_requested(&mut self, _: Shutdown<'_>) -> Result<(), ProcessorError> {
        Ok(())
    }
}

impl StreamProcessor {
    async fn acknowledge(&self, batch: &RecordBatch<'_>) -> Result<(), CheckpointError> {
        if !self.shard.held_lease.state.is_held() {
            return Err(self.shard.lease_lost());
        }
        if self.writes {
            batch.checkpointer().checkpoint().await?;
        }
        Ok(())
    }
}

/// Waits for the planned stop that the drop of the stream has requested, so that its batches do not count as failed.
async fn stream_dropped(tokens: &StopSignals) -> ProcessorError {
    tokens.raised().await;
    STREAM_DROPPED.into()
}

/// A batch from its offer to its answer. If it is dropped before the answer, its processor was aborted: the batch is
/// withdrawn, or cancelled if the application has it.
struct Delivery {
    offer: Offer,
    answered: oneshot::Receiver<Answer>,
    tokens: StopSignals,
    is_over: bool,
}

impl Delivery {
    fn new(batch: OwnedBatch, answered: oneshot::Receiver<Answer>) -> Self {
        let tokens = batch.tokens.clone();
        Self { offer: Offer(Arc::new(Mutex::new(Some(batch)))), answered, tokens, is_over: false }
    }

    /// Waits for the answer. `None`: the batch was dropped.
    ///
    /// # Errors
    /// The shard is to be given up, and the batch was withdrawn.
    async fn answer(&mut self, signals: &StopSignals) -> Result<Option<Answer>, ProcessorError> {
        let answer = tokio::select! {
            biased;
            answer = &mut self.answered => answer,
            _ = signals.raised() => {
                if self.offer.withdraw() {
                    return Err(NOT_TAKEN.into());
                }
                // The application has the batch until it answers. The deadline of the stop ends the wait.
                (&mut self.answered).await
            }
        };
        self.is_over = true;
        Ok(answer.ok())
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.is_over && !self.offer.withdraw() {
            self.tokens.lost.cancel();
        }
    }
}

#[cfg(all(test, feature = "testing"))]
mod tests;
