//! Finds the leases that a leader or another worker has assigned to this worker.

use std::sync::Arc;
use std::time::Duration;

use super::acquire::Acquirer;
use super::scan_schedule;
use crate::health::ProblemKind;
use crate::lease::LeaseStoreError;

const KIND: ProblemKind = ProblemKind::LeaseDiscoveryFailing;

/// Queries the index for leases that name this worker, each second, or less often if it names very
/// many. Starts on those that are new there, after a consistent read of each.
#[derive(Debug)]
pub(super) struct Discovery {
    acquirer: Acquirer,
    pause: Duration,
}

impl Discovery {
    pub(super) fn new(acquirer: Acquirer) -> Self {
        let pause = scan_schedule::between_queries(0, acquirer.ctx.worker.table_reads);
        Self { acquirer, pause }
    }

    /// Queries again and again.
    pub(super) async fn run(mut self) {
        let ctx = Arc::clone(&self.acquirer.ctx);
        loop {
            match self.query().await {
                Ok(()) => {
                    ctx.worker.problems.recovered(KIND, None);
                }
                Err(error) => ctx.store_failed(KIND, "discovery", &error),
            }
            tokio::time::sleep(self.pause).await;
        }
    }

    /// Makes one query, and starts on the leases that it found. Sets the pause before the next one.
    pub(super) async fn query(&mut self) -> Result<(), LeaseStoreError> {
        let ctx = &self.acquirer.ctx;
        let query = ctx.worker.store.owned_by(&ctx.worker.id);
        let mut keys = ctx.watched(KIND, "discovery", query).await?;
        let pause = scan_schedule::between_queries(keys.len(), ctx.worker.table_reads);
        {
            let fleet = ctx.fleet.lock();
            // The index also names finished leases, which keep their owner.
            keys.retain(|key| !fleet.has_ended(key));
        }
        self.acquirer.start_on_assigned(keys).await;
        self.pause = pause;
        Ok(())
    }

    /// The pause before the next query.
    #[cfg(test)]
    pub(super) fn pause(&self) -> Duration {
        self.pause
    }
}
