//! A shard in memory, for unit tests of a [`RecordProcessor`]: no AWS, no network, no worker.
//!
//! A [`TestShard`] represents one shard whose lease this worker holds. It provides the library's own
//! [`ShardContext`], [`RecordBatch`], [`ShardEnd`], [`Shutdown`] and [`Checkpointer`], with the same rules as in
//! production, and keeps the checkpoints in memory. A test calls its processor through it, reads the checkpoints,
//! makes checkpoints fail, and cancels the tokens.
//!
//! It is for the code of one processor. To test how workers share shards, run whole workers on the embedded AWS of
//! `kinesis-testkit`.
//!
//! ```
//! use kcl::testing::{TestRecord, TestShard};
//! use kcl::{CheckpointError, ProcessorError, RecordBatch, RecordProcessor, ShardEnd, Shutdown};
//!
//! /// Adds up numbers. One that is not a number fails the batch.
//! #[derive(Default)]
//! struct Sum(u64);
//!
//! impl RecordProcessor for Sum {
//!     async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
//!         for record in batch.records() {
//!             self.0 += std::str::from_utf8(record.data())?.parse::<u64>()?;
//!             batch.checkpointer().checkpoint_at(&record).await?;
//!         }
//!         Ok(())
//!     }
//!     async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
//!         Ok(end.checkpoint().await?)
//!     }
//!     async fn shutdown_requested(&mut self, last: Shutdown<'_>) -> Result<(), ProcessorError> {
//!         Ok(last.checkpointer().checkpoint().await?)
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), ProcessorError> {
//! let mut shard = TestShard::new();
//! let mut sum = Sum::default();
//! shard.initialize(&mut sum).await?;
//!
//! let mut batch = shard.batch(["1", "2", "many"].map(|data| TestRecord::new("key", data)));
//! assert!(shard.process_records(&mut sum, &mut batch).await.is_err());
//! assert_eq!(sum.0, 3);
//! // Two records are checkpointed, so the next call begins after them.
//! assert_eq!(shard.checkpoints().len(), 2);
//! assert_eq!(batch.len(), 1);
//!
//! shard.lose_lease();
//! let mut batch = shard.batch([TestRecord::new("key", "4")]);
//! let error = shard.process_records(&mut sum, &mut batch).await.unwrap_err();
//! let error = error.as_error().downcast_ref::<CheckpointError>();
//! assert!(matches!(error, Some(CheckpointError::LeaseLost { .. })));
//! # Ok(())
//! # }
//! ```

mod record;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use kinesis_aggregation::HashKeyRange;

pub use self::record::TestRecord;
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::clock::SystemClock;
use crate::config::{AggregateRangePolicy, CheckpointPolicy, ConsumerConfig};
use crate::delivery::Deaggregator;
use crate::error::ProcessorError;
use crate::lease::{HeldLease, Lease, PendingCheckpoint, Recorder};
use crate::processor::{
    Batch, Checkpointer, OwnedBatch, ProcessorFactory as _, RecordBatch, RecordProcessor,
    ShardContext, ShardEnd, Shutdown, StopSignals, streamed,
};
use crate::retrieval::{ByteBudget, RawRecord, ShardBudget};
use crate::sequence::SequenceNumber;
use crate::shard_state::ShutdownReason;

/// Builder of a [`TestShard`].
#[derive(Debug, Clone)]
#[must_use = "call build()"]
pub struct TestShardBuilder {
    lease: Lease,
    application: String,
    stream: String,
    worker_id: String,
}

impl TestShardBuilder {
    /// Sets the id of the shard. Default `shardId-000000000000`.
    pub fn shard_id(mut self, shard_id: impl Into<String>) -> Self {
        self.lease.key = shard_id.into();
        self
    }

    /// Sets the name of the application. Default `application`.
    pub fn application(mut self, application: impl Into<String>) -> Self {
        self.application = application.into();
        self
    }

    /// Sets the name of the stream. Default `stream`.
    pub fn stream(mut self, stream: impl Into<String>) -> Self {
        self.stream = stream.into();
        self
    }

    /// Sets the id of the worker. Default `worker`.
    pub fn worker_id(mut self, worker_id: impl Into<String>) -> Self {
        self.worker_id = worker_id.into();
        self
    }

    /// Sets the checkpoint that the last owner left. Default [`Checkpoint::TrimHorizon`].
    pub fn checkpoint(mut self, checkpoint: Checkpoint) -> Self {
        self.lease.checkpoint = checkpoint;
        self
    }

    /// Sets a checkpoint that the last owner prepared, with its state, and did not commit. Default: none.
    pub fn pending(mut self, checkpoint: Checkpoint, state: Option<Bytes>) -> Self {
        self.lease.pending = Some(PendingCheckpoint { checkpoint, state });
        self
    }

    /// Sets the hash key range of the shard. Default: all hash keys.
    pub fn hash_key_range(mut self, range: HashKeyRange) -> Self {
        self.lease.hash_key_range = Some(range);
        self
    }

    /// Creates the shard, and spawns a small task for it on the current tokio runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn build(self) -> TestShard {
        let next = first_after(&self.lease.checkpoint);
        let (held_lease, recorder) = HeldLease::recorded(self.lease, Arc::new(SystemClock));
        let tokens = StopSignals::new(&held_lease);
        let context = ShardContext::new(
            &held_lease,
            tokens.clone(),
            &self.application,
            &self.stream,
            &self.worker_id,
        );
        TestShard {
            tokens,
            checkpointer: Checkpointer::new(held_lease.clone()),
            budget: ShardBudget::new(&ByteBudget::new(usize::MAX)),
            next,
            held_lease,
            recorder,
            context,
        }
    }
}

