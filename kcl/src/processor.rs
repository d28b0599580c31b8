//! What the user implements, and what it is told.

use std::fmt;
use std::future::Future;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use kinesis_aggregation::HashKeyRange;
use tokio_util::sync::CancellationToken;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::delivery::{CallTokens, Checkpointer, RecordBatch};
use crate::error::ProcessorError;
use crate::lease::{FencingToken, Lease, Tenure};

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

/// The shard that a processor is made for.
#[derive(Debug, Clone)]
pub struct ShardContext {
    lease: Lease,
    fencing_token: FencingToken,
    tokens: CallTokens,
    application: String,
    stream: String,
    worker_id: String,
    #[cfg(feature = "simulation")]
    hold: crate::lease::WeakTenure,
}

impl ShardContext {
    pub(crate) fn new(
        tenure: &Tenure,
        tokens: CallTokens,
        application: &str,
        stream: &str,
        worker_id: &str,
    ) -> Self {
        Self {
            lease: tenure.lease(),
            fencing_token: tenure.fencing_token(),
            tokens,
            application: application.to_owned(),
            stream: stream.to_owned(),
            worker_id: worker_id.to_owned(),
            #[cfg(feature = "simulation")]
            hold: tenure.downgrade(),
        }
    }

    /// The shard's id.
    pub fn shard_id(&self) -> &str {
        self.lease.shard_id()
    }

    /// Its hash keys; `None` if the lease (of an old Java worker) does not say.
    pub fn hash_key_range(&self) -> Option<HashKeyRange> {
        self.lease.hash_key_range
    }

    /// Where processing starts.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.lease.checkpoint
    }

    /// A checkpoint that an earlier owner prepared and did not commit.
    pub fn pending_checkpoint(&self) -> Option<&Checkpoint> {
        self.lease.pending.as_ref().map(|pending| &pending.checkpoint)
    }

    /// The state that an earlier owner stored with that checkpoint.
    pub fn pending_state(&self) -> Option<&Bytes> {
        self.lease.pending.as_ref()?.state.as_ref()
    }

    /// Tells owners of this shard apart, in order: pass it to your own store's conditional writes,
    /// so that a former owner can not overwrite a later one's.
    pub fn fencing_token(&self) -> &FencingToken {
        &self.fencing_token
    }

    /// Cancelled when this worker loses the lease of the shard, at any time: another worker may process
    /// it, and checkpoints fail from now on.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.tokens.lost
    }

    /// Cancelled when the shard is to be given up on request, at any time: by a planned stop of the worker,
    /// or because the lease moves to another worker. The lease is still this worker's. See
    /// [`RecordBatch::shutdown_token`].
    pub fn shutdown_token(&self) -> &CancellationToken {
        &self.tokens.shutdown
    }

    /// The application's name.
    pub fn application(&self) -> &str {
        &self.application
    }

    /// The stream, as it was given to the builder.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// For the oracle: whether the processor may be at work.
    #[cfg(feature = "simulation")]
    pub(crate) fn hold(&self) -> crate::lease::WeakTenure {
        self.hold.clone()
    }

    /// This worker.
    pub fn worker_id(&self) -> &str {
        &self.worker_id
    }
}

/// The end of a shard.
#[derive(Clone, Copy)]
pub struct ShardEnd<'a> {
    checkpointer: &'a Checkpointer,
    tokens: &'a CallTokens,
}

impl<'a> ShardEnd<'a> {
    pub(crate) fn new(checkpointer: &'a Checkpointer, tokens: &'a CallTokens) -> Self {
        Self { checkpointer, tokens }
    }

    /// Says that the whole shard is done: writes `SHARD_END`, after which its children start.
    ///
    /// # Errors
    /// As [`Checkpointer::checkpoint`].
    ///
    /// # Cancel safety
    /// A call that is dropped may or may not have written; call again.
    pub async fn checkpoint(&self) -> Result<(), CheckpointError> {
        self.checkpointer.end_shard().await
    }

    /// For checkpoints at records, when finishing takes several steps.
    pub fn checkpointer(&self) -> &'a Checkpointer {
        self.checkpointer
    }

    /// Cancelled when the lease is lost while the call runs.
    pub fn cancellation(&self) -> &'a CancellationToken {
        &self.tokens.lost
    }

    /// Cancelled when the shard is to be given up on request while the call runs; see
    /// [`RecordBatch::shutdown_token`]. Return an error if the end cannot be checkpointed in time: the
    /// shard's next owner is asked for it again.
    pub fn shutdown_token(&self) -> &'a CancellationToken {
        &self.tokens.shutdown
    }
}

impl fmt::Debug for ShardEnd<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardEnd").finish_non_exhaustive()
    }
}

/// A planned stop, or the move of the shard to another worker.
#[derive(Clone, Copy)]
pub struct Shutdown<'a> {
    checkpointer: &'a Checkpointer,
    tokens: &'a CallTokens,
}

impl<'a> Shutdown<'a> {
    pub(crate) fn new(checkpointer: &'a Checkpointer, tokens: &'a CallTokens) -> Self {
        Self { checkpointer, tokens }
    }

    /// Writes the last checkpoints. `checkpoint()` covers all batches that succeeded; not one that
    /// the processor failed on.
    pub fn checkpointer(&self) -> &'a Checkpointer {
        self.checkpointer
    }

    /// Cancelled when the lease is lost while the call runs.
    pub fn cancellation(&self) -> &'a CancellationToken {
        &self.tokens.lost
    }
}

impl fmt::Debug for Shutdown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shutdown").finish_non_exhaustive()
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
