//! The Kinesis Client Library for Rust.

mod checkpoint;
mod clock;
mod config;
mod coordination;
mod delivery;
mod error;
mod lease;
mod processor;
mod retrieval;
mod scheduler;
mod sequence;
mod shard_consumer;
mod shard_sync;

pub use config::{CheckpointPolicy, ConsumerConfig, InitialPosition, OnStop, TableConfig};
