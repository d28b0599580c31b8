//! Bounded replay: shards finish, and the worker ends by itself. With a lease table, and without one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use kcl::{
    CheckpointPolicy, Clock as _, ConsumerConfig, InitialPosition, ProcessorError, RecordBatch,
    RecordProcessor, ReplayEnd, ReplayReport, Scheduler, SchedulerBuilder, ShardContext, ShardEnd,
    ShardShutdown, ShardState, Shutdown, ShutdownReason, Until, WhyNotRunning, WorkerHandle,
};
use kinesis_testkit::{Fault, Service};
use tokio::runtime::Handle;

use crate::paused::{Paused, config};
use crate::probe::{Call, Probe};
use crate::setup::{STREAM, id_of, open_shards, put, split, until};

const DEADLINE: Duration = Duration::from_secs(20);
const MINUTE: Duration = Duration::from_secs(60);
const FIRST: &str = "shardId-000000000000";

fn bounded(worker: &str, end: Until) -> ConsumerConfig {
    config(worker).with_until(end)
}

async fn start(paused: &Paused, probe: &Probe, config: ConsumerConfig) -> WorkerHandle {
    paused.builder(probe, config).build().await.unwrap().spawn()
}

/// Waits until the worker has ended by itself.
async fn report(worker: &WorkerHandle) -> ReplayReport {
    let ended = tokio::time::timeout(30 * MINUTE, worker.join()).await;
    ended.expect("the worker does not end").unwrap().replay.unwrap()
}

async fn run(paused: &Paused, probe: &Probe, config: ConsumerConfig) -> ReplayReport {
    let worker = start(paused, probe, config).await;
    report(&worker).await
}

fn seen(probe: &Probe) -> BTreeSet<u64> {
    probe.seen().into_iter().filter_map(|seen| id_of(&seen.data)).collect()
}

fn records(report: &ReplayReport) -> u64 {
    report.shards.values().map(|shard| shard.records).sum()
}

#[tokio::test(start_paused = true)]
async fn a_replay_to_the_tip_delivers_all_that_was_put_before_and_ends() {
    let paused = Paused::start(4).await;
    let probe = Probe::new();
    put(&paused.aws, &probe, 0..200).await;
    let worker = start(&paused, &probe, bounded("w", Until::Tip)).await;
    until("all is delivered", || probe.is_settled()).await;
    until("a shard says that it has finished", || {
        worker.why_not_running(FIRST) == Some(WhyNotRunning::ReachedUntil)
    })
    .await;
    let shards = worker.snapshot().shards;
    let first = shards.into_iter().find(|shard| shard.shard_id == FIRST).unwrap();
    assert_eq!((first.state, first.lag), (ShardState::Finished, None), "it is not behind");
    let report = report(&worker).await;
    assert!(report.is_complete, "{report}");
    assert_eq!(report.shards.len(), 4);
    assert!(report.shards.values().all(|shard| shard.end == ReplayEnd::Finished), "{report}");
    assert_eq!(records(&report), 200);
    let (shard, replayed) = report.shards.first_key_value().unwrap();
    let stored = paused.aws.records(STREAM);
    let stored = stored.iter().find(|stored| stored.shard_id == *shard).unwrap();
    let last = &stored.records.last().unwrap().sequence_number;
    assert_eq!(replayed.last.as_ref().unwrap().sequence_number.as_str(), last);
    assert_eq!(probe.calls(Call::ShutdownRequested).len(), 4, "one last chance each");
    assert!(probe.calls(Call::ShardEnded).is_empty());
    probe.assert_exact();
}

/// The same application goes on where the replay has finished.
#[tokio::test(start_paused = true)]
async fn a_finished_shard_has_a_plain_checkpoint() {
    let paused = Paused::start(2).await;
    let probe = Probe::new();
    put(&paused.aws, &probe, 0..100).await;
    assert!(run(&paused, &probe, bounded("w", Until::Tip)).await.is_complete);
    put(&paused.aws, &probe, 100..200).await;
    let again = run(&paused, &probe, bounded("w", Until::Tip)).await;
    assert!(again.is_complete);
    assert_eq!(records(&again), 100, "the first hundred are not delivered again");
    put(&paused.aws, &probe, 200..300).await;
    let worker = start(&paused, &probe, config("w")).await;
    until("the rest, without a bound", || probe.is_settled()).await;
    worker.shutdown(DEADLINE).await.unwrap();
    probe.assert_exact();
}

