//! What a worker reports of processors that hang, or always fail.

use std::sync::Mutex;
use std::time::Duration;

use kcl::{HealthStatus, ProblemKind, WorkerHandle};
use tokio::time::sleep;

use crate::paused::{Paused, config};
use crate::probe::{Deed, Probe};
use crate::setup::{self, processing, put};

const SECOND: Duration = Duration::from_secs(1);
const SHARD: &str = "shardId-000000000000";

async fn worker(paused: &Paused, probe: &Probe) -> WorkerHandle {
    let scheduler = paused.builder(probe, config("w1")).build().await.unwrap();
    let worker = scheduler.spawn();
    while processing(&worker) < 1 {
        sleep(SECOND / 100).await;
    }
    worker
}

fn lag(worker: &WorkerHandle) -> Duration {
    worker.snapshot().lag().unwrap()
}

fn problem(worker: &WorkerHandle, kind: ProblemKind) -> Option<String> {
    let health = worker.health();
    let mut problems = health.problems.into_iter();
    let problem = problems.find(|problem| problem.kind == kind)?;
    assert_eq!(problem.shard_id.as_deref(), Some(SHARD));
    assert_eq!(health.status, HealthStatus::Degraded);
    Some(problem.cause)
}

#[tokio::test(start_paused = true)]
async fn a_processor_that_hangs_is_seen_and_named() {
    let paused = Paused::start(1).await;
    let probe = Probe::new().script(|_, _| Deed::Hang);
    let worker = worker(&paused, &probe).await;
    sleep(60 * SECOND).await;
    // A shard without records is at the tip.
    assert!(lag(&worker) < 5 * SECOND, "{:?}", lag(&worker));
    assert!(worker.health().is_healthy(), "{}", worker.health());
    put(&paused.aws, &probe, 0..10).await;
    sleep(20 * SECOND).await;
    assert_eq!(worker.why_not_running(SHARD), None, "it may be at work");
    sleep(25 * SECOND).await;
    let shard = worker.snapshot().shards.remove(0);
    assert!(shard.lag.unwrap() >= 40 * SECOND, "{:?}", shard.lag);
    assert!(shard.batch_in_hand_for.unwrap() >= 40 * SECOND);
    let call = shard.call.unwrap();
    assert_eq!(call.name, "process_records");
    assert!(call.running_for >= 40 * SECOND);
    let why = setup::reason(&worker, SHARD, ProblemKind::ProcessorStuck);
    assert!(why.is_some(), "{:?}", worker.why_not_running(SHARD));
    let cause = problem(&worker, ProblemKind::ProcessorStuck).unwrap();
    assert!(cause.contains("process_records has run for"), "{cause}");
    let (first, last) = {
        let records = paused.aws.records(setup::STREAM).remove(0).records;
        let number = |record: Option<&kinesis_testkit::StoredRecord>| {
            record.unwrap().sequence_number.to_string()
        };
        (number(records.first()), number(records.last()))
    };
    assert!(cause.contains(&first) && cause.contains(&last), "{cause}");
    worker.abort();
}

/// Coordination, which watches over the calls, has a thread of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn code_that_blocks_its_thread_is_seen_too() {
    let aws = setup::aws(1).await;
    let (block, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Mutex::new(blocked);
    let probe = Probe::new().script(move |_, _| {
        // Until the test drops its end.
        let _ = blocked.lock().unwrap().recv();
        Deed::Take
    });
    put(&aws, &probe, 0..10).await;
    let limit = Some(Duration::from_millis(100));
    let config = setup::config("w1").with_log_warning_for_task_after(limit);
    let worker = setup::worker(&aws, &probe, config).await;
    let slow = || problem(&worker, ProblemKind::ProcessorStuck).is_some();
    setup::until("the call is slow", slow).await;
    assert!(setup::reason(&worker, SHARD, ProblemKind::ProcessorStuck).is_some());
    drop(block);
    setup::until("all records", || probe.is_settled()).await;
    setup::until("it is healthy", || worker.health().is_healthy()).await;
    worker.shutdown(20 * SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_processor_that_fails_for_ever_falls_behind() {
    let paused = Paused::start(1).await;
    let probe = Probe::new().script(|_, _| Deed::Fail);
    let worker = worker(&paused, &probe).await;
    put(&paused.aws, &probe, 0..10).await;
    sleep(120 * SECOND).await;
    let shard = worker.snapshot().shards.remove(0);
    assert!(shard.lag.unwrap() >= 115 * SECOND, "{:?}", shard.lag);
    assert!(shard.batch_in_hand_for.unwrap() >= 115 * SECOND);
    assert!(shard.failures > 3);
    let cause = problem(&worker, ProblemKind::ProcessorFailing).unwrap();
    assert!(cause.contains("told to fail"), "{cause}");
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_healthy_processor_does_not_fall_behind() {
    let paused = Paused::start(1).await;
    let probe = Probe::new();
    let worker = worker(&paused, &probe).await;
    for round in 0..60 {
        put(&paused.aws, &probe, round * 10..(round + 1) * 10).await;
        sleep(2 * SECOND).await;
        assert!(lag(&worker) < 5 * SECOND, "{:?}", lag(&worker));
        assert!(worker.health().is_healthy(), "{}", worker.health());
    }
    let shard = worker.snapshot().shards.remove(0);
    assert_eq!((shard.batch_in_hand_for, shard.call), (None, None));
    worker.shutdown(20 * SECOND).await.unwrap();
}