/// One shard in memory, whose lease this worker holds. See the [module](self).
pub struct TestShard {
    held_lease: HeldLease,
    recorder: Recorder,
    context: ShardContext,
    checkpointer: Checkpointer,
    tokens: StopSignals,
    budget: ShardBudget,
    /// The next sequence number.
    next: u64,
}

impl TestShard {
    /// Creates a shard that was never processed.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[allow(clippy::new_without_default, reason = "it starts a task")]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Starts building a shard with a checkpoint, names or a hash key range of the test's choice.
    pub fn builder() -> TestShardBuilder {
        let mut lease = Lease::new("shardId-000000000000", Checkpoint::TrimHorizon);
        lease.hash_key_range = Some(HashKeyRange::FULL);
        lease.counter = 1;
        TestShardBuilder {
            lease,
            application: "application".to_owned(),
            stream: "stream".to_owned(),
            worker_id: "worker".to_owned(),
        }
    }

    /// The context that a [`ProcessorFactory`](crate::ProcessorFactory) and
    /// [`initialize`](RecordProcessor::initialize) receive.
    pub fn context(&self) -> &ShardContext {
        &self.context
    }

    /// The checkpointer of all batches of this shard.
    pub fn checkpointer(&self) -> &Checkpointer {
        &self.checkpointer
    }

    /// Creates a batch of these records, after the batches that were created before. Aggregates are split into user
    /// records as in production.
    ///
    /// A record without a sequence number gets the number after the largest one so far, of the checkpoint and all
    /// records. Only numbers below 2^64 count. After a number with 56 digits, as Kinesis assigns them, set the
    /// numbers of the records.
    ///
    /// # Panics
    /// A sequence number is not above the one before it in this batch.
    pub fn batch(&mut self, records: impl IntoIterator<Item = TestRecord>) -> TestBatch {
        let records = records.into_iter().map(|record| {
            let sequence_number = record.sequence_number.unwrap_or_else(|| {
                let number = self.next.to_string().parse();
                number.expect("digits are a sequence number")
            });
            self.next = self.next.max(number_of(&sequence_number).saturating_add(1));
            RawRecord {
                sequence_number,
                partition_key: record.partition_key.filter(|key| !key.is_empty()),
                data: record.data,
                arrival: record.arrival,
            }
        });
        let records: Vec<_> = records.collect();
        assert!(
            records.is_sorted_by(|a, b| a.sequence_number < b.sequence_number),
            "sequence numbers rise"
        );
        let mut deaggregator = Deaggregator::new(
            self.context.shard_id(),
            self.held_lease.lease().hash_key_range,
            None,
            AggregateRangePolicy::default(),
            ConsumerConfig::default().max_decompressed_size,
            Arc::new(SystemClock),
        );
        let held = self.budget.reserve(0).now_or_never();
        let held = held.expect("there is always room for no bytes");
        let (batch, _) = deaggregator.batch(records.into_iter().collect(), Some(0), held);
        TestBatch { batch }
    }

