//! On a table in memory, in paused time: what looks cost, and what becomes of one that fails.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::*;
use crate::checkpoint::Checkpoint;
use crate::clock::{Clock, TokioClock};
use crate::config::{InitialPosition, OnRecreatedStream, OnStop};
use crate::coordinator::discovery;
use crate::coordinator::shared::SharedParts;
use crate::current_stream::CurrentStream;
use crate::executor::CurrentRuntime;
use crate::health::ProblemLog;
use crate::lease::memory::{Link, MemoryLeaseStore, MemoryTable, Passage};
use crate::lease::{LeaseStore, StreamIdentity, text};
use crate::metrics::Meter;
use crate::service_time::ServiceClock;
use crate::stream::{ListShardsError, ShardList, ShardLister, ShardSync};

const SECOND: Duration = Duration::from_secs(1);

/// Counts the attempts of reads.
#[derive(Debug, Default)]
struct Way {
    reads: AtomicU64,
    throttles: AtomicBool,
    /// What becomes of the next attempts.
    script: Mutex<VecDeque<Passage>>,
}

impl Link for Way {
    fn passage(&self, is_write: bool) -> Passage {
        self.reads.fetch_add(u64::from(!is_write), Ordering::Relaxed);
        if self.throttles.load(Ordering::Relaxed) {
            return Passage::Throttled;
        }
        let scripted = self.script.lock().unwrap().pop_front();
        scripted.unwrap_or(Passage::AT_ONCE)
    }

    fn scan_lag(&self) -> Duration {
        Duration::ZERO
    }

    fn index_lag(&self) -> Duration {
        Duration::ZERO
    }

    fn hides_old_item(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct NoShards;

impl ShardLister for NoShards {
    fn list(
        &self,
        _: Option<InitialPosition>,
    ) -> BoxFuture<'_, Result<ShardList, ListShardsError>> {
        std::future::pending().boxed()
    }
}

struct Fixture {
    way: Arc<Way>,
    table: Arc<MemoryTable>,
    shared: Arc<Shared>,
}

impl Fixture {
    /// Worker `me`, which may read so many units a second.
    fn new(table_reads: f64) -> Self {
        let clock = Arc::new(TokioClock::new()) as Arc<dyn Clock>;
        let table = Arc::new(MemoryTable::new(Arc::clone(&clock), None));
        let way = Arc::new(Way::default());
        let link = Arc::clone(&way) as Arc<dyn Link>;
        let store = MemoryLeaseStore::new(Arc::clone(&table), link, "me", SECOND).of_process(1);
        let store = Arc::new(store) as Arc<dyn LeaseStore>;
        let sync = ShardSync {
            lister: Arc::new(NoShards),
            store: Arc::clone(&store),
            position: InitialPosition::TrimHorizon,
            stream: Arc::new(CurrentStream::new(
                StreamIdentity { arn: "arn:orders".into(), created: 1 },
                OnRecreatedStream::default(),
                Arc::clone(&clock),
            )),
            has_entity_type: true,
            clock: Arc::clone(&clock),
            finished: Arc::default(),
        };
        let shared = Arc::new(Shared::new(SharedParts {
            worker_id: "me".into(),
            process: 1,
            store,
            sync,
            clock: Arc::clone(&clock),
            service_clock: ServiceClock::new(Arc::clone(&clock)),
            failover: 10 * SECOND,
            max_leases: usize::MAX,
            table_reads,
            on_stop: OnStop::default(),
            sync_interval: 60 * SECOND,
            first_look: Duration::ZERO,
            seed: 7,
            meter: Meter::default(),
            problems: Arc::new(ProblemLog::new(Arc::clone(&clock))),
            fleet_mode: None,
            executor: Arc::new(CurrentRuntime),
        }));
        Self { way, table, shared }
    }

    async fn create(&self, lease: Lease) {
        self.shared.store.create(&lease).await.unwrap();
    }

    /// What this worker would take after a scan.
    async fn takes(&self) -> Vec<String> {
        let snapshot = look(&self.shared, true).await.unwrap();
        make_plan(&self.shared, &snapshot).take
    }

    /// A Java leader's heartbeat: its lock, its row, and its lease `led`.
    async fn java_leads(&self, heartbeat: u64) {
        let version = heartbeat.to_string();
        let lock = [
            ("leaseKey", "Leader"),
            ("entityType", "LEADER"),
            ("ownerName", "java"),
            ("recordVersionNumber", &version),
            ("leaseDuration", "120000"),
        ];
        let lock = lock.map(|(name, value)| (name.to_owned(), text(value)));
        self.table.put_item("Leader", lock.into());
        let store = &self.shared.store;
        let seconds = self.shared.epoch_seconds();
        store.put_worker("java", seconds).await.unwrap();
        let led = store.get("led").await.unwrap().unwrap();
        store.renew(&led, "java", None).await.unwrap();
    }

