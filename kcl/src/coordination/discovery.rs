//! Finds leases that others gave to this worker: a look at the index each second, and a consistent
//! read of what is new there.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::shared::Shared;
use crate::lease::{Lease, LeaseStoreError, Tenure};
use crate::metrics::Metric;

const INTERVAL: Duration = Duration::from_secs(1);

/// Looks each second, from the start until the worker leaves.
pub(crate) async fn discover(shared: &Arc<Shared>, deliveries: &mpsc::Sender<Tenure>) {
    while !shared.leaving.is_cancelled() {
        match shared
            .leaving
            .run_until_cancelled(look(shared, deliveries))
            .await
        {
            Some(Err(error)) => shared.store_failed("discovery", &error),
            Some(Ok(())) => {}
            None => return,
        }
        if shared
            .leaving
            .run_until_cancelled(tokio::time::sleep(INTERVAL))
            .await
            .is_none()
        {
            return;
        }
    }
}

pub(super) async fn look(
    shared: &Arc<Shared>,
    deliveries: &mpsc::Sender<Tenure>,
) -> Result<(), LeaseStoreError> {
    for key in shared.store.owned_by(&shared.worker_id).await? {
        // A finished lease keeps its owner.
        if shared.registry.contains(&key) || shared.last_look.has_ended(&key) {
            continue;
        }
        let asked = shared.clock.now();
        match shared.store.get(&key).await {
            Ok(Some(lease)) => consider(shared, &lease, asked, deliveries).await?,
            // The index lags behind.
            Ok(None) => {}
            Err(LeaseStoreError::Corrupt(corrupt)) => tracing::warn!(%corrupt, "lease skipped"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Starts on a lease, as read just now, when it was asked for at `asked`, if it is this worker's and nobody else may still be at work.
pub(crate) async fn consider(
    shared: &Arc<Shared>,
    lease: &Lease,
    asked: Duration,
    deliveries: &mpsc::Sender<Tenure>,
) -> Result<(), LeaseStoreError> {
    let now = shared.clock.now();
    shared.observations().observe(lease, asked, now);
    let mine = lease.owner.as_deref() == Some(&shared.worker_id)
        && !lease.is_handoff_pending()
        && !lease.has_ended();
    if mine && shared.may_start(lease, now) {
        shared.meter.put(Metric::NewLeasesDiscovered, None, 1.0);
        shared.start_on(lease, deliveries).await?;
    }
    Ok(())
}
