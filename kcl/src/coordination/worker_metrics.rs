//! This worker's row: by it the others see that it lives, and Java leaders give it leases. It holds
//! no metrics yet, which is legal and means: judge me by my share of the throughput.

use std::time::Duration;

use super::shared::Shared;

/// Each 30 s, as Java: a leader drops workers whose row is older than two of that.
const INTERVAL: Duration = Duration::from_secs(30);
/// After a failure.
const RETRY: Duration = Duration::from_secs(2);

/// Writes the row at once and then each 30 s, until the worker leaves.
pub(crate) async fn report(shared: &Shared) {
    loop {
        let write = shared
            .store
            .put_worker(&shared.worker_id, shared.epoch_seconds());
        let pause = match shared.leaving.run_until_cancelled(write).await {
            None => return,
            Some(Ok(())) => INTERVAL,
            Some(Err(error)) => {
                tracing::warn!(%error, "the worker row could not be written");
                RETRY
            }
        };
        if shared
            .leaving
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_none()
        {
            return;
        }
    }
}

/// Removes the row, so that nothing is assigned to a worker that leaves.
pub(crate) async fn withdraw(shared: &Shared) {
    if let Err(error) = shared.store.delete_worker(&shared.worker_id).await {
        tracing::warn!(%error, "the worker row could not be removed: it counts as alive for 60 s");
    }
}
