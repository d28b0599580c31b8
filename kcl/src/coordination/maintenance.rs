//! Repeats the shard sync: leases for shards that nobody told of, clean-up of finished ones.

use super::error::WorkerFailure;
use super::pace;
use super::shared::Shared;
use crate::health::ProblemKind;
use crate::lease::LeaseStoreError;
use crate::metrics::Metric;
use crate::shard_sync::{ListShardsError, SyncError};

const KIND: ProblemKind = ProblemKind::ShardSyncFailing;
const METRICS: (Metric, Metric) = (Metric::ShardSyncTaskSuccess, Metric::ShardSyncTaskTime);

/// Syncs each interval, with jitter, until the worker leaves. The first was part of the start.
pub(crate) async fn maintain(shared: &Shared, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    loop {
        // Workers that started together drift apart: the listing's quota is the stream's.
        let items = shared.last_look.items();
        let affordable = pace::between_syncs(items, shared.table_reads);
        let pause = affordable.max(shared.sync_interval.mul_f64(0.8));
        let pause = pace::jittered(pause, &mut random);
        let due = async {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                // A reader has reason to believe that the stream was created again.
                () = shared.sync.stream.doubted() => {}
            }
        };
        if shared.leaving.run_until_cancelled(due).await.is_none() {
            return;
        }
        let timer = shared.meter.timer(&*shared.clock);
        let Some(synced) = shared.leaving.run_until_cancelled(shared.sync.run()).await else {
            return;
        };
        timer.done(METRICS, None, synced.is_ok());
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
