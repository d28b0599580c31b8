//! The record processor behind a stream of batches: it offers each batch to the stream, and waits for its
//! acknowledgement.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::offer::{Delivery, Offer, Offered};
use super::owned_batch::OwnedBatch;
use super::{ProcessorFactory, RecordBatch, RecordProcessor, ShardContext, ShardEnd, Shutdown};
use crate::checkpoint::CheckpointError;
use crate::config::CheckpointPolicy;
use crate::error::ProcessorError;

/// Creates the processors of a stream of batches, and the receiver of what they offer.
///
/// The channel holds one offer. Each shard offers one batch at a time, and the shards wait for the channel in the order
/// in which they came, so a busy shard does not keep others from the stream.
pub(crate) fn streamed(
    policy: CheckpointPolicy,
) -> (StreamFactory, mpsc::Receiver<Offer<OwnedBatch>>) {
    let (offers, receiver) = mpsc::channel(1);
    (StreamFactory { offers, writes: policy == CheckpointPolicy::Manual }, receiver)
}

impl Offered for OwnedBatch {
    fn is_current(&self) -> bool {
        self.tokens.now().is_none() && self.shard.held_lease.state.is_held()
    }
}

pub(crate) struct StreamFactory {
    offers: mpsc::Sender<Offer<OwnedBatch>>,
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
    offers: mpsc::Sender<Offer<OwnedBatch>>,
    /// True if it writes a checkpoint with each acknowledgement. Otherwise the library does.
    writes: bool,
}

impl RecordProcessor for StreamProcessor {
    /// Returns when the application has acknowledged the batch, has reported its failure, or has dropped it. If the
    /// shard is given up before the application has the batch, it returns at once.
    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        let (answer, answered) = oneshot::channel();
        let owned = batch.to_owned_batch(&self.shard, answer);
        let cancel = owned.tokens.lost.clone();
        let mut delivery = Delivery::new(owned, answered, cancel);
        let reply = delivery.acknowledged(&self.offers, batch.tokens()).await?;
        let outcome = self.acknowledge(&batch).await;
        let result = outcome.clone().map_err(ProcessorError::from);
        // The application may not wait for the outcome.
        let _ = reply.send(outcome);
        result
    }

    /// All batches are acknowledged, so the end needs no consent of the application.
    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(end.checkpoint().await?)
    }

    /// Each acknowledgement was checkpointed. Records that were given up after the last one are not. Otherwise the library
    /// checkpoints.
    async fn shutdown_requested(&mut self, last: Shutdown<'_>) -> Result<(), ProcessorError> {
        if self.writes {
            last.checkpointer().checkpoint().await?;
        }
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

#[cfg(all(test, feature = "testing"))]
mod tests;
