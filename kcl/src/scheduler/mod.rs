//! The worker: builds itself, runs a consumer for each lease that it owns, and stops.

mod builder;
mod handle;
mod pulse;
mod run;
mod shards;

pub use builder::{Scheduler, SchedulerBuilder};
pub use handle::{ShutdownReport, WorkerHandle};
#[cfg(feature = "simulation")]
pub(crate) use {
    run::run,
    shards::{View, ViewParts},
};
