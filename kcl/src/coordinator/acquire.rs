//! Acquires leases: takes available ones, and starts on those that name this worker as their owner.
//!
//! A worker starts on a lease that another worker owned in two ways. It takes the lease, if the lease is unassigned or
//! expired: the previous owner of an expired lease has stopped by its own deadline, and its later writes fail because
//! the take moves the counter. Or the lease was assigned to it: then the rules of
//! [`FleetView::may_start`](super::fleet_view::FleetView::may_start) decide.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::mpsc;

use super::acquired::Acquired;
use super::context::Context;
use super::fleet_view::ReadTime;
use super::held_leases::Claim;
use crate::health::ProblemKind;
use crate::lease::{
    HeldLease, Lease, LeaseStoreError, LeaseWrite, Outcome, OwnerReport, RenewerContext,
    RetryBudget, Snapshot,
};
use crate::metrics::Metric;

/// Leases that are taken or started on at the same time.
const CONCURRENT: usize = 16;
/// Attempts to renew a newly assigned lease whose answers are lost.
const FIRST_RENEWALS: u32 = 5;

/// Acquires leases and hands them to the worker. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Acquirer {
    pub(super) ctx: Arc<Context>,
    /// Acquired leases, for the worker to start their consumers.
    acquired: mpsc::Sender<HeldLease>,
    /// Attempts that failed since [`Acquirer::take_failures`] was called.
    failures: Arc<AtomicU32>,
    /// Budget of repeated attempts, shared by the renewers of all leases.
    retries: Arc<RetryBudget>,
}

impl Acquirer {
    pub(super) fn new(ctx: Arc<Context>, acquired: mpsc::Sender<HeldLease>) -> Self {
        Self { ctx, acquired, failures: Arc::default(), retries: Arc::default() }
    }

    /// Takes the leases of these keys, as `snapshot` shows them. A lease that has changed since is
    /// left alone.
    pub(super) async fn take(&self, snapshot: &Snapshot, keys: &[String]) {
        let keys: HashSet<&str> = keys.iter().map(String::as_str).collect();
        let wanted = snapshot.leases.iter().filter(|lease| keys.contains(&*lease.key));
        let wanted: Vec<Lease> = wanted.cloned().collect();
        let takes = stream::iter(wanted).map(|lease| {
            let ctx = Arc::clone(&self.ctx);
            async move {
                let claim = ctx.held.claim(&lease.key)?;
                let sent = ctx.worker.clock.now();
                let me = ctx.worker.id.as_str();
                let acquired = Acquired::by_taking(&lease, &ctx.fleet.lock(), me, sent);
                let take = LeaseWrite::Take { owner: me.to_owned() };
                let taken = ctx.worker.store.write(&lease, take).await;
                Some((claim, sent, acquired, taken))
            }
        });
        let mut takes = takes.buffer_unordered(CONCURRENT);
        while let Some(take) = takes.next().await {
            let Some((claim, sent, acquired, taken)) = take else {
                continue;
            };
            match taken {
                Ok(Outcome::Applied(lease)) => {
                    self.ctx.worker.meter.put(Metric::TakenLeases, None, 1.0);
                    self.begin(claim, lease, sent, &acquired).await;
                }
                // This take or a leader's assignment was written, at an unknown time. The fence
                // counts from a write of known time, so the lease is renewed first.
                Ok(Outcome::AppliedBefore(lease)) => {
                    drop(claim);
                    if let Err(error) = self.start_on(&lease, Some(acquired)).await {
                        self.failed("starting on a lease", &error);
                    }
                }
                // Another worker was faster.
                Ok(Outcome::ConditionFailed(_)) => {}
                Err(error) => self.failed("taking a lease", &error),
            }
        }
    }

    /// Starts on the leases of these keys, each of which was seen to name this worker as its owner,
    /// if this worker may. Leases that it holds are left out. Several are read at a time, because a
    /// leader may assign hundreds at once.
    pub(super) async fn start_on_assigned(&self, mut keys: Vec<String>) {
        keys.retain(|key| !self.ctx.held.contains(key));
        let start = |key: String| {
            let acquirer = self.clone();
            async move { acquirer.start_on_assigned_lease(&key).await }
        };
        stream::iter(keys).for_each_concurrent(CONCURRENT, start).await;
    }

    /// Reads one lease that was seen to name this worker, and starts on it if no other processor
    /// can be at work. A failure does not keep this worker from other leases. The next query or
    /// scan tries the lease again.
    async fn start_on_assigned_lease(&self, key: &str) {
        let ctx = &self.ctx;
        if ctx.held.is_held_back() {
            return;
        }
        let sent = ctx.worker.clock.now();
        let lease = match ctx.worker.store.get(key).await {
            Ok(Some(lease)) => lease,
            // The index lags behind the table.
            Ok(None) => return,
            Err(error) => return self.failed("reading a lease", &error),
        };
        let now = ctx.worker.clock.now();
        let may_start = {
            let mut fleet = ctx.fleet.lock();
            fleet.observe_lease(&lease, ReadTime { sent, answered: now });
            fleet.may_start(&lease, now)
        };
        let is_assigned = ctx.worker.is_named_by(&lease) && !lease.is_handoff_pending();
        // Another task of this worker may have claimed the lease since, and have moved the counter that was just read.
        // In that case this worker processes the shard, so the lease must not be passed on.
        if !is_assigned || ctx.held.contains(key) || !may_start {
            return;
        }
        if ctx.held.is_full() {
            self.pass_on(&lease).await;
        } else {
            ctx.worker.meter.put(Metric::NewLeasesDiscovered, None, 1.0);
            if let Err(error) = self.start_on(&lease, None).await {
                self.failed("starting on a lease", &error);
            }
        }
    }

