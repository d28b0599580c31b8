//! Looks at the whole table, takes what is free, and, in a fleet without a leader, hands over what is
//! too much. Each worker does its own part: what a leader will do for the fleet later replaces this file.

pub(crate) mod by_count;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::mpsc;

use self::by_count::{ActiveLease, Plan, Workers, agreed, plan};
use super::acquired::Acquired;
use super::discovery::consider_all;
use super::fleet_view::{ReadTime, Sighting};
use super::scan_schedule::{self, ScanSchedule, Wait};
use super::shared::Shared;
use crate::health::ProblemKind;
use crate::lease::{Lease, LeaseStoreError, Outcome, Snapshot, Tenure};
use crate::metrics::{Metric, milliseconds};

/// A free lease waits this long for the worker whose turn it is; then anybody takes it.
const OVERDUE: Duration = Duration::from_secs(3);

/// How long a free lease is left to a live Java leader: the longer of three failover times and two of
/// its assignment intervals, and up to half an interval more.
///
/// The interval is not stored in the table; it is taken at Java's default of two failover times. Two of
/// them let the leader miss a pass. `jitter`, from 0 to 1, is each worker's own: workers whose leases
/// became free together do not take them together.
fn left_to_leader(failover: Duration, jitter: f64) -> Duration {
    let interval = failover * 2;
    (failover * 3).max(interval * 2) + interval.mul_f64(jitter / 2.0)
}
/// Takes at a time.
const CONCURRENT_TAKES: usize = 16;

/// Looks, takes and balances, from the start until the worker leaves.
pub(crate) async fn assign(shared: &Arc<Shared>, deliveries: &mpsc::Sender<Tenure>) {
    let mut looks = Looks::new(shared);
    // Meanwhile the others report that they live.
    let pause = tokio::time::sleep(shared.first_look);
    if shared.leaving.run_until_cancelled(pause).await.is_none() {
        return;
    }
    while !shared.leaving.is_cancelled() {
        let pass = look_and_act(shared, &mut looks, deliveries);
        let wait = match shared.leaving.run_until_cancelled(pass).await {
            None => return,
            Some(Ok(wait)) => {
                let kind = ProblemKind::LeaseTableFailing;
                shared.problems.recovered(kind, None);
                wait
            }
            Some(Err(error)) => {
                let kind = ProblemKind::LeaseTableFailing;
                shared.store_failed(kind, "looking at the lease table", &error);
                looks.schedule.failed(shared.clock.now(), &mut looks.random)
            }
        };
        let wait = async {
            tokio::time::sleep(wait.at_least).await;
            // Nudges that came meanwhile count.
            let rest = wait.at_most.saturating_sub(wait.at_least);
            let _ = tokio::time::timeout(rest, shared.nudge.notified()).await;
        };
        if shared.leaving.run_until_cancelled(wait).await.is_none() {
            return;
        }
    }
}

/// What one look leaves for the next.
pub(super) struct Looks {
    previous: Option<Plan>,
    schedule: ScanSchedule,
    random: fastrand::Rng,
}

impl Looks {
    pub(super) fn new(shared: &Shared) -> Self {
        Self {
            previous: None,
            schedule: ScanSchedule::new(shared.table_reads),
            random: fastrand::Rng::with_seed(shared.seed),
        }
    }
}

/// The wait until the next look.
pub(super) async fn look_and_act(
    shared: &Arc<Shared>,
    looks: &mut Looks,
    deliveries: &mpsc::Sender<Tenure>,
) -> Result<Wait, LeaseStoreError> {
    let snapshot = look(shared, false).await?;
    let latest = make_plan(shared, &snapshot);
    take(shared, &snapshot, &latest.take, deliveries).await;
    // The index may lag behind the table.
    let own = snapshot
        .leases
        .iter()
        .filter(|lease| lease.owner.as_deref() == Some(&shared.worker_id) && !lease.has_ended());
    let own = own.map(|lease| lease.key.clone()).collect();
    consider_all(shared, own, deliveries).await;
    // All that could be acquired was tried since the last scan.
    if shared.acquisitions_failed.swap(0, Ordering::Relaxed) == 0 {
        let kind = ProblemKind::LeaseAcquisitionFailing;
        shared.problems.recovered(kind, None);
    }
    let last = looks.previous.take().unwrap_or_default();
    for (key, to) in agreed(&last, &latest) {
        if let Some(tenure) = shared.held.held(&key) {
            tracing::info!(shard = key, to, "handing the shard over, to even out");
            tenure.start_handoff(&to);
        }
    }
    looks.previous = Some(latest);
    Ok(looks.schedule.succeeded(&snapshot, shared.clock.now()))
}

