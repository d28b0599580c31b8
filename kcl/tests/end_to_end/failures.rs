//! Processors and services that fail.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kcl::{
    CheckpointPolicy, ProcessorError, RecordBatch, RecordProcessor, ShardContext, ShardEnd,
    ShardSnapshot, ShardState, Shutdown, WorkerError,
};
use kinesis_testkit::{Fault, Service};

use crate::probe::{Call, Deed, Probe};
use crate::setup::{
    APPLICATION, STREAM, aws, builder, config, process_all, processing, put, until, worker,
};

const DEADLINE: Duration = Duration::from_secs(20);

/// Each batch (by its first record) fails this often before it is taken.
fn failing(times: u32, deed: fn() -> Deed) -> Probe {
    let attempts = Mutex::new(HashMap::<String, u32>::new());
    Probe::new().script(move |_, batch| {
        let first = batch.records().next().unwrap().position().to_string();
        let mut attempts = attempts.lock().unwrap();
        let attempt = attempts.entry(first).or_default();
        *attempt += 1;
        assert_eq!(batch.attempt(), *attempt, "the same batch again");
        if *attempt <= times { deed() } else { Deed::Take }
    })
}

#[tokio::test]
async fn a_processor_that_fails_gets_the_same_batch_until_it_succeeds() {
    for deed in [|| Deed::Fail, || Deed::Panic] {
        let aws = aws(2).await;
        let probe = failing(3, deed);
        put(&aws, &probe, 0..200).await;
        process_all(&aws, &probe, config("w1")).await;
    }
}

#[tokio::test]
async fn a_batch_that_never_succeeds_is_kept_and_not_checkpointed_by_a_stop() {
    let aws = aws(1).await;
    let broken = Probe::new().script(|_, _| Deed::Fail);
    let probe = Probe::new();
    put(&aws, &probe, 0..50).await;
    // Both the library and the processor checkpoint at the stop: neither may cover the batch.
    let settings = config("w1").with_checkpoint(CheckpointPolicy::AfterBatch);
    let first = worker(&aws, &broken, settings).await;
    until("it fails", || first.snapshot().shards.iter().any(|shard| shard.failures >= 5)).await;
    assert_eq!(processing(&first), 1, "the lease is kept");
    first.shutdown(DEADLINE).await.unwrap();
    assert_eq!(broken.calls(Call::ShutdownRequested).len(), 1);
    process_all(&aws, &probe, config("w2")).await;
}

/// Panics when it is dropped.
struct DropPanics {
    starts: bool,
}

impl RecordProcessor for DropPanics {
    async fn initialize(&mut self, _: &ShardContext) -> Result<(), ProcessorError> {
        self.starts.then_some(()).ok_or("told to fail".into())
    }

    async fn process_records(&mut self, _: RecordBatch<'_>) -> Result<(), ProcessorError> {
        Ok(())
    }

    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(end.checkpoint().await?)
    }

    async fn shutdown_requested(&mut self, _: Shutdown<'_>) -> Result<(), ProcessorError> {
        Ok(())
    }
}

impl Drop for DropPanics {
    fn drop(&mut self) {
        panic!("told to panic");
    }
}

#[tokio::test]
async fn a_processor_that_panics_when_it_is_dropped_ends_nothing() {
    for starts in [true, false] {
        let aws = aws(1).await;
        let builder = builder(&aws, &Probe::new(), config("w1"));
        let builder = builder.processor(move |_: &ShardContext| DropPanics { starts });
        let worker = builder.build().await.unwrap().spawn();
        until("its shard", || {
            let shards = worker.snapshot().shards;
            let started = |shard: &ShardSnapshot| match starts {
                true => shard.state == ShardState::Processing,
                false => shard.failures > 0,
            };
            shards.iter().any(started)
        })
        .await;
        let report = worker.shutdown(DEADLINE).await.unwrap();
        assert_eq!((report.drained.len(), report.aborted.len()), (1, 0));
    }
}

