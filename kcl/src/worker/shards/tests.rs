//! Consumers on leases in memory.

#[allow(unreachable_pub, reason = "it is public in its own crate")]
#[path = "../../../../integration-tests/simulation/src/idle.rs"]
mod idle;

use tokio::runtime::Handle;

use self::idle::{IdleProcessor, SilentShard};
use super::*;
use crate::checkpoint::Checkpoint;
use crate::clock::SystemClock;
use crate::coordinator::FleetView;
use crate::health::ProblemLog;
use crate::lease::{Lease, Recorder};
use crate::metrics::Meter;
use crate::processor::ShardContext;
use crate::processor::failure::Sinks;
use crate::retrieval::{Retrieval, ShardSource, Start};
use crate::service_time::ServiceClock;

const SHARD: &str = "shardId-000000000000";
const KIND: ProblemKind = ProblemKind::ReadsFailing;

/// Every shard is without records.
struct Quiet;

impl Retrieval for Quiet {
    fn open(&self, _: Start) -> Box<dyn ShardSource> {
        Box::new(SilentShard)
    }
}

/// Consumers whose processors run on `executor`.
fn shards(executor: Handle) -> (Shards, Arc<ProblemLog>) {
    let clock = Arc::new(SystemClock) as Arc<dyn Clock>;
    let config = Arc::new(ConsumerConfig::default());
    let problems = Arc::new(ProblemLog::new(Arc::clone(&clock)));
    let worker = Worker {
        sinks: Sinks::default(),
        application: "application".into(),
        worker_id: "worker".into(),
        stream: "stream".into(),
        budget: ByteBudget::new(config.max_buffered_bytes),
        config,
        clock: Arc::clone(&clock),
        service_clock: ServiceClock::new(Arc::clone(&clock)),
        bounds: None,
        retrieval: Arc::new(Quiet),
        factory: Arc::new(|_: &ShardContext| IdleProcessor),
        executor: Arc::new(executor),
    };
    let fleet = FleetView::new("worker", 1, worker.config.failover_time);
    let (states, meter) = (StateSender::default(), Meter::default());
    let fleet = Arc::new(Mutex::new(fleet));
    let view = View::new(&worker, fleet, states, Totals::new(meter, Arc::clone(&problems)));
    (Shards::new(Arc::new(worker), Arc::new(view), 7), problems)
}

fn held_lease() -> (HeldLease, Recorder) {
    HeldLease::recorded(Lease::new(SHARD, Checkpoint::TrimHorizon), Arc::new(SystemClock))
}

#[tokio::test]
async fn an_ownership_that_ends_leaves_the_problems_of_the_next_one_of_its_shard() {
    let (mut shards, problems) = shards(Handle::current());
    let is_problem = || problems.find(KIND, Some(SHARD)).is_some();

    let (first, first_recorder) = held_lease();
    shards.start(first);
    problems.failed(KIND, Some(SHARD), "of the first one");
    first_recorder.lose();
    // The shard is acquired again before the end of the first consumer is handled.
    let (second, second_recorder) = held_lease();
    shards.start(second);
    assert!(!is_problem(), "the first one's");
    problems.failed(KIND, Some(SHARD), "of the second one");
    assert_eq!(shards.ended().await.0, SHARD);
    assert!(is_problem(), "the second one's");
    second_recorder.lose();
    assert_eq!(shards.ended().await.0, SHARD);
    assert!(!is_problem(), "the shard is not owned any more");
}

#[tokio::test]
async fn a_lease_that_comes_while_the_worker_stops_needs_no_runtime_of_the_processors() {
    // Nothing drives this runtime.
    let blocked = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (mut shards, _) = shards(blocked.handle().clone());
    let (held_lease, _recorder) = held_lease();
    shards.relinquish(held_lease);
    shards.may_relinquish.cancel();
    let (shard_id, outcome) = shards.ended().await;
    assert_eq!((&*shard_id, outcome.unwrap()), (SHARD, ShardShutdown::Released));
    assert!(shards.is_empty());
    drop(shards);
    blocked.shutdown_background();
}
