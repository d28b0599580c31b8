//! The leases of one worker on a throttled table, in simulated time: 2,000 leases in an optimised build, fewer in a debug
//! build, in which each step takes longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use futures::future::join_all;
use tokio::task::JoinHandle;

use super::*;
use crate::clock::TokioClock;
use crate::lease::held_lease::LeaseEnd;
use crate::lease::memory::{Link, MemoryLeaseStore, MemoryTable, Passage, Row};
use crate::lease::recorder::NoServices;
use crate::shard_state::ShardShutdown;

const LEASES: usize = if cfg!(debug_assertions) { 400 } else { 2_000 };
const F: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);
/// Renewals a second of these leases, if each is renewed after half the failover time.
const NORMAL: u64 = LEASES as u64 / 5;
/// Repeated attempts a second that do not grow with the number of leases: those of the budget, and those of the client
/// until its retry quota is empty.
const FEW: u64 = 100;

#[derive(Debug)]
struct Way {
    attempts: AtomicU64,
    /// Percentage of the attempts that are throttled.
    throttled: AtomicU64,
    /// Duration of an attempt that is not throttled.
    latency: Mutex<Duration>,
    random: Mutex<Rng>,
}

impl Link for Way {
    fn passage(&self, is_write: bool) -> Passage {
        self.attempts.fetch_add(u64::from(is_write), Ordering::Relaxed);
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        if random.u64(..100) < self.throttled.load(Ordering::Relaxed) {
            Passage::Throttled
        } else {
            let latency = *self.latency.lock().unwrap_or_else(PoisonError::into_inner);
            Passage::Through { there: latency / 2, back: Some(latency / 2) }
        }
    }
}

struct Worker {
    context: RenewerContext,
    way: Arc<Way>,
    held_leases: Vec<HeldLease>,
}

impl Worker {
    fn start() -> Self {
        Self::with(F)
    }

    /// Acquires all leases at one moment.
    fn with(failover: Duration) -> Self {
        let clock = Arc::new(TokioClock::new()) as Arc<dyn Clock>;
        let table = Arc::new(MemoryTable::new(Arc::clone(&clock), None));
        let way = Arc::new(Way {
            attempts: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            latency: Mutex::default(),
            random: Mutex::new(Rng::with_seed(7)),
        });
        let link = Arc::clone(&way) as Arc<dyn Link>;
        let store = MemoryLeaseStore::new(Arc::clone(&table), link, "me", 2 * SECOND);
        let context = RenewerContext {
            worker_id: "me".into(),
            process: 1,
            store: Arc::new(store.of_process(1)),
            services: Arc::new(NoServices),
            clock: Arc::clone(&clock),
            failover,
            on_stop: OnStop::Keep,
            seed: 7,
            retries: Arc::default(),
            problems: Arc::new(ProblemLog::new(Arc::clone(&clock))),
            stop: WorkerStop::default(),
        };
        let held_leases = (0..LEASES).map(|n| {
            let lease = Lease {
                owner: Some("me".into()),
                counter: 1,
                ..Lease::new(format!("shardId-{n:012}"), Checkpoint::TrimHorizon)
            };
            table.set("me", &lease.key, Some(Row::Lease(lease.clone())));
            let (held_lease, renewer) = HeldLease::begin(context.clone(), lease, clock.now());
            tokio::spawn(renewer.run());
            held_lease
        });
        Self { held_leases: held_leases.collect(), context, way }
    }

    fn latency(&self, latency: Duration) {
        *self.way.latency.lock().unwrap() = latency;
    }

    fn throttle(&self, percent: u64) {
        self.way.throttled.store(percent, Ordering::Relaxed);
    }

    /// Counts the attempts in each of the next seconds.
    async fn attempts(&self, seconds: usize) -> Vec<u64> {
        let mut attempts = Vec::new();
        for _ in 0..seconds {
            let before = self.way.attempts.load(Ordering::Relaxed);
            tokio::time::sleep(SECOND).await;
            attempts.push(self.way.attempts.load(Ordering::Relaxed) - before);
        }
        attempts
    }

    /// Relinquishes all leases at one moment, as a planned stop does.
    fn relinquish(&self) -> JoinHandle<Vec<ShardShutdown>> {
        self.end(LeaseEnd::Relinquish)
    }

    /// Ends all leases at one moment.
    fn end(&self, how: LeaseEnd) -> JoinHandle<Vec<ShardShutdown>> {
        let held_leases = self.held_leases.clone();
        tokio::spawn(async move {
            let ends = held_leases.iter().map(|held_lease| held_lease.end(how));
            join_all(ends).await
        })
    }

    /// Begins a planned stop whose last calls end after this time.
    fn last_calls_in(&self, time: Duration) {
        let at = self.context.clock.now() + time;
        self.context.stop.last_calls.set(at).unwrap();
        let out_of_time = self.context.stop.out_of_time.clone();
        tokio::spawn(async move {
            tokio::time::sleep(time).await;
            out_of_time.cancel();
        });
    }

    /// A worker of which most renewals failed, so that the budget of repeated attempts is used up.
    async fn without_budget() -> Self {
        let worker = Self::start();
        worker.attempts(20).await;
        worker.throttle(100);
        worker.attempts(4).await;
        assert_eq!(worker.held(), LEASES);
        worker
    }

