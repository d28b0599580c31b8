//! A worker whose batches come out of a stream.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::stream::{FusedStream, Stream, StreamExt as _};

use super::handle::WorkerHandle;
use super::worker_stream::WorkerStream;
use crate::error::WorkerError;
use crate::processor::OwnedBatch;

/// Stream of the batches of a running worker, from [`SchedulerBuilder::consume`](crate::SchedulerBuilder::consume).
///
/// Use it instead of a [`RecordProcessor`](crate::RecordProcessor) where the batches of all shards are processed by one
/// loop, or by tasks of the application. Checkpoints, retries, order, memory and handovers are those of a processor.
///
/// ```
/// use std::time::Duration;
///
/// use futures::TryStreamExt as _;
/// use kcl::{ConsumerConfig, InitialPosition, Scheduler};
/// # use aws_sdk_kinesis::primitives::Blob;
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let aws = kinesis_testkit::LocalAws::start().await?;
/// # aws.create_stream("orders", 2).await?;
/// # for order in ["one", "two", "three"] {
/// #     let put = aws.kinesis().put_record().stream_name("orders").partition_key(order);
/// #     put.data(Blob::new(order)).send().await?;
/// # }
/// # let sdk_config = aws.sdk_config();
/// let mut batches = Scheduler::builder("billing", "orders", &sdk_config)
///     .config(ConsumerConfig::default().with_initial_position(InitialPosition::TrimHorizon))
///     .consume()
///     .await?;
/// let worker = batches.worker().clone(); // call worker.shutdown(deadline) on SIGTERM
/// # let mut received = 0;
/// while let Some(batch) = batches.try_next().await? {
///     for record in &batch {
///         println!("{:?}: {} bytes", record.partition_key(), record.data().len());
///         # received += 1;
///     }
///     batch.ack().await?;
///     # if received == 3 {
///     #     let worker = worker.clone();
///     #     tokio::spawn(async move { worker.shutdown(Duration::from_secs(10)).await });
///     # }
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Order
/// A shard yields its next batch after the last one was [acknowledged](OwnedBatch::ack), so records of one partition
/// key stay in order, also across splits and merges. Batches of different shards come in any order. A batch that is
/// not acknowledged holds up its own shard only.
///
/// The loop above works on one batch at a time. To work on the shards concurrently, use
/// [`try_for_each_concurrent`](futures::TryStreamExt::try_for_each_concurrent) without a limit: there is at most one
/// batch of each shard of the worker at a time. With a limit, slow shards may hold up others.
///
/// # End
/// * After a planned stop ([`WorkerHandle::shutdown`], from any task), the stream yields no more batches. Those that
///   the application has can be acknowledged until the deadline. Then the stream ends with `None`.
/// * If the worker fails, the stream yields the error, then `None`. [`WorkerHandle::join`] returns the same error.
/// * If the stream is dropped, the worker stops as planned, with the failover time as its deadline. Batches that were
///   not taken, or are dropped, are not checkpointed. Call `shutdown` first to choose the deadline and see the report.
///
/// If a shard is [paused](WorkerHandle::pause_shard), a batch of it that waits in the stream is still yielded.
///
/// A shard that ends, or moves to another worker, yields no item. All of its batches were acknowledged by then, or
/// their tokens say why they cannot be. An application with state per shard is better served by a
/// [`RecordProcessor`](crate::RecordProcessor).
///
/// # Cancel safety
/// A call of `next()` that is dropped loses no batch.
#[must_use = "the worker stops when its stream is dropped"]
pub struct BatchStream(WorkerStream<OwnedBatch>);

impl BatchStream {
    pub(super) fn new(stream: WorkerStream<OwnedBatch>) -> Self {
        Self(stream)
    }

    /// The handle of the worker. A clone of it can stop the worker from another task.
    pub fn worker(&self) -> &WorkerHandle {
        self.0.worker()
    }
}

impl Stream for BatchStream {
    type Item = Result<OwnedBatch, WorkerError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

impl FusedStream for BatchStream {
    fn is_terminated(&self) -> bool {
        self.0.is_terminated()
    }
}

impl fmt::Debug for BatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchStream").field("worker", self.worker()).finish_non_exhaustive()
    }
}
