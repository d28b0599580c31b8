//! Kinesis Client Library (KCL) for Rust: a fleet of workers shares the shards of an Amazon Kinesis stream, and each
//! record reaches a record processor at least once, in order per partition key.
//!
//! * [`RecordProcessor`] is what you implement. Each shard has its own instance. Or write a
//!   [handler](SchedulerBuilder::handler) of single records, which runs for several partition keys in parallel. Or take
//!   the batches out of a [`BatchStream`], or single records out of a [`RecordStream`], and acknowledge them.
//! * [`Scheduler`] is a worker. It leases shards in a DynamoDB table, which it can share with workers of the Java KCL
//!   3.x, reads them, de-aggregates and decompresses records, delivers them, follows splits and merges, and hands its
//!   shards over when it stops.
//! * [`Checkpointer`] stores which records are done. After a restart, or in another worker, processing continues after
//!   them, even inside an aggregate.
//! * [`ConsumerConfig`] holds the settings.
//! * [`WorkerHandle`] shows what the worker does, where each shard of the stream is, and
//!   [why a shard is not running](WorkerHandle::why_not_running). [`WorkerHandle::health`] answers probes.
//! * [`metrics`] are those of the Java library and some that it lacks.
//!
//! The crate is not a producer: that is `kpl`. It does not promise exactly-once processing: after a crash, records
//! since the last checkpoint are delivered again. With a [`FencingToken`], a database of yours can refuse the writes of
//! a former owner.
//!
//! # Example
//!
//! The example runs against an embedded AWS, which needs nothing installed. Against the real one, only the SDK
//! configuration differs.
//!
//! ```
//! use std::time::Duration;
//!
//! use kcl::{
//!     ConsumerConfig, InitialPosition, ProcessorError, RecordBatch, RecordProcessor, Scheduler,
//!     ShardContext, ShardEnd, Shutdown,
//! };
//! # use aws_sdk_kinesis::primitives::Blob;
//!
//! struct Billing(tokio::sync::mpsc::Sender<String>);
//!
//! impl RecordProcessor for Billing {
//!     async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
//!         for record in batch.records() {
//!             self.0.send(String::from_utf8(record.data().to_vec())?).await?;
//!         }
//!         Ok(batch.checkpointer().checkpoint().await?)
//!     }
//!     async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
//!         Ok(end.checkpoint().await?)
//!     }
//!     async fn shutdown_requested(&mut self, last: Shutdown<'_>) -> Result<(), ProcessorError> {
//!         Ok(last.checkpointer().checkpoint().await?)
//!     }
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let aws = kinesis_testkit::LocalAws::start().await?;
//! # aws.create_stream("orders", 2).await?;
//! # for order in ["one", "two", "three"] {
//! #     let put = aws.kinesis().put_record().stream_name("orders").partition_key(order);
//! #     put.data(Blob::new(order)).send().await?;
//! # }
//! # let sdk_config = aws.sdk_config();
//! let (sender, mut orders) = tokio::sync::mpsc::channel(100);
//! let worker = Scheduler::builder("billing", "orders", &sdk_config)
//!     .processor(move |_shard: &ShardContext| Billing(sender.clone()))
//!     .config(ConsumerConfig::default().with_initial_position(InitialPosition::TrimHorizon))
//!     .build()
//!     .await?
//!     .spawn();
//! let mut received = Vec::new();
//! while received.len() < 3 {
//!     received.extend(orders.recv().await);
//! }
//! worker.shutdown(Duration::from_secs(10)).await?;
//! # received.sort();
//! # assert_eq!(received, ["one", "three", "two"]);
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//!
//! * **No record is skipped.** If a processor returns an error or panics, the worker calls it again with the same
//!   batch, without the records that were checkpointed meanwhile, with backoff, for as long as the worker holds the
//!   lease. Failed reads, throttles and expired iterators are retried from the last position. A checkpoint that fails
//!   for a reason that may pass is retried until the lease expires.
//! * **One owner.** Records are delivered only while the worker is sure to hold the lease, judged on a clock that runs
//!   through suspend. When it is no longer sure, the cancellation token of `process_records` is cancelled and
//!   checkpoints fail. What the processor already did outside cannot be undone.
//! * **Order.** A child shard starts when all records of its parents were processed and their ends were checkpointed.
//! * **Blocking code costs no lease.** The worker renews its leases on a thread of its own, with its own AWS
//!   connections ([or on another runtime](SchedulerBuilder::coordination_on)). A processor that blocks every thread of
//!   its runtime keeps its shard, and a planned stop keeps its deadline. Fetching, and other shards on that runtime,
//!   wait for it. If that runtime runs nothing for the failover time, the worker takes no more shards, gives back those
//!   that have not started, and [reports it](ProblemKind::RuntimeBlocked).
//!
//! The worker's own thread calls the metrics recorder, the `tracing` subscriber and the [`Clock`] of the application,
//! which must not block. A recorder or subscriber that is set for another thread only sees nothing of the coordination.
//!
//! # Stopping
//!
//! Call [`WorkerHandle::shutdown`] on SIGTERM. Delivery stops at once, each processor finishes its batch and writes its
//! last checkpoint, and its shard goes to the worker with the fewest leases, which continues within a second or two;
//! see [`OnStop`]. `shutdown` returns within your deadline and [`WorkerHandle::STOP_MARGIN`], even if DynamoDB does not
//! answer. Their sum must be less than the time that the orchestrator allows (Kubernetes: 30 s). The [`ShutdownReport`]
//! tells the outcome for each shard.
//!
//! If DynamoDB does not answer, processing continues until the failover time after the last renewal, then stops, and
//! resumes by itself after the last checkpoint. With the default settings, an outage stops nothing if requests hang
//! for at most 4 s, or are refused for nearly 5 s: a renewal is due every 5 s, and each attempt times out after 2 s.
//!
//! # Cost
//!
//! With the default settings, an idle lease costs about 0.21 write units and 0.26 read units per second in DynamoDB,
//! and a checkpoint counts as a renewal. The book, `docs/src/cost.md`, has the figures and how to estimate them.
//!
//! # Memory
//!
//! A worker holds fetched records of at most
//! `max(max_buffered_bytes, max_buffered_bytes / 2 + active shards x one page)`, and the pages that processors keep with
//! an [`OwnedRecord`], or handlers in their [windows](ConsumerConfig::max_window_bytes), beyond that. Each active shard
//! can always hold one page, also while other shards have read a second one ahead. Beside data and key, a record takes
//! about 170 bytes (90 if the endpoint answers in JSON), and a user record of an aggregate about 24. All of that is
//! counted.
//!
//! * By polling, a page takes about `max_buffered_bytes / (2 x active shards)`: at least 256 KiB, at most 10 MiB, and at
//!   least one record. While a response is read, the SDK holds it a second time, which is not counted.
//! * By enhanced fan-out, a page is an event of a subscription, whose size the service chooses: a few megabytes at most. The
//!   worker reserves as much as the last events of the shard took. If a larger event comes while the shard holds another
//!   page, the bound is exceeded by the difference, until a page is processed. Not counted are up to 512 KiB for
//!   each subscription, which HTTP/2 receives ahead, and the event that the SDK decodes: its frame, and its records.
//!
//! # Features
//!
//! None is on by default.
//!
//! * `serde`: settings, snapshots and reports as data. In snapshots and reports, durations are whole milliseconds.
//! * `metrics`: the `metrics` facade.
//! * `cloudwatch`: metrics in Amazon CloudWatch.
//! * `dead-letters`: [dead letters](DeadLetter) as JSON, and sinks for them in files and streams.
//! * `sqs`: dead letters in Amazon SQS.
//! * `object-store`: dead letters in Amazon S3 and other object stores.
//! * `testing`: a shard in memory, for unit tests of processors.

