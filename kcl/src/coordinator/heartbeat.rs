//! This worker's row: by it the others see that it lives, and Java leaders give it leases. It holds
//! no metrics yet, which is legal and means: judge me by my share of the throughput.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::shared::Shared;
use crate::health::ProblemKind;
use crate::lease::LeaseStoreError;

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

/// Keeps the row until the worker leaves: written each 30 s while it has room for more leases, removed
/// while it has none. After a failed write it is repeated once more soon: a worker that found this one
/// dead meanwhile waits for another row than the first that is there again.
///
/// A worker at its limit needs no row: its renewals prove that it lives, and without a row neither a Java
/// leader nor another worker gives it a lease.
pub(crate) async fn report(shared: &Shared) {
    let mut row = Row::default();
    while !shared.leaving.is_cancelled() {
        // Asked once: a change during the write wakes the wait below.
        let had_room = shared.held.has_room();
        let pause = if had_room { row.write(shared).await } else { row.remove(shared).await };
        let due = tokio::time::sleep(pause);
        let wake = changed(shared, had_room);
        let wait = async {
            tokio::select! {
                () = due => {}
                () = wake => {}
                // Another process has written it.
                () = shared.row_due.notified() => {}
            }
        };
        if shared.leaving.run_until_cancelled(wait).await.is_none() {
            return;
        }
    }
}

/// Waits until the worker has room and had none, or the other way round.
async fn changed(shared: &Shared, had_room: bool) {
    while shared.held.has_room() == had_room {
        shared.held.changed().await;
    }
}

/// What this worker knows of its row.
#[derive(Debug, Default)]
struct Row {
    /// It may be there.
    written: bool,
    failed: bool,
}

impl Row {
    /// The time until the row is due again.
    async fn write(&mut self, shared: &Shared) -> Duration {
        let now = shared.epoch_seconds();
        self.written = true;
        // Noted first: it may be written although it fails.
        shared.row_written().attempted(now);
        // Awaited even when the worker leaves: it must not be done after the row was removed.
        match shared.store.put_worker(&shared.worker_id, now).await {
            Ok(()) => {
                shared.row_written().acknowledged(now);
                self.answered(shared);
                shared.problems.recovered(ProblemKind::HeartbeatFailing, None);
                if std::mem::take(&mut self.failed) {
                    shared.failover.min(INTERVAL)
                } else {
                    INTERVAL
                }
            }
            Err(error) => {
                let kind = ProblemKind::HeartbeatFailing;
                let noted = shared.problems.failed(kind, None, &error);
                if noted.log {
                    tracing::warn!(%error, failures = noted.failures, "the worker row could not be written");
                }
                self.failed = true;
                RETRY
            }
        }
    }

    fn answered(&self, shared: &Shared) {
        let now = shared.clock.now();
        shared.fleet.lock().heartbeat_written(now);
    }

    /// The time until the row has to be looked after again.
    async fn remove(&mut self, shared: &Shared) -> Duration {
        // A row that is not there cannot fail.
        let kind = ProblemKind::HeartbeatFailing;
        if self.written {
            if let Err(error) = delete(shared).await {
                let noted = shared.problems.failed(kind, None, &error);
                if noted.log {
                    tracing::warn!(%error, failures = noted.failures, "the worker row could not be removed");
                }
                return RETRY;
            }
            self.written = false;
            self.answered(shared);
        }
        shared.problems.recovered(kind, None);
        INTERVAL
    }
}

/// Removes the row as this process wrote it.
async fn delete(shared: &Shared) -> Result<(), LeaseStoreError> {
    let Some(written) = shared.row_written().0.clone() else {
        return Ok(());
    };
    shared.store.delete_worker(&shared.worker_id, written).await
}

/// Removes the row, so that nothing is assigned to a worker that leaves; not that of a later process
/// under the same id. A write that is still on its way then brings the row back: it has no condition, as
/// Java's has none. Until it is 60 s old, a leader may assign what nobody starts on before it expires.
pub(crate) async fn withdraw(shared: &Shared) {
    if let Err(error) = delete(shared).await {
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