#[tokio::test(start_paused = true)]
async fn a_replay_to_a_time_follows_a_split_and_delivers_no_later_record() {
    let paused = Paused::start(2).await;
    let probe = Probe::new();
    put(&paused.aws, &probe, 0..100).await;
    split(&paused.aws, FIRST).await;
    put(&paused.aws, &probe, 100..200).await;
    tokio::time::sleep(MINUTE).await;
    let time = paused.clock.wall();
    put(&paused.aws, &Probe::new(), 200..300).await;
    tokio::time::sleep(MINUTE).await;
    let report = run(&paused, &probe, bounded("w", Until::Timestamp(time))).await;
    assert!(report.is_complete, "{report}");
    assert_eq!(seen(&probe), (0..200).collect());
    assert_eq!(report.shards[FIRST].end, ReplayEnd::ShardEnded);
    let finished = report.shards.values().filter(|shard| shard.end == ReplayEnd::Finished);
    assert_eq!((report.shards.len(), finished.count()), (4, 3), "{report}");
    probe.assert_exact();
}

/// A time in the future: the replay follows the tip until then, and ends although the stream has no more records.
#[tokio::test(start_paused = true)]
async fn a_replay_to_a_time_in_the_future_follows_the_tip_until_then() {
    let paused = Paused::start(2).await;
    let probe = Probe::new();
    put(&paused.aws, &probe, 0..50).await;
    let time = paused.clock.wall() + 10 * MINUTE;
    let worker = start(&paused, &probe, bounded("w", Until::Timestamp(time))).await;
    tokio::time::sleep(5 * MINUTE).await;
    assert!(!worker.is_finished());
    put(&paused.aws, &probe, 50..100).await;
    until("the records of the tip", || probe.is_settled()).await;
    assert!(report(&worker).await.is_complete);
    assert!(paused.clock.wall() >= time);
    probe.assert_exact();
}

#[tokio::test(start_paused = true)]
async fn a_replay_ends_after_the_last_record_of_each_shard() {
    let paused = Paused::start(3).await;
    put(&paused.aws, &Probe::new(), 0..300).await;
    let shards = paused.aws.records(STREAM);
    let named = shards[..2]
        .iter()
        .map(|shard| (shard.shard_id.clone(), shard.records[29].sequence_number.parse().unwrap()));
    let probe = Probe::new();
    let within = shards[..2].iter().flat_map(|shard| &shard.records[..30]);
    let within = within.chain(&shards[2].records);
    probe.acknowledged(within.filter_map(|record| id_of(&record.data)));
    let end = Until::SequenceNumbers(named.collect());
    let report = run(&paused, &probe, bounded("w", end)).await;
    assert!(report.is_complete, "{report}");
    assert!(probe.is_settled());
    for shard in &shards[..2] {
        let replayed = &report.shards[&shard.shard_id];
        let last = replayed.last.as_ref().unwrap().sequence_number.as_str();
        assert_eq!((replayed.records, last), (30, &*shard.records[29].sequence_number));
    }
    probe.assert_exact();
}

#[tokio::test(start_paused = true)]
async fn empty_shards_finish_too() {
    let paused = Paused::start(8).await;
    let probe = Probe::new();
    let report = run(&paused, &probe, bounded("w", Until::Tip)).await;
    assert!(report.is_complete);
    assert_eq!((report.shards.len(), records(&report)), (8, 0));
    assert!(report.shards.values().all(|shard| shard.last.is_none()));
}

#[tokio::test(start_paused = true)]
async fn two_workers_share_a_replay_and_both_end() {
    let paused = Paused::start(8).await;
    let probe = Probe::new();
    put(&paused.aws, &probe, 0..400).await;
    let time = paused.clock.wall() + 2 * MINUTE;
    let workers = [
        start(&paused, &probe, bounded("w1", Until::Timestamp(time))).await,
        start(&paused, &probe, bounded("w2", Until::Timestamp(time))).await,
    ];
    until("both have shards", || workers.iter().all(|worker| worker.snapshot().shards.len() == 4))
        .await;
    split(&paused.aws, &open_shards(&paused.aws)[0]).await;
    put(&paused.aws, &probe, 400..600).await;
    for worker in &workers {
        let report = report(worker).await;
        assert!(report.is_complete, "{report}");
    }
    probe.assert_exact();
    assert_eq!(seen(&probe), (0..600).collect());
}

/// The worker is killed in the middle. Its successor has the same bound, and delivers the rest.
#[tokio::test(start_paused = true)]
async fn a_worker_that_was_killed_goes_on_with_the_same_bound() {
    let paused = Paused::start(2).await;
    let time = paused.clock.wall() + MINUTE;
    let probe = Probe::new();
    put(&paused.aws, &probe, 0..100).await;
    let killed = start(&paused, &probe, bounded("w", Until::Timestamp(time))).await;
    until("the first records", || probe.is_settled()).await;
    killed.abort();
    let _ = killed.join().await;
    put(&paused.aws, &probe, 100..200).await;
    tokio::time::sleep(2 * MINUTE).await;
    put(&paused.aws, &Probe::new(), 200..300).await;
    let report = run(&paused, &probe, bounded("w", Until::Timestamp(time))).await;
    assert!(report.is_complete);
    assert_eq!(seen(&probe), (0..200).collect());
}

