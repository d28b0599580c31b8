//! The life of a handler on one shard, as the consumer's calls of its processor.

use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};

use super::in_flight::InFlight;
use crate::error::ProcessorError;
use crate::lease::Retry;
use crate::processor::{Call, ErasedProcessor, Shutdown};

/// Time between two checkpoints while the handlers at work finish.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// Runs a handler on the records of one shard. Its handlers are dropped with it.
pub(super) struct HandlerProcessor(pub(super) Arc<InFlight>);

impl ErasedProcessor for HandlerProcessor {
    fn call<'a>(&'a mut self, call: Call<'a>) -> BoxFuture<'a, Result<(), ProcessorError>> {
        let in_flight = &self.0;
        async move {
            match call {
                // At the end of the shard, all of its records are done. The library checkpoints the end.
                Call::Initialize(_) | Call::ShardEnded(_) => Ok(()),
                Call::ProcessRecords(_) => unreachable!("the consumer admits the records itself"),
                Call::LeaseLost => {
                    in_flight.abort().await;
                    Ok(())
                }
                Call::ShutdownRequested(shutdown) => finish(in_flight, shutdown).await,
            }
        }
        .boxed()
    }

    fn in_flight(&self) -> Option<Arc<InFlight>> {
        Some(Arc::clone(&self.0))
    }
}

/// Waits for the handlers at work. The library then checkpoints the mark.
///
/// # Errors
/// The lease is lost.
async fn finish(in_flight: &Arc<InFlight>, shutdown: Shutdown<'_>) -> Result<(), ProcessorError> {
    let mut finished = std::pin::pin!(in_flight.finish_begun());
    loop {
        tokio::select! {
            biased;
            () = &mut finished => return Ok(()),
            () = shutdown.cancellation().cancelled() => {
                return Err("the lease was lost before all handlers had returned".into());
            }
            // A handler that does not return before the deadline is aborted, without a last checkpoint.
            () = tokio::time::sleep(CHECKPOINT_EVERY) => {
                let written = shutdown.checkpointer().checkpoint_delivered(Retry::Never).await;
                if let Err(error) = written {
                    tracing::debug!(%error, "a checkpoint during the stop was not written; the next one covers it");
                }
            }
        }
    }
}

impl Drop for HandlerProcessor {
    fn drop(&mut self) {
        self.0.drop_handlers();
    }
}
