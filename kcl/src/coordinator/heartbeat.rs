//! This worker's heartbeat: its row among the worker metrics.
//!
//! The other workers see by the row that this worker lives and has room for leases, and Java
//! leaders assign leases only to workers with a row. The row holds no metrics yet. Java leaders
//! allow that, and judge such a worker by its share of the throughput.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use kinesis_common::sync::Mutex;
use tokio::sync::Notify;

use super::context::Context;
use crate::health::ProblemKind;
use crate::lease::LeaseStoreError;

const KIND: ProblemKind = ProblemKind::HeartbeatFailing;

/// Time between two heartbeats, as in Java. A leader drops workers whose row is older than two of
/// them.
const INTERVAL: Duration = Duration::from_secs(30);
/// Pause after a write or a removal that failed.
const RETRY: Duration = Duration::from_secs(2);

/// The times, in seconds since 1970, of which the row may hold any. `None`: this process has not
/// written it.
///
/// A write that was not answered may have been made or not. So the range covers every write since
/// the last answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RowTimes(Option<RangeInclusive<u64>>);

impl RowTimes {
    pub(super) fn attempted(&mut self, at: u64) {
        self.0 = Some(match self.0.take() {
            // The time of day may have been put back meanwhile.
            Some(times) => at.min(*times.start())..=at.max(*times.end()),
            None => at..=at,
        });
    }

    pub(super) fn acknowledged(&mut self, at: u64) {
        self.0 = Some(at..=at);
    }
}

/// Writes and removes the row.
#[derive(Debug)]
pub(super) struct Heartbeat {
    ctx: Arc<Context>,
    pub(super) row_times: Mutex<RowTimes>,
    /// Wakes the task: the row is to be written again.
    due: Notify,
}

impl Heartbeat {
    pub(super) fn new(ctx: Arc<Context>) -> Self {
        Self { ctx, row_times: Mutex::default(), due: Notify::new() }
    }

    /// Asks for a heartbeat at once, because another process has replaced the row.
    pub(super) fn write_again(&self) {
        self.due.notify_one();
    }

    /// Keeps the row until the worker leaves: writes it every 30 s while this worker has room for
    /// more leases, and removes it while it has none.
    ///
    /// A worker without room needs no row. Its renewals prove that it lives, and without a row
    /// neither a Java leader nor another worker gives it a lease.
    pub(super) async fn run(self: Arc<Self>) {
        let Context { held, stop, .. } = &*self.ctx;
        let mut row = Row::default();
        while !stop.leaving.is_cancelled() {
            // Read once, before the write: a change during the write wakes the wait below.
            let had_room = held.has_room();
            let pause =
                if had_room { self.write(&mut row).await } else { self.remove(&mut row).await };
            let wait = async {
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(pause) => {}
                    () = self.room_changes(had_room) => {}
                    () = self.due.notified() => {}
                }
            };
            if stop.leaving.run_until_cancelled(wait).await.is_none() {
                return;
            }
        }
    }

    /// Waits until this worker has room and had none, or the other way round.
    async fn room_changes(&self, had_room: bool) {
        let held = &self.ctx.held;
        while held.has_room() == had_room {
            held.changed().await;
        }
    }

    /// Writes the row. Returns the time until the next heartbeat.
    async fn write(&self, row: &mut Row) -> Duration {
        let worker = &self.ctx.worker;
        let now = worker.service_clock.epoch_seconds();
        row.may_exist = true;
        // Noted before the call: a write that fails may have been made.
        self.row_times.lock().attempted(now);
        // Awaited even when the worker leaves: a write that is still on its way could arrive after
        // the row's removal.
        match worker.store.put_worker(&worker.id, now).await {
            Ok(()) => {
                self.row_times.lock().acknowledged(now);
                self.answered();
                worker.problems.recovered(KIND, None);
                if std::mem::take(&mut row.write_failed) {
                    // A heartbeat after a failed one is repeated early: workers that considered
                    // this worker dead trust it only after a second heartbeat.
                    worker.failover.min(INTERVAL)
                } else {
                    INTERVAL
                }
            }
            Err(error) => {
                self.ctx.failed(KIND, "writing the worker row", &error);
                row.write_failed = true;
                RETRY
            }
        }
    }

    /// Removes the row if it may exist. Returns the time until the next attempt.
    async fn remove(&self, row: &mut Row) -> Duration {
        if row.may_exist {
            if let Err(error) = self.delete().await {
                self.ctx.failed(KIND, "removing the worker row", &error);
                return RETRY;
            }
            row.may_exist = false;
            self.answered();
        }
        // Without a row, no heartbeat can fail.
        self.ctx.worker.problems.recovered(KIND, None);
        INTERVAL
    }

    fn answered(&self) {
        let now = self.ctx.worker.clock.now();
        self.ctx.fleet.lock().heartbeat_written(now);
    }

    /// Deletes the row, if it is still as this process wrote it.
    async fn delete(&self) -> Result<(), LeaseStoreError> {
        let Some(times) = self.row_times.lock().0.clone() else {
            return Ok(());
        };
        self.ctx.worker.store.delete_worker(&self.ctx.worker.id, times).await
    }

    /// Removes the row in a planned stop, so that no lease is assigned to this worker any more. The
    /// row of a later process of the same worker id stays.
    ///
    /// A write of the row that is still on its way brings the row back, because the write has no
    /// condition, as in Java. Until that row is 60 s old, a leader may assign leases to this
    /// worker. They expire.
    pub(super) async fn withdraw(&self) {
        if let Err(error) = self.delete().await {
            tracing::warn!(%error, "the worker row could not be removed: it counts as alive for 60 s");
        }
    }
}

/// What the task knows of the row.
#[derive(Debug, Default)]
struct Row {
    may_exist: bool,
    /// The latest write failed.
    write_failed: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_may_hold_any_time_since_the_last_answer() {
        let mut times = RowTimes::default();
        times.attempted(100);
        assert_eq!(times.0, Some(100..=100));
        times.acknowledged(100);
        for at in [130, 132, 134] {
            times.attempted(at);
        }
        assert_eq!(times.0, Some(100..=134), "and the one before");
        times.attempted(90);
        assert_eq!(times.0, Some(90..=134), "the time of day was put back");
        times.acknowledged(140);
        assert_eq!(times.0, Some(140..=140));
    }
}