#[tokio::test(start_paused = true)]
async fn a_replay_that_is_stopped_before_its_end_is_not_complete() {
    let paused = Paused::start(1).await;
    let probe = Probe::new();
    put(&paused.aws, &probe, 0..50).await;
    let time = paused.clock.wall() + 60 * MINUTE;
    let worker = start(&paused, &probe, bounded("w", Until::Timestamp(time))).await;
    until("the first records", || probe.is_settled()).await;
    let report = worker.shutdown(DEADLINE).await.unwrap();
    assert_eq!(report.shards[FIRST], ShardShutdown::Released);
    let replay = report.replay.unwrap();
    assert!(!replay.is_complete);
    assert_eq!(replay.shards[FIRST].end, ReplayEnd::GivenUp);
    assert_eq!(replay.shards[FIRST].records, 50);
}

/// A processor that keeps its records until the end, and fails once when it is told to write them.
struct Late {
    failed: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    records: u64,
}

impl RecordProcessor for Late {
    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        self.records += batch.records().count() as u64;
        Ok(())
    }

    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(end.checkpoint().await?)
    }

    async fn shutdown_requested(&mut self, last: Shutdown<'_>) -> Result<(), ProcessorError> {
        assert_eq!(last.reason(), ShutdownReason::Finished);
        if !self.failed.swap(true, Ordering::Relaxed) {
            return Err("the disk is full".into());
        }
        self.written.fetch_add(std::mem::take(&mut self.records), Ordering::Relaxed);
        Ok(last.checkpointer().checkpoint().await?)
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_chance_of_a_processor_is_repeated_until_it_succeeds() {
    let paused = Paused::start(2).await;
    put(&paused.aws, &Probe::new(), 0..100).await;
    let (failed, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let total = Arc::clone(&written);
    let worker = paused
        .builder(&Probe::new(), bounded("w", Until::Tip))
        .processor(move |_: &ShardContext| Late {
            failed: Arc::clone(&failed),
            written: Arc::clone(&written),
            records: 0,
        })
        .build()
        .await
        .unwrap()
        .spawn();
    assert!(report(&worker).await.is_complete);
    assert_eq!(total.load(Ordering::Relaxed), 100);
    let again = Probe::new();
    let report = run(&paused, &again, bounded("w", Until::Tip)).await;
    assert_eq!(records(&report), 0, "all was checkpointed");
}

fn standalone(paused: &Paused, probe: &Probe, config: ConsumerConfig) -> SchedulerBuilder {
    Scheduler::standalone(STREAM, &paused.aws.in_process_config())
        .processor(probe.factory())
        .config(config)
        .coordination_on(Handle::current())
        .clock(Arc::new(paused.clock))
}

#[tokio::test(start_paused = true)]
async fn a_standalone_worker_reads_the_whole_stream_without_a_call_to_dynamodb() {
    let paused = Paused::start(3).await;
    // Each call to DynamoDB would fail, and be counted.
    let fault = Fault::refuse("AccessDeniedException").service(Service::DynamoDb);
    let calls = paused.aws.faults().add(fault);
    let probe = Probe::new();
    put(&paused.aws, &probe, 0..100).await;
    split(&paused.aws, FIRST).await;
    put(&paused.aws, &probe, 100..200).await;
    for policy in [CheckpointPolicy::Manual, CheckpointPolicy::AfterBatch] {
        let settings = ConsumerConfig::for_tests()
            .with_initial_position(InitialPosition::TrimHorizon)
            .with_checkpoint(policy)
            .with_until(Until::Tip);
        let again = Probe::new();
        again.acknowledged(0..200);
        let worker = standalone(&paused, &again, settings).build().await.unwrap().spawn();
        let report = report(&worker).await;
        assert!(report.is_complete, "{report}");
        assert_eq!(records(&report), 200, "each start begins at the initial position");
        assert_eq!(report.shards.len(), 5);
        again.assert_exact();
    }
    assert_eq!(paused.aws.faults().count(calls), 0);
}

#[tokio::test(start_paused = true)]
async fn a_standalone_worker_without_a_bound_runs_until_it_is_stopped() {
    let paused = Paused::start(2).await;
    let probe = Probe::new();
    put(&paused.aws, &probe, 0..100).await;
    let worker = standalone(&paused, &probe, config("w")).build().await.unwrap().spawn();
    until("what is there", || probe.is_settled()).await;
    tokio::time::sleep(10 * MINUTE).await;
    put(&paused.aws, &probe, 100..200).await;
    until("what came later", || probe.is_settled()).await;
    assert!(worker.health().is_healthy(), "{}", worker.health());
    let shards = worker.snapshot().shards;
    assert!(shards.iter().all(|shard| shard.state == ShardState::Processing));
    let report = worker.shutdown(DEADLINE).await.unwrap();
    assert_eq!((report.drained.len(), report.replay), (2, None));
    probe.assert_exact();
    let refused = standalone(&paused, &probe, config("w")).lease_admin().await;
    assert!(refused.unwrap_err().to_string().contains("no lease table"));
}
