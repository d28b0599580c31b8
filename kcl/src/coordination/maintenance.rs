//! Repeats the shard sync: leases for shards that nobody told of, clean-up of finished ones.

use std::sync::Arc;

use super::error::WorkerFailure;
use super::pace;
use super::shared::Shared;
use crate::lease::{CallErrorKind, LeaseStoreError};
use crate::metrics::Metric;
use crate::shard_sync::{ListShardsError, SyncError};

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
        if shared
            .leaving
            .run_until_cancelled(tokio::time::sleep(pause))
            .await
            .is_none()
        {
            return;
        }
        let timer = shared.meter.timer(&*shared.clock);
        let Some(synced) = shared.leaving.run_until_cancelled(shared.sync.run()).await else {
            return;
        };
        timer.done(METRICS, None, synced.is_ok());
        match synced {
            Ok(report) if report.created > 0 => shared.nudge.notify_one(),
            Ok(_) => {}
            Err(error) => failed(shared, error),
        }
    }
}

fn failed(shared: &Shared, error: SyncError) {
    match error {
        SyncError::Store(error) => shared.store_failed("shard sync", &error),
        SyncError::List(ListShardsError::Call(call)) if call.kind == CallErrorKind::NotFound => {
            shared.fail(WorkerFailure::StreamDeleted {
                source: Arc::new(LeaseStoreError::from(call)),
            });
        }
        other => tracing::warn!(error = %other, "shard sync failed, tried again"),
    }
}
