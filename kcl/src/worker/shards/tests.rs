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
use crate::lease::Lease;
use crate::processor::ShardContext;
use crate::retrieval::{Retrieval, ShardReader, Start};

const SHARD: &str = "shardId-000000000000";
const KIND: ProblemKind = ProblemKind::ReadsFailing;

/// Every shard is without records.
struct Quiet;

impl Retrieval for Quiet {
    fn open(&self, _: Start) -> Box<dyn ShardReader> {
        Box::new(SilentShard)
    }
}

#[tokio::test]
async fn an_ownership_that_ends_leaves_the_problems_of_the_next_one_of_its_shard() {
    let clock = Arc::new(SystemClock) as Arc<dyn Clock>;
    let config = Arc::new(ConsumerConfig::default());
    let problems = Arc::new(ProblemLog::new(Arc::clone(&clock)));
    let worker = Worker {
        application: "application".into(),
        worker_id: "worker".into(),
        stream: "stream".into(),
        budget: ByteBudget::new(config.max_buffered_bytes),
        config,
        clock: Arc::clone(&clock),
        retrieval: Arc::new(Quiet),
        factory: Arc::new(|_: &ShardContext| IdleProcessor),
        executor: Arc::new(Handle::current()),
    };
    let fleet = FleetView::new("worker", 1, worker.config.failover_time);
    let (states, meter) = (StateSender::default(), Meter::default());
    let fleet = SharedFleetView::new(fleet);
    let view = View::new(&worker, fleet, states, meter, Arc::clone(&problems));
    let mut shards = Shards::new(Arc::new(worker), Arc::new(view), 7);
    let held_lease = || {
        let lease = Lease::new(SHARD, Checkpoint::TrimHorizon);
        HeldLease::recorded(lease, Arc::clone(&clock))
    };
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
