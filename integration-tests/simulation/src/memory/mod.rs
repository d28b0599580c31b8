//! A lease table in memory for simulations, over a network that may fail. The conformance suite shows that it behaves
//! as DynamoDB does.

mod table;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use kcl::internals::{
    CallError, CallErrorKind, LEADER, LeaderLock, Lease, LeaseStore, LeaseStoreError, LeaseWrite,
    Outcome, Snapshot, StoreFuture, WorkerRow, read_back,
};
use tokio::sync::oneshot;

pub use kcl::internals::apply;
pub use table::{MemoryTable, Row, Watcher};

/// Attempts of a call, and the pause after the first: the settings of the DynamoDB client.
const ATTEMPTS: u32 = 3;
const FIRST_BACKOFF: Duration = Duration::from_millis(25);
/// The client's retry quota, and the cost of a retry.
const QUOTA: u32 = 500;
const RETRY_COST: u32 = 5;
const TIMEOUT_COST: u32 = 10;

/// The cause of each failed call.
const SIMULATED: &str = "simulated";
/// The process of a worker that stamps nothing, such as a Java worker.
const NO_STAMP: u64 = 0;

/// Fate of one attempt of a call.
#[derive(Debug, Clone, Copy)]
pub enum Passage {
    /// The attempt is done, and answered.
    Through {
        /// Time until it is done.
        there: Duration,
        /// Time until its answer arrives after that. `None`: the connection breaks instead.
        back: Option<Duration>,
    },
    /// The attempt never arrives, and the sender is not told.
    Lost,
    /// The connection cannot be made.
    Cut,
    /// The attempt is throttled.
    Throttled,
}

impl Passage {
    /// Done and answered at once.
    pub const AT_ONCE: Self = Self::Through { there: Duration::ZERO, back: Some(Duration::ZERO) };
}

/// The way between a worker and the table. By default nothing lags behind the table.
pub trait Link: Send + Sync + fmt::Debug {
    /// Fate of the next attempt.
    fn passage(&self, is_write: bool) -> Passage;

    /// Notes an attempt of a call.
    fn attempted(&self, _operation: &'static str) {}

    /// How old each row of an eventually consistent scan is.
    fn scan_lag(&self) -> Duration {
        Duration::ZERO
    }

    /// How old each row of the index is.
    fn index_lag(&self) -> Duration {
        Duration::ZERO
    }

    /// A failed condition may come without the item.
    fn hides_old_item(&self) -> bool {
        false
    }
}

/// One worker's way to a [`MemoryTable`].
#[derive(Debug, Clone)]
pub struct MemoryLeaseStore {
    table: Arc<MemoryTable>,
    link: Arc<dyn Link>,
    /// Shown to the table's watcher.
    name: String,
    process: u64,
    attempt_timeout: Duration,
    /// Retry quota, as that of the client: a retry takes from it, a success gives back.
    quota: Arc<AtomicU32>,
}

impl MemoryLeaseStore {
    /// The way of `name` to `table`, for a worker that stamps nothing.
    pub fn new(
        table: Arc<MemoryTable>,
        link: Arc<dyn Link>,
        name: impl Into<String>,
        attempt_timeout: Duration,
    ) -> Self {
        Self {
            table,
            link,
            name: name.into(),
            process: NO_STAMP,
            attempt_timeout,
            quota: Arc::new(AtomicU32::new(QUOTA)),
        }
    }

    /// Stamps the writes with `process`.
    pub fn of_process(mut self, process: u64) -> Self {
        self.process = process;
        self
    }

    /// One call with its attempts. An attempt under way arrives even if its sender has given up.
    async fn call<T: Send + 'static>(
        &self,
        operation: &'static str,
        is_write: bool,
        work: impl Fn(&MemoryTable) -> T + Send + Sync + 'static,
    ) -> Result<T, LeaseStoreError> {
        let work = Arc::new(work);
        let mut kind = CallErrorKind::NoAnswer;
        let mut taken = 0;
        for attempt in 0..ATTEMPTS {
            if attempt > 0 {
                let cost = match kind {
                    CallErrorKind::Throttled => RETRY_COST,
                    _ => TIMEOUT_COST,
                };
                if !self.take_quota(cost) {
                    break;
                }
                taken = cost;
                tokio::time::sleep(FIRST_BACKOFF * attempt).await;
            }
            kind = CallErrorKind::NoAnswer;
            self.link.attempted(operation);
            match self.link.passage(is_write) {
                Passage::Throttled => kind = CallErrorKind::Throttled,
                Passage::Cut => {}
                Passage::Lost => tokio::time::sleep(self.attempt_timeout).await,
                Passage::Through { there, back } => {
                    if there.is_zero() && back == Some(Duration::ZERO) {
                        self.give_quota(taken.max(1));
                        return Ok(work(&self.table));
                    }
                    let (answer, answered) = oneshot::channel();
                    let (table, work) = (Arc::clone(&self.table), Arc::clone(&work));
                    tokio::spawn(async move {
                        tokio::time::sleep(there).await;
                        let done = work(&table);
                        if let Some(back) = back {
                            tokio::time::sleep(back).await;
                            // The sender may have given up.
                            let _ = answer.send(done);
                        }
                    });
                    let answer = tokio::time::timeout(self.attempt_timeout, answered);
                    if let Ok(Ok(done)) = answer.await {
                        self.give_quota(taken.max(1));
                        return Ok(done);
                    }
                }
            }
        }
        Err(CallError::new(operation, kind, SIMULATED.into()).into())
    }

    fn take_quota(&self, cost: u32) -> bool {
        let take = |left: u32| left.checked_sub(cost);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.quota.fetch_update(set, fetch, take).is_ok()
    }

