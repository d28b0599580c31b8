//! Many starters on one table in memory, in paused time.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kinesis_aggregation::HashKeyRange;

use super::*;
use crate::clock::{Clock, TokioClock};
use crate::config::{InitialPosition, OnRecreatedStream, StreamPosition};
use crate::current_stream::CurrentStream;
use crate::lease::memory::{Link, MemoryLeaseStore, MemoryTable, Passage};
use crate::lease::{LeaseStore, StreamIdentity};
use crate::stream::list::{ListShardsError, Shard, ShardList, ShardLister};

const SECOND: Duration = Duration::from_secs(1);

/// A worker's way to the table, which counts the calls.
#[derive(Debug)]
struct Way {
    calls: Mutex<BTreeMap<&'static str, usize>>,
    /// Of a write.
    takes: Duration,
    /// How many writes of a thousand are throttled.
    throttled: u32,
    random: Mutex<Rng>,
}

impl Way {
    fn new(takes: Duration, throttled: u32, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            calls: Mutex::default(),
            takes,
            throttled,
            random: Mutex::new(Rng::with_seed(seed)),
        })
    }

    fn calls(&self, operation: &str) -> usize {
        self.calls.lock().get(operation).copied().unwrap_or(0)
    }
}

impl Link for Way {
    fn passage(&self, is_write: bool) -> Passage {
        if is_write && self.random.lock().u32(..1000) < self.throttled {
            return Passage::Throttled;
        }
        Passage::Through { there: self.takes / 2, back: Some(self.takes / 2) }
    }

    fn attempted(&self, operation: &'static str) {
        *self.calls.lock().entry(operation).or_default() += 1;
    }
}

#[derive(Debug)]
struct Listed(Vec<Shard>);

impl ShardLister for Listed {
    fn list(&self, _: Option<StreamPosition>) -> BoxFuture<'_, Result<ShardList, ListShardsError>> {
        let shards = self.0.clone();
        async move { Ok(ShardList { shards, server_time: SystemTime::UNIX_EPOCH }) }.boxed()
    }
}

/// Shards that each cover all hash keys: what is listed does not matter here.
fn shards(count: u32) -> Vec<Shard> {
    let shard = |number: u32| Shard {
        id: format!("shardId-{number:012}"),
        parents: Default::default(),
        hash_key_range: HashKeyRange::FULL,
        starting_sequence: (number + 1).to_string().parse().unwrap(),
        open: true,
    };
    (0..count).map(shard).collect()
}

struct World {
    clock: Arc<dyn Clock>,
    table: Arc<MemoryTable>,
    shards: u32,
}

impl World {
    fn new(shards: u32) -> Self {
        let clock = Arc::new(TokioClock::new()) as Arc<dyn Clock>;
        let table = Arc::new(MemoryTable::new(Arc::clone(&clock), None));
        Self { clock, table, shards }
    }

    fn store(&self, way: &Arc<Way>) -> Arc<dyn LeaseStore> {
        let link = Arc::clone(way) as Arc<dyn Link>;
        let table = Arc::clone(&self.table);
        Arc::new(MemoryLeaseStore::new(table, link, "worker", 2 * SECOND))
    }

    fn sync(&self, way: &Arc<Way>) -> ShardSync {
        ShardSync {
            lister: Arc::new(Listed(shards(self.shards))),
            store: self.store(way),
            position: InitialPosition::TrimHorizon,
            stream: Arc::new(CurrentStream::new(
                StreamIdentity { arn: "arn:orders".into(), created: 1 },
                OnRecreatedStream::default(),
                Arc::clone(&self.clock),
            )),
            has_entity_type: true,
            clock: Arc::clone(&self.clock),
            finished: Arc::default(),
        }
    }

    /// Starts a worker, again and again until a start succeeds.
    fn start(&self, way: &Arc<Way>, seed: u64) -> tokio::task::JoinHandle<()> {
        let sync = self.sync(way);
        tokio::spawn(async move {
            let worker_id = format!("worker-{seed}");
            let starter = Starter::new(&sync, &worker_id, seed);
            while starter.run().await.is_err() {
                tokio::time::sleep(SECOND).await;
            }
        })
    }

