//! The aggregated record format of Amazon Kinesis, which the Kinesis Producer Library (KPL) writes
//! and the Kinesis Client Library (KCL) reads: many user records in one Kinesis record.
//!
//! * [`HashKey`], [`HashKeyRange`]: where a record lands in a stream.
//! * [`AggregateBuilder`]: an aggregate under construction, its exact size known at every step;
//!   writes the very bytes of the KPL.
//! * [`Decoder`]: takes received records apart without copying; every input has a defined result.
//! * [`Compressor`]: an optional compressed frame, which [`Decoder`] reads too.
//!
//! It is not a client: no I/O, no clock, no async, no AWS SDK. Whether a single record goes out raw,
//! which partition key an aggregate gets and what to do with a member outside of a shard's range is
//! for the producer and the consumer to decide.
//!
//! ```
//! use kinesis_aggregation::{AggregateBuilder, Decoded, Decoder};
//!
//! let mut open = AggregateBuilder::new(50 * 1024);
//! open.push("JFK", None, b"flight 1")?;
//! open.push("LAX", None, b"flight 2")?;
//! let record = open.seal().into_bytes();
//!
//! let Decoded::Aggregate(aggregate) = Decoder::new(1024 * 1024).decode(record)? else {
//!     panic!("it is an aggregate");
//! };
//! let members: Vec<_> = aggregate.iter().map(|m| (m.partition_key(), m.data())).collect();
//! assert_eq!(members, [("JFK", &b"flight 1"[..]), ("LAX", b"flight 2")]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # The KPL's frame
//!
//! ```text
//! F3 89 9A C2 | AggregatedRecord (protobuf) | MD5 of the protobuf bytes, 16 bytes
//! ```
//! ```protobuf
//! message AggregatedRecord {
//!   repeated string partition_key_table     = 1;
//!   repeated string explicit_hash_key_table = 2;
//!   repeated Record records                 = 3;
//! }
//! message Record {
//!   required uint64 partition_key_index     = 1;
//!   optional uint64 explicit_hash_key_index = 2;
//!   required bytes  data                    = 3;
//!   repeated Tag    tags                    = 4; // the KPL writes none, the KCL reads none
//! }
//! message Tag { required string key = 1; optional string value = 2; }
//! ```
//! Both tables hold each key once, in order of first use; the indexes count from 0. A member's index
//! in `records` is its sub-sequence number. Fields are written in the order of their numbers.
//!
//! # The compressed frame
//!
//! Ours alone: the Java libraries take it for a plain record. Off unless a producer asks for it.
//!
//! | offset | bytes | content |
//! |---|---|---|
//! | 0 | 4 | magic `C1 4B 41 9E` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | codec, 1 = zstd |
//! | 6 | 4 | length of the uncompressed content, little-endian |
//! | 10 | rest | one zstd frame with content size and content checksum; no dictionary, no bytes after it |
//!
//! The content is the protobuf message of the KPL's frame; the zstd checksum (the low 32 bits of
//! XXH64) takes the place of the MD5. The magic cannot be mistaken: `C1` occurs nowhere in UTF-8 and
//! is the one byte that MessagePack never uses; JSON, Avro, Parquet, gzip, zstd, LZ4, Snappy and the
//! headers of the schema registries begin otherwise. User data that nevertheless begins with either
//! magic ([`looks_framed`]) is sent inside an aggregate of one.

mod aggregate;
mod compressed;
mod decode;
mod encode;
mod frame;
mod hash_key;
mod key_table;
mod md5;
mod wire;

pub use aggregate::{Aggregate, AggregateDefect, DefectKind, Member};
pub use compressed::{Compressor, FrameError};
pub use decode::{Decoded, Decoder};
pub use encode::{AggregateBuilder, AggregateFull};
pub use frame::{PlainReason, SealedAggregate, UndigestedAggregate, looks_framed};
pub use hash_key::{
    HashKey, HashKeyRange, InvalidHashKeyRange, ParseHashKeyError, hash_partition_keys,
};
pub use wire::MalformedBody;
