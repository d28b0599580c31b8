//! The services of the coordinator for lease renewers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::context::Context;
use crate::lease::{ChildShard, Lease, LeaseStoreError, LeaseWrite, RenewerServices, ShardFacts};
use crate::stream::{ListShardsError, SyncError};

impl RenewerServices for Arc<Context> {
    fn receiver(&self) -> Option<String> {
        self.fleet.lock().workers.next_receiver()
    }

    fn workers_take_leases(&self) -> bool {
        self.workers_take_leases.load(Ordering::Relaxed)
    }

    fn create_children<'a>(
        &'a self,
        parent: &'a Lease,
        children: Vec<ChildShard>,
    ) -> BoxFuture<'a, Result<(), LeaseStoreError>> {
        let (sync, parent) = (self.worker.sync.clone(), parent.clone());
        self.step("child leases", async move {
            let created = sync.create_children(&parent, children).await;
            created.map(drop).map_err(into_store_error)
        })
    }

    fn lease<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Lease>, LeaseStoreError>> {
        let (store, key) = (Arc::clone(&self.worker.store), key.to_owned());
        self.step("parent leases", async move { store.get(&key).await })
    }

    fn set_facts<'a>(
        &'a self,
        lease: &'a Lease,
        facts: ShardFacts,
    ) -> BoxFuture<'a, Result<(), LeaseStoreError>> {
        let (store, lease) = (Arc::clone(&self.worker.store), lease.clone());
        let write = LeaseWrite::SetFacts(facts);
        self.step("shard facts", async move { store.write(&lease, write).await.map(drop) })
    }

    fn changed(&self) {
        self.scan_wanted.notify_one();
    }
}

impl Context {
    /// Runs calls to the lease table on the executor of the tasks.
    fn step<T: Send + 'static>(
        &self,
        step: &'static str,
        calls: impl Future<Output = Result<T, LeaseStoreError>> + Send + 'static,
    ) -> BoxFuture<'_, Result<T, LeaseStoreError>> {
        let answer = self.tasks.run(step, calls);
        // Without an answer, the worker ends.
        let answer = answer.map(|answer| answer.unwrap_or(Err(LeaseStoreError::Lost)));
        answer.map(|answer| answer.inspect_err(|error| self.missing.note(error))).boxed()
    }
}

fn into_store_error(error: SyncError) -> LeaseStoreError {
    match error {
        SyncError::Store(error) => error,
        SyncError::List(ListShardsError::Call(error)) => error.into(),
        other => LeaseStoreError::Shards(other.to_string()),
    }
}
