//! Which worker should own what: discovery, taking, balance, worker rows, shutdown.

mod acquired;
mod assignment;
mod balance;
mod discovery;
mod error;
mod existence;
mod fleet_mode;
mod last_look;
mod liveness;
mod maintenance;
mod migration;
mod observation;
mod other_processes;
mod pace;
mod registry;
mod run;
mod shared;
mod start;
mod startup;
mod thread;
mod worker_metrics;

pub use error::{StartError, WorkerFailure};
pub(crate) use last_look::LastLook;
pub(crate) use run::{Coordinator, CoordinatorParts};
#[cfg(feature = "simulation")]
pub(crate) use shared::{Shared, SharedParts};
#[cfg(feature = "simulation")]
pub(crate) use start::first_look;
