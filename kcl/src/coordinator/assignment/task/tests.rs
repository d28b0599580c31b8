//! On a table in memory, in paused time: what scans cost, which leases are taken, and what a
//! failure does.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::*;
use crate::checkpoint::Checkpoint;
use crate::coordinator::context::PreparedWorker;
use crate::coordinator::discovery::Discovery;
use crate::coordinator::memory_worker::memory_worker;
use crate::lease::memory::{Link, MemoryTable, Passage};
use crate::lease::{HeldLease, LeaseWrite, OwnerReport, text};

const SECOND: Duration = Duration::from_secs(1);

/// The way to the table. Counts the attempts to read.
#[derive(Debug, Default)]
struct Way {
    reads: AtomicU64,
    throttles: AtomicBool,
    /// Results of the next attempts.
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
}

struct Fixture {
    way: Arc<Way>,
    table: Arc<MemoryTable>,
    ctx: Arc<Context>,
    acquirer: Acquirer,
    assignment: Assignment,
    acquired: mpsc::Receiver<HeldLease>,
}

impl Fixture {
    /// The worker `me`, which may read so many units a second.
    fn new(table_reads: f64) -> Self {
        let way = Arc::new(Way::default());
        let (worker, table) = memory_worker(Arc::clone(&way) as Arc<dyn Link>);
        let ctx = Arc::new(Context::new(PreparedWorker { table_reads, ..worker }));
        let scanner = Scanner::new(Arc::clone(&ctx));
        let (sender, acquired) = mpsc::channel(2);
        let acquirer = Acquirer::new(Arc::clone(&ctx), sender);
        let assignment = Assignment::new(scanner, acquirer.clone());
        Self { way, table, ctx, acquirer, assignment, acquired }
    }

    async fn create(&self, lease: Lease) {
        self.ctx.worker.store.write(&lease, LeaseWrite::Create).await.unwrap();
    }

    /// What this worker would take after a scan.
    async fn takes(&self) -> Vec<String> {
        let scan = self.assignment.scanner.scan(true).await.unwrap();
        self.assignment.plan(&scan).take
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
        let store = &self.ctx.worker.store;
        let seconds = self.ctx.worker.service_clock.epoch_seconds();
        store.put_worker("java", seconds).await.unwrap();
        let led = store.get("led").await.unwrap().unwrap();
        let renew = LeaseWrite::Renew { owner: "java".into(), report: OwnerReport::default() };
        store.write(&led, renew).await.unwrap();
    }
}

/// Attempts to read, while a task asks for a scan ten times a second.
async fn attempts_in(way: &Way, ctx: &Context, seconds: u32) -> u64 {
    let before = way.reads.load(Ordering::Relaxed);
    for _ in 0..10 * seconds {
        ctx.scan_wanted.notify_one();
        tokio::time::sleep(SECOND / 10).await;
    }
    way.reads.load(Ordering::Relaxed) - before
}

#[tokio::test(start_paused = true)]
async fn scans_stay_within_their_budget_whatever_asks_for_them_or_fails() {
    let fixture = Fixture::new(5.0);
    // A scan costs 100 units: one in 20 s, at rest.
    for n in 0..2_000 {
        let lease = Lease::new(format!("finished-{n}"), Checkpoint::ShardEnd);
        fixture.create(lease).await;
    }
    let Fixture { way, ctx, assignment, .. } = fixture;
    let leaving = ctx.stop.leaving.clone();
    let task = tokio::spawn(leaving.run_until_cancelled_owned(assignment.run()));
    let scans = attempts_in(&way, &ctx, 600).await;
    assert!((59..=64).contains(&scans), "two in 20 s: {scans}");
    way.throttles.store(true, Ordering::Relaxed);
    let failed = attempts_in(&way, &ctx, 600).await / 3;
    assert!((20..=31).contains(&failed), "one in 20 to 30 s: {failed}");
    ctx.stop.leaving.cancel();
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
    // The list of leases is read. Then either the read or the renewal of one of the two leases
    // fails, each after three attempts.
    for script in [[&[AT_ONCE][..], &THROTTLED].concat(), [&[AT_ONCE; 3][..], &THROTTLED].concat()]
    {
        for discovers in [true, false] {
            let mut fixture = Fixture::new(5.0);
            fixture.create(released("a")).await;
            fixture.create(released("b")).await;
            fixture.way.script.lock().unwrap().extend(&script);
            if discovers {
                Discovery::new(fixture.acquirer.clone()).query().await.unwrap();
            } else {
                fixture.assignment.scan_and_act().await.unwrap();
            }
            let started = fixture.acquired.try_recv().expect("the other one");
            assert!(["a", "b"].contains(&started.shard_id()), "{script:?}");
            assert!(fixture.acquired.try_recv().is_err(), "{script:?}");
            fixture.ctx.stop.stopped.cancel();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_scans_are_rare_the_owner_of_a_shard_takes_its_children() {
    for (table_reads, taken) in [(5.0, vec!["b", "c"]), (0.1, vec!["c", "z"])] {
        let fixture = Fixture::new(table_reads);
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
        let worker = &fixture.ctx.worker;
        worker.store.put_worker("other", worker.service_clock.epoch_seconds()).await.unwrap();
        assert_eq!(fixture.takes().await, taken, "{table_reads}");
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
    let began = fixture.ctx.worker.clock.now();
    let mut taken = Vec::new();
    while taken.len() < 2 {
        let after = fixture.ctx.worker.clock.now() - began;
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
async fn free_leases_are_not_left_to_a_java_leader_that_has_died() {
    let fixture = Fixture::new(5.0);
    let led = Lease { owner: Some("java".into()), ..Lease::new("led", Checkpoint::TrimHorizon) };
    fixture.create(led).await;
    fixture.create(Lease::new("unassigned", Checkpoint::TrimHorizon)).await;
    for heartbeat in 0..15 {
        fixture.java_leads(heartbeat).await;
        assert!(fixture.takes().await.is_empty(), "{heartbeat}");
        tokio::time::sleep(SECOND).await;
    }
    let died = fixture.ctx.worker.clock.now();
    while fixture.takes().await.len() < 2 {
        let after = fixture.ctx.worker.clock.now() - died;
        assert!(after <= 11 * SECOND, "the failover time and a scan: {after:?}");
        tokio::time::sleep(SECOND).await;
    }
}
