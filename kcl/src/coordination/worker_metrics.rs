//! This worker's row: by it the others see that it lives, and Java leaders give it leases. It holds
//! no metrics yet, which is legal and means: judge me by my share of the throughput.

use std::time::Duration;

use super::shared::Shared;

/// Each 30 s, as Java: a leader drops workers whose row is older than two of that.
const INTERVAL: Duration = Duration::from_secs(30);
/// After a failure.
const RETRY: Duration = Duration::from_secs(2);

/// When the row was written, as the row says. A write that failed may be done or not: the row says
/// one or the other.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RowWritten {
    attempted: Option<u64>,
    acknowledged: Option<u64>,
}

impl RowWritten {
    #[cfg(test)]
    pub(super) fn new(attempted: Option<u64>, acknowledged: Option<u64>) -> Self {
        Self {
            attempted,
            acknowledged,
        }
    }
}

/// Writes the row at once and then each 30 s, until the worker leaves.
pub(crate) async fn report(shared: &Shared) {
    while !shared.leaving.is_cancelled() {
        let now = shared.epoch_seconds();
        // Noted first: it may be written although it fails.
        shared.row_written().attempted = Some(now);
        // Awaited even when the worker leaves: it must not be done after the row was removed.
        let pause = match shared.store.put_worker(&shared.worker_id, now).await {
            Ok(()) => {
                shared.row_written().acknowledged = Some(now);
                INTERVAL
            }
            Err(error) => {
                tracing::warn!(%error, "the worker row could not be written");
                RETRY
            }
        };
        let sleep = tokio::time::sleep(pause);
        if shared.leaving.run_until_cancelled(sleep).await.is_none() {
            return;
        }
    }
}

/// Removes the row, so that nothing is assigned to a worker that leaves; not that of a later process
/// under the same id.
pub(crate) async fn withdraw(shared: &Shared) {
    let RowWritten {
        attempted,
        acknowledged,
    } = *shared.row_written();
    let older = acknowledged.filter(|_| acknowledged != attempted);
    for written in attempted.into_iter().chain(older) {
        let removed = shared.store.delete_worker(&shared.worker_id, written).await;
        if let Err(error) = removed {
            tracing::warn!(%error, "the worker row could not be removed: it counts as alive for 60 s");
        }
    }
}
