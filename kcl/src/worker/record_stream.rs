//! A worker whose records come out of a stream, one by one.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::stream::{FusedStream, Stream, StreamExt as _};

use super::handle::WorkerHandle;
use super::worker_stream::WorkerStream;
use crate::error::WorkerError;
use crate::processor::PendingRecord;

/// Stream of the single records of a running worker, from
/// [`SchedulerBuilder::consume_records`](crate::SchedulerBuilder::consume_records).
///
/// Use it instead of a [`BatchStream`](crate::BatchStream) where each record is acknowledged by itself, or where records
/// of several partition keys of a shard are at work at a time. Window, checkpoints, retries and limits are those of a
/// [handler](crate::SchedulerBuilder::handler).
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
/// let config = ConsumerConfig::default()
///     .with_initial_position(InitialPosition::TrimHorizon)
///     .with_concurrency_per_shard(10);
/// let mut records = Scheduler::builder("billing", "orders", &sdk_config)
///     .config(config)
///     .consume_records()
///     .await?;
/// let worker = records.worker().clone(); // call worker.shutdown(deadline) on SIGTERM
/// # let mut received = 0;
/// while let Some(record) = records.try_next().await? {
///     println!("{:?}: {} bytes", record.partition_key(), record.data().len());
///     record.ack().await?;
///     # received += 1;
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
/// The next record of a partition key comes after the previous one was [acknowledged](PendingRecord::ack), also across
/// splits and merges. Of each shard, up to
/// [`concurrency_per_shard`](crate::ConsumerConfig::concurrency_per_shard) records of different keys, or without a key,
/// are out at a time. That is 1 by default.
///
/// # End
/// * After a planned stop ([`WorkerHandle::shutdown`], from any task), the stream yields no more records. Those that the
///   application has can be acknowledged until the deadline. Then the stream ends with `None`.
/// * If the worker fails, the stream yields the error, then `None`. [`WorkerHandle::join`] returns the same error.
/// * If the stream is dropped, the worker stops as planned, with the failover time as its deadline.
///
/// A record that is not acknowledged at the end goes to the next owner of its shard, and so do the acknowledged ones
/// after it in the shard, because the checkpoint is before it.
///
/// # Cancel safety
/// A call of `next()` that is dropped loses no record.
#[must_use = "the worker stops when its stream is dropped"]
pub struct RecordStream(WorkerStream<PendingRecord>);

impl RecordStream {
    pub(super) fn new(stream: WorkerStream<PendingRecord>) -> Self {
        Self(stream)
    }

    /// The handle of the worker. A clone of it can stop the worker from another task.
    pub fn worker(&self) -> &WorkerHandle {
        self.0.worker()
    }
}

impl Stream for RecordStream {
    type Item = Result<PendingRecord, WorkerError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

impl FusedStream for RecordStream {
    fn is_terminated(&self) -> bool {
        self.0.is_terminated()
    }
}

impl fmt::Debug for RecordStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordStream").field("worker", self.worker()).finish_non_exhaustive()
    }
}
