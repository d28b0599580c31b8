//! A cold start: many workers begin at a time on a stream of many shards that has no leases yet.
//!
//! There are no faults here. The simulation measures the time until every shard is read, and the calls to the table.
//! Neither shows with the few workers and shards of the other simulations.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use kcl::internals::{
    Executor, InjectedReading, InjectedWorker, Lease, LeaseStore, ListShardsError, Retrieval,
    Shard, ShardList, ShardLister, ShardSource, Start, WorkerParts,
};
use kcl::{Clock, ConsumerConfig, InitialPosition, ShardContext, StreamPosition};
use kinesis_aggregation::{HashKey, HashKeyRange};
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::clock::TokioClock;
use super::idle::{IdleProcessor, SilentShard};
use super::world::ATTEMPT;
use crate::memory::{Link, MemoryLeaseStore, MemoryTable, Passage, Watcher};

/// Time from a worker to the table, and back.
const HALF_A_CALL: Duration = Duration::from_millis(5);
/// Deployments start their workers within this time.
const SPREAD: Duration = Duration::from_secs(2);
/// Longest lag of an eventually consistent read.
const LAG_MILLIS: u64 = 200;
/// Time for which a fleet is watched.
const LIMIT: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(100);

/// How a cold start went. Times are from the start of the first worker; `None`: not within three
/// minutes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColdStart {
    /// All workers run.
    pub running: Option<Duration>,
    /// Every shard has an owner.
    pub owned: Option<Duration>,
    /// Every shard has been read.
    pub read: Option<Duration>,
    /// No worker owns two leases more than another.
    pub balanced: Option<Duration>,
    /// Puts of leases, refused ones included.
    pub creates: u64,
    /// Takes of leases, refused ones included.
    pub takes: u64,
    /// Scans of the table.
    pub scans: u64,
    /// Readers that were opened, per shard more than one where it moved on.
    pub readers: usize,
}

#[derive(Debug, Default)]
struct Counts {
    calls: BTreeMap<&'static str, u64>,
    /// By lease.
    owners: BTreeMap<String, String>,
    running: u32,
    /// Shards that were opened.
    read: BTreeSet<String>,
    readers: usize,
}

/// Counts over all workers.
#[derive(Debug, Default)]
struct Tally(Mutex<Counts>);

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher for Tally {
    fn changed(&self, _: &str, key: &str, _: Option<&Lease>, after: Option<&Lease>) {
        let mut counts = self.counts();
        match after.and_then(|lease| lease.owner.clone()) {
            Some(owner) => counts.owners.insert(key.to_owned(), owner),
            None => counts.owners.remove(key),
        };
    }
}

/// A worker's way to the table, with a constant time for each call.
#[derive(Debug)]
struct Steady {
    tally: Arc<Tally>,
    random: Mutex<Rng>,
}

impl Steady {
    fn lag(&self) -> Duration {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_millis(random.u64(..LAG_MILLIS))
    }
}

impl Link for Steady {
    fn passage(&self, _: bool) -> Passage {
        Passage::Through { there: HALF_A_CALL, back: Some(HALF_A_CALL) }
    }

    fn attempted(&self, operation: &'static str) {
        *self.tally.counts().calls.entry(operation).or_default() += 1;
    }

    fn scan_lag(&self) -> Duration {
        self.lag()
    }

    fn index_lag(&self) -> Duration {
        self.lag()
    }
}

#[derive(Debug)]
struct Shards(Vec<Shard>);

impl Shards {
    /// Open shards that divide the hash key space evenly.
    fn evenly(count: u32) -> Self {
        let width = u128::MAX / u128::from(count);
        let shard = |number: u32| {
            let start = u128::from(number) * width;
            let end = if number + 1 == count { u128::MAX } else { start + width - 1 };
            let range = HashKeyRange::new(HashKey::new(start), HashKey::new(end));
            Shard {
                id: format!("shardId-{number:012}"),
                parents: BTreeSet::new(),
                hash_key_range: range.unwrap_or(HashKeyRange::FULL),
                starting_sequence: (number + 1)
                    .to_string()
                    .parse()
                    .expect("digits are a sequence number"),
                open: true,
            }
        };
        Self((0..count).map(shard).collect())
    }
}

impl ShardLister for Shards {
    fn list(&self, _: Option<StreamPosition>) -> BoxFuture<'_, Result<ShardList, ListShardsError>> {
        async {
            // A page has a thousand shards.
            let pages = u32::try_from(self.0.len().div_ceil(1000)).unwrap_or(1);
            tokio::time::sleep(2 * HALF_A_CALL * pages).await;
            Ok(ShardList { shards: self.0.clone(), server_time: std::time::SystemTime::UNIX_EPOCH })
        }
        .boxed()
    }
}

/// Notes which shards are read, and finds nothing in them.
struct Empty(Arc<Tally>);