/// Scans the table and feeds the fleet view.
pub(crate) async fn look(
    shared: &Shared,
    consistent: bool,
) -> Result<Arc<Snapshot>, LeaseStoreError> {
    let sent = shared.clock.now();
    let snapshot = Arc::new(shared.store.list(consistent).await?);
    let read = ReadTime { sent, answered: shared.clock.now() };
    let changes = shared.fleet.lock().observe_scan(&snapshot, read, shared.epoch_seconds());
    note_corrupt(shared, &snapshot, &changes.repaired);
    watch_worker_id(shared, changes.sighting);
    let names_me =
        |lease: &&Lease| lease.owner.as_deref() == Some(&shared.worker_id) && !lease.has_ended();
    shared.held.note_named(snapshot.leases.iter().filter(names_me).count());
    if shared.meter.is_on() {
        measure(shared, &snapshot, read.answered);
    }
    Ok(snapshot)
}

/// Notes the items that cannot be read, and those that could not be read at the scan before and now can.
fn note_corrupt(shared: &Shared, snapshot: &Snapshot, repaired: &[String]) {
    let kind = ProblemKind::CorruptLease;
    for corrupt in &snapshot.corrupt {
        let noted = shared.problems.failed(kind, Some(&corrupt.key), corrupt);
        if noted.log {
            tracing::warn!(%corrupt, scans = noted.failures, "item skipped");
        }
    }
    for key in repaired {
        shared.problems.recovered(kind, Some(key));
    }
}

/// Looks for another live process under this worker's id.
fn watch_worker_id(shared: &Shared, sighting: Sighting) {
    // The next process of this id may have begun.
    if shared.leaving.is_cancelled() {
        return;
    }
    if sighting.row_replaced {
        // The other one, if it lives, sees this one by that, and replaces it again.
        shared.row_due.notify_one();
    }
    let kind = ProblemKind::DuplicateWorkerId;
    match sighting.alive {
        Some(process) if sighting.is_new => {
            let cause = format!(
                "process {process:x} writes leases or the row of worker {}, and so does this one, {:x}",
                shared.worker_id, shared.process
            );
            let noted = shared.problems.failed(kind, None, &cause);
            if noted.log {
                tracing::warn!(
                    cause,
                    "another live process has this worker id: give each process its own"
                );
            }
        }
        Some(_) => {}
        None => {
            if shared.problems.recovered(kind, None) {
                tracing::info!("the other process of this worker id has ended");
            }
        }
    }
}

fn key_of(lease: &Lease) -> &str {
    &lease.key
}

fn measure(shared: &Shared, snapshot: &Snapshot, now: Duration) {
    let (available, workers, checkpoint_ages) = {
        let fleet = shared.fleet.lock();
        let others = fleet.live_workers().iter().filter(|worker| **worker != shared.worker_id);
        (fleet.count_available(now), 1 + others.count(), fleet.checkpoint_ages(now))
    };
    // The recorder is the application's code: no lock is held while it runs.
    for (metric, count) in [
        (Metric::TotalLeases, snapshot.leases.len()),
        (Metric::ExpiredLeases, available.expired),
        (Metric::UnownedLeases, available.total),
        (Metric::NumWorkers, workers),
        (Metric::LeaseDeserializationFailureCount, snapshot.corrupt.len()),
    ] {
        shared.meter.put(metric, None, count as f64);
    }
    for (shard, age) in checkpoint_ages {
        let age = milliseconds(age);
        shared.meter.put(Metric::MillisSinceCheckpoint, Some(&shard), age);
    }
}

