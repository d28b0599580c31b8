//! Scans the lease table, feeds the fleet view, and reports what the scan shows.

use std::sync::Arc;
use std::time::Duration;

use super::context::Context;
use super::fleet_view::{ReadTime, Sighting};
use super::heartbeat::Heartbeat;
use crate::health::ProblemKind;
use crate::lease::{LeaseStoreError, Snapshot};
use crate::metrics::Metric;

/// Reads the whole lease table. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Scanner {
    pub(super) ctx: Arc<Context>,
    pub(super) heartbeat: Arc<Heartbeat>,
}

impl Scanner {
    pub(super) fn new(ctx: Arc<Context>) -> Self {
        Self { heartbeat: Arc::new(Heartbeat::new(Arc::clone(&ctx))), ctx }
    }

    /// Makes one scan. Unless it is `consistent`, which costs twice as much, it may miss the latest
    /// writes.
    pub(super) async fn scan(&self, consistent: bool) -> Result<Arc<Snapshot>, LeaseStoreError> {
        let Context { worker, fleet, held, .. } = &*self.ctx;
        let sent = worker.clock.now();
        let scan = Arc::new(worker.store.list(consistent).await?);
        let read = ReadTime { sent, answered: worker.clock.now() };
        let changes = fleet.lock().observe_scan(&scan, read, worker.service_clock.epoch_seconds());
        self.report_corrupt_items(&scan, &changes.repaired);
        self.report_other_process(changes.sighting);
        let named = scan.leases.iter().filter(|lease| worker.is_named_by(lease)).count();
        held.note_named(named);
        if worker.meter.is_on() {
            self.measure(&scan, read.answered);
        }
        Ok(scan)
    }

    /// Reports items that cannot be read as problems. `repaired`: those that could not be read at
    /// the scan before, and are readable or gone now.
    fn report_corrupt_items(&self, scan: &Snapshot, repaired: &[String]) {
        let (kind, problems) = (ProblemKind::CorruptLease, &self.ctx.worker.problems);
        for corrupt in &scan.corrupt {
            let noted = problems.failed(kind, Some(&corrupt.key), corrupt);
            if noted.log {
                tracing::warn!(%corrupt, scans = noted.failures, "item skipped");
            }
        }
        for key in repaired {
            problems.recovered(kind, Some(key));
        }
    }

    /// Reports another live process that uses this worker's id.
    fn report_other_process(&self, sighting: Sighting) {
        // While this worker leaves, the next process of its id may have started already.
        if self.ctx.stop.leaving.is_cancelled() {
            return;
        }
        if sighting.row_replaced {
            // If the other process lives, it replaces the heartbeat again, and each process learns
            // of the other.
            self.heartbeat.write_again();
        }
        let worker = &self.ctx.worker;
        let kind = ProblemKind::DuplicateWorkerId;
        match sighting.alive {
            Some(process) if sighting.is_new => {
                let cause = format!(
                    "process {process:x} writes leases or the row of worker {}, and so does this one, {:x}",
                    worker.id, worker.process
                );
                let noted = worker.problems.failed(kind, None, &cause);
                if noted.log {
                    tracing::warn!(
                        cause,
                        "another live process has this worker id: give each process its own"
                    );
                }
            }
            // The problem was reported when the process wrote.
            Some(_) => {}
            None => {
                if worker.problems.recovered(kind, None) {
                    tracing::info!("the other process of this worker id has ended");
                }
            }
        }
    }

    fn measure(&self, scan: &Snapshot, now: Duration) {
        let Context { worker, fleet, .. } = &*self.ctx;
        let ((expired, available), workers) = {
            let fleet = fleet.lock();
            let others = fleet.workers.live.iter().filter(|other| **other != worker.id);
            (fleet.count_available(now), 1 + others.count())
        };
        // The recorder is code of the application, so no lock is held while it runs.
        for (metric, count) in [
            (Metric::TotalLeases, scan.leases.len()),
            (Metric::ExpiredLeases, expired),
            (Metric::UnownedLeases, available),
            (Metric::NumWorkers, workers),
            (Metric::LeaseDeserializationFailureCount, scan.corrupt.len()),
        ] {
            worker.meter.put(metric, None, count as f64);
        }
    }
}