    /// Passes on a lease that was assigned to this worker beyond its `max_leases`: to the receiver
    /// with the fewest leases, or, without a receiver, by making it unassigned. No processor is at
    /// work on it, so the receiver may start at once. Without this, its shard would stand still
    /// until the lease expires.
    async fn pass_on(&self, lease: &Lease) {
        let ctx = &self.ctx;
        let to = ctx.fleet.lock().workers.next_receiver();
        match ctx.worker.store.write(lease, LeaseWrite::relinquish(to.clone(), true)).await {
            Ok(Outcome::Applied(_) | Outcome::AppliedBefore(_)) => tracing::info!(
                shard_id = lease.shard_id(),
                to,
                max_leases = ctx.worker.max_leases,
                "lease passed on: this worker has as many as it may hold"
            ),
            // A leader assigned it to another worker meanwhile.
            Ok(Outcome::ConditionFailed(_)) => {}
            Err(error) => self.failed("passing a lease on", &error),
        }
    }

    /// Renews a lease that names this worker as its owner, and begins to hold it. `acquired`: how
    /// this worker came to the lease, if it took it.
    async fn start_on(
        &self,
        lease: &Lease,
        acquired: Option<Acquired>,
    ) -> Result<(), LeaseStoreError> {
        let ctx = &self.ctx;
        let Some(claim) = ctx.held.claim(&lease.key) else {
            return Ok(());
        };
        let me = ctx.worker.id.as_str();
        let acquired = acquired.unwrap_or_else(|| Acquired::by_name(lease, &ctx.fleet.lock(), me));
        let mut lease = lease.clone();
        for _ in 0..FIRST_RENEWALS {
            let sent = ctx.worker.clock.now();
            let renew = LeaseWrite::Renew { owner: me.to_owned(), report: OwnerReport::default() };
            match ctx.worker.store.write(&lease, renew).await? {
                Outcome::Applied(lease) => {
                    self.begin(claim, lease, sent, &acquired).await;
                    break;
                }
                // The time and the writer of that renewal are unknown, so the lease is renewed once more to set the
                // local deadline.
                Outcome::AppliedBefore(found) if !found.is_handoff_pending() => lease = found,
                // Another process was faster. The next query or scan shows the lease again.
                Outcome::AppliedBefore(_) | Outcome::ConditionFailed(_) => break,
            }
        }
        Ok(())
    }

    /// Begins to hold a lease that this worker acquired by a write sent at `sent`: starts its
    /// renewer, and hands it to the worker.
    async fn begin(&self, claim: Claim, lease: Lease, sent: Duration, acquired: &Acquired) {
        let ctx = &self.ctx;
        let context = RenewerContext {
            worker_id: ctx.worker.id.clone(),
            process: ctx.worker.process,
            store: Arc::clone(&ctx.worker.store),
            services: Arc::new(Arc::clone(ctx)),
            clock: Arc::clone(&ctx.worker.clock),
            failover: ctx.worker.failover,
            on_stop: ctx.worker.on_stop,
            seed: ctx.worker.seed,
            stop: ctx.stop.clone(),
            retries: Arc::clone(&self.retries),
            problems: Arc::clone(&ctx.worker.problems),
        };
        let (held_lease, renewer) = HeldLease::begin(context, lease, sent);
        claim.fulfil(&held_lease);
        tracing::info!(
            shard_id = held_lease.shard_id(),
            worker_id = ctx.worker.id,
            former_owner = acquired.former_owner,
            why = %acquired.why,
            counter = held_lease.fencing_token().counter,
            "lease acquired"
        );
        let (last, key) = (held_lease.downgrade(), held_lease.shard_id().to_owned());
        let held = Arc::clone(ctx);
        ctx.tasks.spawn("lease renewer", async move {
            let panic = AssertUnwindSafe(renewer.run()).catch_unwind().await.err();
            // The lease is removed even after a panic, so that it can be acquired again. If the
            // processor was aborted, it may still be at work: then this worker neither acquires the
            // lease nor releases it.
            if !last.was_aborted() {
                held.fleet.lock().lease_ended(&key, last.counter());
                held.held.remove(&key);
            }
            held.scan_wanted.notify_one();
            if let Some(panic) = panic {
                std::panic::resume_unwind(panic);
            }
        });
        // If the worker does not receive it any more, the last clone is dropped and the renewer
        // ends. A planned stop passes such leases on in its last step.
        let _ = ctx.stop.leaving.run_until_cancelled(self.acquired.send(held_lease)).await;
    }

    fn failed(&self, what: &'static str, error: &LeaseStoreError) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.ctx.store_failed(ProblemKind::LeaseAcquisitionFailing, what, error);
    }

    /// The number of attempts that failed since the call before.
    pub(super) fn take_failures(&self) -> u32 {
        self.failures.swap(0, Ordering::Relaxed)
    }
}