    /// Returns a batch in the form that a processor receives, for code that takes a [`RecordBatch`]. The batch then
    /// counts as delivered, and may be checkpointed.
    ///
    /// # Panics
    /// The batch is empty.
    pub fn deliver<'a>(&'a self, batch: &'a mut TestBatch) -> RecordBatch<'a> {
        assert!(!batch.is_empty(), "a batch is never empty");
        batch.batch.attempt(&self.checkpointer, &self.tokens)
    }

    /// Calls [`initialize`](RecordProcessor::initialize).
    ///
    /// # Errors
    /// That of the processor.
    pub async fn initialize<P: RecordProcessor>(
        &self,
        processor: &mut P,
    ) -> Result<(), ProcessorError> {
        processor.initialize(&self.context).await
    }

    /// Calls [`process_records`](RecordProcessor::process_records). After `Ok`, the batch is empty. After an error, the
    /// records that were checkpointed are removed from it, and those that [did not fail](crate::BatchFailures), as in
    /// production. Call it again for the next attempt. For a batch without records, the processor is not called.
    ///
    /// # Errors
    /// That of the processor.
    pub async fn process_records<P: RecordProcessor>(
        &self,
        processor: &mut P,
        batch: &mut TestBatch,
    ) -> Result<(), ProcessorError> {
        if batch.is_empty() {
            return Ok(());
        }
        let view = self.deliver(batch);
        let result = processor.process_records(view).await;
        match &result {
            Ok(()) => batch.batch.part_done(&self.checkpointer),
            Err(error) => {
                batch.batch.failed(&self.checkpointer, error);
            }
        }
        result
    }

    /// Delivers a batch as a [`BatchStream`](crate::BatchStream) does, and lets `application` act on it. The checkpoint
    /// setting is [`Manual`](CheckpointPolicy::Manual), so [`OwnedBatch::ack`] writes a checkpoint. For a batch without
    /// records, and after a requested shutdown or the loss of the lease, `application` is not called.
    ///
    /// ```
    /// # use kcl::testing::{TestRecord, TestShard};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), kcl::ProcessorError> {
    /// let mut shard = TestShard::new();
    /// let mut batch = shard.batch(["1", "2"].map(|data| TestRecord::new("key", data)));
    /// let failed = shard.stream(&mut batch, async |batch| batch.nack("no answer")).await;
    /// assert_eq!(failed.unwrap_err().to_string(), "no answer");
    ///
    /// // The same batch comes again.
    /// shard.stream(&mut batch, async |batch| batch.ack().await.unwrap()).await?;
    /// assert_eq!(shard.checkpoints().len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The batch was not acknowledged: it failed, was dropped, was not taken, or its checkpoint failed. Then
    /// [`attempt`](OwnedBatch::attempt) is one higher at the next call.
    pub async fn stream(
        &self,
        batch: &mut TestBatch,
        application: impl AsyncFnOnce(OwnedBatch),
    ) -> Result<(), ProcessorError> {
        let (factory, mut offers) = streamed(CheckpointPolicy::Manual);
        let mut processor = factory.create(&self.context);
        // The channel closes when the processor is dropped, at the end of the call.
        drop(factory);
        let delivered = async move { self.process_records(&mut processor, batch).await };
        let application = async {
            if let Some(batch) = offers.recv().await.and_then(|offer| offer.take()) {
                application(batch).await;
            }
        };
        tokio::join!(delivered, application).0
    }

