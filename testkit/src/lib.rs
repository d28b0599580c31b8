//! An embedded Kinesis and DynamoDB, for tests and examples: nothing to install, no account, no
//! container.
//!
//! [`LocalAws`] serves both over HTTP on free loopback ports, in this process, within milliseconds;
//! the AWS SDK talks to it as it talks to AWS. Streams split, merge and scale with their lineage,
//! sequence numbers are those of AWS in form and order, and a reader never passes a record that
//! appears later; consumers with fan-out are pushed theirs. Shard limits, retention and iterator
//! expiry can be had; the clock can be a test's own ([`ManualClock`], or [`TokioClock`] with
//! [no socket](LocalAws::in_process_config) between, for paused time); and [`Faults`] strike where a
//! test asks: a throttle, a refused entry, a response lost after the write.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use aws_sdk_kinesis::{primitives::Blob, types::ShardIteratorType};
//! use kinesis_testkit::LocalAws;
//!
//! let aws = LocalAws::start().await?;
//! aws.create_stream("orders", 1).await?;
//! let client = aws.kinesis();
//!
//! let data = Blob::new("one coffee");
//! client.put_record().stream_name("orders").partition_key("table 7").data(data).send().await?;
//!
//! let start = client.get_shard_iterator().stream_name("orders").shard_id("shardId-000000000000");
//! let start = start.shard_iterator_type(ShardIteratorType::TrimHorizon).send().await?;
//! let read = client.get_records().set_shard_iterator(start.shard_iterator).send().await?;
//! assert_eq!(read.records()[0].data().as_ref(), b"one coffee");
//! # Ok(())
//! # }
//! ```
//!
//! It is not: durable (everything is in memory, unless a [file](LocalAwsBuilder::data) is given, which
//! is a second behind), a place for load tests of AWS itself, or safe to
//! open to a network (it checks no credentials unless asked to, and listens on the loopback address
//! only).

mod access;
mod buffers;
mod clock;
mod connector;
mod control;
mod data;
mod dynamodb;
mod encoding;
mod error;
mod faults;
mod front;
mod http;
mod kinesis;
mod ledger;
mod local_aws;
mod server;
mod tls;

pub use clock::{Clock, ManualClock, SystemClock, TokioClock};
pub use encoding::CborSupport;
pub use error::{CallError, StartError};
pub use faults::{Fault, FaultId, FaultKind, FaultScriptError, Faults, InjectedFault, Service};
pub use ledger::{Delivery, Ledger, Position, Verdict};
pub use local_aws::{LocalAws, LocalAwsBuilder, ShardRecords, StoredRecord};
