//! The fleet's mode, read again while the worker runs: an operator can roll a fleet back to the 2.x
//! algorithm, and a Java leader can move the fleet's state to another table, at any time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_dynamodb::Client;

use super::error::{StartError, WorkerFailure};
use super::migration::{Migration, Mode, layout, mode};
use super::scan_schedule;
use super::shared::Shared;
use super::start::retry::Failure;
use crate::clock::Clock;
use crate::lease::Layout;

/// Pause between two readings, spread by jitter.
const INTERVAL: Duration = Duration::from_secs(60);
/// Readings in a row that must find no state: an item that is written anew is missing for a moment.
const MISSES: u32 = 2;

/// Where the state of the fleet is read from.
#[derive(Debug, Clone)]
pub(crate) struct FleetMode {
    pub(super) client: Client,
    pub(super) application: String,
    pub(super) table: String,
    /// As it was at the start.
    pub(super) layout: Layout,
    /// The tables of older Java workers were there at the start.
    pub(super) has_legacy_tables: bool,
}

/// What has changed since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    /// There is no state.
    Missing,
    /// Workers take and steal leases now.
    TwoX(String),
    /// A state that this version does not know.
    Unknown(String),
    /// The state is kept in other tables now.
    Moved,
}

/// Reads the state until the worker leaves, and ends the worker when it cannot take part any more.
pub(super) async fn watch(shared: Arc<Shared>, fleet: FleetMode, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut misses = 0;
    loop {
        let pause = scan_schedule::jittered(INTERVAL.mul_f64(0.8), &mut random);
        let next = async {
            tokio::time::sleep(pause).await;
            fleet.change(&*shared.clock).await
        };
        let Some(read) = shared.leaving.run_until_cancelled(next).await else {
            return;
        };
        let change = match read {
            Ok(change) => change,
            Err(Failure::Final(StartError::UnsupportedFleet { table, state, what_to_do })) => {
                return shared.fail(WorkerFailure::FleetChanged { table, state, what_to_do });
            }
            Err(error) => {
                tracing::warn!(%error, "the fleet's mode could not be read, tried again");
                continue;
            }
        };
        misses = match change {
            Some(Change::Missing) => misses + 1,
            _ => 0,
        };
        let change = match change {
            None => continue,
            Some(Change::Missing) if misses < MISSES => continue,
            Some(change) => change,
        };
        // Workers of the 2.x algorithm take leases without an owner. They never look for leases that
        // were assigned to them, so this worker releases its leases.
        if matches!(change, Change::Missing | Change::TwoX(_)) {
            shared.workers_take_leases.store(true, Ordering::Relaxed);
        }
        return shared.fail(fleet.failure(change));
    }
}

impl FleetMode {
    /// What has changed since the start.
    async fn change(&self, clock: &dyn Clock) -> Result<Option<Change>, Failure> {
        let (client, table) = (&self.client, &*self.table);
        let legacy = self.has_legacy_tables;
        match layout(client, &self.application, legacy, Some(table)).await {
            Ok(now) if now != self.layout => return Ok(Some(Change::Moved)),
            Ok(_) => {}
            Err(error @ Failure::Final(StartError::UnsupportedFleet { .. })) => return Err(error),
            // The old tables may be deleted once everything was moved out of them.
            Err(_) if self.layout == Layout::OneTable => {}
            Err(error) => return Err(error),
        }
        let migration = Migration { client, table, layout: &self.layout, worker_id: "", clock };
        Ok(match migration.state().await? {
            None => Some(Change::Missing),
            Some(state) => match mode(&state) {
                Mode::ThreeX => None,
                Mode::TwoX => Some(Change::TwoX(state)),
                Mode::Unknown => Some(Change::Unknown(state)),
            },
        })
    }

    fn failure(&self, change: Change) -> WorkerFailure {
        let (state, what_to_do) = match change {
            Change::Missing => (
                "unknown, since the migration item is gone".to_owned(),
                "restore the item Migration3.0, or finish the roll-back to KCL 2.x without this worker",
            ),
            Change::TwoX(state) => (
                state,
                "the fleet was set back to the 2.x algorithm, which this version does not know: \
                 start the worker again when the fleet is back in 3.x mode",
            ),
            Change::Unknown(state) => (
                state,
                "this version does not know that state: use a newer version of this library",
            ),
            Change::Moved => (
                "kept in another table now".to_owned(),
                "a Java leader has moved it: start the worker again, which reads it there",
            ),
        };
        WorkerFailure::FleetChanged {
            table: self.layout.state(&self.table).to_owned(),
            state,
            what_to_do,
        }
    }
}
