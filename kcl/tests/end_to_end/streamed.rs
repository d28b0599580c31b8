//! Workers whose batches come out of a stream: what is acknowledged, what comes again, and how the stream ends.

use std::collections::HashMap;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use kcl::{
    BatchStream, BuildError, CheckpointError, CheckpointPolicy, ConsumerConfig, OwnedBatch,
    ProblemKind, Scheduler, ShardShutdown, WorkerError, WorkerHandle, WorkerState,
};
use kinesis_testkit::{Fault, LocalAws, Service};
use tokio::time::timeout;

use crate::probe::Probe;
use crate::setup::{
    APPLICATION, PATIENCE, STREAM, aws, config, id_of, open_shards, processing, put, split, until,
};

const DEADLINE: Duration = Duration::from_secs(20);

async fn consume(aws: &LocalAws, config: ConsumerConfig) -> BatchStream {
    let builder = Scheduler::builder(APPLICATION, STREAM, &aws.sdk_config());
    builder.config(config).seed(7).consume().await.unwrap()
}

/// An application that acknowledges batches.
struct Application {
    probe: Probe,
    /// By shard and counter of the lease.
    ownerships: HashMap<(String, u64), u64>,
}

impl Application {
    fn new(probe: &Probe) -> Self {
        Self { probe: probe.clone(), ownerships: HashMap::new() }
    }

    /// Reports the records of a batch, then acknowledges it.
    async fn ack(&mut self, batch: OwnedBatch) -> Result<(), CheckpointError> {
        let shard = batch.shard();
        let (worker, token) = (shard.worker_id(), shard.fencing_token());
        let lease = (token.lease_key.clone(), token.counter);
        let ownership = *self.ownerships.entry(lease).or_insert_with(|| self.probe.new_ownership());
        self.probe.took(worker, ownership, shard.shard_id(), batch.records());
        batch.ack().await
    }

    /// Acknowledges all batches until the stream ends.
    async fn run(mut self, mut batches: BatchStream) {
        while let Some(batch) = batches.try_next().await.unwrap() {
            self.ack(batch).await.unwrap();
        }
    }
}

async fn next(batches: &mut BatchStream) -> OwnedBatch {
    let next = timeout(PATIENCE, batches.next()).await;
    next.expect("a batch").expect("the stream goes on").unwrap()
}

/// The stream has no more batch, and ends without an error.
async fn ends(mut batches: BatchStream) {
    assert!(timeout(PATIENCE, batches.next()).await.expect("an end").is_none());
    assert!(batches.next().await.is_none());
}

fn ids(batch: &OwnedBatch) -> Vec<u64> {
    batch.records().filter_map(|record| id_of(record.data())).collect()
}

fn is_lost(result: &Result<(), CheckpointError>) -> bool {
    matches!(result, Err(CheckpointError::LeaseLost { .. }))
}

/// Runs a worker until every record was acknowledged. The probe has then seen each of them once.
async fn process_the_rest(aws: &LocalAws, probe: &Probe) {
    let batches = consume(aws, config("the next worker")).await;
    let worker = batches.worker().clone();
    let application = tokio::spawn(Application::new(probe).run(batches));
    until("all records", || probe.is_settled()).await;
    worker.shutdown(DEADLINE).await.unwrap();
    application.await.unwrap();
    probe.assert_exact();
}

#[tokio::test]
async fn every_record_comes_in_order_through_a_split_and_a_crash() {
    let aws = aws(2).await;
    let probe = Probe::new();
    put(&aws, &probe, 0..200).await;
    let mut application = Application::new(&probe);
    let mut batches = consume(&aws, config("w1")).await;
    while !probe.is_settled() {
        let batch = next(&mut batches).await;
        application.ack(batch).await.unwrap();
    }

    put(&aws, &probe, 200..400).await;
    let held = next(&mut batches).await;
    let unacknowledged = ids(&held);
    split(&aws, held.shard().shard_id()).await;
    put(&aws, &probe, 400..600).await;
    batches.worker().abort();
    held.cancellation().cancelled().await;
    assert!(is_lost(&held.ack().await));
    let mut last = timeout(PATIENCE, batches.next()).await.unwrap();
    // The other shard may have had a batch on its way.
    while let Some(Ok(_)) = last {
        last = timeout(PATIENCE, batches.next()).await.unwrap();
    }
    assert!(matches!(last, Some(Err(WorkerError::Aborted))), "{last:?}");
    assert!(batches.next().await.is_none());

    let batches = consume(&aws, config("w2")).await;
    let worker = batches.worker().clone();
    let application = tokio::spawn(application.run(batches));
    until("all records", || probe.is_settled()).await;
    until("three open shards", || processing(&worker) == 3).await;
    worker.shutdown(DEADLINE).await.unwrap();
    application.await.unwrap();
    probe.assert_exact();
    let seen = probe.seen();
    let by_w2 =
        |id: &u64| seen.iter().any(|seen| seen.worker == "w2" && id_of(&seen.data) == Some(*id));
    assert!(!unacknowledged.is_empty() && unacknowledged.iter().all(by_w2));
}