impl Retrieval for Empty {
    fn open(&self, start: Start) -> Box<dyn ShardSource> {
        let mut counts = self.0.counts();
        counts.readers += 1;
        counts.read.insert(start.shard_id().to_owned());
        drop(counts);
        Box::new(SilentShard)
    }
}

/// What all workers share.
#[derive(Clone)]
struct Fleet {
    clock: Arc<dyn Clock>,
    table: Arc<MemoryTable>,
    lister: Arc<Shards>,
    tally: Arc<Tally>,
}

/// Starts `workers` at a time on a stream of `shards`, and watches them until they share it evenly.
///
/// # Panics
/// If no runtime can be made.
pub fn cold_start(shards: u32, workers: u32, seed: u64) -> ColdStart {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing from the system");
    runtime.block_on(simulate(shards, workers, Rng::with_seed(seed)))
}

async fn simulate(shards: u32, workers: u32, mut random: Rng) -> ColdStart {
    let clock = Arc::new(TokioClock::new()) as Arc<dyn Clock>;
    let tally = Arc::new(Tally::default());
    let watcher = Arc::clone(&tally) as Arc<dyn Watcher>;
    let fleet = Fleet {
        table: Arc::new(MemoryTable::new(Arc::clone(&clock), Some(watcher))),
        lister: Arc::new(Shards::evenly(shards)),
        tally: Arc::clone(&tally),
        clock: Arc::clone(&clock),
    };
    for number in 0..workers {
        let (fleet, random) = (fleet.clone(), random.fork());
        tokio::spawn(work(fleet, format!("worker-{number:03}"), random));
    }
    let mut found = ColdStart::default();
    while clock.now() < LIMIT && found.balanced.is_none() {
        tokio::time::sleep(LOOK).await;
        found.look(&tally.counts(), shards, workers, clock.now());
    }
    found
}

impl ColdStart {
    fn look(&mut self, counts: &Counts, shards: u32, workers: u32, now: Duration) {
        let (shards, workers) = (shards as usize, workers as usize);
        let note = |when: &mut Option<Duration>, holds: bool| {
            if holds && when.is_none() {
                *when = Some(now);
            }
        };
        let owned = counts.owners.len() == shards;
        let mut loads: BTreeMap<&str, usize> = BTreeMap::new();
        for owner in counts.owners.values() {
            *loads.entry(owner).or_default() += 1;
        }
        let most = loads.values().max().copied().unwrap_or(0);
        let least = loads.values().min().copied().unwrap_or(0);
        note(&mut self.running, counts.running as usize == workers);
        note(&mut self.owned, owned);
        note(&mut self.read, counts.read.len() == shards);
        note(&mut self.balanced, owned && loads.len() == workers && most - least < 2);
        let calls = |operation| counts.calls.get(operation).copied().unwrap_or(0);
        self.creates = calls("PutItem");
        self.takes = calls("UpdateItem (take)");
        self.scans = calls("list");
        self.readers = counts.readers;
    }
}

/// A worker, from its start on.
async fn work(fleet: Fleet, worker_id: String, mut random: Rng) {
    let late = SPREAD.mul_f64(random.f64());
    tokio::time::sleep(late).await;
    let clock = Arc::clone(&fleet.clock);
    let link = Steady { tally: Arc::clone(&fleet.tally), random: Mutex::new(random.fork()) };
    let process = random.u64(..);
    let table = Arc::clone(&fleet.table);
    let store = MemoryLeaseStore::new(table, Arc::new(link), &worker_id, ATTEMPT);
    let store = Arc::new(store.of_process(process)) as Arc<dyn LeaseStore>;
    let config = ConsumerConfig::default().with_initial_position(InitialPosition::TrimHorizon);
    let runtime = Arc::new(Handle::current());
    let mut worker = InjectedWorker::new(WorkerParts {
        worker_id,
        process,
        table_reads: f64::from(config.max_lease_table_reads),
        config,
        store,
        lister: Arc::clone(&fleet.lister) as Arc<dyn ShardLister>,
        reading: InjectedReading::By(Arc::new(Empty(Arc::clone(&fleet.tally)))),
        clock,
        coordination: Arc::clone(&runtime) as Arc<dyn Executor>,
        processors: runtime,
    });
    worker.start_with_fleet(LOOK, random.u64(..)).await;
    fleet.tally.counts().running += 1;
    let seeds = (random.u64(..), random.u64(..));
    let (_stop, stopped) = watch::channel(None);
    // Until the simulation ends.
    let _ = worker.run(|_: &ShardContext| IdleProcessor, seeds, stopped).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tenth of what the program `cold-start` measures, which takes too long without optimization.
    #[test]
    fn a_cold_fleet_reads_every_shard_soon_and_writes_each_lease_about_once() {
        let shards = 200;
        let found = cold_start(shards, 10, 1);
        let within =
            |when: Option<Duration>| when.is_some_and(|when| when < Duration::from_secs(60));
        assert!(within(found.running) && within(found.owned) && within(found.read), "{found:?}");
        assert!(found.creates <= u64::from(shards) * 12 / 10, "{found:?}");
    }
}
