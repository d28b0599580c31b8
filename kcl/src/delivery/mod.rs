//! From fetched records to the processor's call: de-aggregation, automatic checkpoints, and what
//! happens when user code fails.

mod aggregate_log;
mod auto_checkpoint;
mod deaggregate;
mod invoke;

pub(crate) use auto_checkpoint::{AutoCheckpoint, ReadToNote};
pub(crate) use deaggregate::Deaggregator;
pub(crate) use invoke::Invoker;
