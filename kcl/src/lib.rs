//! The Kinesis Client Library (KCL) for Rust: a fleet of workers shares the shards of an Amazon
//! Kinesis stream, and each record reaches a processor at least once, in order per partition key.
//!
//! * [`RecordProcessor`] is what you implement; one instance per shard.
//! * [`Scheduler`] is a worker: it leases shards in a DynamoDB table, shared with Java KCL 3.x
//!   workers, reads them, takes aggregated and compressed records apart, delivers them, follows
//!   splits and merges, and gives its shards to the others when it stops.
//! * [`Checkpointer`] writes down what is done; after a restart, or in another worker, processing
//!   goes on behind it, even inside an aggregate.
//! * [`ConsumerConfig`] holds the settings.
//! * [`WorkerHandle`] tells what the worker does, where each shard of the stream is, and
//!   [why it is not running](WorkerHandle::why_not_running).
//! * [`WorkerHandle::health`] answers probes: whether the worker does its work, and what keeps it from
//!   that.
//! * [`metrics`] are those of the Java library, and what it lacks.
//!
//! It is not a producer (that is the crate `kpl`), and it does not promise exactly once: after a
//! crash, records since the last checkpoint come again. [`FencingToken`] helps a store of yours to
//! refuse what a former owner of a shard still writes.
//!
//! # Example
//!
//! It runs against an embedded AWS, which needs nothing installed; against the real one, only the
//! SDK configuration differs.
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
//! * **Nothing is skipped.** An error or a panic of a processor is retried with the same batch, without
//!   the records that were checkpointed meanwhile, with backoff, for as long as the worker owns the shard.
//!   Read errors, throttles and expired iterators are retried from the last position. A checkpoint that
//!   fails for a reason that may pass is retried for as long as the lease lasts, before the call returns.
//! * **One owner.** Records are delivered only while this worker can be sure to own the lease, judged
//!   on a clock that runs through suspend. When it can not, `process_records` in flight is told by
//!   its cancellation token and its checkpoints fail; what it already did outside can not be undone.
//! * **Blocking code costs no lease.** Leases are renewed on a thread of the worker's own, with AWS
//!   connections of its own ([where to give another](SchedulerBuilder::coordination_on)): a processor
//!   that blocks every thread of its runtime keeps its shard, checkpoints when it comes back, and is
//!   fenced by the same clock when renewals fail meanwhile. A planned stop keeps its deadline. Fetching,
//!   and other shards on the same runtime, wait for it. While that runtime runs nothing for longer than
//!   the failover time, the worker takes no more shards, gives back those that had not begun, and
//!   [says so](WhyNotRunning::RuntimeBlocked). Of your code, that thread calls the metrics
//!   recorder, the `tracing` subscriber and the [`Clock`]: those must not block; set for one other thread
//!   only, the first two see nothing of coordination.
//! * **Order.** A child shard starts when all its parents' records were processed and their end was
//!   checkpointed.
//!
//! # Stopping
//!
//! [`WorkerHandle::shutdown`] on SIGTERM: delivery stops at once, each processor finishes its batch in hand
//! and writes its last checkpoint, and its shard is handed to the least loaded worker, which goes on within
//! a second or two; see [`OnStop`]. It returns within the deadline that you give and
//! [`WorkerHandle::STOP_MARGIN`], also when DynamoDB does not answer. Together they must be less than the
//! time that the orchestrator leaves (Kubernetes: 30 s). The [`ShutdownReport`] says what became of each
//! shard.
//!
//! When DynamoDB does not answer, processing goes on for up to the failover time since the last
//! renewal, then stops, and resumes by itself behind the last checkpoint. By the default settings, 4 s
//! in which requests hang, or nearly 5 s in which they are refused, stop nothing whenever they begin:
//! a renewal is due every 5 s, and each of its attempts gives up after 2 s.
//!
//! # Cost
//!
//! In DynamoDB, as a test counts it with the default failover time: units per lease and hour, beside
//! what the Java library's constants amount to.
//!
//! | | writes | Java | reads | Java |
//! |---|---|---|---|---|
//! | four leases, idle | 750 | 1,148 | 930 | 94 |
//! | the same, two workers | 780 | 1,178 | 1,860 | 139 |
//! | one lease, idle (a worker's own row costs 120) | 840 | 1,328 | 3,720 | 375 |
//! | a record a second, [`CheckpointPolicy::Interval`] of a minute | 750 | 1,208 | 930 | 94 |
//! | a checkpoint a second | 3,630 | 4,748 | 930 | 94 |
//! | a checkpoint each four seconds | 930 | 2,048 | 930 | 94 |
//!
//! A write unit costs five times as much as a read unit. A checkpoint counts as a renewal; finished
//! leases cost nothing. Each worker looks at the table for itself, once a second: that is what reads
//! cost, and what finds a dead worker soon; once a minute it reads the fleet's mode. On large tables they are bounded:
//! [`max_lease_table_reads`](ConsumerConfig::max_lease_table_reads) says by what, and what it leaves out.
//!
//! # Features
//!
//! `serde` (settings, snapshots and reports as data; in snapshots and reports, durations are whole
//! milliseconds), `metrics` (the `metrics` facade), `testing` (a shard in memory, for unit tests of
//! processors); none by default.
//!
//! # Memory
//!
//! A worker holds fetched records of at most `max(max_buffered_bytes, active shards x one page)`,
//! each counted with 256 bytes on top; a page has about `max_buffered_bytes / (2 x active shards)`,
//! at least 256 KiB and at most 10 MiB, and at least one record. While a response is read, the SDK
//! holds it once more. What processors keep by [`Record::bytes`] is not counted.

mod backoff;
mod checkpoint;
mod clock;
mod config;
mod coordinator;
mod current_stream;
mod delivery;
mod error;
mod error_text;
mod executor;
mod health;
mod lease;
mod lease_table;
pub mod metrics;
#[cfg(feature = "serde")]
mod millis;
mod panic_message;
mod processor;
mod progress;
mod retrieval;
mod sequence;
mod service_time;
mod shard_consumer;
mod shard_state;
#[cfg(feature = "simulation")]
#[doc(hidden)]
pub mod simulation;
mod snapshot;
mod stream;
mod stream_name;
mod task;
#[cfg(feature = "testing")]
pub mod testing;
mod why_not_running;
mod worker;
mod worker_state;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use clock::Clock;
pub use config::{
    AggregateRangePolicy, CheckpointPolicy, ConfigError, ConsumerConfig, InitialPosition,
    OnRecreatedStream, OnStop, OnTrimmedGap, TableConfig,
};
pub use coordinator::{StartError, WorkerFailure};
pub use error::{BuildError, ProcessorError, WorkerError};
pub use health::{Health, HealthStatus, Problem, ProblemKind};
pub use lease::{FencingToken, TableProblem};
pub use lease_table::{CorruptLease, LeaseSnapshot, LeaseTableSnapshot};
pub use processor::{
    Checkpointer, PreparedCheckpoint, ProcessorFactory, Record, RecordBatch, RecordProcessor,
    Records, ShardContext, ShardEnd, Shutdown,
};
pub use sequence::{ExtendedSequenceNumber, InvalidSequenceNumber, SequenceNumber};
pub use shard_state::{ShardState, ShutdownReason};
pub use snapshot::{ProcessorCall, ShardSnapshot, WorkerSnapshot};
pub use why_not_running::WhyNotRunning;
pub use worker::{Scheduler, SchedulerBuilder, ShardShutdown, ShutdownReport, WorkerHandle};
pub use worker_state::{StateWatch, WorkerState};
