//! Repeats the shard sync: leases for shards that no owner of a parent has created, clean-up of finished
//! ones.

use std::time::Duration;

use kinesis_common::backoff::Backoff;

use super::error::WorkerFailure;
use super::scan_schedule;
use super::shared::Shared;
use crate::health::ProblemKind;
use crate::lease::LeaseStoreError;
use crate::metrics::Metric;
use crate::stream::{ListShardsError, SyncError};

const KIND: ProblemKind = ProblemKind::ShardSyncFailing;
const METRICS: (Metric, Metric) = (Metric::ShardSyncTaskSuccess, Metric::ShardSyncTaskTime);

/// Shortest pause between two syncs for which readers asked: a stream that was created again is CREATING
/// for some time, in which each reader asks again and again.
const AFTER_DOUBT: Duration = Duration::from_secs(1);
/// Most that a random part adds to that pause. It doubles with each sync in a row that fails, up to
/// [`LONGEST`].
const LONGER: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(9);

/// Syncs each interval, with jitter, until the worker leaves. The first was part of the start. A reader
/// that has reason to believe that the stream was created again makes it sync at once, if it has not just
/// done so.
pub(crate) async fn maintain(shared: &Shared, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut after_doubts = Backoff::new(LONGER, LONGEST, random.fork());
    // No sync for a doubt before this.
    let mut not_before = Duration::ZERO;
    loop {
        // Workers that started together drift apart: the listing's quota is the stream's.
        let items = shared.fleet.lock().items();
        let affordable = scan_schedule::between_syncs(items, shared.table_reads);
        let pause = affordable.max(shared.sync_interval.mul_f64(0.8));
        let pause = scan_schedule::jittered(pause, &mut random);
        let doubted = async {
            let pause = not_before.saturating_sub(shared.clock.now());
            tokio::time::sleep(pause).await;
            // A doubt of the meantime counts.
            shared.sync.stream.doubted().await;
        };
        let due = async {
            tokio::select! {
                () = tokio::time::sleep(pause) => false,
                () = doubted => true,
            }
        };
        let Some(for_doubt) = shared.leaving.run_until_cancelled(due).await else {
            return;
        };
        let timer = shared.meter.timer(&*shared.clock);
        let Some(synced) = shared.leaving.run_until_cancelled(shared.sync.run()).await else {
            return;
        };
        timer.done(METRICS, None, synced.is_ok());
        if synced.is_ok() {
            after_doubts.succeeded();
        }
        if for_doubt {
            let pause = AFTER_DOUBT + after_doubts.next_delay();
            not_before = shared.clock.now() + pause;
        }
        match synced {
            Ok(report) => {
                shared.problems.recovered(KIND, None);
                if report.created > 0 {
                    shared.nudge.notify_one();
                }
            }
            Err(SyncError::Store(error)) => shared.store_failed(KIND, "shard sync", &error),
            Err(SyncError::StreamRecreated { stream }) => {
                shared.fail(WorkerFailure::StreamRecreated { stream });
            }
            Err(error) => {
                if let SyncError::List(ListShardsError::Call(call)) = &error {
                    shared.existence.doubt(&LeaseStoreError::from(call.clone()));
                }
                shared.noted(KIND, "shard sync", &error);
            }
        }
    }
}

#[cfg(test)]
mod tests;
