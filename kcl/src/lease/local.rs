//! The leases of a worker that has no lease table. They are gone when the worker ends.

mod apply;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use futures::FutureExt as _;
use kinesis_common::sync::Mutex;

pub use self::apply::apply;
use super::model::Lease;
use super::store::{LeaderLock, LeaseStore, LeaseWrite, Outcome, Snapshot, StoreFuture, WorkerRow};

/// A lease table in the memory of one process. A call takes no time, and never fails.
#[derive(Debug)]
pub struct LocalLeaseStore {
    process: u64,
    items: Mutex<Items>,
}

#[derive(Debug, Default)]
struct Items {
    leases: BTreeMap<String, Lease>,
    workers: BTreeMap<String, WorkerRow>,
    leader: Option<LeaderLock>,
}

impl LocalLeaseStore {
    /// An empty table. Its writes are stamped with `process`.
    pub fn new(process: u64) -> Self {
        Self { process, items: Mutex::default() }
    }

    /// Does `work` with the items at once.
    fn call<T: Send + 'static>(&self, work: impl FnOnce(&mut Items) -> T) -> StoreFuture<'_, T> {
        let done = work(&mut self.items.lock());
        std::future::ready(Ok(done)).boxed()
    }
}

impl LeaseStore for LocalLeaseStore {
    fn write<'a>(&'a self, known: &'a Lease, write: LeaseWrite) -> StoreFuture<'a, Outcome> {
        self.call(|items| {
            let found = items.leases.get(&known.key);
            let Some(after) = apply(&write, self.process, known, found) else {
                return Outcome::ConditionFailed(found.cloned());
            };
            let before = items.leases.remove(&known.key);
            if let Some(after) = &after {
                items.leases.insert(known.key.clone(), after.clone());
            }
            // A deleted lease: as it was.
            after.or(before).map_or(Outcome::ConditionFailed(None), Outcome::Applied)
        })
    }

    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Lease>> {
        self.call(|items| items.leases.get(key).cloned())
    }

    fn list(&self, _consistent: bool) -> StoreFuture<'_, Snapshot> {
        self.call(|items| Snapshot {
            leases: items.leases.values().cloned().collect(),
            workers: items.workers.values().cloned().collect(),
            leader: items.leader.clone().filter(|lock| !lock.is_starter),
            corrupt: Vec::new(),
        })
    }

    fn exists(&self) -> StoreFuture<'_, bool> {
        self.call(|_| true)
    }

    fn leader(&self) -> StoreFuture<'_, Option<LeaderLock>> {
        self.call(|items| items.leader.clone())
    }

    fn change_leader<'a>(
        &'a self,
        known: Option<&'a LeaderLock>,
        next: Option<&'a LeaderLock>,
    ) -> StoreFuture<'a, bool> {
        self.call(|items| {
            let version = |lock: Option<&LeaderLock>| lock.map(|lock| lock.version.clone());
            let holds = version(items.leader.as_ref()) == version(known);
            if holds {
                items.leader = next.cloned();
            }
            holds
        })
    }

    fn owned_by<'a>(&'a self, owner: &'a str) -> StoreFuture<'a, Vec<String>> {
        self.call(|items| {
            let owned = items.leases.values().filter(|lease| lease.owner.as_deref() == Some(owner));
            owned.map(|lease| lease.key.clone()).collect()
        })
    }

    fn put_worker<'a>(&'a self, worker: &'a str, epoch_seconds: u64) -> StoreFuture<'a, ()> {
        self.call(|items| {
            let row = WorkerRow {
                worker: worker.to_owned(),
                last_update: epoch_seconds,
                measures: false,
                process: Some(self.process),
            };
            items.workers.insert(worker.to_owned(), row);
        })
    }

    fn delete_worker<'a>(
        &'a self,
        worker: &'a str,
        written: RangeInclusive<u64>,
    ) -> StoreFuture<'a, ()> {
        self.call(|items| {
            if items.workers.get(worker).is_some_and(|row| written.contains(&row.last_update)) {
                items.workers.remove(worker);
            }
        })
    }
}