    fn reads(&self) -> u64 {
        self.way.reads.load(Ordering::Relaxed)
    }
}

/// Of a worker that nudges itself ten times a second.
async fn attempts_in(fixture: &Fixture, seconds: u32) -> u64 {
    let before = fixture.reads();
    for _ in 0..10 * seconds {
        fixture.shared.nudge.notify_one();
        tokio::time::sleep(SECOND / 10).await;
    }
    fixture.reads() - before
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_for_looks_and_whatever_fails_they_stay_within_the_bound() {
    let fixture = Fixture::new(5.0);
    // A look costs 100 units: one in 20 s, at rest.
    for n in 0..2_000 {
        let lease = Lease::new(format!("finished-{n}"), Checkpoint::ShardEnd);
        fixture.create(lease).await;
    }
    let (deliveries, _tenures) = mpsc::channel(1);
    let shared = Arc::clone(&fixture.shared);
    let task = tokio::spawn(async move { assign(&shared, &deliveries).await });
    let looks = attempts_in(&fixture, 600).await;
    assert!((59..=64).contains(&looks), "two in 20 s: {looks}");
    fixture.way.throttles.store(true, Ordering::Relaxed);
    let failed = attempts_in(&fixture, 600).await / 3;
    assert!((20..=31).contains(&failed), "one in 20 to 30 s: {failed}");
    fixture.shared.leaving.cancel();
    task.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_read_or_started_on_keeps_no_other_from_it() {
    const AT_ONCE: Passage = Passage::AT_ONCE;
    let released = |key: &str| Lease {
        owner: Some("me".into()),
        counter: 5,
        released_at: Some(5),
        ..Lease::new(key, Checkpoint::TrimHorizon)
    };
    const THROTTLED: [Passage; 5] = [Passage::Throttled; 5];
    // The list of leases, and the reads or the renewals of both, which are tried three times: one of them
    // fails.
    for script in [[&[AT_ONCE][..], &THROTTLED].concat(), [&[AT_ONCE; 3][..], &THROTTLED].concat()]
    {
        for discovers in [true, false] {
            let fixture = Fixture::new(5.0);
            fixture.create(released("a")).await;
            fixture.create(released("b")).await;
            let (deliveries, mut tenures) = mpsc::channel(2);
            fixture.way.script.lock().unwrap().extend(&script);
            let shared = &fixture.shared;
            if discovers {
                discovery::look(shared, &deliveries).await.unwrap();
            } else {
                let mut looks = Looks::new(shared);
                look_and_act(shared, &mut looks, &deliveries).await.unwrap();
            }
            let started = tenures.try_recv().expect("the other one");
            assert!(["a", "b"].contains(&started.shard_id()), "{script:?}");
            assert!(tenures.try_recv().is_err(), "{script:?}");
            fixture.shared.stopped.cancel();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_looks_are_rare_the_owner_of_a_shard_takes_all_that_it_splits_into() {
    for (table_reads, taken) in [(5.0, vec!["b", "c"]), (0.1, vec!["c", "z"])] {
        let fixture = Fixture::new(table_reads);
        let shared = &fixture.shared;
        let owned = |key: &str, owner: &str, checkpoint| Lease {
            owner: Some(owner.into()),
            ..Lease::new(key, checkpoint)
        };
        let child = |key: &str, parent: &str| Lease {
            parents: [parent.to_owned()].into(),
            ..Lease::new(key, Checkpoint::TrimHorizon)
        };
        fixture.create(owned("a", "me", Checkpoint::ShardEnd)).await;
        fixture.create(child("c", "a")).await;
        fixture.create(child("z", "a")).await;
        fixture.create(owned("x", "other", Checkpoint::ShardEnd)).await;
        fixture.create(child("b", "x")).await;
        let now = shared.epoch_seconds();
        shared.store.put_worker("other", now).await.unwrap();
        let snapshot = look(shared, true).await.unwrap();
        let plan = make_plan(shared, &snapshot);
        assert_eq!(plan.take, taken, "{table_reads}");
    }
}

#[test]
fn a_leader_may_miss_a_pass_before_its_leases_are_taken() {
    let seconds = Duration::from_secs;
    for (failover, jitter, longest) in [(10, 0.0, 40), (10, 1.0, 50), (20, 0.0, 80), (1, 0.5, 4)] {
        let expected = seconds(longest) + Duration::from_millis(500) * u32::from(failover == 1);
        assert_eq!(left_to_leader(seconds(failover), jitter), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn free_leases_are_left_to_a_live_java_leader_for_two_of_its_passes() {
    let fixture = Fixture::new(5.0);
    let owned = |key: &str, owner: &str| Lease {
        owner: Some(owner.into()),
        ..Lease::new(key, Checkpoint::TrimHorizon)
    };
    fixture.create(owned("led", "java")).await;
    fixture.create(owned("orphaned", "dead")).await;
    fixture.create(Lease::new("unassigned", Checkpoint::TrimHorizon)).await;
    let began = fixture.shared.clock.now();
    let mut taken = Vec::new();
    while taken.len() < 2 {
        let after = fixture.shared.clock.now() - began;
        assert!(after < 100 * SECOND, "only {taken:?} were taken");
        fixture.java_leads(after.as_secs()).await;
        for key in fixture.takes().await {
            if !taken.contains(&key) {
                let free_for =
                    after.saturating_sub(if key == "orphaned" { 25 } else { 0 } * SECOND);
                assert!(free_for >= 40 * SECOND, "{key} is taken after {free_for:?}");
                assert!(free_for <= 55 * SECOND, "{key} is taken after {free_for:?}");
                taken.push(key);
            }
        }
        tokio::time::sleep(SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_java_leader_that_died_is_not_waited_for() {
    let fixture = Fixture::new(5.0);
    let led = Lease { owner: Some("java".into()), ..Lease::new("led", Checkpoint::TrimHorizon) };
    fixture.create(led).await;
    fixture.create(Lease::new("unassigned", Checkpoint::TrimHorizon)).await;
    for beat in 0..15 {
        fixture.java_leads(beat).await;
        assert!(fixture.takes().await.is_empty(), "{beat}");
        tokio::time::sleep(SECOND).await;
    }
    let died = fixture.shared.clock.now();
    while fixture.takes().await.len() < 2 {
        let after = fixture.shared.clock.now() - died;
        assert!(after <= 11 * SECOND, "the failover time and a scan: {after:?}");
        tokio::time::sleep(SECOND).await;
    }
}
