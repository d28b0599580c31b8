//! This worker's row: by it the others see that it lives, and Java leaders give it leases. It holds
//! no metrics yet, which is legal and means: judge me by my share of the throughput.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::shared::Shared;

/// Each 30 s, as Java: a leader drops workers whose row is older than two of that.
const INTERVAL: Duration = Duration::from_secs(30);
/// After a failure.
const RETRY: Duration = Duration::from_secs(2);

/// What the row may say of when it was written: any write since the last one that was answered may be
/// done or not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RowWritten(Option<RangeInclusive<u64>>);

impl RowWritten {
    /// The time of day may be put back meanwhile.
    pub(super) fn attempted(&mut self, at: u64) {
        self.0 = Some(match self.0.take() {
            Some(times) => at.min(*times.start())..=at.max(*times.end()),
            None => at..=at,
        });
    }

    pub(super) fn acknowledged(&mut self, at: u64) {
        self.0 = Some(at..=at);
    }
}

/// Writes the row at once and then each 30 s, until the worker leaves, but while it is held back. After a failure once more soon:
/// who has found this worker dead meanwhile waits for another row than the first that is there again.
pub(crate) async fn report(shared: &Shared) {
    let mut failed = false;
    while !shared.leaving.is_cancelled() {
        // Nothing is to be given to a worker that would not process it.
        if shared.registry.is_held_back() {
            let sleep = tokio::time::sleep(RETRY);
            let _ = shared.leaving.run_until_cancelled(sleep).await;
            continue;
        }
        let now = shared.epoch_seconds();
        // Noted first: it may be written although it fails.
        shared.row_written().attempted(now);
        // Awaited even when the worker leaves: it must not be done after the row was removed.
        let pause = match shared.store.put_worker(&shared.worker_id, now).await {
            Ok(()) => {
                shared.row_written().acknowledged(now);
                if std::mem::take(&mut failed) {
                    shared.failover.min(INTERVAL)
                } else {
                    INTERVAL
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the worker row could not be written");
                failed = true;
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
/// under the same id. A write that is still on its way then brings the row back: it has no condition, as
/// Java's has none. Until it is 60 s old, a leader may assign what nobody starts on before it expires.
pub(crate) async fn withdraw(shared: &Shared) {
    let Some(written) = shared.row_written().0.clone() else {
        return;
    };
    let removed = shared.store.delete_worker(&shared.worker_id, written).await;
    if let Err(error) = removed {
        tracing::warn!(%error, "the worker row could not be removed: it counts as alive for 60 s");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_may_say_any_time_since_the_last_answer() {
        let mut written = RowWritten::default();
        written.attempted(100);
        assert_eq!(written.0, Some(100..=100));
        written.acknowledged(100);
        for at in [130, 132, 134] {
            written.attempted(at);
        }
        assert_eq!(written.0, Some(100..=134), "and the one before");
        written.attempted(90);
        assert_eq!(written.0, Some(90..=134), "the time of day was put back");
        written.acknowledged(140);
        assert_eq!(written.0, Some(140..=140));
    }
}
