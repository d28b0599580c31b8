//! A lease table whose calls are measured.

use std::ops::RangeInclusive;
use std::sync::Arc;

use futures::FutureExt as _;

use super::error::LeaseStoreError;
use super::model::Lease;
use super::store::{LeaderLock, LeaseStore, Outcome, Progress, ShardFacts, Snapshot, StoreFuture};
use crate::clock::Clock;
use crate::metrics::{Meter, Metric};

/// Passes every call on, and measures those that have a metric.
#[derive(Debug)]
pub(crate) struct Metered {
    inner: Arc<dyn LeaseStore>,
    meter: Meter,
    clock: Arc<dyn Clock>,
}

/// `store` itself, if nobody wants to know.
pub(crate) fn metered(
    store: Arc<dyn LeaseStore>,
    meter: &Meter,
    clock: &Arc<dyn Clock>,
) -> Arc<dyn LeaseStore> {
    if !meter.is_on() {
        return store;
    }
    Arc::new(Metered { inner: store, meter: meter.clone(), clock: Arc::clone(clock) })
}

impl Metered {
    fn measure<'a, T: Send + 'a>(
        &'a self,
        call: StoreFuture<'a, T>,
        metrics: (Metric, Metric),
        shard: Option<&'a str>,
    ) -> StoreFuture<'a, T> {
        async move {
            let timer = self.meter.timer(&*self.clock);
            let result: Result<T, LeaseStoreError> = call.await;
            timer.done(metrics, shard, result.is_ok());
            result
        }
        .boxed()
    }
}

impl LeaseStore for Metered {
    fn exists(&self) -> StoreFuture<'_, bool> {
        self.inner.exists()
    }

    fn create<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, Outcome> {
        self.inner.create(lease)
    }

    fn renew<'a>(
        &'a self,
        lease: &'a Lease,
        owner: &'a str,
        throughput: Option<f64>,
    ) -> StoreFuture<'a, Outcome> {
        let metrics = (Metric::RenewLeaseSuccess, Metric::RenewLeaseTime);
        self.measure(self.inner.renew(lease, owner, throughput), metrics, None)
    }

    fn checkpoint<'a>(
        &'a self,
        lease: &'a Lease,
        owner: &'a str,
        progress: &'a Progress,
    ) -> StoreFuture<'a, Outcome> {
        let metrics = (Metric::UpdateLeaseSuccess, Metric::UpdateLeaseTime);
        let call = self.inner.checkpoint(lease, owner, progress);
        self.measure(call, metrics, Some(&lease.key))
    }

    fn take<'a>(&'a self, lease: &'a Lease, owner: &'a str) -> StoreFuture<'a, Outcome> {
        let metrics = (Metric::TakeLeaseSuccess, Metric::TakeLeaseTime);
        self.measure(self.inner.take(lease, owner), metrics, None)
    }

    fn assign<'a>(
        &'a self,
        lease: &'a Lease,
        to: &'a str,
        released: bool,
    ) -> StoreFuture<'a, Outcome> {
        self.inner.assign(lease, to, released)
    }

    fn start_handoff<'a>(&'a self, lease: &'a Lease, to: &'a str) -> StoreFuture<'a, Outcome> {
        self.inner.start_handoff(lease, to)
    }

    fn evict<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, Outcome> {
        self.inner.evict(lease)
    }

    fn replace<'a>(&'a self, former: &'a Lease, new: &'a Lease) -> StoreFuture<'a, Outcome> {
        self.inner.replace(former, new)
    }

    fn set_shard_facts<'a>(&'a self, key: &'a str, facts: ShardFacts) -> StoreFuture<'a, Outcome> {
        self.inner.set_shard_facts(key, facts)
    }

    fn delete<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, Outcome> {
        self.inner.delete(lease)
    }

    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Lease>> {
        self.inner.get(key)
    }

    fn list(&self, consistent: bool) -> StoreFuture<'_, Snapshot> {
        let metrics = (Metric::ListLeasesSuccess, Metric::ListLeasesTime);
        self.measure(self.inner.list(consistent), metrics, None)
    }

    fn leader(&self) -> StoreFuture<'_, Option<LeaderLock>> {
        self.inner.leader()
    }

    fn change_leader<'a>(
        &'a self,
        known: Option<&'a LeaderLock>,
        next: Option<&'a LeaderLock>,
    ) -> StoreFuture<'a, bool> {
        self.inner.change_leader(known, next)
    }

    fn owned_by<'a>(&'a self, owner: &'a str) -> StoreFuture<'a, Vec<String>> {
        let metrics = (Metric::ListLeaseKeysForWorkerSuccess, Metric::ListLeaseKeysForWorkerTime);
        self.measure(self.inner.owned_by(owner), metrics, None)
    }

    fn put_worker<'a>(&'a self, worker: &'a str, epoch_seconds: u64) -> StoreFuture<'a, ()> {
        let metrics =
            (Metric::WorkerMetricStatsReporterSuccess, Metric::WorkerMetricStatsReporterTime);
        self.measure(self.inner.put_worker(worker, epoch_seconds), metrics, None)
    }

    fn delete_worker<'a>(
        &'a self,
        worker: &'a str,
        written: RangeInclusive<u64>,
    ) -> StoreFuture<'a, ()> {
        self.inner.delete_worker(worker, written)
    }
}
