//! A lease table in memory, behind a network that may fail: what simulations run on. The conformance
//! suite shows that it behaves as DynamoDB does.

mod conditions;
mod table;

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use kcl::internals::{
    CallError, CallErrorKind, CorruptItem, Intent, LEADER, LeaderLock, Lease, LeaseStore,
    LeaseStoreError, Outcome, Progress, ShardFacts, Snapshot, StoreFuture, WorkerRow, conclude,
};
use tokio::sync::oneshot;

use self::conditions::{noted, same_text, set_throughput};
pub use conditions::apply;
pub use table::{MemoryTable, Row, Watcher};

/// Attempts of a call and the pause after the first, as the DynamoDB client is set.
const ATTEMPTS: u32 = 3;
const FIRST_BACKOFF: Duration = Duration::from_millis(25);
/// The client's retry quota, and what a retry takes of it.
const QUOTA: u32 = 500;
const RETRY_COST: u32 = 5;
const TIMEOUT_COST: u32 = 10;

/// The cause of each failed call.
const SIMULATED: &str = "simulated";
/// The process of a worker that stamps nothing, as Java's.
const NO_STAMP: u64 = 0;

/// What becomes of one attempt of a call.
#[derive(Debug, Clone, Copy)]
pub enum Passage {
    /// It is done, and answered.
    Through {
        /// Time until it is done.
        there: Duration,
        /// Time until its answer arrives after that. `None`: the connection breaks instead.
        back: Option<Duration>,
    },
    /// It never arrives, and nobody says so.
    Lost,
    /// The connection can not be made.
    Cut,
    /// It is refused: too many requests.
    Throttled,
}

impl Passage {
    /// Done and answered at once.
    pub const AT_ONCE: Self = Self::Through { there: Duration::ZERO, back: Some(Duration::ZERO) };
}

/// The way between a worker and the table. By default nothing lags behind the table.
pub trait Link: Send + Sync + fmt::Debug {
    /// What becomes of the next attempt.
    fn passage(&self, is_write: bool) -> Passage;

    /// Told of each attempt of a call.
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
    /// As the client's: a retry takes from it, a success gives back.
    quota: Arc<AtomicU32>,
}

/// What one attempt of a conditional write found.
enum Attempt {
    Written(Lease),
    Refused(Option<Lease>),
}

type Done = Result<Attempt, CorruptItem>;

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

    /// For `process`, which stamps by that what it writes.
    pub fn of_process(mut self, process: u64) -> Self {
        self.process = process;
        self
    }

    /// One call with its attempts. An attempt on its way arrives, whatever becomes of its sender.
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

    /// One conditional write; whatever answer got lost is read back. `change`: the row that it leaves
    /// of the one it finds, or `None` if its condition does not hold.
    async fn write(
        &self,
        operation: &'static str,
        before: &Lease,
        intent: Option<Intent<'_>>,
        change: impl Fn(Option<&Lease>) -> Option<Option<Lease>> + Send + Sync + 'static,
    ) -> Result<Outcome, LeaseStoreError> {
        let (key, name) = (before.key.clone(), self.name.clone());
        let attempt = move |table: &MemoryTable| -> Done {
            let row = table.row(&key);
            let item = row.as_ref().map(|row| row.as_lease(&key)).transpose()?;
            let Some(after) = change(item) else {
                return Ok(Attempt::Refused(item.cloned()));
            };
            table.set(&name, &key, after.clone().map(Row::Lease));
            // A deleted lease: as it was.
            let written = after.or_else(|| item.cloned());
            Ok(written.map_or(Attempt::Refused(None), Attempt::Written))
        };
        let answer = self.call(operation, true, attempt).await;
        let (refused, seen, failure) = match answer {
            Ok(done) => match done? {
                Attempt::Written(lease) => return Ok(Outcome::Applied(lease)),
                Attempt::Refused(seen) => {
                    let failure =
                        CallError::new(operation, CallErrorKind::Refused, SIMULATED.into());
                    let seen = if self.link.hides_old_item() {
                        self.get(&before.key).await?
                    } else {
                        seen
                    };
                    (true, seen, failure.into())
                }
            },
            Err(failure) if failure.is_ambiguous() && intent.is_some() => {
                let read = self.get(&before.key).await;
                // The first error says more than one of the read.
                (false, read.map_err(|_| failure.clone())?, failure)
            }
            Err(failure) => return Err(failure),
        };
        conclude(intent, self.process, before, seen, refused, failure)
    }
}

impl MemoryLeaseStore {
    /// A write of another library, by its own condition, and without a read-back.
    pub async fn conditional(
        &self,
        operation: &'static str,
        known: &Lease,
        change: impl Fn(&Lease) -> Option<Lease> + Send + Sync + 'static,
    ) -> Result<Outcome, LeaseStoreError> {
        self.write(operation, known, None, to_existing(change)).await
    }
}

