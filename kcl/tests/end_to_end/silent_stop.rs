//! A planned stop while DynamoDB does not answer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kcl::{
    CheckpointPolicy, ProcessorError, RecordBatch, RecordProcessor, ShardContext, ShardEnd,
    ShardShutdown, Shutdown, ShutdownReport, WorkerHandle,
};
use kinesis_testkit::{Fault, Service};
use tokio::time::sleep;

use crate::paused::{Paused, config};
use crate::probe::{Call, Deed, Probe};
use crate::setup::{processing, put};

const SECOND: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(3);
const SHARDS: u32 = 3;

/// Each call to DynamoDB is carried out and answered after a minute.
fn silence() -> Fault {
    Fault::delay(60 * SECOND).service(Service::DynamoDb)
}

async fn until(paused: &Paused, what: &str, condition: impl Fn() -> bool) {
    let began = paused.now();
    while !condition() {
        assert!(paused.now() - began < 120 * SECOND, "waited in vain: {what}");
        sleep(SECOND / 100).await;
    }
}

/// A worker with all shards, to which records come all the time.
async fn busy(probe: &Probe, policy: CheckpointPolicy) -> (Paused, WorkerHandle) {
    let paused = Paused::start(SHARDS).await;
    let config = config("w1").with_checkpoint(policy);
    let worker = paused.builder(probe, config).build().await.unwrap().spawn();
    let all = || processing(&worker) == SHARDS as usize;
    until(&paused, "all shards", all).await;
    put(&paused.aws, probe, 0..300).await;
    until(&paused, "all records", || probe.is_settled()).await;
    sleep(SECOND).await;
    (paused, worker)
}

fn all_expire(report: &ShutdownReport) {
    assert_eq!(report.shards.len(), SHARDS as usize, "{report}");
    for outcome in report.shards.values() {
        assert!(
            matches!(outcome, ShardShutdown::LeftToExpire { cause } if cause.contains("did not answer")),
            "{report}"
        );
    }
    assert!(report.drained.is_empty() && report.aborted.is_empty());
}

#[tokio::test(start_paused = true)]
async fn processors_are_told_at_once_and_the_stop_is_bounded() {
    for policy in [CheckpointPolicy::AfterBatch, CheckpointPolicy::Manual] {
        let mut probe = Probe::new();
        if policy != CheckpointPolicy::Manual {
            probe = probe.without_checkpoints();
        }
        let (paused, worker) = busy(&probe, policy).await;
        paused.aws.faults().add(silence());
        let (began, before) = (paused.now(), probe.seen().len());
        let stop = tokio::spawn({
            let worker = worker.clone();
            async move { worker.shutdown(DEADLINE).await }
        });
        let told = || probe.calls(Call::ShutdownRequested).len() == SHARDS as usize;
        until(&paused, "all are told", told).await;
        assert!(paused.now() - began < SECOND / 10, "at once");
        // Records that come after it are not delivered.
        while !stop.is_finished() {
            put(&paused.aws, &probe, 300..330).await;
            sleep(SECOND / 2).await;
        }
        let report = stop.await.unwrap().unwrap();
        let took = paused.now() - began;
        assert!(took <= DEADLINE + WorkerHandle::STOP_MARGIN + SECOND, "{took:?}");
        assert_eq!(probe.seen().len(), before, "delivery stops");
        all_expire(&report);
    }
}

/// The batch in hand is processed. Its checkpoint waits for the table, and fails with the reason.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_waits_fails_before_the_deadline_and_nothing_is_aborted() {
    let probe = Probe::new();
    let (paused, worker) = busy(&probe, CheckpointPolicy::Manual).await;
    paused.aws.faults().add(silence());
    put(&paused.aws, &probe, 300..600).await;
    until(&paused, "the records", || probe.is_settled()).await;
    // All processors wait for the checkpoint of the batch in hand.
    let (began, before) = (paused.now(), probe.seen().len());
    let report = worker.shutdown(DEADLINE).await.unwrap();
    let took = paused.now() - began;
    assert!(took <= DEADLINE + WorkerHandle::STOP_MARGIN, "{took:?}");
    assert_eq!(probe.seen().len(), before);
    assert_eq!(
        probe.calls(Call::ShutdownRequested).len(),
        SHARDS as usize,
        "they returned from process_records"
    );
    all_expire(&report);
}

#[tokio::test(start_paused = true)]
async fn a_processor_that_does_not_return_is_aborted_and_the_others_are_not() {
    let hangs = Arc::new(AtomicBool::new(false));
    let hanging = Arc::clone(&hangs);
    let probe = Probe::new().script(move |shard, _| {
        match shard.ends_with('0') && hanging.load(Ordering::Relaxed) {
            true => Deed::Hang,
            false => Deed::Take,
        }
    });
    let (paused, worker) = busy(&probe, CheckpointPolicy::Manual).await;
    hangs.store(true, Ordering::Relaxed);
    // The records have every key, so every shard gets some.
    put(&paused.aws, &probe, 300..400).await;
    let is_waiting = || !probe.calls(Call::Waiting).is_empty();
    until(&paused, "it hangs", is_waiting).await;
    let report = worker.shutdown(DEADLINE).await.unwrap();
    assert_eq!(report.aborted, ["shardId-000000000000"], "{report}");
    assert_eq!(report.drained.len(), SHARDS as usize - 1, "{report}");
    let outcome = report.shards.get("shardId-000000000001");
    assert_eq!(outcome, Some(&ShardShutdown::Released), "no other worker");
}

/// Waits for a downstream that never answers, unless it is told to stop.
struct Patient {
    told: Arc<Mutex<Vec<&'static str>>>,
}

impl RecordProcessor for Patient {
    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        self.told.lock().unwrap().push("waits");
        batch.shutdown_token().cancelled().await;
        assert!(!batch.cancellation().is_cancelled());
        let first = batch.records().next().unwrap();
        batch.checkpointer().checkpoint_at(&first).await?;
        self.told.lock().unwrap().push("stops");
        Err("the downstream does not answer".into())
    }

    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(end.checkpoint().await?)
    }

    async fn shutdown_requested(&mut self, _: Shutdown<'_>) -> Result<(), ProcessorError> {
        self.told.lock().unwrap().push("asked");
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_processor_that_waits_for_a_downstream_is_told_of_the_stop() {
    let paused = Paused::start(1).await;
    let probe = Probe::new();
    let told = Arc::<Mutex<Vec<&'static str>>>::default();
    let tells = Arc::clone(&told);
    let builder = paused.builder(&probe, config("w1"));
    let builder = builder.processor(move |_: &ShardContext| Patient { told: Arc::clone(&tells) });
    let worker = builder.build().await.unwrap().spawn();
    put(&paused.aws, &probe, 0..10).await;
    until(&paused, "it waits", || !told.lock().unwrap().is_empty()).await;
    let began = paused.now();
    let report = worker.shutdown(20 * SECOND).await.unwrap();
    assert!(paused.now() - began < SECOND);
    assert_eq!(*told.lock().unwrap(), ["waits", "stops", "asked"]);
    assert_eq!(report.drained.len(), 1, "{report}");
    // The next owner goes on behind the one record that was checkpointed.
    let next = paused.builder(&probe, config("w2")).build().await.unwrap();
    let next = next.spawn();
    until(&paused, "the rest", || probe.seen().len() == 9).await;
    next.shutdown(20 * SECOND).await.unwrap();
}
