//! Kinesis Producer Library (KPL) for Rust: accepts records one by one and writes them to a Kinesis data stream in
//! aggregates and batches, with retries and bounded memory. No JVM, no child process.
//!
//! ```
//! use std::time::Duration;
//!
//! use kinesis_testkit::LocalAws; // an embedded Kinesis; with AWS: aws_config::load_from_env().await
//! use kpl::{Producer, UserRecord};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let aws = LocalAws::start().await?;
//! aws.create_stream("orders", 2).await?;
//! let sdk_config = aws.sdk_config();
//!
//! let producer = Producer::builder("orders", &sdk_config).build().await?;
//! let mut deliveries = Vec::new();
//! for order in 0..1000 {
//!     let record = UserRecord::new(format!("customer-{}", order % 7), format!("order {order}"));
//!     deliveries.push(producer.send(record).await?); // waits only while the buffer is full
//! }
//! for delivery in deliveries {
//!     let receipt = delivery.await?; // durable in Kinesis
//!     assert!(receipt.shard_id.starts_with("shardId-"));
//! }
//! let report = producer.close(Duration::from_secs(10)).await;
//! assert_eq!((report.delivered, report.failed, report.abandoned), (1000, 0, 0));
//! assert!(producer.stats().kinesis_records < 20); // of 1000 user records
//! # Ok(())
//! # }
//! ```
//!
//! # What it does
//!
//! * **Aggregates** the records of a shard in the KPL's format, which every KCL reads. It predicts the shard of a
//!   record from a shard map, which it keeps fresh.
//! * **Batches** Kinesis records into PutRecords requests, fairly across shards, within each shard's rate. The rate
//!   adapts to the throttles of the shard, so that several producers share it.
//! * **Retries** each Kinesis record on its own, with backoff and full jitter, until its time to live is over. If the
//!   service or a proxy refuses a whole request because of one record, the producer splits the request, and the
//!   aggregates in it, until that record is alone.
//! * **Adapts to the link**: the bytes in flight grow and shrink with what is acknowledged, so that a slow link
//!   recovers from an outage.
//! * **Follows resharding** without loss: an aggregate is acknowledged only if all its members belong to the shard that
//!   took it, because a KCL otherwise drops the whole aggregate. (The KPL up to 1.1.0 acknowledges the members that
//!   belong there, and they are lost.)
//! * **Bounds its memory**: [`Producer::send`] waits while the buffer is full, and a hot shard does not stall the
//!   others. The formula is at [`ProducerConfig`]. Several producers may share one [`MemoryBudget`].
//!   [`Producer::reserve`] gets room before the record exists. [`Droppable`](Priority::Droppable) records are dropped
//!   instead of waiting.
//! * **Reports metrics**: percentiles, hot shards and keys, and the KPL's metrics through the `metrics` facade or to
//!   CloudWatch; see [`metrics`].
//!
//! [`Producer::send`] states the guarantees about delivery, duplicates and order.
//!
//! # Features
//!
//! None is on by default.
//!
//! * `serde`: settings, stats and reports as data. In stats and reports, durations are milliseconds.
//! * `metrics`: the `metrics` facade.
//! * `cloudwatch`: metrics in Amazon CloudWatch.
//! * `sink`: a producer as a `futures::Sink`.
//!
//! # Coming from the KPL
//!
//! [`parity`] has a row for each option of the KPL. [`ProducerConfig::from_properties`] reads the KPL's `.properties`
//! files.
//!
//! # IAM actions
//!
//! | action | needed for |
//! |---|---|
//! | `kinesis:PutRecords` | everything |
//! | `kinesis:ListShards` | aggregation and ordered mode |
//! | `kinesis:DescribeStreamSummary` | the check of the stream at the start, ordered mode, and the stream's maximum record size. Without it, the limit is 1 MiB or [`max_record_size`](ProducerConfig::max_record_size) |
//! | `cloudwatch:PutMetricData` | metrics in CloudWatch |
//!
//! If an action but the first is missing, the producer works without what needs it, and logs a warning.
//!
//! # Streams that place records themselves
//!
//! If the record distribution strategy of an on-demand stream is `AUTO`, Kinesis ignores partition keys, so no shard
//! can be predicted. The producer sends each record alone, and a record may lack its key ([`UserRecord::without_key`]).
//! Data that begins as an aggregate does is refused ([`InvalidRecord::LooksAggregated`]), unless it is sent as
//! [`UserRecord::raw`].
//!
//! The producer reads the strategy with `kinesis:DescribeStreamSummary` and follows a change in both directions. An
//! aggregate that is in flight during the change is delivered if all its members belong to the shard that took it, and
//! split otherwise. A record that the stream no longer accepts fails with [`FailureCause::StrategyChanged`].
//!
//! Without that action, the producer detects a change to `AUTO` by the shards that take its records, but not a change
//! back. Without `kinesis:ListShards` it detects neither, and consumers may drop data that begins as an aggregate does.
//!
//! # A stream created again
//!
//! If a stream is deleted and created again under its name, the producer judges its aggregates by a fresh shard map, as
//! soon as it has sent a record in between. A producer that was idle meanwhile learns of the new stream with the next
//! refresh of its map. Up to [`shard_map_refresh_interval`](ProducerConfig::shard_map_refresh_interval) later it may
//! acknowledge an aggregate that consumers drop. Without `kinesis:DescribeStreamSummary` it may take the new stream for
//! one that places records itself, and stop aggregating.
//!
//! # What it is not
//!
//! * A consumer: that is `kcl`.
//! * A producer for several streams: build one for each, they are cheap.
//! * A durable queue: a record that was accepted and not delivered is lost with the process.

mod ack;
mod aggregate;
mod buffer;
mod config;
mod context;
mod error;
pub mod metrics;
#[doc = include_str!("parity.md")]
pub mod parity {}
mod producer;
mod record;
mod retry;
mod sender;
mod service;
mod shard;
mod stats;
mod sync;

use kinesis_common::clock;

pub use ack::{Deliveries, Delivery, Receipt};
pub use buffer::MemoryBudget;
pub use config::{
    Compression, InvalidConfig, KplProperties, OnGap, ProducerConfig, PropertyNote, RecordOrdering,
    Wire,
};
pub use error::{Attempt, DeliveryError, FailureCause, ReserveError, SendError, StopReason};
pub use kinesis_aggregation::HashKey;
pub use producer::{
    BuildError, CloseReport, Permit, Producer, ProducerBuilder, SendAll, SendAllError,
};
#[cfg(feature = "sink")]
pub use producer::{RecordSink, SinkError};
pub use record::{InvalidRecord, PartitionKey, Priority, Record, RecordData, UserRecord};
pub use stats::ProducerStats;
