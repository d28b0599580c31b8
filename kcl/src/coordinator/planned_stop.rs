//! What a planned stop does with the leases.
//!
//! The module `worker::shutdown` has the steps of a planned stop in their order. Two of them are here: step 2,
//! [`PlannedStop::withdraw`], and step 5, [`PlannedStop::pass_leases_on`].

use std::sync::atomic::Ordering;

use super::context::Context;
use super::scan::Scanner;
use crate::config::OnStop;
use crate::lease::{Lease, LeaseWrite};
use crate::shard_state::ShardShutdown;

/// The steps of a planned stop that write to the lease table.
#[derive(Debug, Clone)]
pub(super) struct PlannedStop {
    pub(super) scanner: Scanner,
}

impl PlannedStop {
    /// Removes the heartbeat, and finds the receivers of the leases that this worker will hand
    /// over.
    pub(super) async fn withdraw(self) {
        self.scanner.heartbeat.withdraw().await;
        if let Err(error) = self.scanner.scan(true).await {
            tracing::warn!(%error, "the lease table could not be scanned before the stop");
        }
    }

    /// Passes on the leases that name this worker and that it does not process. Returns what became
    /// of each, by shard.
    pub(super) async fn pass_leases_on(self) -> Vec<(String, ShardShutdown)> {
        let scan = match self.scanner.scan(true).await {
            Ok(scan) => scan,
            Err(error) => {
                tracing::warn!(%error, "leases that were assigned to this worker meanwhile will expire");
                return Vec::new();
            }
        };
        let Context { worker, held, .. } = &*self.scanner.ctx;
        let mut passed_on = Vec::new();
        for lease in scan.leases.iter().filter(|lease| worker.is_named_by(lease)) {
            // The present owner completes a pending handoff to this worker: a forced transfer would
            // fence a processor that is about to checkpoint. A lease that another process of this
            // worker id has written is that process's.
            let is_idle = !lease.is_handoff_pending()
                && !held.contains(&lease.key)
                && !lease.is_anothers(worker.process);
            if is_idle && let Some(outcome) = self.pass_on(lease).await {
                passed_on.push((lease.key.clone(), outcome));
            }
        }
        passed_on
    }

    /// Passes one lease on. Returns `None` if the lease stays as it is.
    async fn pass_on(&self, lease: &Lease) -> Option<ShardShutdown> {
        let Context { worker, fleet, .. } = &*self.scanner.ctx;
        // No processor of this worker ran under the lease. So the next owner may start at once, if
        // this worker might have.
        let may_start = fleet.lock().may_start(lease, worker.clock.now());
        let on_stop = match self.scanner.ctx.workers_take_leases.load(Ordering::Relaxed) {
            true => OnStop::Release,
            false => worker.on_stop,
        };
        let (to, outcome) = match (on_stop, may_start) {
            (OnStop::Keep, true) if lease.was_released_to_owner() => {
                return Some(ShardShutdown::Kept);
            }
            (OnStop::Keep, true) => (Some(worker.id.clone()), ShardShutdown::Kept),
            (OnStop::HandOver, _) => match fleet.lock().workers.next_receiver() {
                Some(to) => (Some(to.clone()), ShardShutdown::HandedOver { to }),
                None if may_start => (None, ShardShutdown::Released),
                None => return None,
            },
            (OnStop::Release, true) => (None, ShardShutdown::Released),
            // The previous owner may still be at work, so the lease is left to expire.
            (OnStop::Keep | OnStop::Release, false) => return None,
        };
        // Without `may_start`, the receiver waits until the previous owner is fenced.
        match worker.store.write(lease, LeaseWrite::relinquish(to, may_start)).await {
            Ok(moved) => moved.applied().map(|_| outcome),
            Err(error) => {
                tracing::warn!(shard = lease.shard_id(), %error, "the lease will expire");
                None
            }
        }
    }
}
