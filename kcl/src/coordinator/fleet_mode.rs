//! The fleet's mode, read again while the worker runs.
//!
//! At any time, an operator can roll a fleet back to the 2.x algorithm, and a Java leader can move
//! the fleet's state to another table.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_sdk_dynamodb::Client;

use super::context::Context;
use super::migration::{Migration, Mode, layout, mode};
use super::scan_schedule;
use super::start::Failure;
use crate::clock::Clock;
use crate::error::{StartError, WorkerError};
use crate::lease::Layout;

/// Mean pause between two reads, before jitter.
const INTERVAL: Duration = Duration::from_secs(60);
/// Reads in a row that must find no state. An item that is being replaced is missing for a moment.
const MISSES: u32 = 2;

/// Where the state of the fleet is read from.
#[derive(Debug, Clone)]
pub(crate) struct FleetMode {
    pub(super) client: Client,
    pub(super) application: String,
    pub(super) table: String,
    /// The layout at the start.
    pub(super) layout: Layout,
    /// True if the tables of older Java workers existed at the start.
    pub(super) has_legacy_tables: bool,
}

/// A change to the 2.x algorithm since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    /// The state is gone.
    Missing,
    /// Workers take and steal leases now.
    TwoX(String),
}

/// Reads the fleet's mode again and again, and ends the worker when it can take part no more.
#[derive(Debug)]
pub(super) struct FleetModeWatch {
    ctx: Arc<Context>,
    fleet: FleetMode,
    random: fastrand::Rng,
}

impl FleetModeWatch {
    pub(super) fn new(ctx: Arc<Context>, fleet: FleetMode) -> Self {
        let random = fastrand::Rng::with_seed(ctx.worker.seed ^ 1);
        Self { ctx, fleet, random }
    }

    /// Reads the mode again and again, until the worker fails for it.
    pub(super) async fn run(mut self) {
        let Context { worker, tasks, .. } = &*self.ctx;
        let mut misses = 0;
        loop {
            let pause = scan_schedule::jittered(INTERVAL.mul_f64(0.8), &mut self.random);
            tokio::time::sleep(pause).await;
            let read = self.fleet.change(&*worker.clock).await;
            misses = match read {
                Ok(Some(Change::Missing)) => misses + 1,
                Ok(_) => 0,
                Err(_) => misses,
            };
            let (table, state, what_to_do) = match read {
                Ok(None) => continue,
                Ok(Some(Change::Missing)) if misses < MISSES => continue,
                Ok(Some(change)) => {
                    // Workers of the 2.x algorithm take leases without an owner. They never look for
                    // leases that were assigned to them, so this worker releases its leases.
                    self.ctx.workers_take_leases.store(true, Ordering::Relaxed);
                    let table = self.fleet.layout.state(&self.fleet.table).0.to_owned();
                    let (state, what_to_do) = change.texts();
                    (table, state, what_to_do)
                }
                Err(Failure::Final(StartError::UnsupportedFleet { table, state, what_to_do })) => {
                    (table, state, what_to_do)
                }
                Err(error) => {
                    tracing::warn!(%error, "the fleet's mode could not be read, tried again");
                    continue;
                }
            };
            return tasks.fail(WorkerError::FleetChanged { table, state, what_to_do });
        }
    }
}

impl Change {
    /// The state, and what to do.
    fn texts(self) -> (String, &'static str) {
        match self {
            Self::Missing => (
                "unknown, since the migration item is gone".to_owned(),
                "restore the item Migration3.0, or finish the roll-back to KCL 2.x without this worker",
            ),
            Self::TwoX(state) => (
                state,
                "the fleet was set back to the 2.x algorithm, which this version does not know: \
                 start the worker again when the fleet is back in 3.x mode",
            ),
        }
    }
}

impl FleetMode {
    /// Reads the state, and returns how it has changed since the start.
    ///
    /// # Errors
    /// [`StartError::UnsupportedFleet`] if this version does not know the state, or the state was moved to
    /// another table.
    async fn change(&self, clock: &dyn Clock) -> Result<Option<Change>, Failure> {
        let (client, table) = (&self.client, &*self.table);
        let migration = Migration { client, table, layout: &self.layout, worker_id: "", clock };
        match layout(client, &self.application, self.has_legacy_tables, Some(table)).await {
            Ok(now) if now != self.layout => {
                return Err(migration.unsupported(
                    "kept in another table now",
                    "a Java leader has moved it: start the worker again, which reads it there",
                ));
            }
            Ok(_) => {}
            Err(error @ Failure::Final(StartError::UnsupportedFleet { .. })) => return Err(error),
            // The old tables may be deleted once everything was moved out of them.
            Err(_) if self.layout == Layout::OneTable => {}
            Err(error) => return Err(error),
        }
        match migration.state().await? {
            None => Ok(Some(Change::Missing)),
            Some(state) if mode(&state) == Mode::TwoX => Ok(Some(Change::TwoX(state))),
            Some(state) => migration.judge(&state).map(|()| None),
        }
    }
}
