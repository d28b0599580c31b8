//! What the health tells of each shard: idle, working, slow, stuck.

use std::time::Duration;

use kcl::{
    HeldUpBy, ProblemKind, ProcessorError, RecordBatch, RecordProcessor, ShardActivity,
    ShardContext, ShardEnd, Shutdown, WorkerHandle,
};
use tokio::time::sleep;

use crate::paused::{Paused, config};
use crate::probe::Probe;
use crate::setup::put;

const SECOND: Duration = Duration::from_secs(1);

/// Takes so long for each record, then does as told.
#[derive(Clone, Copy)]
enum Processor {
    Takes(Duration),
    Fails,
    Hangs,
}

impl RecordProcessor for Processor {
    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        match *self {
            Self::Takes(time) => sleep(time * batch.len() as u32).await,
            Self::Fails => return Err("told to fail".into()),
            Self::Hangs => std::future::pending().await,
        }
        Ok(batch.checkpointer().checkpoint().await?)
    }
    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(end.checkpoint().await?)
    }
    async fn shutdown_requested(&mut self, _: Shutdown<'_>) -> Result<(), ProcessorError> {
        Ok(())
    }
}

fn activity(worker: &WorkerHandle) -> Option<(ShardActivity, Option<HeldUpBy>)> {
    let health = worker.health();
    health.shards.first().map(|shard| (shard.activity, shard.held_up_by))
}

/// Runs a processor on one record a second, until its shard does this.
async fn until(processor: Processor, activity_is: (ShardActivity, Option<HeldUpBy>)) {
    let paused = Paused::start(1).await;
    let probe = Probe::new();
    let builder = paused.builder(&probe, config("w1"));
    let builder = builder.processor(move |_: &ShardContext| processor);
    let worker = builder.build().await.unwrap().spawn();
    while activity(&worker) != Some((ShardActivity::Idle, None)) {
        assert!(paused.now() < 30 * SECOND, "{}", worker.health());
        sleep(SECOND / 10).await;
    }
    let mut id = 0;
    while activity(&worker) != Some(activity_is) {
        assert!(paused.now() < 300 * SECOND, "{}", worker.health());
        put(&paused.aws, &probe, id..id + 1).await;
        id += 1;
        sleep(SECOND).await;
    }
    let health = worker.health();
    let shard = &health.shards[0];
    assert!(shard.lag.unwrap() > 10 * SECOND, "{health}");
    let is_problem = |problem: &kcl::Problem| {
        matches!(problem.kind, ProblemKind::ProcessorFailing | ProblemKind::ProcessorStuck)
    };
    let is_stuck = activity_is.0 == ShardActivity::Stuck;
    assert_eq!(health.problems.iter().any(is_problem), is_stuck, "{health}");
    assert!(health.to_string().contains(&format!("shards: 1 {}", activity_is.0)), "{health}");
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_processor_that_is_slower_than_the_producers_is_slow() {
    until(Processor::Takes(2 * SECOND), (ShardActivity::Slow, Some(HeldUpBy::Processor))).await;
}

#[tokio::test(start_paused = true)]
async fn a_processor_that_hangs_or_fails_is_stuck() {
    for processor in [Processor::Hangs, Processor::Fails] {
        until(processor, (ShardActivity::Stuck, Some(HeldUpBy::Processor))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_keeps_up_is_working_or_idle_and_its_rates_and_delays_are_shown() {
    let paused = Paused::start(1).await;
    let probe = Probe::new();
    let worker = paused.builder(&probe, config("w1")).build().await.unwrap().spawn();
    for id in 0..120 {
        put(&paused.aws, &probe, id..id + 1).await;
        sleep(SECOND).await;
        if id > 10 {
            let (activity, held_up_by) = activity(&worker).unwrap();
            assert_eq!(held_up_by, None);
            assert!(matches!(activity, ShardActivity::Working | ShardActivity::Idle));
        }
    }
    let snapshot = worker.snapshot();
    assert!((0.8..1.3).contains(&snapshot.records_per_second), "{snapshot:?}");
    let delays = snapshot.propagation_delay;
    assert!(delays.count >= 110, "{delays:?}");
    // It reads every 200 ms, spread by a fifth.
    assert!(delays.max <= SECOND / 2, "{delays:?}");
    let shard = &snapshot.shards[0];
    assert_eq!(shard.propagation_delay, delays, "it is the only shard");
    assert!(shard.since_checkpoint.unwrap() <= 10 * SECOND, "{shard:?}");
    worker.shutdown(20 * SECOND).await.unwrap();
}