/// A write that changes a lease that is there.
fn to_existing(
    change: impl Fn(&Lease) -> Option<Lease> + Send + Sync + 'static,
) -> impl Fn(Option<&Lease>) -> Option<Option<Lease>> + Send + Sync + 'static {
    move |item| change(item?).map(Some)
}

impl LeaseStore for MemoryLeaseStore {
    fn exists(&self) -> StoreFuture<'_, bool> {
        std::future::ready(Ok(true)).boxed()
    }

    fn create<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, Outcome> {
        let new = lease.clone();
        self.write("create", lease, None, move |item| item.is_none().then(|| Some(new.clone())))
            .boxed()
    }

    fn renew<'a>(
        &'a self,
        lease: &'a Lease,
        owner: &'a str,
        throughput: Option<f64>,
    ) -> StoreFuture<'a, Outcome> {
        let (process, known, me) = (self.process, lease.clone(), owner.to_owned());
        let change = to_existing(move |item| {
            let mut lease = apply(Intent::Renew { owner: &me }, process, &known, item)?;
            set_throughput(&mut lease, throughput);
            Some(lease)
        });
        let intent = Intent::Renew { owner };
        self.write("renew", lease, Some(intent), change).boxed()
    }

    fn checkpoint<'a>(
        &'a self,
        lease: &'a Lease,
        owner: &'a str,
        progress: &'a Progress,
    ) -> StoreFuture<'a, Outcome> {
        let (known, me, to) = (lease.clone(), owner.to_owned(), progress.clone());
        let process = self.process;
        let change = to_existing(move |item| {
            let (owner, progress) = (me.as_str(), &to);
            apply(Intent::Checkpoint { owner, progress }, process, &known, item)
        });
        let intent = Intent::Checkpoint { owner, progress };
        self.write("checkpoint", lease, Some(intent), change).boxed()
    }

    fn take<'a>(&'a self, lease: &'a Lease, owner: &'a str) -> StoreFuture<'a, Outcome> {
        let (process, known, me) = (self.process, lease.clone(), owner.to_owned());
        let change =
            to_existing(move |item| apply(Intent::Take { owner: &me }, process, &known, item));
        self.write("take", lease, Some(Intent::Take { owner }), change).boxed()
    }

    fn assign<'a>(
        &'a self,
        lease: &'a Lease,
        to: &'a str,
        released: bool,
    ) -> StoreFuture<'a, Outcome> {
        let (process, known, next) = (self.process, lease.clone(), to.to_owned());
        let change = to_existing(move |item| {
            let to = &next;
            apply(Intent::Assign { to, released }, process, &known, item)
        });
        let intent = Intent::Assign { to, released };
        self.write("assign", lease, Some(intent), change).boxed()
    }

    fn start_handoff<'a>(&'a self, lease: &'a Lease, to: &'a str) -> StoreFuture<'a, Outcome> {
        let (process, known, next) = (self.process, lease.clone(), to.to_owned());
        let change = to_existing(move |item| {
            apply(Intent::StartHandoff { to: &next }, process, &known, item)
        });
        self.write("start handoff", lease, Some(Intent::StartHandoff { to }), change).boxed()
    }

    fn evict<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, Outcome> {
        let (process, known) = (self.process, lease.clone());
        let change = to_existing(move |item| apply(Intent::Evict, process, &known, item));
        self.write("evict", lease, Some(Intent::Evict), change).boxed()
    }

    fn replace<'a>(&'a self, former: &'a Lease, new: &'a Lease) -> StoreFuture<'a, Outcome> {
        let (known, new) = (former.clone(), new.in_place_of(former, self.process));
        let change = to_existing(move |item| {
            let as_known = item.counter == known.counter
                && item.owner == known.owner
                && item.checkpoint_owner == known.checkpoint_owner;
            as_known.then(|| new.clone())
        });
        self.write("replace", former, None, change).boxed()
    }

    fn set_shard_facts<'a>(&'a self, key: &'a str, facts: ShardFacts) -> StoreFuture<'a, Outcome> {
        async move {
            // Only the key matters.
            let lease = Lease::new(key, kcl::Checkpoint::TrimHorizon);
            let change = to_existing(move |item| Some(noted(&facts, item)));
            self.write("shard facts", &lease, None, change).await
        }
        .boxed()
    }

    fn delete<'a>(&'a self, lease: &'a Lease) -> StoreFuture<'a, Outcome> {
        let known = lease.checkpoint.clone();
        self.write("delete", lease, None, move |item| {
            same_text(&item?.checkpoint, &known).then_some(None)
        })
        .boxed()
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
            // Gone already, or a later process's.
            _ => {}
        };
        self.call("delete worker", true, write).boxed()
    }
}
