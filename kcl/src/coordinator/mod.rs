//! Which worker should own what: discovery, taking, balance, worker rows, shutdown.

mod acquired;
mod assignment;
mod deletion_check;
mod discovery;
mod error;
mod fleet_mode;
mod fleet_view;
mod heartbeat;
mod held_leases;
mod migration;
mod run;
mod scan_schedule;
mod shard_sync;
mod shared;
mod start;
mod thread;

pub use error::{StartError, WorkerFailure};
#[cfg(test)]
pub(crate) use fleet_view::FleetView;
pub(crate) use fleet_view::SharedFleetView;
pub(crate) use run::{Coordinator, CoordinatorParts};
#[cfg(feature = "simulation")]
pub(crate) use shared::{Shared, SharedParts};
#[cfg(feature = "simulation")]
pub(crate) use start::first_look;