#[tokio::test]
async fn faults_of_both_services_lose_nothing() {
    let aws = aws(2).await;
    let probe = Probe::new();
    let faults = aws.faults();
    let mut added = Vec::new();
    for fault in [
        Fault::throttle().operation("GetRecords").probability(0.2),
        Fault::refuse("ExpiredIteratorException").operation("GetRecords").probability(0.1),
        Fault::response_lost().operation("GetRecords").probability(0.1),
        Fault::cut_connection().operation("GetShardIterator").probability(0.2),
        Fault::throttle().service(Service::DynamoDb).operation("UpdateItem").probability(0.1),
        Fault::response_lost().service(Service::DynamoDb).operation("UpdateItem").probability(0.1),
    ] {
        added.push(faults.add(fault));
    }
    let policy = CheckpointPolicy::AfterBatch;
    let quiet = probe.clone().without_checkpoints();
    let worker = worker(&aws, &quiet, config("w1").with_checkpoint(policy)).await;
    for round in 0..20 {
        put(&aws, &probe, round * 50..(round + 1) * 50).await;
        until("the records of a round", || probe.is_settled()).await;
    }
    faults.clear();
    let verdict = probe.verdict();
    assert_eq!((verdict.lost, verdict.out_of_order), (0, 0), "{verdict:?}");
    assert!(added.iter().map(|fault| faults.count(*fault)).sum::<u64>() > 0);
    worker.shutdown(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_lease_lost_to_a_dynamodb_outage_stops_delivery_and_comes_back() {
    let aws = aws(1).await;
    let probe = Probe::new();
    put(&aws, &probe, 0..50).await;
    let worker = worker(&aws, &probe, config("w1")).await;
    // Seen and checkpointed.
    until("all records", || worker.snapshot().records_delivered == 50).await;
    let outage = aws.faults().add(Fault::internal_failure().service(Service::DynamoDb));
    until("the fence falls", || !probe.calls(Call::LeaseLost).is_empty()).await;
    put(&aws, &probe, 50..100).await;
    assert_eq!(probe.verdict().delivered, 50, "nothing is delivered without a lease");
    aws.faults().remove(outage);
    until("the rest", || probe.is_settled()).await;
    probe.assert_exact();
    worker.shutdown(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_lease_lost_during_process_records_cancels_the_call_and_refuses_its_checkpoints() {
    let aws = aws(1).await;
    let first = AtomicBool::new(true);
    let probe = Probe::new().script(move |_, _| {
        if first.swap(false, Ordering::SeqCst) { Deed::UntilFenced } else { Deed::Take }
    });
    put(&aws, &probe, 0..50).await;
    let worker = worker(&aws, &probe, config("w1")).await;
    until("it works on a batch", || !probe.calls(Call::Waiting).is_empty()).await;
    let outage = aws.faults().add(Fault::internal_failure().service(Service::DynamoDb));
    until("it is told", || probe.calls(Call::Fenced).len() == 1).await;
    until("the lease is let go", || probe.calls(Call::LeaseLost).len() == 1).await;
    aws.faults().remove(outage);
    until("all records, once", || probe.is_settled()).await;
    probe.assert_exact();
    worker.shutdown(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_stream_deleted_while_running_ends_the_worker_with_an_error() {
    let aws = aws(2).await;
    let probe = Probe::new();
    put(&aws, &probe, 0..50).await;
    let worker = worker(&aws, &probe, config("w1")).await;
    until("all records", || probe.is_settled()).await;
    aws.kinesis().delete_stream().stream_name(STREAM).send().await.unwrap();
    let error = tokio::time::timeout(DEADLINE, worker.join()).await.unwrap().unwrap_err();
    let WorkerError::StreamDeleted { stream } = error else {
        panic!("{error:?}");
    };
    assert_eq!(stream, STREAM);
}

#[tokio::test]
async fn a_lease_table_deleted_while_running_ends_the_worker_with_an_error() {
    let aws = aws(1).await;
    let probe = Probe::new();
    let worker = worker(&aws, &probe, config("w1")).await;
    until("it runs", || processing(&worker) == 1).await;
    aws.dynamodb().delete_table().table_name(APPLICATION).send().await.unwrap();
    let error = tokio::time::timeout(DEADLINE, worker.join()).await.unwrap().unwrap_err();
    assert!(matches!(error, WorkerError::TableDeleted { .. }), "{error:?}");
}
