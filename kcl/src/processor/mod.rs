//! What the user implements, and what it is told.

mod batch;
mod checkpointer;
mod context;

use std::future::Future;

use futures::FutureExt;
use futures::future::BoxFuture;

pub(crate) use self::batch::{Batch, Content, Entry, Kept};
pub use self::batch::{Record, RecordBatch, Records};
pub use self::checkpointer::{Checkpointer, PreparedCheckpoint};
pub(crate) use self::context::{CallTokens, StopSignals};
pub use self::context::{ShardContext, ShardEnd, Shutdown};
use crate::error::ProcessorError;

/// Processes the records of one shard.
///
/// There is one instance per shard that this worker owns, made by a [`ProcessorFactory`]; its calls
/// come strictly one after the other. Records of one partition key reach one processor in order,
/// across splits and merges too: a child shard starts when its parents have ended. They come at
/// least once: after a crash, from the last checkpoint on.
///
/// Implement it with plain `async fn`:
///
/// ```
/// use kcl::{ProcessorError, RecordBatch, RecordProcessor, ShardEnd, Shutdown};
///
/// struct Printer;
///
/// impl RecordProcessor for Printer {
///     async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
///         for record in batch.records() {
///             println!("{:?}: {} bytes", record.partition_key(), record.data().len());
///         }
///         batch.checkpointer().checkpoint().await?;
///         Ok(())
///     }
///
///     async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
///         end.checkpoint().await?;
///         Ok(())
///     }
///
///     async fn shutdown_requested(&mut self, last: Shutdown<'_>) -> Result<(), ProcessorError> {
///         last.checkpointer().checkpoint().await?;
///         Ok(())
///     }
/// }
/// ```
///
/// # Failures
/// An error or a panic never skips anything: the same call is made again, on the same instance, with
/// exponential backoff, until it succeeds or the shard is given up. (The Java library logs the
/// exception and goes on with the next batch.)
pub trait RecordProcessor: Send + 'static {
    /// Called once before anything else. Repeated until it succeeds. Default: nothing.
    ///
    /// A call that may take long watches [`shard.shutdown_token()`](ShardContext::shutdown_token) and
    /// [`shard.cancellation()`](ShardContext::cancellation), and returns an error when one of them is
    /// cancelled: a planned stop waits for the call. If it is under way at the deadline of the stop, it is
    /// aborted, and the lease left to expire.
    ///
    /// # Errors
    /// What it returns is logged and the call repeated. An error that is returned after one of the two
    /// tokens was cancelled ends the processor and counts as no failure.
    fn initialize(
        &mut self,
        shard: &ShardContext,
    ) -> impl Future<Output = Result<(), ProcessorError>> + Send {
        let _ = shard;
        async { Ok(()) }
    }

    /// Processes a batch. `Ok` says that the library may forget it; under
    /// [`CheckpointPolicy::Manual`](crate::CheckpointPolicy::Manual) nothing is checkpointed for the
    /// processor.
    ///
    /// When the lease is lost meanwhile, `batch.cancellation()` tells and checkpoints fail. The
    /// library waits for the call to return and delivers nothing more. `batch.shutdown_token()` tells of
    /// a planned stop, at which checkpoints still work.
    ///
    /// # Errors
    /// What it returns is logged, and the batch delivered again after a pause, without the records that
    /// were checkpointed meanwhile. If all of them were, the batch is done. An error that is returned
    /// after one of the two tokens was cancelled ends the delivery and counts as no failure.
    fn process_records(
        &mut self,
        batch: RecordBatch<'_>,
    ) -> impl Future<Output = Result<(), ProcessorError>> + Send;

    /// All records of the shard were delivered: it was split or merged. Finish what is left, then
    /// call `end.checkpoint()`: only then do the child shards start.
    ///
    /// # Errors
    /// What it returns is logged. The call is repeated until the end has been checkpointed.
    fn shard_ended(
        &mut self,
        end: ShardEnd<'_>,
    ) -> impl Future<Output = Result<(), ProcessorError>> + Send;

    /// The shard is another worker's now: forget it. No checkpoint can be written. Default: nothing.
    fn lease_lost(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// The worker stops, or the shard moves to another one: the last chance to checkpoint. Nothing
    /// more is delivered.
    ///
    /// # Errors
    /// What it returns is logged, and the stop goes on.
    fn shutdown_requested(
        &mut self,
        shutdown: Shutdown<'_>,
    ) -> impl Future<Output = Result<(), ProcessorError>> + Send;
}

/// Makes the processor of a shard. Closures `Fn(&ShardContext) -> impl RecordProcessor` are
/// factories.
pub trait ProcessorFactory: Send + Sync + 'static {
    /// The processors it makes.
    type Processor: RecordProcessor;

    /// The processor of this shard. Called again if it panics.
    fn create(&self, shard: &ShardContext) -> Self::Processor;
}

impl<F, P> ProcessorFactory for F
where
    F: Fn(&ShardContext) -> P + Send + Sync + 'static,
    P: RecordProcessor,
{
    type Processor = P;

    fn create(&self, shard: &ShardContext) -> P {
        self(shard)
    }
}

/// [`RecordProcessor`] as an object: one box per call.
pub(crate) trait ErasedProcessor: Send {
    fn initialize<'a>(
        &'a mut self,
        shard: &'a ShardContext,
    ) -> BoxFuture<'a, Result<(), ProcessorError>>;

    fn process_records<'a>(
        &'a mut self,
        batch: RecordBatch<'a>,
    ) -> BoxFuture<'a, Result<(), ProcessorError>>;

    fn shard_ended<'a>(
        &'a mut self,
        end: ShardEnd<'a>,
    ) -> BoxFuture<'a, Result<(), ProcessorError>>;

    fn lease_lost(&mut self) -> BoxFuture<'_, ()>;

    fn shutdown_requested<'a>(
        &'a mut self,
        shutdown: Shutdown<'a>,
    ) -> BoxFuture<'a, Result<(), ProcessorError>>;
}

impl<P: RecordProcessor> ErasedProcessor for P {
    fn initialize<'a>(
        &'a mut self,
        shard: &'a ShardContext,
    ) -> BoxFuture<'a, Result<(), ProcessorError>> {
        RecordProcessor::initialize(self, shard).boxed()
    }

    fn process_records<'a>(
        &'a mut self,
        batch: RecordBatch<'a>,
    ) -> BoxFuture<'a, Result<(), ProcessorError>> {
        RecordProcessor::process_records(self, batch).boxed()
    }

    fn shard_ended<'a>(
        &'a mut self,
        end: ShardEnd<'a>,
    ) -> BoxFuture<'a, Result<(), ProcessorError>> {
        RecordProcessor::shard_ended(self, end).boxed()
    }

    fn lease_lost(&mut self) -> BoxFuture<'_, ()> {
        RecordProcessor::lease_lost(self).boxed()
    }

    fn shutdown_requested<'a>(
        &'a mut self,
        shutdown: Shutdown<'a>,
    ) -> BoxFuture<'a, Result<(), ProcessorError>> {
        RecordProcessor::shutdown_requested(self, shutdown).boxed()
    }
}

/// [`ProcessorFactory`] as an object.
pub(crate) trait ErasedFactory: Send + Sync {
    fn create(&self, shard: &ShardContext) -> Box<dyn ErasedProcessor>;
}

impl<F: ProcessorFactory> ErasedFactory for F {
    fn create(&self, shard: &ShardContext) -> Box<dyn ErasedProcessor> {
        Box::new(ProcessorFactory::create(self, shard))
    }
}