    async fn leases(&self) -> usize {
        let way = Way::new(Duration::ZERO, 0, 0);
        self.store(&way).list(true).await.unwrap().leases.len()
    }

    async fn lock(&self) -> Option<LeaderLock> {
        let way = Way::new(Duration::ZERO, 0, 0);
        self.store(&way).leader().await.unwrap()
    }
}

const QUICK: Duration = Duration::from_millis(10);

#[tokio::test(start_paused = true)]
async fn one_of_many_starters_creates_the_leases_and_the_others_wait_for_it() {
    let world = World::new(300);
    let way = Way::new(QUICK, 0, 1);
    let starts: Vec<_> = (0..30).map(|seed| world.start(&way, seed)).collect();
    for start in starts {
        start.await.unwrap();
        assert_eq!(world.leases().await, 300, "whichever is done first");
    }
    assert_eq!(way.calls("PutItem"), 300);
    assert_eq!(world.lock().await, None, "given back");
    let took = world.clock.now();
    assert!(took < 5 * SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn few_leases_are_created_without_the_lock() {
    let world = World::new(25);
    let way = Way::new(QUICK, 0, 1);
    world.start(&way, 1).await.unwrap();
    assert_eq!(world.leases().await, 25);
    assert_eq!(way.calls("change leader") + way.calls("leader"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_dies_is_replaced_by_one_of_those_that_wait() {
    let world = World::new(300);
    let slow = Way::new(SECOND, 0, 1);
    let dies = world.start(&slow, 1);
    tokio::time::sleep(4 * SECOND).await;
    dies.abort();
    let begun = world.leases().await;
    assert!((1..300).contains(&begun), "{begun}");
    assert!(world.lock().await.is_some());

    let way = Way::new(QUICK, 0, 2);
    let died = world.clock.now();
    let starts: Vec<_> = (10..30).map(|seed| world.start(&way, seed)).collect();
    for start in starts {
        start.await.unwrap();
    }
    assert_eq!(world.leases().await, 300);
    let took = world.clock.now() - died;
    assert!(took < 10 * SECOND, "{took:?}");
    assert!(way.calls("PutItem") <= 300, "{}", way.calls("PutItem"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_holder_that_is_heard_is_waited_for() {
    let world = World::new(300);
    let slow = Way::new(SECOND, 0, 1);
    let holder = world.start(&slow, 1);
    tokio::time::sleep(4 * SECOND).await;
    let way = Way::new(QUICK, 0, 2);
    world.start(&way, 2).await.unwrap();
    assert_eq!(way.calls("PutItem"), 0);
    assert_eq!(world.leases().await, 300);
    holder.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn where_a_java_leader_creates_no_leases_a_starter_does_and_leaves_it_the_lock() {
    let world = World::new(300);
    let way = Way::new(QUICK, 0, 1);
    let lock = LeaderLock {
        owner: "java".into(),
        version: "v".into(),
        duration: 120 * SECOND,
        is_starter: false,
    };
    let store = world.store(&way);
    assert!(store.change_leader(None, Some(&lock)).await.unwrap());
    let starts: Vec<_> = (0..30).map(|seed| world.start(&way, seed)).collect();
    for start in starts {
        start.await.unwrap();
    }
    let took = world.clock.now();
    assert!((PATIENCE..20 * SECOND).contains(&took), "{took:?}");
    assert_eq!(world.leases().await, 300);
    assert_eq!(world.lock().await, Some(lock));
    let creates = way.calls("PutItem");
    assert!(creates < 3 * 300, "few help: {creates}");
}

#[tokio::test(start_paused = true)]
async fn half_of_the_writes_throttled_delay_the_leases_and_no_more() {
    let world = World::new(300);
    let starts: Vec<_> =
        (0..10).map(|seed| world.start(&Way::new(QUICK, 500, seed), seed)).collect();
    for start in starts {
        start.await.unwrap();
    }
    assert_eq!(world.leases().await, 300);
    let took = world.clock.now();
    assert!(took < 30 * SECOND, "{took:?}");
}

#[test]
fn a_version_is_a_random_uuid() {
    assert_eq!(uuid(0), "00000000-0000-4000-8000-000000000000");
    assert_eq!(uuid(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
}
