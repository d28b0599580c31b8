//! Repeats the shard sync while the worker runs: it creates leases for shards for which no owner of
//! a parent has created one, and deletes those of finished shards.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use kinesis_common::backoff::Backoff;

use super::context::Context;
use super::scan_schedule;
use crate::error::WorkerError;
use crate::health::ProblemKind;
use crate::lease::LeaseStoreError;
use crate::metrics::Metric;
use crate::stream::{ListShardsError, SyncError};

const KIND: ProblemKind = ProblemKind::ShardSyncFailing;
const METRICS: (Metric, Metric) = (Metric::ShardSyncTaskSuccess, Metric::ShardSyncTaskTime);

/// Least pause between two syncs that readers asked for. A stream that was created again is
/// CREATING for some time, and each of its readers asks again and again meanwhile.
const AFTER_DOUBT: Duration = Duration::from_secs(1);
/// Longest random addition to that pause. It doubles with each sync in a row that fails.
const FIRST_ADDITION: Duration = Duration::from_secs(1);
/// Longest addition after several failures.
const LONGEST_ADDITION: Duration = Duration::from_secs(9);

/// Syncs the leases with the shards of the stream. The first sync is part of the start.
#[derive(Debug)]
pub(super) struct ShardSyncer {
    ctx: Arc<Context>,
    random: Rng,
    /// Pauses after syncs that readers asked for.
    after_doubts: Backoff,
    /// Time before which no reader causes a sync.
    not_before: Duration,
}

impl ShardSyncer {
    pub(super) fn new(ctx: Arc<Context>) -> Self {
        let mut random = Rng::with_seed(ctx.worker.seed);
        let after_doubts = Backoff::new(FIRST_ADDITION, LONGEST_ADDITION, random.fork());
        Self { ctx, random, after_doubts, not_before: Duration::ZERO }
    }

    /// Syncs each interval, with jitter. A reader that has reason to believe that the stream was
    /// created again causes a sync at once, unless one was just made.
    pub(super) async fn run(mut self) {
        let ctx = Arc::clone(&self.ctx);
        let sync = &ctx.worker.sync;
        loop {
            let pause = self.pause();
            let not_before = self.not_before;
            let doubted = async {
                let pause = not_before.saturating_sub(ctx.worker.clock.now());
                tokio::time::sleep(pause).await;
                // A doubt of the meantime counts.
                sync.stream.doubted().await;
            };
            let is_for_doubt = tokio::select! {
                biased;
                () = tokio::time::sleep(pause) => false,
                () = doubted => true,
            };
            let timer = ctx.worker.meter.timer(&*ctx.worker.clock);
            let synced = sync.run().await;
            timer.done(METRICS, None, synced.is_ok());
            if synced.is_ok() {
                self.after_doubts.succeeded();
            }
            if is_for_doubt {
                let pause = AFTER_DOUBT + self.after_doubts.next_delay();
                self.not_before = ctx.worker.clock.now() + pause;
            }
            match synced {
                Ok(report) => {
                    ctx.worker.problems.recovered(KIND, None);
                    if report.created > 0 {
                        ctx.scan_wanted.notify_one();
                    }
                }
                Err(error) => self.failed(error),
            }
        }
    }

    /// The pause before the next sync. Its jitter keeps workers that started together apart,
    /// because the quota of the listing is the stream's.
    fn pause(&mut self) -> Duration {
        let worker = &self.ctx.worker;
        let items = self.ctx.fleet.lock().items();
        let affordable = scan_schedule::between_syncs(items, worker.table_reads);
        let pause = affordable.max(worker.sync_interval.mul_f64(0.8));
        scan_schedule::jittered(pause, &mut self.random)
    }

    fn failed(&self, error: SyncError) {
        match error {
            SyncError::Store(error) => self.ctx.store_failed(KIND, "shard sync", &error),
            SyncError::StreamRecreated { .. } => {
                let stream = self.ctx.worker.stream.clone();
                self.ctx.tasks.fail(WorkerError::StreamRecreated { stream });
            }
            error => {
                if let SyncError::List(ListShardsError::Call(call)) = &error {
                    self.ctx.missing.note(&LeaseStoreError::from(call.clone()));
                }
                self.ctx.failed(KIND, "shard sync", &error);
            }
        }
    }
}

#[cfg(test)]
mod tests;