    /// Calls [`shard_ended`](RecordProcessor::shard_ended).
    ///
    /// # Errors
    /// That of the processor.
    pub async fn shard_ended<P: RecordProcessor>(
        &self,
        processor: &mut P,
    ) -> Result<(), ProcessorError> {
        let end = ShardEnd::new(&self.checkpointer, &self.tokens);
        processor.shard_ended(end).await
    }

    /// Loses the lease, and calls [`lease_lost`](RecordProcessor::lease_lost).
    pub async fn lease_lost<P: RecordProcessor>(&self, processor: &mut P) {
        self.lose_lease();
        processor.lease_lost().await;
    }

    /// Requests a shutdown, and calls
    /// [`shutdown_requested`](RecordProcessor::shutdown_requested).
    ///
    /// # Errors
    /// That of the processor.
    pub async fn shutdown_requested<P: RecordProcessor>(
        &self,
        processor: &mut P,
    ) -> Result<(), ProcessorError> {
        self.request_shutdown();
        let shutdown = Shutdown::new(&self.checkpointer, &self.tokens, ShutdownReason::Requested);
        processor.shutdown_requested(shutdown).await
    }

    /// Loses the lease: cancels [`RecordBatch::cancellation`], and all later checkpoints fail. Call it while
    /// `process_records` runs, from another task or a `join!`.
    pub fn lose_lease(&self) {
        self.recorder.lose();
    }

    /// Begins a planned stop: cancels [`RecordBatch::shutdown_token`]. Checkpoints still work.
    pub fn request_shutdown(&self) {
        self.recorder.request_shutdown();
    }

    /// Makes the next checkpoint fail with this error. It writes nothing. After several calls, the checkpoints fail
    /// in the order of the calls. In production, the library retries after a transient error, so a processor sees
    /// one only if the retries fail, too.
    pub fn fail_next_checkpoint(&self, error: CheckpointError) {
        self.recorder.fail_next(error);
    }

    /// The checkpoint in force. It is [`Checkpoint::ShardEnd`] after the end was checkpointed.
    pub fn checkpoint(&self) -> Checkpoint {
        self.held_lease.lease().checkpoint
    }

    /// Every checkpoint that was written, in order.
    pub fn checkpoints(&self) -> Vec<Checkpoint> {
        self.recorder.checkpoints()
    }

    /// The checkpoint that was prepared and not committed, with its state.
    pub fn pending(&self) -> Option<(Checkpoint, Option<Bytes>)> {
        let pending = self.held_lease.lease().pending?;
        Some((pending.checkpoint, pending.state))
    }
}

impl fmt::Debug for TestShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestShard")
            .field("shard_id", &self.context.shard_id())
            .field("checkpoint", &self.checkpoint())
            .finish_non_exhaustive()
    }
}

/// The first number after a checkpoint. 1 if its number is not below 2^64.
fn first_after(checkpoint: &Checkpoint) -> u64 {
    match checkpoint {
        Checkpoint::Before(number) => number_of(number),
        Checkpoint::At(position) => number_of(&position.sequence_number).saturating_add(1),
        _ => 1,
    }
}

/// The number if it is below 2^64, else 0, because larger numbers are not continued.
fn number_of(sequence_number: &SequenceNumber) -> u64 {
    sequence_number.as_str().parse().unwrap_or(0)
}

/// Batch for [`TestShard::process_records`].
#[derive(Debug)]
pub struct TestBatch {
    batch: Batch,
}

impl TestBatch {
    /// The number of user records that are not checkpointed.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// True if all records are checkpointed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sets the time by which the batch is behind the tip of the shard. Default: at the tip.
    #[must_use]
    pub fn with_millis_behind_latest(mut self, behind: Option<Duration>) -> Self {
        let millis = behind.map(|behind| u64::try_from(behind.as_millis()).unwrap_or(u64::MAX));
        self.batch.set_millis_behind_latest(millis);
        self
    }
}

#[cfg(test)]
mod tests;
