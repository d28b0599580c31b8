//! What the lease renewers ask of the coordinator.

use std::sync::Arc;
use std::time::SystemTime;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::context::Context;
use crate::lease::{ChildShard, Lease, LeaseStoreError, LeaseWrite, RenewerServices, ShardFacts};
use crate::stream::{ListShardsError, SyncError};

impl RenewerServices for Arc<Context> {
    fn receiver(&self) -> Option<String> {
        self.fleet.lock().next_receiver()
    }

    fn workers_take_leases(&self) -> bool {
        Context::workers_take_leases(self)
    }

    fn create_children<'a>(
        &'a self,
        parent: &'a Lease,
        children: Vec<ChildShard>,
    ) -> BoxFuture<'a, Result<(), LeaseStoreError>> {
        let (sync, parent) = (self.worker.sync.clone(), parent.clone());
        let create = async move { sync.create_children(&parent, children).await.map(drop) };
        self.tasks
            .run("child leases", create)
            .map(|result| {
                let created =
                    result.map_or(Err(LeaseStoreError::Lost), |r| r.map_err(into_store_error));
                created.inspect_err(|error| self.missing.note(error))
            })
            .boxed()
    }

    fn lease<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Lease>, LeaseStoreError>> {
        let (store, key) = (Arc::clone(&self.worker.store), key.to_owned());
        self.tasks
            .run("parent leases", async move { store.get(&key).await })
            .map(|result| {
                let found = result.unwrap_or(Err(LeaseStoreError::Lost));
                found.inspect_err(|error| self.missing.note(error))
            })
            .boxed()
    }

    fn note_read_to<'a>(
        &'a self,
        lease: &'a Lease,
        time: SystemTime,
    ) -> BoxFuture<'a, Result<(), LeaseStoreError>> {
        let (store, lease) = (Arc::clone(&self.worker.store), lease.clone());
        let facts = LeaseWrite::SetFacts(ShardFacts::ReadTo(time));
        let note = async move { store.write(&lease, facts).await.map(drop) };
        self.tasks
            .run("read-to note", note)
            .map(|result| result.unwrap_or(Err(LeaseStoreError::Lost)))
            .boxed()
    }

    fn changed(&self) {
        self.scan_wanted.notify_one();
    }
}

fn into_store_error(error: SyncError) -> LeaseStoreError {
    match error {
        SyncError::Store(error) => error,
        SyncError::List(ListShardsError::Call(error)) => error.into(),
        other => LeaseStoreError::Shards(other.to_string()),
    }
}