    fn give_quota(&self, units: u32) {
        let give = |left: u32| Some((left + units).min(QUOTA));
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        // The closure never refuses.
        let _ = self.quota.fetch_update(set, fetch, give);
    }

    /// One conditional write, without a read-back. `change`: the row that it leaves of the one it finds, or `None` if
    /// its condition does not hold.
    async fn attempt(
        &self,
        operation: &'static str,
        key: &str,
        change: impl Fn(Option<&Lease>) -> Option<Option<Lease>> + Send + Sync + 'static,
    ) -> Result<Outcome, LeaseStoreError> {
        let (key, name) = (key.to_owned(), self.name.clone());
        let attempt = move |table: &MemoryTable| -> Result<Outcome, LeaseStoreError> {
            let row = table.row(&key);
            let item = row.as_ref().map(|row| row.as_lease(&key)).transpose()?;
            let Some(after) = change(item) else {
                return Ok(Outcome::ConditionFailed(item.cloned()));
            };
            table.set(&name, &key, after.clone().map(Row::Lease));
            // A deleted lease: as it was.
            let written = after.or_else(|| item.cloned());
            Ok(written.map_or(Outcome::ConditionFailed(None), Outcome::Applied))
        };
        match self.call(operation, true, attempt).await? {
            Ok(Outcome::ConditionFailed(_)) if self.link.hides_old_item() => {
                Ok(Outcome::ConditionFailed(None))
            }
            answer => answer,
        }
    }

    /// A write of another library, by its own condition. Only an item that a failed condition lacks is read.
    pub async fn conditional(
        &self,
        operation: &'static str,
        known: &Lease,
        change: impl Fn(&Lease) -> Option<Lease> + Send + Sync + 'static,
    ) -> Result<Outcome, LeaseStoreError> {
        let change = move |item: Option<&Lease>| change(item?).map(Some);
        match self.attempt(operation, &known.key, change).await? {
            Outcome::ConditionFailed(None) => {
                Ok(Outcome::ConditionFailed(self.get(&known.key).await?))
            }
            answer => Ok(answer),
        }
    }
}

impl LeaseStore for MemoryLeaseStore {
    fn write<'a>(&'a self, known: &'a Lease, write: LeaseWrite) -> StoreFuture<'a, Outcome> {
        async move {
            let (process, before, change) = (self.process, known.clone(), write.clone());
            let change = move |item: Option<&Lease>| apply(&change, process, &before, item);
            let answer = self.attempt(write.operation(), &known.key, change).await;
            read_back(self, process, known, &write, answer).await
        }
        .boxed()
    }

    fn exists(&self) -> StoreFuture<'_, bool> {
        std::future::ready(Ok(true)).boxed()
    }

    fn get<'a>(&'a self, key: &'a str) -> StoreFuture<'a, Option<Lease>> {
        async move {
            let wanted = key.to_owned();
            let read = move |table: &MemoryTable| table.row(&wanted);
            let row = self.call("get", false, read).await?;
            Ok(row.map(|row| row.as_lease(key).cloned()).transpose()?)
        }
        .boxed()
    }

    fn list(&self, consistent: bool) -> StoreFuture<'_, Snapshot> {
        let link = Arc::clone(&self.link);
        let lag = move || {
            if consistent { Duration::ZERO } else { link.scan_lag() }
        };
        self.call("list", false, move |table| table.snapshot(&lag)).boxed()
    }

    fn leader(&self) -> StoreFuture<'_, Option<LeaderLock>> {
        self.call("leader", false, MemoryTable::leader).boxed()
    }

    fn change_leader<'a>(
        &'a self,
        known: Option<&'a LeaderLock>,
        next: Option<&'a LeaderLock>,
    ) -> StoreFuture<'a, bool> {
        let (name, known, next) = (self.name.clone(), known.cloned(), next.cloned());
        let write = move |table: &MemoryTable| {
            let now = table.leader();
            if next.is_some() && now == next {
                // An earlier attempt was done, and its answer lost.
                return true;
            }
            let version = |lock: &LeaderLock| lock.version.clone();
            let holds = now.as_ref().map(version) == known.as_ref().map(version);
            if holds {
                table.set(&name, LEADER, next.clone().map(Row::Leader));
            }
            holds
        };
        self.call("change leader", true, write).boxed()
    }

    fn owned_by<'a>(&'a self, owner: &'a str) -> StoreFuture<'a, Vec<String>> {
        let (link, owner) = (Arc::clone(&self.link), owner.to_owned());
        let read = move |table: &MemoryTable| table.owned_by(&owner, || link.index_lag());
        self.call("index", false, read).boxed()
    }

    fn put_worker<'a>(&'a self, worker: &'a str, epoch_seconds: u64) -> StoreFuture<'a, ()> {
        let (name, worker) = (self.name.clone(), worker.to_owned());
        let process = self.process;
        let write = move |table: &MemoryTable| {
            let row = WorkerRow {
                worker: worker.clone(),
                last_update: epoch_seconds,
                measures: false,
                process: (process != NO_STAMP).then_some(process),
            };
            table.set(&name, &worker, Some(Row::Worker(row)));
        };
        self.call("put worker", true, write).boxed()
    }

    fn delete_worker<'a>(
        &'a self,
        worker: &'a str,
        written: RangeInclusive<u64>,
    ) -> StoreFuture<'a, ()> {
        let (name, worker) = (self.name.clone(), worker.to_owned());
        let write = move |table: &MemoryTable| match table.row(&worker) {
            Some(Row::Worker(row)) if written.contains(&row.last_update) => {
                table.set(&name, &worker, None);
            }
            // The row is gone, or a later process has written it.
            _ => {}
        };
        self.call("delete worker", true, write).boxed()
    }
}
