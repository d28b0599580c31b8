//! Delivers fetched records to the processor: de-aggregation, calls and their retries, automatic checkpoints.

mod aggregate_log;
mod auto_checkpoint;
mod deaggregate;
mod invoke;

pub(crate) use auto_checkpoint::{AutoCheckpoint, ReadToNote};
pub(crate) use deaggregate::Deaggregator;
pub(crate) use invoke::{Delivered, Invoker};
