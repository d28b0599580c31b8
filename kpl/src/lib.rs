//! The Kinesis Producer Library (KPL) for Rust: takes records one by one and puts them into a Kinesis data stream in
//! aggregates and batches, with retries, in bounded memory. No JVM, no child process.
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
//! * **Aggregates** the records of a shard in the KPL's format, which every KCL reads; the shards are predicted from a
//!   shard map that is kept fresh.
//! * **Batches** Kinesis records into PutRecords requests, fairly across shards, within each shard's rate. The rate adapts
//!   to the shard's throttles, so that producers share a shard.
//! * **Retries** each Kinesis record on its own, with backoff and full jitter, until its time to live is over. A request that
//!   fails for one record in it, at the service or at a proxy before it, is divided until that record is alone; an aggregate
//!   is divided, too.
//! * **Adapts to the link**: the bytes in flight grow and shrink with what is acknowledged, so that a slow link recovers from
//!   an outage as soon as its load allows.
//! * **Resharding** loses nothing: an aggregate counts as delivered only if all its members belong to the shard that took
//!   it, because a KCL drops it as a whole otherwise. The KPL acknowledges the part that fits, and that part is lost. If no
//!   fresh shard map tells within half of the time to live, its members go one by one, and so do those behind it.
//! * **Bounded memory**: [`Producer::send`] waits while the buffer is full, and one hot shard does not stall the others. The
//!   formula is at [`ProducerConfig`]. Several producers may share one [`MemoryBudget`]; [`Producer::reserve`] gives room for
//!   a record to come; [`Droppable`](Priority::Droppable) records give way instead of waiting.
//! * **Metrics**: percentiles, hot shards and keys, and the KPL's metrics through the `metrics` facade or to CloudWatch; see
//!   [`metrics`].
//!
//! What is promised about delivery, duplicates and order stands at [`Producer::send`].
//!
//! # Features
//!
//! `serde` (settings, stats and reports as data; in those, durations are milliseconds), `metrics` (the `metrics` facade), `cloudwatch` (Amazon CloudWatch), `sink` (a producer as a
//! `futures::Sink`). None is on by default.
//!
//! # Coming from the KPL
//!
//! [`parity`] has a row for each of its options, and [`ProducerConfig::from_properties`] reads its `.properties` files.
//!
//! # IAM actions
//!
//! `kinesis:PutRecords`; with `kinesis:DescribeStreamSummary` the stream is checked on start, with `kinesis:ListShards`
//! records are aggregated. Without the latter two the producer works, and says in its log what it does without. Without
//! `kinesis:DescribeStreamSummary` it takes records of at most 1 MiB, or of
//! [`max_record_size`](ProducerConfig::max_record_size). Metrics in CloudWatch take `cloudwatch:PutMetricData`.
//!
//! # Streams that place records themselves
//!
//! Where the record distribution strategy of an on-demand stream is `AUTO`, no shard can be predicted: records go out one by
//! one, without aggregation, and data that begins as an aggregate does is refused ([`InvalidRecord::LooksAggregated`])
//! unless it is sent as [`UserRecord::raw`]. A record may lack its key there ([`UserRecord::without_key`]).
//!
//! The strategy is read with the shard map, with `kinesis:DescribeStreamSummary`, and a change is followed both ways.
//! Aggregates that it meets under way are delivered where all their members belong to the shard that took them, and are taken apart
//! otherwise; what the stream takes no more fails with [`FailureCause::StrategyChanged`]. Without that action, a
//! change to `AUTO` shows in where records lie; a change back does not show. Without `kinesis:ListShards` either, nothing
//! shows, and consumers may drop data that begins as an aggregate does.
//!
//! # A stream created again
//!
//! Where a stream is deleted and created again under its name, a producer that sent something in between judges by a fresh
//! shard map. One that sent nothing learns of it with the next refresh: for up to
//! [`shard_map_refresh_interval`](ProducerConfig::shard_map_refresh_interval) it may take an aggregate for delivered that
//! consumers drop; without `kinesis:DescribeStreamSummary` it may take the new stream for one that places records itself, and
//! stop aggregating.
//!
//! # It is not
//!
//! A consumer (that is `kcl`), a producer for several streams (build one for each: they are cheap), or a durable queue:
//! what is accepted and not yet delivered is lost with the process.

mod ack;
mod aggregate;
mod buffer;
mod clock;
mod config;
mod error;
mod error_text;
mod logs;
pub mod metrics;
#[doc = include_str!("parity.md")]
pub mod parity {}
mod producer;
mod record;
mod retry;
mod sender;
#[cfg(feature = "serde")]
mod serialize;
mod service;
mod shard;
mod stats;
mod stream_name;
mod sync;

pub use ack::{Delivery, Receipt};
pub use buffer::MemoryBudget;
pub use config::{
    Compression, InvalidConfig, KplProperties, OnGap, ProducerConfig, PropertyNote, RecordOrdering,
};
pub use error::{
    Attempt, BuildError, DeliveryError, FailureCause, ReserveError, SendError, StopReason,
};
pub use kinesis_aggregation::HashKey;
pub use producer::{CloseReport, Permit, Producer, ProducerBuilder};
#[cfg(feature = "sink")]
pub use producer::{RecordSink, SinkError};
pub use record::{InvalidRecord, PartitionKey, Priority, UserRecord};
pub use stats::ProducerStats;