pub(super) fn make_plan(shared: &Shared, snapshot: &Snapshot) -> Plan {
    let now = shared.clock.now();
    let fleet = shared.fleet.lock();
    let own = |lease: &&Lease| lease.owner.as_deref() == Some(&shared.worker_id);
    let own: HashSet<&str> = snapshot.leases.iter().filter(own).map(key_of).collect();
    // The others look too rarely to wait for them: a new shard is its parent's owner's.
    let is_rare = scan_schedule::at_rest(snapshot.items(), shared.table_reads) > OVERDUE;
    let is_born_here = |lease: &Lease| {
        is_rare && lease.owner.is_none() && lease.parents.iter().any(|key| own.contains(&**key))
    };
    let leader_lives = fleet.live_leader(now).is_some();
    // Free leases are the leader's to assign: by the time of its next pass, all of them would be ours.
    // If the leader dies, the time that a lease was free until then counts.
    let reserved_for = if leader_lives {
        left_to_leader(shared.failover, shared.leader_jitter)
    } else {
        Duration::ZERO
    };
    let active: Vec<ActiveLease<'_>> = snapshot
        .leases
        .iter()
        .filter(|lease| !lease.has_ended())
        .filter_map(|lease| {
            // What this worker let go of, or has not let go of yet, is not there to be taken.
            let free = fleet.is_available(lease, now) && !shared.held.contains(&lease.key);
            let free_for = fleet.available_for(lease, now);
            let reserved = free && leader_lives && free_for <= reserved_for;
            // A reserved lease is left out of the balance: the leader may assign it to any worker.
            (!reserved).then(|| ActiveLease {
                key: &lease.key,
                owner: if free { None } else { lease.owner.as_deref() },
                handoff_pending: lease.is_handoff_pending(),
                overdue: is_born_here(lease) || free_for > reserved_for + OVERDUE,
            })
        })
        .collect();
    // A leader balances for all, by its own measure: two at it would undo each other's moves for ever.
    // But a Java leader compares like with like: between workers that report their CPU, say, and ours,
    // which do not yet, it moves nothing.
    let mut live = snapshot.workers.iter().filter(|row| fleet.live_workers().contains(&row.worker));
    let balances = leader_lives && live.all(|row| !row.measures);
    let nobody = BTreeSet::new();
    let workers = Workers {
        live: fleet.live_workers(),
        takers: fleet.receivers(),
        receivers: if balances { &nobody } else { fleet.receivers() },
    };
    plan(&shared.worker_id, &active, workers, shared.max_leases)
}

async fn take(
    shared: &Arc<Shared>,
    snapshot: &Snapshot,
    keys: &[String],
    deliveries: &mpsc::Sender<Tenure>,
) {
    let keys: HashSet<&str> = keys.iter().map(String::as_str).collect();
    let wanted = snapshot.leases.iter().filter(|lease| keys.contains(&*lease.key));
    let wanted: Vec<Lease> = wanted.cloned().collect();
    let takes = futures::stream::iter(wanted).map(|lease| {
        let shared = Arc::clone(shared);
        async move {
            let claim = shared.held.claim(&lease.key)?;
            let sent = shared.clock.now();
            let me = shared.worker_id.as_str();
            let acquired = Acquired::by_taking(&lease, &shared.fleet.lock(), me, sent);
            let taken = shared.store.take(&lease, me).await;
            Some((claim, (sent, acquired), taken))
        }
    });
    let mut takes = takes.buffer_unordered(CONCURRENT_TAKES);
    while let Some(take) = takes.next().await {
        let Some((claim, acquired, taken)) = take else {
            continue;
        };
        match taken {
            Ok(Outcome::Applied(lease)) => {
                shared.meter.put(Metric::TakenLeases, None, 1.0);
                shared.begin(claim, lease, acquired, deliveries).await;
            }
            // By this take or by a leader, nobody knows when: a renewal sets the fence.
            Ok(Outcome::AppliedBefore(lease)) => {
                drop(claim);
                let (_, acquired) = acquired;
                let started = shared.start_on(&lease, Some(acquired), deliveries);
                if let Err(error) = started.await {
                    shared.acquisition_failed("starting on a lease", &error);
                }
            }
            // Another worker was faster.
            Ok(Outcome::ConditionFailed(_)) => {}
            Err(error) => shared.acquisition_failed("taking a lease", &error),
        }
    }
}

#[cfg(test)]
mod tests;
