//! The record processor, which the user implements, and its inputs.

mod batch;
mod checkpointer;
mod context;
pub(crate) mod failure;
mod guarded;
mod handler;
mod offer;
mod owned_batch;
mod record;
mod streamed;
mod user_records;

use std::future::Future;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

pub(crate) use self::batch::{Batch, Part};
pub use self::batch::{RecordBatch, Records};
pub use self::checkpointer::{Checkpointer, PreparedCheckpoint};
pub(crate) use self::context::StopSignals;
pub use self::context::{ShardContext, ShardEnd, Shutdown};
use self::failure::GivenUp;
pub use self::failure::{BatchFailures, GiveUpReason, SkippedRecords};
pub(crate) use self::guarded::guarded;
pub(crate) use self::handler::{
    HandleRecord, HandlerFactory, InFlight, Incoming, streamed_records,
};
pub use self::handler::{PendingRecord, ShardRecord};
pub(crate) use self::offer::{Offer, Offered};
pub use self::owned_batch::OwnedBatch;
pub use self::record::{OwnedRecord, Record};
pub(crate) use self::streamed::streamed;
pub(crate) use self::user_records::{Kept, Runs, UserRecords};
use crate::clock::Clock;
use crate::config::ConsumerConfig;
use crate::error::ProcessorError;
use crate::executor::Executor;
use crate::snapshot::ShardStatus;

/// Processes the records of one shard.
///
/// Each shard that this worker owns has its own instance, which a [`ProcessorFactory`] creates. Its calls never
/// overlap. Records of one partition key are delivered in order, also across splits and merges, because a child shard
/// starts when its parents have ended. They are delivered at least once: after a crash, from the last checkpoint on.
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
/// After an error or a panic, the same call is repeated on the same instance, with exponential backoff, until it succeeds
/// or the shard is given up. (The Java library logs the exception and goes on with the next batch.) For `process_records`,
/// a [`FailurePolicy`](crate::FailurePolicy) may set limits, and say what follows. Without one, no record is ever skipped.
pub trait RecordProcessor: Send + 'static {
    /// Prepares the processor. It is called before any other method, until it succeeds. Default: does nothing.
    ///
    /// A call that may take long watches [`shard.shutdown_token()`](ShardContext::shutdown_token) and
    /// [`shard.cancellation()`](ShardContext::cancellation), and returns an error when one of them is cancelled, because a
    /// planned stop waits for the call. If it is under way at the deadline of the stop, it is aborted, and the lease
    /// expires.
    ///
    /// # Errors
    /// The error is logged, and the call repeated. An error that is returned after one of the two tokens was cancelled
    /// ends the processor and does not count as a failure.
    fn initialize(
        &mut self,
        shard: &ShardContext,
    ) -> impl Future<Output = Result<(), ProcessorError>> + Send {
        let _ = shard;
        async { Ok(()) }
    }

    /// Processes a batch. After `Ok`, the library does not deliver it again. Under
    /// [`CheckpointPolicy::Manual`](crate::CheckpointPolicy::Manual), the library does not checkpoint it.
    ///
    /// If the lease is lost meanwhile, `batch.cancellation()` is cancelled and checkpoints fail. The library waits for the
    /// call to return and delivers nothing more. In a planned stop, `batch.shutdown_token()` is cancelled, and checkpoints
    /// still work.
    ///
    /// # Errors
    /// The error is logged, and the batch is delivered again after a pause, unless the
    /// [`FailurePolicy`](crate::FailurePolicy) says otherwise. It then lacks the records that were checkpointed meanwhile. If
    /// all of them were, the batch is done. An error that is returned after one of the two tokens was cancelled ends the
    /// delivery and does not count as a failure.
    fn process_records(
        &mut self,
        batch: RecordBatch<'_>,
    ) -> impl Future<Output = Result<(), ProcessorError>> + Send;

    /// Finishes a shard that was split or merged, after all of its records were delivered. It must call
    /// `end.checkpoint()`. The child shards start after that.
    ///
    /// # Errors
    /// The error is logged. The call is repeated until the end has been checkpointed.
    fn shard_ended(
        &mut self,
        end: ShardEnd<'_>,
    ) -> impl Future<Output = Result<(), ProcessorError>> + Send;

    /// Learns that the lease is lost. Another worker may process the shard, and no checkpoint can be written. Default: does
    /// nothing.
    fn lease_lost(&mut self) -> impl Future<Output = ()> + Send {
        async {}
    }

    /// Has the last chance to checkpoint. Nothing more is delivered, because the worker stops, the shard moves to another
    /// worker, or all records up to [`until`](crate::ConsumerConfig::until) were delivered.
    ///
    /// # Errors
    /// The error is logged. A stop goes on. At the end of a bounded replay, the call is repeated until it succeeds.
    fn shutdown_requested(
        &mut self,
        shutdown: Shutdown<'_>,
    ) -> impl Future<Output = Result<(), ProcessorError>> + Send;
}

/// Creates the processors. Closures `Fn(&ShardContext) -> impl RecordProcessor` are factories.
pub trait ProcessorFactory: Send + Sync + 'static {
    /// Type of the processors.
    type Processor: RecordProcessor;

    /// Creates the processor of a shard. It is called again if it panics.
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

/// A call of a processor.
pub(crate) enum Call<'a> {
    Initialize(&'a ShardContext),
    ProcessRecords(RecordBatch<'a>),
    ShardEnded(ShardEnd<'a>),
    LeaseLost,
    ShutdownRequested(Shutdown<'a>),
}

/// [`RecordProcessor`] as an object: one box per call.
pub(crate) trait ErasedProcessor: Send {
    fn call<'a>(&'a mut self, call: Call<'a>) -> BoxFuture<'a, Result<(), ProcessorError>>;

    /// The window of records in process, if the processor has one. Then the consumer admits the records of each page to
    /// it, and does not call `process_records`.
    fn in_flight(&self) -> Option<Arc<InFlight>> {
        None
    }
}

impl<P: RecordProcessor> ErasedProcessor for P {
    fn call<'a>(&'a mut self, call: Call<'a>) -> BoxFuture<'a, Result<(), ProcessorError>> {
        match call {
            Call::Initialize(shard) => self.initialize(shard).boxed(),
            Call::ProcessRecords(batch) => self.process_records(batch).boxed(),
            Call::ShardEnded(end) => self.shard_ended(end).boxed(),
            Call::LeaseLost => self.lease_lost().map(Ok).boxed(),
            Call::ShutdownRequested(shutdown) => self.shutdown_requested(shutdown).boxed(),
        }
    }
}

/// Parts of the worker, for the processor of one shard.
#[derive(Clone)]
pub(crate) struct Services {
    /// Where processors run.
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) status: Arc<ShardStatus>,
    pub(crate) config: Arc<ConsumerConfig>,
    pub(crate) clock: Arc<dyn Clock>,
    /// The signals to give the shard up.
    pub(crate) stop: StopSignals,
    pub(crate) seed: u64,
    pub(crate) given_up: GivenUp,
}

/// [`ProcessorFactory`] as an object.
pub(crate) trait ErasedFactory: Send + Sync {
    fn create(&self, shard: &ShardContext, services: &Services) -> Box<dyn ErasedProcessor>;
}

impl<F: ProcessorFactory> ErasedFactory for F {
    fn create(&self, shard: &ShardContext, _: &Services) -> Box<dyn ErasedProcessor> {
        Box::new(ProcessorFactory::create(self, shard))
    }
}
