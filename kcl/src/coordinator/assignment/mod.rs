//! Looks at the whole table, takes what is free, and, in a fleet without a leader, hands over what is
//! too much. Each worker does its own part: what a leader will do for the fleet later replaces this file.

pub(crate) mod by_count;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::mpsc;

use self::by_count::{ActiveLease, Plan, Workers, agreed, plan};
use super::acquired::Acquired;
use super::discovery::consider_all;
use super::fleet_view::lease_history::Observations;
use super::fleet_view::other_processes::Me;
use super::fleet_view::workers::{self, Liveness};
use super::scan_schedule::{self, Pace, Wait};
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
                looks.pace.failed(shared.clock.now(), &mut looks.random)
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
    pace: Pace,
    random: fastrand::Rng,
}

impl Looks {
    pub(super) fn new(shared: &Shared) -> Self {
        Self {
            previous: None,
            pace: Pace::new(shared.table_reads),
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
        if let Some(tenure) = shared.registry.held(&key) {
            tracing::info!(shard = key, to, "handing the shard over, to even out");
            tenure.start_handoff(&to);
        }
    }
    looks.previous = Some(latest);
    Ok(looks.pace.looked(&snapshot, shared.clock.now()))
}

/// Reads the table, and remembers what it shows.
pub(crate) async fn look(
    shared: &Shared,
    consistent: bool,
) -> Result<Arc<Snapshot>, LeaseStoreError> {
    // What is not in the snapshot may have happened right after it was asked for;
    let asked = shared.clock.now();
    let snapshot = Arc::new(shared.store.list(consistent).await?);
    // a counter seen now moved no later than now.
    let now = shared.clock.now();
    let was_corrupt = shared.last_look.corrupt();
    shared.last_look.note(&snapshot, now);
    note_corrupt(shared, &snapshot, &was_corrupt);
    watch_worker_id(shared, &snapshot, asked, now);
    let keys: HashSet<&str> = snapshot.leases.iter().map(key_of).collect();
    shared.registry.retain(|key| keys.contains(key));
    let names_me =
        |lease: &&Lease| lease.owner.as_deref() == Some(&shared.worker_id) && !lease.has_ended();
    let named = snapshot.leases.iter().filter(names_me).count();
    shared.registry.note_named(named);
    let mut observations = shared.observations();
    observations.observe_all(&snapshot.leases, asked, now, shared.failover);
    let renews = workers::renewing(&snapshot.leases, &observations, now, shared.failover);
    observations.observe_workers(&snapshot.workers, &renews);
    observations.observe_leader(snapshot.leader.as_ref(), now);
    let liveness = workers::judge(
        &snapshot.workers,
        &snapshot.leases,
        &observations,
        now,
        shared.epoch_seconds(),
        shared.failover,
    );
    let free = count_free(&snapshot, &observations, now, shared.failover);
    drop(observations);
    // The recorder is the application's code: no lock is held while it runs.
    if shared.meter.is_on() {
        measure(shared, &snapshot, free, &liveness, now);
    }
    let mut loads: BTreeMap<String, usize> = liveness
        .receivers
        .into_iter()
        .filter(|worker| *worker != shared.worker_id)
        .map(|worker| (worker, 0))
        .collect();
    for lease in snapshot.leases.iter().filter(|lease| !lease.has_ended()) {
        if let Some(load) = lease.owner.as_ref().and_then(|owner| loads.get_mut(owner)) {
            *load += 1;
        }
    }
    *shared.receivers() = loads;
    Ok(snapshot)
}

/// Items that cannot be read, and that could not be read at the scan before.
fn note_corrupt(shared: &Shared, snapshot: &Snapshot, before: &[String]) {
    let kind = ProblemKind::CorruptLease;
    for corrupt in &snapshot.corrupt {
        let noted = shared.problems.failed(kind, Some(&corrupt.key), corrupt);
        if noted.log {
            tracing::warn!(%corrupt, scans = noted.failures, "item skipped");
        }
    }
    let is_corrupt = |key: &String| snapshot.corrupt.iter().any(|item| item.key == *key);
    for key in before.iter().filter(|key| !is_corrupt(key)) {
        shared.problems.recovered(kind, Some(key));
    }
}

/// Looks for another live process under this worker's id.
fn watch_worker_id(shared: &Shared, snapshot: &Snapshot, asked: Duration, now: Duration) {
    // The next process of this id may have begun.
    if shared.leaving.is_cancelled() {
        return;
    }
    let me = Me { worker_id: &shared.worker_id, process: shared.process };
    let sighting = shared.other_processes().observe(me, snapshot, asked, now);
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

/// What the table shows, for the metrics.
/// Leases that another worker may take.
#[derive(Debug, Clone, Copy)]
struct FreeLeases {
    /// Their owner does not renew them.
    expired: usize,
    /// Those, and the leases without an owner.
    available: usize,
}

fn count_free(
    snapshot: &Snapshot,
    observations: &Observations,
    now: Duration,
    failover: Duration,
) -> FreeLeases {
    let leases = snapshot.leases.iter().filter(|lease| !lease.has_ended());
    let is_expired = |lease: &&Lease| observations.is_expired(lease, now, failover);
    let is_available = |lease: &&Lease| observations.is_available(lease, now, failover);
    FreeLeases {
        expired: leases.clone().filter(is_expired).count(),
        available: leases.filter(is_available).count(),
    }
}

fn measure(
    shared: &Shared,
    snapshot: &Snapshot,
    free: FreeLeases,
    liveness: &Liveness,
    now: Duration,
) {
    let is_other = |worker: &&String| **worker != shared.worker_id;
    for (metric, count) in [
        (Metric::TotalLeases, snapshot.leases.len()),
        (Metric::ExpiredLeases, free.expired),
        (Metric::UnownedLeases, free.available),
        (Metric::NumWorkers, 1 + liveness.live.iter().filter(is_other).count()),
        (Metric::LeaseDeserializationFailureCount, snapshot.corrupt.len()),
    ] {
        shared.meter.put(metric, None, count as f64);
    }
    for (shard, age) in shared.last_look.checkpoint_ages(&shared.worker_id, now) {
        let age = milliseconds(age);
        shared.meter.put(Metric::MillisSinceCheckpoint, Some(&shard), age);
    }
}

pub(super) fn make_plan(shared: &Shared, snapshot: &Snapshot) -> Plan {
    let now = shared.clock.now();
    let observations = shared.observations();
    let own = |lease: &&Lease| lease.owner.as_deref() == Some(&shared.worker_id);
    let own: HashSet<&str> = snapshot.leases.iter().filter(own).map(key_of).collect();
    // The others look too rarely to wait for them: a new shard is its parent's owner's.
    let is_rare = scan_schedule::at_rest(snapshot.items(), shared.table_reads) > OVERDUE;
    let is_born_here = |lease: &Lease| {
        is_rare && lease.owner.is_none() && lease.parents.iter().any(|key| own.contains(&**key))
    };
    let liveness = workers::judge(
        &snapshot.workers,
        &snapshot.leases,
        &observations,
        now,
        shared.epoch_seconds(),
        shared.failover,
    );
    let leader = observations.leader(now);
    let is_led = leader.is_some_and(|leader| liveness.live.contains(leader));
    // Free leases are the leader's to assign: by the time of its next pass, all of them would be ours.
    // If the leader dies, the time that a lease was free until then counts.
    let reserved_for =
        if is_led { left_to_leader(shared.failover, shared.leader_jitter) } else { Duration::ZERO };
    let active: Vec<ActiveLease<'_>> = snapshot
        .leases
        .iter()
        .filter(|lease| !lease.has_ended())
        .filter_map(|lease| {
            // What this worker let go of, or has not let go of yet, is not there to be taken.
            let free = observations.is_available(lease, now, shared.failover)
                && !shared.registry.contains(&lease.key);
            let free_for = observations.available_for(lease, now);
            let reserved = free && is_led && free_for <= reserved_for;
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
    let mut live = snapshot.workers.iter().filter(|row| liveness.live.contains(&row.worker));
    let balances = is_led && live.all(|row| !row.measures);
    let nobody = BTreeSet::new();
    let fleet = Workers {
        live: &liveness.live,
        takers: &liveness.receivers,
        receivers: if balances { &nobody } else { &liveness.receivers },
    };
    plan(&shared.worker_id, &active, fleet, shared.max_leases)
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
            let claim = shared.registry.claim(&lease.key)?;
            let sent = shared.clock.now();
            let me = shared.worker_id.as_str();
            let acquired = Acquired::by_taking(&lease, &shared.observations(), me, sent);
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
