//! A stop, planned or because a runtime has ended: its duration, and the truth of its report.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kcl::{ShardShutdown, ShutdownReport, WorkerError, WorkerHandle};

use crate::process::Process;
use crate::world::World;

/// Resolution of timers.
const SLACK: Duration = Duration::from_millis(100);

/// The documented limit of a stop.
fn longest(deadline: Duration) -> Duration {
    deadline + WorkerHandle::STOP_MARGIN + SLACK
}

/// A worker that is about to stop.
pub(super) struct Stopping<'a> {
    pub(super) world: &'a World,
    pub(super) name: &'a str,
    pub(super) process: &'a Arc<Process>,
    pub(super) user_code: &'a Arc<Process>,
}

impl Stopping<'_> {
    /// Waits for the end of the stop.
    pub(super) async fn judge(
        self,
        deadline: Duration,
        run: impl Future<Output = Result<ShutdownReport, WorkerError>>,
    ) -> Result<ShutdownReport, WorkerError> {
        let (world, name) = (self.world, self.name);
        let held = world.oracle.at_work(name);
        let (asked, began) = (world.clock.now(), self.process.awake());
        let outcome = run.await;
        let took = self.process.awake() - began;
        if took > longest(deadline) {
            let what = format!("{name} takes {took:?} to stop, with a deadline of {deadline:?}");
            world.oracle.violation(&what);
        }
        if let Ok(report) = &outcome {
            self.check(report, &held);
            let took = world.clock.now() - asked;
            if !report.aborted.is_empty() && took < deadline && !self.user_code.is_dead() {
                let what = format!("{name} aborts after {took:?}, before {deadline:?}: {report:?}");
                world.oracle.violation(&what);
            }
        }
        outcome
    }

    /// `held`: the shards that the worker processed when it was told to stop.
    fn check(&self, report: &ShutdownReport, held: &BTreeSet<String>) {
        let (oracle, name) = (&self.world.oracle, self.name);
        for shard in held {
            if !report.shards.contains_key(shard) {
                let what = format!("{name} processed {shard}, and does not report it: {report:?}");
                oracle.violation(&what);
            }
        }
        for shard in oracle.at_work(name) {
            if report.shards.get(&shard) != Some(&ShardShutdown::Aborted) {
                let what = format!("{name} has stopped and goes on with {shard}: {report:?}");
                oracle.violation(&what);
            }
        }
    }
}
