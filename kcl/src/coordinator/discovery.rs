//! Finds leases that others gave to this worker: a look at the index each second (less often, if it
//! names very many), and a consistent read of what is new there.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use tokio::sync::mpsc;

use super::fleet_view::ReadTime;
use super::scan_schedule;
use super::shared::Shared;
use crate::health::ProblemKind;
use crate::lease::{Lease, LeaseStoreError, Outcome, Tenure};
use crate::metrics::Metric;

/// Leases considered at a time.
const CONCURRENT: usize = 16;
const KIND: ProblemKind = ProblemKind::LeaseDiscoveryFailing;

/// Looks, from the start until the worker leaves.
pub(crate) async fn discover(shared: &Arc<Shared>, deliveries: &mpsc::Sender<Tenure>) {
    let mut pause = scan_schedule::between_queries(0, shared.table_reads);
    while !shared.leaving.is_cancelled() {
        match shared.leaving.run_until_cancelled(look(shared, deliveries)).await {
            Some(Err(error)) => shared.store_failed(KIND, "discovery", &error),
            Some(Ok(next)) => {
                shared.problems.recovered(KIND, None);
                pause = next;
            }
            None => return,
        }
        if shared.leaving.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

/// The pause until the next look.
pub(super) async fn look(
    shared: &Arc<Shared>,
    deliveries: &mpsc::Sender<Tenure>,
) -> Result<Duration, LeaseStoreError> {
    let query = shared.store.owned_by(&shared.worker_id);
    let keys = shared.watched(KIND, "discovery", query).await?;
    let pause = scan_schedule::between_queries(keys.len(), shared.table_reads);
    // A finished lease keeps its owner.
    let unfinished = keys.into_iter().filter(|key| !shared.fleet.lock().has_ended(key));
    consider_all(shared, unfinished.collect(), deliveries).await;
    Ok(pause)
}

/// [Considers](consider) leases that were seen to name this worker and are not held, some at a time: a
/// leader may have given it hundreds.
pub(super) async fn consider_all(
    shared: &Arc<Shared>,
    mut keys: Vec<String>,
    deliveries: &mpsc::Sender<Tenure>,
) {
    keys.retain(|key| !shared.held.contains(key));
    let considered = keys.into_iter().map(|key| {
        let (shared, deliveries) = (Arc::clone(shared), deliveries.clone());
        async move { consider(&shared, &key, &deliveries).await }
    });
    let mut considered = stream::iter(considered).buffer_unordered(CONCURRENT);
    while considered.next().await.is_some() {}
}

/// Reads a lease that was seen to name this worker, and starts on it if it still does, and nobody else
/// may be at work. A failure is this lease's alone: the next look tries again.
async fn consider(shared: &Arc<Shared>, key: &str, deliveries: &mpsc::Sender<Tenure>) {
    if shared.held.is_held_back() {
        return;
    }
    let sent = shared.clock.now();
    let lease = match shared.store.get(key).await {
        Ok(Some(lease)) => lease,
        // The index lags behind.
        Ok(None) => return,
        Err(error) => return shared.acquisition_failed("reading a lease", &error),
    };
    let now = shared.clock.now();
    let may_start = {
        let mut fleet = shared.fleet.lock();
        fleet.observe_lease(&lease, ReadTime { sent, answered: now });
        fleet.may_start(&lease, now)
    };
    let mine = lease.owner.as_deref() == Some(&shared.worker_id)
        && !lease.is_handoff_pending()
        && !lease.has_ended();
    // Another task may have claimed it since the look, and moved the counter that was just read: then
    // it is processed here, and must not be passed on.
    if !mine || shared.held.contains(key) || !may_start {
        return;
    }
    if shared.held.is_full() {
        pass_on(shared, &lease).await;
    } else {
        shared.meter.put(Metric::NewLeasesDiscovered, None, 1.0);
        if let Err(error) = shared.start_on(&lease, None, deliveries).await {
            shared.acquisition_failed("starting on a lease", &error);
        }
    }
}

/// Gives a lease away that was given to this worker beyond its `max_leases`: to the least loaded worker
/// that shows that it has room, which starts at once; else it becomes unassigned. Never processed here,
/// and with no former owner at work, it does not stand still until it expires.
async fn pass_on(shared: &Arc<Shared>, lease: &Lease) {
    let to = shared.fleet.lock().next_receiver();
    let moved = match &to {
        Some(to) => shared.store.assign(lease, to, true).await,
        None => shared.store.evict(lease).await,
    };
    match moved {
        Ok(Outcome::Applied(_) | Outcome::AppliedBefore(_)) => tracing::info!(
            shard_id = lease.shard_id(),
            to,
            max_leases = shared.max_leases,
            "lease passed on: this worker has as many as it may hold"
        ),
        // A leader gave it to another worker meanwhile.
        Ok(Outcome::ConditionFailed(_)) => {}
        Err(error) => shared.acquisition_failed("passing a lease on", &error),
    }
}