// What `internals` shows is not documented as the API is. Without `internals`, it is unreachable: then the
// lint for that has no say, and with it, it finds what is public for no reason.
#![cfg_attr(any(test, feature = "internals"), allow(missing_docs))]
#![cfg_attr(not(feature = "internals"), allow(unreachable_pub))]

// Lets unit tests include the lease table in memory, which the simulation has, as it is.
#[cfg(test)]
extern crate self as kcl;

mod checkpoint;
mod clock;
mod config;
mod coordinator;
mod current_stream;
mod dead_letter;
mod delivery;
mod error;
mod executor;
mod health;
#[cfg(any(test, feature = "internals"))]
#[doc(hidden)]
pub mod internals;
mod lease;
mod lease_admin;
mod lease_table;
pub mod metrics;
#[cfg(feature = "serde")]
mod millis;
mod processor;
mod progress;
mod replay;
mod retrieval;
mod seek;
mod sequence;
mod service_time;
mod shard_consumer;
mod shard_control;
mod shard_state;
mod snapshot;
mod stream;
mod task;
#[cfg(feature = "testing")]
pub mod testing;
mod why_not_running;
mod worker;
mod worker_state;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use clock::Clock;
pub use config::{
    AfterRetries, AggregateRangePolicy, CheckpointPolicy, ConfigError, ConsumerConfig,
    FailurePolicy, FanOutConfig, FanOutConsumer, InitialPosition, OnRecreatedStream, OnStop,
    OnTrimmedGap, RetrievalMode, ShardPosition, ShardPositions, StreamPosition, TableConfig, Until,
    Wire,
};

pub use dead_letter::{DeadLetter, DeadLetterCondition, DeadLetterSink, MapSink};
#[cfg(feature = "dead-letters")]
pub use dead_letter::{
    DeadLetterSource, FileSink, FileSource, InvalidDeadLetter, KinesisSink, Redrive, RedriveError,
    RedriveReport, SinkError, StoredLetter,
};
#[cfg(feature = "object-store")]
pub use dead_letter::{ObjectStoreSink, ObjectStoreSource};
#[cfg(feature = "sqs")]
pub use dead_letter::{SqsSink, SqsSource};
pub use error::{BuildError, ProcessorError, StartError, WorkerError};
pub use health::{
    Health, HealthStatus, HeldUpBy, Problem, ProblemKind, ShardActivity, ShardHealth,
};
pub use lease::{FencingToken, TableProblem};
pub use lease_admin::{LeaseAdmin, LeaseAdminError, LeaseChange, ResetPlan, ResetTo};
pub use lease_table::{CorruptLease, LeaseSnapshot, LeaseTableSnapshot};
pub use processor::{
    BatchFailures, Checkpointer, GiveUpReason, OwnedBatch, OwnedRecord, PendingRecord,
    PreparedCheckpoint, ProcessorFactory, Record, RecordBatch, RecordProcessor, Records,
    ShardContext, ShardEnd, ShardRecord, Shutdown, SkippedRecords,
};
pub use replay::{ReplayEnd, ReplayReport, ReplayedShard};
pub use seek::{SeekError, SkipError};
pub use sequence::{ExtendedSequenceNumber, InvalidSequenceNumber, SequenceNumber};
pub use shard_state::{ShardShutdown, ShardState, ShutdownReason};
pub use snapshot::{ProcessorCall, ShardSnapshot, WorkerSnapshot};
pub use why_not_running::WhyNotRunning;
pub use worker::{
    BatchStream, RecordStream, Scheduler, SchedulerBuilder, ShutdownReport, WorkerHandle,
};
pub use worker_state::{StateWatch, WorkerState};