#[tokio::test]
async fn a_shard_that_is_not_acknowledged_holds_up_itself_alone() {
    let aws = aws(2).await;
    let probe = Probe::new();
    let mut application = Application::new(&probe);
    put(&aws, &probe, 0..100).await;
    let mut batches = consume(&aws, config("w1")).await;
    let held = next(&mut batches).await;
    let slow = held.shard().shard_id().to_owned();
    put(&aws, &probe, 100..300).await;
    let records = aws.records(STREAM);
    let others = records.iter().filter(|shard| shard.shard_id != slow);
    let others: usize = others.map(|shard| shard.records.len()).sum();
    assert!((1..300).contains(&others), "both have records: {others}");
    while probe.seen().len() < others {
        let batch = next(&mut batches).await;
        assert_ne!(batch.shard().shard_id(), slow, "its batch is not acknowledged");
        application.ack(batch).await.unwrap();
    }
    assert!(batches.worker().snapshot().buffered_bytes > 0);
    application.ack(held).await.unwrap();
    while !probe.is_settled() {
        let batch = next(&mut batches).await;
        assert_eq!(batch.shard().shard_id(), slow);
        application.ack(batch).await.unwrap();
    }
    let worker = batches.worker().clone();
    until("nothing is held", || worker.snapshot().buffered_bytes == 0).await;
    worker.shutdown(DEADLINE).await.unwrap();
    ends(batches).await;
    probe.assert_exact();
}

#[tokio::test]
async fn a_batch_that_fails_comes_again_and_is_reported() {
    let aws = aws(1).await;
    let probe = Probe::new();
    put(&aws, &probe, 0..50).await;
    let mut batches = consume(&aws, config("w1")).await;
    let first = next(&mut batches).await;
    let expected = ids(&first);
    first.nack("no answer");
    let second = next(&mut batches).await;
    assert_eq!((second.attempt(), ids(&second)), (2, expected.clone()));
    let problems = batches.worker().health().problems;
    let failing = problems.iter().find(|problem| problem.kind == ProblemKind::ProcessorFailing);
    assert_eq!(failing.unwrap().cause, "no answer");
    drop(second);
    let third = next(&mut batches).await;
    assert_eq!((third.attempt(), ids(&third)), (3, expected));
    drop(third);
    let worker = batches.worker().clone();
    drop(batches);
    let report = worker.shutdown(DEADLINE).await.unwrap();
    assert_eq!(report.shards.values().collect::<Vec<_>>(), [&ShardShutdown::Released]);
    process_the_rest(&aws, &probe).await;
}

/// Stops the worker in another task, and waits until the batch learns of it.
async fn stop(worker: &WorkerHandle, batch: &OwnedBatch, deadline: Duration) -> Stopping {
    let stopping = worker.clone();
    let stopping = tokio::spawn(async move { stopping.shutdown(deadline).await.unwrap() });
    batch.shutdown_token().cancelled().await;
    assert!(!batch.cancellation().is_cancelled());
    stopping
}

/// A batch has counted as failed.
fn has_failed(worker: &WorkerHandle) -> bool {
    worker.snapshot().failures.contains_key(&ProblemKind::ProcessorFailing)
}

type Stopping = tokio::task::JoinHandle<kcl::ShutdownReport>;

#[tokio::test]
async fn in_a_planned_stop_a_batch_can_still_be_acknowledged_and_no_other_comes() {
    let hourly = CheckpointPolicy::Interval(Duration::from_secs(3600));
    for policy in [CheckpointPolicy::Manual, CheckpointPolicy::AfterBatch, hourly] {
        let aws = aws(2).await;
        let probe = Probe::new();
        let mut application = Application::new(&probe);
        put(&aws, &probe, 0..100).await;
        let mut batches = consume(&aws, config("w1").with_checkpoint(policy)).await;
        let worker = batches.worker().clone();
        let held = next(&mut batches).await;
        until("both shards", || processing(&worker) == 2).await;
        let stopping = stop(&worker, &held, DEADLINE).await;
        // The other shard has an offer that the stream does not yield any more.
        assert!(batches.next().now_or_never().is_none(), "the stream waits");
        application.ack(held).await.unwrap();
        let report = stopping.await.unwrap();
        assert_eq!(report.drained.len(), 2, "{policy:?}: {report}");
        ends(batches).await;
        assert!(!has_failed(&worker), "{policy:?}");
        process_the_rest(&aws, &probe).await;
    }
}

