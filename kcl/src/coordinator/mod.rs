//! Decides which leases this worker holds, together with the other workers of the fleet.
//!
//! [`Coordinator`] starts these tasks:
//! * [`heartbeat`]: writes this worker's row, by which the other workers and Java leaders know it.
//! * [`discovery`]: finds leases that were assigned to this worker.
//! * [`assignment`]: scans the lease table, takes available leases, and hands leases over to
//!   balance the fleet.
//! * [`shard_sync`]: creates and deletes leases as the stream's shards change.
//! * [`deletion_check`]: confirms that the table or the stream was deleted, before the worker ends
//!   for it.
//! * [`fleet_mode`]: ends the worker when the fleet changes to a mode that it does not know.
//!
//! What the scans show is kept in [`fleet_view`], which answers which workers are alive and which
//! leases may be taken. [`acquire`] makes a lease this worker's, and starts its renewer.
//! [`planned_stop`] tells the order of a planned stop.

mod acquire;
mod acquired;
mod assignment;
pub(crate) mod context;
mod deletion_check;
mod discovery;
mod fleet_mode;
mod fleet_view;
mod heartbeat;
mod held_leases;
#[cfg(test)]
mod memory_worker;
mod migration;
mod planned_stop;
mod renewer_services;
mod run;
mod scan;
mod scan_schedule;
mod shard_sync;
pub(crate) mod start;
mod task_group;
mod thread;

#[cfg(test)]
pub(crate) use fleet_view::FleetView;
pub(crate) use fleet_view::SharedFleetView;
pub(crate) use run::{Coordinator, CoordinatorParts};
