//! The planned stop of a worker, and its report.
//!
//! 1. The worker acquires no more leases, delivery stops, and every processor is told. This needs no call to the lease
//!    table. Held leases are still renewed.
//! 2. Processors finish their batches and checkpoint. Meanwhile the worker removes its row, so that no leader assigns
//!    leases to it, and scans the lease table for workers that may receive its leases.
//! 3. After the scan, or at half of the deadline, the lease of each drained shard is transferred, released or kept, as
//!    `on_stop` says.
//! 4. Shortly before the deadline, the worker stops waiting for calls to the lease table that are in flight, so that
//!    processors which wait for a checkpoint get an error in time. At the deadline it aborts the remaining processors.
//! 5. The worker passes on leases that were assigned to it meanwhile.
//! 6. All tasks end.
//!
//! The steps after the deadline take at most [`STOP_MARGIN`].

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use futures::future::{FutureExt as _, join_all};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::shards::Shards;
use crate::coordinator::Coordinator;
use crate::error::WorkerError;
use crate::lease::{HeldLease, LeaseEnd};
use crate::replay::ReplayReport;
use crate::shard_state::ShardShutdown;

/// Longest time that a planned stop takes after its deadline.
pub(crate) const STOP_MARGIN: Duration = Duration::from_secs(5);
/// Part of [`STOP_MARGIN`] in which aborted tasks are dropped.
const AFTER_ABORT: Duration = Duration::from_secs(1);
/// Part of [`STOP_MARGIN`] in which the coordinator's tasks end.
const AFTER_END: Duration = Duration::from_millis(500);
/// Part of [`STOP_MARGIN`] that is left for the last upload of metrics.
const LAST_METRICS: Duration = Duration::from_secs(1);
/// Time before the deadline at which calls in flight are no longer waited for. It leaves processors time to return, and
/// leases time to be transferred.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// Outcome of a planned stop for each shard of the worker. [`Display`](fmt::Display) writes one line per shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Ids of shards whose processor stopped in time and whose lease was then transferred, released or kept, as
    /// [`on_stop`](crate::ConsumerConfig::on_stop) says, and of shards that ended.
    pub drained: Vec<String>,
    /// Ids of shards whose processor had not returned by the deadline and was aborted. Their leases expire, because the
    /// processors may still be at work: another worker continues after the last checkpoint after the
    /// [`failover_time`](crate::ConsumerConfig::failover_time).
    pub aborted: Vec<String>,
    /// Outcome of each shard, by id. Besides the shards above, it has those whose processor stopped and whose lease was
    /// lost or expires.
    pub shards: BTreeMap<String, ShardShutdown>,
    /// Work of a bounded replay. `None`: [`until`](crate::ConsumerConfig::until) is not set.
    pub replay: Option<ReplayReport>,
}

impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.shards.is_empty() {
            return f.write_str("no shards");
        }
        let shards = self.shards.iter().map(|(shard_id, outcome)| format!("{shard_id}: {outcome}"));
        f.write_str(&shards.collect::<Vec<_>>().join("\n"))
    }
}

impl ShutdownReport {
    fn new(shards: BTreeMap<String, ShardShutdown>) -> Self {
        let of = |wanted: fn(&ShardShutdown) -> bool| {
            let shards = shards.iter().filter(|(_, outcome)| wanted(outcome));
            shards.map(|(shard_id, _)| shard_id.clone()).collect()
        };
        let is_drained = |outcome: &ShardShutdown| {
            use ShardShutdown::{Ended, HandedOver, Kept, Released};
            matches!(outcome, HandedOver { .. } | Released | Kept | Ended)
        };
        Self {
            drained: of(is_drained),
            aborted: of(|outcome| *outcome == ShardShutdown::Aborted),
            shards,
            replay: None,
        }
    }
}

/// Stops the worker, in the steps of this module.
///
/// # Errors
/// The first failure of a consumer.
pub(super) async fn stop(
    coordinator: &Coordinator,
    shards: &mut Shards,
    held_leases: &mut mpsc::Receiver<HeldLease>,
    deadline: Duration,
) -> Result<ShutdownReport, WorkerError> {
    coordinator.begin_to_leave(last_calls(deadline));
    let may_relinquish = shards.may_relinquish.clone();
    let mut stop = Stop { deadline, outcomes: BTreeMap::new(), failure: None };
    let mut leave = std::pin::pin!(async {
        coordinator.withdraw().await;
        may_relinquish.cancel();
    });
    let mut has_left = false;
    let drain = stop.drain(shards, held_leases, coordinator);
    tokio::select! {
        biased;
        () = async { leave.as_mut().await; has_left = true; std::future::pending().await } => {}
        () = drain => {}
    }
    let pass_leases_on = async {
        if !has_left {
            leave.await;
        }
        coordinator.pass_leases_on().await
    };
    match timeout(STOP_MARGIN - AFTER_ABORT - AFTER_END - LAST_METRICS, pass_leases_on).await {
        Ok(given) => stop.were_given_after_all(given),
        Err(_) => tracing::warn!(
            "the lease table did not answer at the end of the planned stop: leases that were assigned \
             to this worker meanwhile expire"
        ),
    }
    // The coordinator's runtime is not blocked, so its tasks end at once.
    let _ = timeout(AFTER_END, coordinator.end()).await;
    stop.failure.map_or_else(|| Ok(ShutdownReport::new(stop.outcomes)), Err)
}

