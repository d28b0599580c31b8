//! Workers whose records come out of a stream one by one: what is out at a time, what comes again, and how it ends.

use std::collections::HashMap;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use kcl::{
    BuildError, CheckpointError, CheckpointPolicy, ConsumerConfig, PendingRecord, ProblemKind,
    RecordStream, Scheduler, WorkerError,
};
use kinesis_testkit::LocalAws;
use tokio::time::timeout;

use crate::keyed::checkpointed;
use crate::probe::Probe;
use crate::setup::{
    APPLICATION, PATIENCE, STREAM, aws, config, id_of, key, processing, put, until,
};

const DEADLINE: Duration = Duration::from_secs(20);

async fn consume(aws: &LocalAws, config: ConsumerConfig) -> RecordStream {
    let config =
        config.with_checkpoint(CheckpointPolicy::AfterBatch).with_concurrency_per_shard(10);
    let builder = Scheduler::builder(APPLICATION, STREAM, &aws.sdk_config());
    builder.config(config).seed(7).consume_records().await.unwrap()
}

async fn next(records: &mut RecordStream) -> PendingRecord {
    let next = timeout(PATIENCE, records.next()).await;
    next.expect("a record").expect("the stream goes on").unwrap()
}

fn id(record: &PendingRecord) -> u64 {
    id_of(record.data()).unwrap()
}

/// Reports records to a probe, and acknowledges them.
struct Application {
    probe: Probe,
    ownerships: HashMap<(String, u64, String), u64>,
}

impl Application {
    fn new(probe: &Probe) -> Self {
        Self { probe: probe.clone(), ownerships: HashMap::new() }
    }

    async fn ack(&mut self, record: PendingRecord) -> Result<(), CheckpointError> {
        let (shard, token) = (record.shard(), record.shard().fencing_token());
        let key = (token.lease_key.clone(), token.counter, key(id(&record)));
        let ownership = *self.ownerships.entry(key).or_insert_with(|| self.probe.new_ownership());
        self.probe.took(shard.worker_id(), ownership, shard.shard_id(), [record.as_record()]);
        record.ack().await
    }
}

