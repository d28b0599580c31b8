//! Workers whose records are processed one by one.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;

use super::SchedulerBuilder;
use crate::config::{CheckpointPolicy, ConsumerConfig};
use crate::error::ProcessorError;
use crate::processor::{ErasedFactory, HandleRecord, HandlerFactory, ShardRecord};

/// What processes the records.
pub(super) enum Factory {
    Processor(Arc<dyn ErasedFactory>),
    Handler(Arc<HandleRecord>),
}

/// Interval of the checkpoints of a handler under [`CheckpointPolicy::Manual`].
const HANDLER_INTERVAL: Duration = Duration::from_secs(5);

impl Factory {
    /// The factory of the processors. Corrects the settings that have no meaning for them.
    pub(super) fn create(self, config: &mut ConsumerConfig) -> Arc<dyn ErasedFactory> {
        match self {
            Self::Processor(factory) => factory,
            Self::Handler(handler) => {
                // A handler cannot write checkpoints.
                if config.checkpoint == CheckpointPolicy::Manual {
                    config.checkpoint = CheckpointPolicy::Interval(HANDLER_INTERVAL);
                }
                Arc::new(HandlerFactory::new(handler, config))
            }
        }
    }
}

impl SchedulerBuilder {
    /// Sets the async function that processes one record at a time, instead of a [`processor`](Self::processor).
    /// Records of different partition keys are processed in parallel, and the library checkpoints.
    ///
    /// [`concurrency_per_shard`](ConsumerConfig::concurrency_per_shard), which is 1 by default,
    /// [`concurrency_per_worker`](ConsumerConfig::concurrency_per_worker),
    /// [`max_window_records`](ConsumerConfig::max_window_records) and
    /// [`max_window_bytes`](ConsumerConfig::max_window_bytes) limit it. The last call of `handler` and `processor`
    /// counts.
    ///
    /// ```
    /// use kcl::{ConsumerConfig, InitialPosition, Scheduler};
    /// # use std::time::Duration;
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
    /// # let (sender, mut done) = tokio::sync::mpsc::channel(100);
    /// let config = ConsumerConfig::default()
    ///     .with_initial_position(InitialPosition::TrimHorizon)
    ///     .with_concurrency_per_shard(10);
    /// let worker = Scheduler::builder("billing", "orders", &sdk_config)
    ///     .handler(move |record| {
    ///         # let sender = sender.clone();
    ///         async move {
    ///             println!("{:?}: {} bytes", record.partition_key(), record.data().len());
    ///             # sender.send(()).await?;
    ///             Ok(())
    ///         }
    ///     })
    ///     .config(config)
    ///     .build()
    ///     .await?
    ///     .spawn();
    /// # for _ in 0..3 { done.recv().await; }
    /// # worker.shutdown(Duration::from_secs(10)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Order
    /// **Order is per partition key**: the next record of a key starts when the previous one is done, also across
    /// splits and merges. Records of different keys start in the order of the shard, as far as there is room, and end
    /// in any order. Records without a key, on streams whose record distribution strategy is `AUTO`, have no order.
    ///
    /// # Checkpoints
    /// The library checkpoints the last record up to which all are done. A slow record holds up the records of its key
    /// and the checkpoint. Other records go on until the window is full. With
    /// [`CheckpointPolicy::AfterBatch`](crate::CheckpointPolicy::AfterBatch), a checkpoint is written as soon as there
    /// is progress, one at a time; with `Interval`, once per interval; with `Manual`, which has no meaning for a
    /// handler, every five seconds. Renewals of the lease also carry the progress, at no cost. After a crash, the
    /// records after the last checkpoint are processed again, also those that were done: at most a window.
    ///
    /// # Failures
    /// A record whose handler returns an error or panics is processed again after a pause, with exponential backoff
    /// ([`retry_initial_delay`](crate::ConsumerConfig::retry_initial_delay) to
    /// [`retry_max_delay`](crate::ConsumerConfig::retry_max_delay)). Meanwhile its key waits, and it takes no place of
    /// a running handler.
    ///
    /// # Stop
    /// In a planned stop, and before the shard moves to another worker, handlers at work finish, no later record
    /// starts, and the checkpoint follows: the next owner gets no record again that is done. A handler that cannot
    /// finish in time returns an error when [`shutdown_token`](ShardRecord::shutdown_token) is cancelled. If the lease
    /// is lost, or at the deadline of the stop, the futures of the handlers are dropped where they await.
    pub fn handler<F, Fut>(mut self, handler: F) -> Self
    where
        F: Fn(ShardRecord) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), ProcessorError>> + Send + 'static,
    {
        self.factory = Some(Factory::Handler(Arc::new(move |record| handler(record).boxed())));
        self
    }
}
