//! Delivers fetched records to the processor: de-aggregation, calls and their retries, automatic checkpoints.

mod aggregate_log;
mod auto_checkpoint;
mod deaggregate;
mod given_up;
mod invoke;
mod policy;

pub(crate) use auto_checkpoint::{AutoCheckpoint, ReadToNote};
pub(crate) use deaggregate::Deaggregator;
pub(crate) use given_up::GivenUp;
pub use given_up::{GiveUpReason, SkippedRecords};
pub(crate) use invoke::{Delivered, Invoker};