#[tokio::test]
async fn a_stream_that_is_not_polled_does_not_hold_up_a_planned_stop() {
    let aws = aws(2).await;
    let probe = Probe::new();
    put(&aws, &probe, 0..100).await;
    let batches = consume(&aws, config("w1")).await;
    let worker = batches.worker().clone();
    until("both shards", || processing(&worker) == 2).await;
    until("a batch waits", || worker.snapshot().shards.iter().any(|shard| shard.call.is_some()))
        .await;
    let report = worker.shutdown(DEADLINE).await.unwrap();
    assert_eq!((report.drained.len(), report.aborted.len()), (2, 0), "{report}");
    ends(batches).await;
    process_the_rest(&aws, &probe).await;
}

#[tokio::test]
async fn a_batch_that_is_held_beyond_the_deadline_is_lost() {
    let aws = aws(1).await;
    let probe = Probe::new();
    put(&aws, &probe, 0..50).await;
    let mut batches = consume(&aws, config("w1")).await;
    let held = next(&mut batches).await;
    let worker = batches.worker().clone();
    let report = stop(&worker, &held, Duration::from_secs(1)).await.await.unwrap();
    assert_eq!(report.aborted, open_shards(&aws));
    assert!(held.cancellation().is_cancelled());
    assert!(is_lost(&held.ack().await));
    ends(batches).await;
    process_the_rest(&aws, &probe).await;
}

#[tokio::test]
async fn the_worker_stops_when_its_stream_is_dropped() {
    let aws = aws(2).await;
    let probe = Probe::new();
    let mut application = Application::new(&probe);
    put(&aws, &probe, 0..200).await;
    let mut batches = consume(&aws, config("w1")).await;
    let worker = batches.worker().clone();
    let (one, other) = (next(&mut batches).await, next(&mut batches).await);
    assert_ne!(one.shard().shard_id(), other.shard().shard_id());
    drop(batches);
    one.shutdown_token().cancelled().await;
    drop(other);
    application.ack(one).await.unwrap();
    let report = worker.shutdown(DEADLINE).await.unwrap();
    assert_eq!((report.drained.len(), report.aborted.len()), (2, 0), "{report}");
    assert!(!has_failed(&worker));
    process_the_rest(&aws, &probe).await;
}

#[tokio::test]
async fn a_batch_whose_lease_is_lost_says_so_and_comes_again() {
    let aws = aws(1).await;
    let probe = Probe::new();
    put(&aws, &probe, 0..50).await;
    let mut batches = consume(&aws, config("w1")).await;
    let held = next(&mut batches).await;
    let expected = ids(&held);
    let outage = aws.faults().add(Fault::internal_failure().service(Service::DynamoDb));
    timeout(PATIENCE, held.cancellation().cancelled()).await.unwrap();
    aws.faults().remove(outage);
    assert!(batches.next().now_or_never().is_none(), "not before the batch is dropped");
    assert!(is_lost(&held.ack().await));
    let again = next(&mut batches).await;
    assert_eq!((again.attempt(), ids(&again)), (1, expected));
    Application::new(&probe).ack(again).await.unwrap();
    batches.worker().shutdown(DEADLINE).await.unwrap();
    ends(batches).await;
    process_the_rest(&aws, &probe).await;
}

#[tokio::test]
async fn the_error_of_the_worker_is_the_last_item() {
    let aws = aws(1).await;
    let mut batches = consume(&aws, config("w1")).await;
    until("it runs", || processing(batches.worker()) == 1).await;
    aws.dynamodb().delete_table().table_name(APPLICATION).send().await.unwrap();
    let last = timeout(PATIENCE, batches.next()).await.unwrap();
    assert!(matches!(last, Some(Err(WorkerError::TableDeleted { .. }))), "{last:?}");
    assert!(batches.next().await.is_none());
}

#[tokio::test]
async fn a_processor_that_would_not_be_called_is_refused() {
    let aws = aws(1).await;
    let builder = crate::setup::builder(&aws, &Probe::new(), config("w1"));
    let states = builder.watch_state();
    assert!(matches!(builder.consume().await.unwrap_err(), BuildError::UnusedProcessor));
    let state = states.current();
    assert!(matches!(state, WorkerState::NotStarted(BuildError::UnusedProcessor)), "{state:?}");
}
