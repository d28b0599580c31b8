//! The task that scans the table, takes leases and hands leases over.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use fastrand::Rng;

use super::{ActiveLease, AssignmentInput, FleetWorkers, OVERDUE, Plan, by_count, left_to_leader};
use crate::coordinator::acquire::Acquirer;
use crate::coordinator::context::Context;
use crate::coordinator::scan::Scanner;
use crate::coordinator::scan_schedule::{self, ScanSchedule, Wait};
use crate::health::ProblemKind;
use crate::lease::{Lease, LeaseStoreError, Snapshot};

/// Scans the lease table, and carries out this worker's part of the plan.
#[derive(Debug)]
pub(in crate::coordinator) struct Assignment {
    ctx: Arc<Context>,
    scanner: Scanner,
    acquirer: Acquirer,
    schedule: ScanSchedule,
    random: Rng,
    /// From 0 to 1, drawn once: how much longer than other workers this one leaves free leases to a
    /// leader.
    leader_jitter: f64,
    /// The plan of the scan before. `None`: before the first scan.
    previous: Option<Plan>,
}

impl Assignment {
    pub(in crate::coordinator) fn new(scanner: Scanner, acquirer: Acquirer) -> Self {
        let ctx = Arc::clone(&acquirer.ctx);
        let seed = ctx.worker.seed;
        Self {
            scanner,
            acquirer,
            schedule: ScanSchedule::new(ctx.worker.table_reads),
            random: Rng::with_seed(seed),
            leader_jitter: Rng::with_seed(seed).f64(),
            previous: None,
            ctx,
        }
    }

    /// Scans and acts again and again.
    pub(in crate::coordinator) async fn run(mut self) {
        const KIND: ProblemKind = ProblemKind::LeaseTableFailing;
        let ctx = Arc::clone(&self.ctx);
        // Meanwhile, the workers that start at the same time report that they live.
        tokio::time::sleep(ctx.worker.first_scan_delay).await;
        loop {
            let wait = match self.scan_and_act().await {
                Ok(wait) => {
                    ctx.worker.problems.recovered(KIND, None);
                    wait
                }
                Err(error) => {
                    ctx.store_failed(KIND, "scanning the lease table", &error);
                    self.schedule.failed(ctx.worker.clock.now(), &mut self.random)
                }
            };
            tokio::time::sleep(wait.at_least).await;
            // A request for a scan that came meanwhile counts.
            let rest = wait.at_most.saturating_sub(wait.at_least);
            let _ = tokio::time::timeout(rest, ctx.scan_wanted.notified()).await;
        }
    }

    /// Makes one scan, and carries out the plan for it. Returns the wait before the next scan.
    pub(in crate::coordinator) async fn scan_and_act(&mut self) -> Result<Wait, LeaseStoreError> {
        let worker = &self.ctx.worker;
        let scan = self.scanner.scan(false).await?;
        let plan = self.plan(&scan);
        self.acquirer.take(&scan, &plan.take).await;
        // The scan may show leases that the index does not show yet.
        let assigned = scan.leases.iter().filter(|lease| worker.is_named_by(lease));
        let assigned = assigned.map(|lease| lease.key.clone()).collect();
        self.acquirer.start_on_assigned(assigned).await;
        // Every lease that this worker could acquire was tried since the scan before.
        if self.acquirer.take_failures() == 0 {
            worker.problems.recovered(ProblemKind::LeaseAcquisitionFailing, None);
        }
        let previous = self.previous.take().unwrap_or_default();
        for (key, to) in plan.handoffs_agreed_with(&previous) {
            if let Some(held_lease) = self.ctx.held.held(&key) {
                tracing::info!(shard = key, to, "handing the shard over, to balance the fleet");
                held_lease.start_handoff(&to);
            }
        }
        self.previous = Some(plan);
        Ok(self.schedule.succeeded(&scan, worker.clock.now()))
    }

    /// What this worker should do, as of the latest scan.
    pub(in crate::coordinator) fn plan(&self, scan: &Snapshot) -> Plan {
        let Context { worker, fleet, held, .. } = &*self.ctx;
        let now = worker.clock.now();
        let fleet = fleet.lock();
        let is_led = fleet.live_leader(now).is_some();
        // Time for which free leases are left to the leader. Without that, all of them would be
        // taken before its next pass. If the leader dies, the time for which a lease was free until
        // then counts.
        let reserved = is_led.then(|| left_to_leader(worker.failover, self.leader_jitter));
        let named = |lease: &&Lease| lease.owner.as_deref() == Some(&worker.id);
        let named: HashSet<&str> =
            scan.leases.iter().filter(named).map(|lease| lease.key.as_str()).collect();
        // In a large table, scans are too rare to wait for the worker whose share a new shard is.
        // Then the owner of its parent takes it.
        let is_rarely_scanned = scan_schedule::at_rest(scan.items(), worker.table_reads) > OVERDUE;
        let is_child_of_mine = |lease: &Lease| {
            lease.owner.is_none() && lease.parents.iter().any(|key| named.contains(&**key))
        };
        let active = scan.leases.iter().filter(|lease| !lease.has_ended());
        let active: Vec<ActiveLease<'_>> = active
            .filter_map(|lease| {
                // A lease that this worker still holds, or has stopped to renew while its processor
                // runs, is not free.
                let is_free = fleet.is_available(lease, now) && !held.contains(&lease.key);
                let free_for = fleet.available_for(lease, now);
                // A reserved lease is no part of the balance, because the leader may assign it to
                // any worker.
                if is_free && reserved.is_some_and(|reserved| free_for <= reserved) {
                    return None;
                }
                Some(ActiveLease {
                    key: &lease.key,
                    owner: if is_free { None } else { lease.owner.as_deref() },
                    is_handoff_pending: lease.is_handoff_pending(),
                    is_overdue: (is_rarely_scanned && is_child_of_mine(lease))
                        || free_for > reserved.unwrap_or_default() + OVERDUE,
                })
            })
            .collect();
        // The leader balances the fleet by its own measure. If this worker balanced, too, the two
        // would undo each other's moves again and again. But a Java leader compares only workers that
        // report the same metrics. Between workers that report their CPU and ours, which do not, it
        // moves nothing, so ours balance.
        let mut live = scan.workers.iter().filter(|row| fleet.workers.live.contains(&row.worker));
        let leader_balances = is_led && live.all(|row| !row.measures);
        let no_workers = BTreeSet::new();
        by_count::plan(AssignmentInput {
            me: &worker.id,
            max_leases: worker.max_leases,
            leases: &active,
            workers: FleetWorkers {
                live: &fleet.workers.live,
                takers: &fleet.workers.receivers,
                receivers: if leader_balances { &no_workers } else { &fleet.workers.receivers },
            },
        })
    }
}

#[cfg(test)]
mod tests;