/// A second worker processes the rest.
async fn process_the_rest(aws: &LocalAws, probe: &Probe) {
    let (mut records, mut application) =
        (consume(aws, config("w2")).await, Application::new(probe));
    while !probe.is_settled() {
        let record = next(&mut records).await;
        application.ack(record).await.unwrap();
    }
    records.worker().clone().shutdown(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn several_keys_are_out_and_the_next_record_of_a_key_follows_the_acknowledgement() {
    let (aws, probe) = (aws(1).await, Probe::new());
    put(&aws, &probe, 0..100).await;
    let (mut records, mut application) =
        (consume(&aws, config("w1")).await, Application::new(&probe));
    let mut out = Vec::new();
    for expected in 0..10 {
        let record = next(&mut records).await;
        assert_eq!((id(&record), record.attempt()), (expected, 1));
        out.push(record);
    }
    assert!(records.next().now_or_never().is_none(), "ten are out");
    let slow = out.remove(3);
    for record in out {
        application.ack(record).await.unwrap();
    }
    for _ in 0..89 {
        let record = next(&mut records).await;
        assert_ne!(id(&record), 53, "it has the key of the slow one");
        application.ack(record).await.unwrap();
    }
    checkpointed(&aws, 2).await;
    assert!(records.next().now_or_never().is_none());
    application.ack(slow).await.unwrap();
    let last = next(&mut records).await;
    assert_eq!(id(&last), 53);
    application.ack(last).await.unwrap();
    checkpointed(&aws, 99).await;
    let worker = records.worker().clone();
    until("nothing is held", || worker.snapshot().buffered_bytes == 0).await;
    worker.shutdown(DEADLINE).await.unwrap();
    assert!(records.next().await.is_none());
    probe.assert_exact();
}

#[tokio::test]
async fn a_record_that_is_not_acknowledged_comes_again_and_is_reported() {
    let (aws, probe) = (aws(1).await, Probe::new());
    put(&aws, &probe, 0..1).await;
    let (mut records, mut application) =
        (consume(&aws, config("w1")).await, Application::new(&probe));
    next(&mut records).await.nack("no answer");
    let second = next(&mut records).await;
    assert_eq!((id(&second), second.attempt()), (0, 2));
    let problems = records.worker().health().problems;
    let failing = problems.iter().find(|problem| problem.kind == ProblemKind::ProcessorFailing);
    assert_eq!(failing.unwrap().cause, "no answer");
    drop(second);
    let third = next(&mut records).await;
    assert_eq!(third.attempt(), 3);
    application.ack(third).await.unwrap();
    let worker = records.worker().clone();
    until("health", || worker.health().is_healthy()).await;
    worker.shutdown(DEADLINE).await.unwrap();
    probe.assert_exact();
}

#[tokio::test]
async fn after_a_crash_what_is_not_acknowledged_comes_again() {
    let (aws, probe) = (aws(1).await, Probe::new());
    put(&aws, &probe, 0..10).await;
    let (mut records, mut application) =
        (consume(&aws, config("w1")).await, Application::new(&probe));
    let mut out = Vec::new();
    for _ in 0..10 {
        out.push(next(&mut records).await);
    }
    let held = out.split_off(4);
    for record in out {
        application.ack(record).await.unwrap();
    }
    checkpointed(&aws, 3).await;
    records.worker().abort();
    for record in held {
        record.cancellation().cancelled().await;
        let refused = record.ack().await;
        assert!(matches!(refused, Err(CheckpointError::LeaseLost { .. })), "{refused:?}");
    }
    let end = timeout(PATIENCE, records.next()).await.unwrap();
    assert!(matches!(end, Some(Err(WorkerError::Aborted))), "{end:?}");
    process_the_rest(&aws, &probe).await;
    probe.assert_exact();
}

#[tokio::test]
async fn in_a_planned_stop_records_can_still_be_acknowledged_and_no_other_comes() {
    let (aws, probe) = (aws(1).await, Probe::new());
    put(&aws, &probe, 0..100).await;
    let (mut records, mut application) =
        (consume(&aws, config("w1")).await, Application::new(&probe));
    let mut out = Vec::new();
    for _ in 0..5 {
        out.push(next(&mut records).await);
    }
    let worker = records.worker().clone();
    let stopping = tokio::spawn(async move { worker.shutdown(DEADLINE).await.unwrap() });
    out[0].shutdown_token().cancelled().await;
    assert!(records.next().now_or_never().is_none(), "the stream waits");
    for record in out {
        application.ack(record).await.unwrap();
    }
    let report = stopping.await.unwrap();
    assert_eq!(report.drained.len(), 1, "{report}");
    assert!(records.try_next().await.unwrap().is_none());
    process_the_rest(&aws, &probe).await;
    probe.assert_exact();
}

#[tokio::test]
async fn a_stream_that_is_dropped_stops_the_worker_and_nothing_fails() {
    let (aws, probe) = (aws(2).await, Probe::new());
    put(&aws, &probe, 0..100).await;
    let records = consume(&aws, config("w1")).await;
    let worker = records.worker().clone();
    until("both shards", || processing(&worker) == 2).await;
    drop(records);
    let report = worker.join().await.unwrap();
    assert_eq!(report.drained.len(), 2, "{report}");
    assert!(!worker.snapshot().failures.contains_key(&ProblemKind::ProcessorFailing));
    process_the_rest(&aws, &probe).await;
    probe.assert_exact();
}

#[tokio::test]
async fn a_handler_beside_a_stream_is_an_error() {
    let aws = aws(1).await;
    let builder = Scheduler::builder(APPLICATION, STREAM, &aws.sdk_config());
    let error = builder.handler(|_| async { Ok(()) }).consume_records().await.unwrap_err();
    assert!(matches!(error, BuildError::UnusedProcessor));
}
