//! Aggregates: several user records in one Kinesis record, from the open aggregate of a shard to the bytes that are
//! sent.

pub(crate) mod builder;
pub(crate) mod compression;
pub(crate) mod data;
pub(crate) mod failed;
pub(crate) mod kinesis_record;
pub(crate) mod lifetimes;