    fn held(&self) -> usize {
        let held = self.held_leases.iter().filter(|held_lease| held_lease.is_held());
        held.count()
    }
}

/// The most attempts a second, on average over the five seconds in which a lease is renewed once.
fn busiest(attempts: &[u64]) -> u64 {
    let windows = attempts.windows(5).map(|five| five.iter().sum::<u64>() / 5);
    windows.max().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_throttled_table_sees_at_most_twice_the_attempts_of_a_good_one() {
    let worker = Worker::start();
    let normal = worker.attempts(30).await;
    let most = *normal.iter().max().unwrap();
    assert!(most <= NORMAL * 7 / 4, "they spread at once: {normal:?}");
    let steady = busiest(&normal[10..]);
    assert!(steady <= NORMAL * 11 / 10, "{normal:?}");

    worker.throttle(100);
    let throttled = worker.attempts(9).await;
    // Each lease has a first and a last attempt. The budget adds 20 a second for all leases, and the client repeats its
    // first calls until its retry quota is empty.
    let most = busiest(&throttled);
    assert!(most <= 2 * NORMAL + FEW, "{most} a second: {throttled:?}");

    // All leases are lost by then, and no attempt is made any more.
    assert_eq!(worker.attempts(5).await[3..], [0, 0]);
    assert_eq!(worker.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_lease_is_lost_that_one_more_attempt_can_save() {
    let worker = Worker::start();
    worker.attempts(20).await;
    // For half a minute, half of the attempts fail.
    worker.throttle(50);
    let throttled = worker.attempts(30).await;
    assert!(busiest(&throttled) <= 3 * NORMAL + FEW, "{throttled:?}");
    assert!(worker.held() >= LEASES * 99 / 100, "{}", worker.held());

    // For 4 s, every attempt fails. The other half of the failover time saves all leases.
    worker.throttle(0);
    worker.attempts(10).await;
    let before = worker.held();
    worker.throttle(100);
    worker.attempts(4).await;
    worker.throttle(0);
    let after = worker.attempts(15).await;
    assert_eq!(worker.held(), before);
    // Waiting renewals are repeated at the rate of successful ones, and do not stay together.
    assert!(*after.iter().max().unwrap() <= 5 * NORMAL + FEW, "{after:?}");
    assert!(busiest(&after[10..]) <= NORMAL * 5 / 4, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn leases_that_are_relinquished_at_a_throttled_table_take_of_the_same_budget() {
    let worker = Worker::start();
    worker.attempts(20).await;
    worker.throttle(100);
    let ends = worker.relinquish();
    let attempts = worker.attempts(10).await;
    let (first, later) = (attempts[0], attempts[1..].iter().sum::<u64>());
    assert!(first <= LEASES as u64 + 3 * FEW, "{attempts:?}");
    // Each lease has one last attempt. The budget allows the others.
    assert!(later <= LEASES as u64 + 3 * FEW, "{attempts:?}");
    let left = ends.await.unwrap();
    let is_left = |end: &ShardShutdown| matches!(end, ShardShutdown::LeftToExpire { .. });
    assert!(left.iter().all(is_left));
}

#[tokio::test(start_paused = true)]
async fn leases_are_relinquished_in_time_at_a_table_that_throttles_half_of_the_attempts() {
    let worker = Worker::start();
    worker.attempts(20).await;
    worker.throttle(50);
    let ends = worker.relinquish().await.unwrap();
    let kept = ends.iter().filter(|end| **end == ShardShutdown::Kept);
    assert!(kept.count() >= LEASES * 99 / 100, "{ends:?}");
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_ends_long_before_the_leases_expire_relinquishes_them_in_time() {
    let worker = Worker::with(60 * SECOND);
    worker.attempts(120).await;
    worker.latency(SECOND / 100);
    worker.throttle(100);
    worker.last_calls_in(9 * SECOND);
    let ends = worker.relinquish();
    // No attempt succeeds until shortly before the last calls.
    worker.attempts(7).await;
    worker.throttle(0);
    let ends = ends.await.unwrap();
    let kept = ends.iter().filter(|end| **end == ShardShutdown::Kept).count();
    assert_eq!(kept, LEASES);
}

#[tokio::test(start_paused = true)]
async fn each_lease_gets_one_attempt_to_be_relinquished_although_its_renewals_failed() {
    let worker = Worker::without_budget().await;
    // The table recovers, but the stop has no time for a second attempt.
    worker.throttle(0);
    worker.latency(SECOND / 100);
    worker.context.stop.out_of_time.cancel();
    let ends = worker.relinquish().await.unwrap();
    let kept = ends.iter().filter(|end| **end == ShardShutdown::Kept).count();
    assert_eq!(kept, LEASES, "{:?}", ends.iter().find(|end| **end != ShardShutdown::Kept));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_shard_without_a_handoff_waits_for_no_attempt() {
    let worker = Worker::without_budget().await;
    let before = worker.context.clock.now();
    let ends = worker.end(LeaseEnd::ShardEnded).await.unwrap();
    assert!(ends.iter().all(|end| *end == ShardShutdown::Ended));
    assert_eq!(worker.context.clock.now(), before);
}