/// Time after which a planned stop with this deadline no longer waits for calls in flight.
fn last_calls(deadline: Duration) -> Duration {
    deadline - LAST_CALLS.min(deadline / 4)
}

/// Planned stop in progress.
struct Stop {
    deadline: Duration,
    outcomes: BTreeMap<String, ShardShutdown>,
    failure: Option<WorkerError>,
}

impl Stop {
    /// Lets every consumer finish its batch, checkpoint and transfer its lease. Aborts the remaining consumers at the
    /// deadline.
    async fn drain(
        &mut self,
        shards: &mut Shards,
        held_leases: &mut mpsc::Receiver<HeldLease>,
        coordinator: &Coordinator,
    ) {
        let may_relinquish = shards.may_relinquish.clone();
        let last_calls = last_calls(self.deadline);
        let [half_time, last_calls, deadline] =
            [self.deadline / 2, last_calls, self.deadline].map(tokio::time::sleep);
        let (mut half_time, mut last_calls) = (half_time.boxed().fuse(), last_calls.boxed().fuse());
        let mut deadline = std::pin::pin!(deadline);
        loop {
            // Leases that were acquired while the stop began.
            while let Ok(held_lease) = held_leases.try_recv() {
                shards.relinquish(held_lease);
            }
            if shards.is_empty() {
                return;
            }
            tokio::select! {
                biased;
                () = &mut deadline => {
                    coordinator.out_of_time();
                    return self.abort(shards).await;
                }
                () = &mut last_calls => coordinator.out_of_time(),
                () = &mut half_time => may_relinquish.cancel(),
                (shard_id, result) = shards.ended() => match result {
                    Ok(outcome) => self.note(shard_id, outcome),
                    Err(error) => {
                        tracing::error!(shard_id, %error, "a shard's consumer failed");
                        self.failure.get_or_insert(error);
                    }
                },
                Some(held_lease) = held_leases.recv() => shards.relinquish(held_lease),
            }
        }
    }

    fn note(&mut self, shard_id: String, outcome: ShardShutdown) {
        tracing::info!(shard_id, %outcome, "shard given up");
        self.outcomes.insert(shard_id, outcome);
    }

    /// Aborts the remaining consumers: the deadline has passed.
    async fn abort(&mut self, shards: &mut Shards) {
        let out_of_time = || ShardShutdown::LeftToExpire {
            cause: "the lease table did not answer before the deadline of the planned stop".into(),
        };
        let mut ends = Vec::new();
        for (held_lease, has_stopped) in shards.abort() {
            let shard_id = held_lease.shard_id().to_owned();
            if has_stopped {
                self.note(shard_id, out_of_time());
            } else {
                tracing::error!(
                    shard_id,
                    "the processor did not stop in time: it is aborted, its lease expires"
                );
                held_lease.abort();
                self.note(shard_id, ShardShutdown::Aborted);
            }
            ends.push(async move { held_lease.end(LeaseEnd::Lost).await });
        }
        let all = async {
            // All leases are fenced at once, then the tasks are awaited.
            join_all(ends).await;
            while !shards.is_empty() {
                // The outcome of an aborted consumer is already noted.
                let _ = shards.ended().await;
            }
        };
        // A processor that blocks its thread cannot be aborted. Its lease is fenced nevertheless.
        let _ = timeout(AFTER_ABORT, all).await;
    }

    /// Corrects the outcome of leases that were not transferred by the deadline, and were in the last step of the stop.
    fn were_given_after_all(&mut self, given: Vec<(String, ShardShutdown)>) {
        for (shard_id, outcome) in given {
            let reported = self.outcomes.get_mut(&shard_id);
            if let Some(reported @ ShardShutdown::LeftToExpire { .. }) = reported {
                *reported = outcome;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_up_as_asked_is_drained() {
        let outcomes = [
            ShardShutdown::HandedOver { to: "w2".into() },
            ShardShutdown::Released,
            ShardShutdown::Kept,
            ShardShutdown::Ended,
            ShardShutdown::Lost,
            ShardShutdown::LeftToExpire { cause: "no answer".into() },
            ShardShutdown::Aborted,
        ];
        let shards = outcomes.into_iter().enumerate();
        let report =
            ShutdownReport::new(shards.map(|(nth, of)| (format!("shard-{nth}"), of)).collect());
        assert_eq!(report.drained, ["shard-0", "shard-1", "shard-2", "shard-3"]);
        assert_eq!(report.aborted, ["shard-6"]);
        let text = report.to_string();
        assert!(text.starts_with("shard-0: handed over to w2\nshard-1: released\n"), "{text}");
        assert!(text.contains("shard-5: left to expire: no answer\n"), "{text}");
        assert_eq!(ShutdownReport::default().to_string(), "no shards");
    }
}
