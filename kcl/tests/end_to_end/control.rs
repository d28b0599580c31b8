//! Shards that the application pauses, continues, or moves.

use std::time::Duration;

use kcl::{
    ConsumerConfig, FanOutConfig, RetrievalMode, SeekError, ShardPosition, WhyNotRunning,
    WorkerHandle,
};

use crate::probe::{Deed, Probe, Seen};
use crate::setup::{PATIENCE, STREAM, aws, config, id_of, open_shards, put, until, worker};

fn is_paused(worker: &WorkerHandle, shard_id: &str) -> bool {
    let shards = worker.snapshot().shards;
    shards.iter().any(|shard| shard.shard_id == shard_id && shard.is_paused)
}

fn paused(worker: &WorkerHandle) -> usize {
    worker.snapshot().shards.iter().filter(|shard| shard.is_paused).count()
}

/// Both ways to read.
fn configs() -> [ConsumerConfig; 2] {
    let fan_out = RetrievalMode::FanOut(FanOutConfig::default());
    [config("w1"), config("w1").with_retrieval(fan_out)]
}

#[tokio::test]
async fn one_shard_is_paused_while_the_other_goes_on() {
    for config in configs() {
        let (aws, probe) = (aws(2).await, Probe::new());
        let worker = worker(&aws, &probe, config).await;
        put(&aws, &probe, 0..200).await;
        until("the first records", || probe.is_settled()).await;
        let shards = open_shards(&aws);
        worker.pause_shard(&shards[0]);
        until("a pause", || is_paused(&worker, &shards[0])).await;
        put(&aws, &probe, 200..400).await;
        let of_other = aws.records(STREAM)[1].records.len();
        let seen = |shard: &str| probe.seen().iter().filter(|seen| seen.shard == shard).count();
        let before = seen(&shards[0]);
        until("the other shard", || seen(&shards[1]) == of_other).await;
        assert_eq!(seen(&shards[0]), before);
        assert_eq!(worker.why_not_running(&shards[0]), Some(WhyNotRunning::Paused));
        worker.resume_shard(&shards[0]);
        until("all records", || probe.is_settled()).await;
        probe.assert_exact();
        worker.shutdown(PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn a_paused_worker_keeps_its_leases_and_holds_no_memory() {
    for config in configs() {
        let (aws, probe) = (aws(4).await, Probe::new());
        put(&aws, &probe, 0..1_000).await;
        let worker = worker(&aws, &probe, config).await;
        // Before it owns a shard.
        worker.pause();
        until("four paused shards", || paused(&worker) == 4).await;
        assert_eq!(worker.snapshot().buffered_bytes, 0);
        assert_eq!(probe.seen().len(), 0);
        // Longer than the failover time.
        let renewals = aws.calls("UpdateItem");
        until("renewals", || aws.calls("UpdateItem") > renewals + 12).await;
        assert_eq!(paused(&worker), 4);
        worker.resume();
        until("all records", || probe.is_settled()).await;
        probe.assert_exact();
        worker.pause();
        until("four paused shards", || paused(&worker) == 4).await;
        until("no subscription", || aws.subscriptions() == 0).await;
        let report = worker.shutdown(Duration::from_secs(20)).await.unwrap();
        assert_eq!(report.shards.len(), 4);
    }
}

#[tokio::test]
async fn a_shard_that_is_moved_back_is_processed_again_also_after_a_crash() {
    for config in configs() {
        let (aws, probe) = (aws(1).await, Probe::new());
        put(&aws, &probe, 0..100).await;
        let first = worker(&aws, &probe, config.clone()).await;
        until("all records", || probe.is_settled()).await;
        let shard = open_shards(&aws)[0].clone();
        let middle = aws.records(STREAM)[0].records[40].sequence_number.to_string();
        let middle = ShardPosition::AtSequenceNumber(middle.parse().unwrap());
        first.seek(&shard, middle.clone(), false).await.unwrap();
        until("sixty again", || probe.seen().len() == 160).await;
        let again = &probe.seen()[100..];
        let all = probe.seen();
        let data = |seen: &[Seen]| seen.iter().map(|it| it.data.clone()).collect::<Vec<_>>();
        assert_eq!(data(again), data(&all[40..100]));

        first.pause_shard(&shard);
        first.seek(&shard, middle, false).await.unwrap();
        first.abort();
        let second = worker(&aws, &probe, config.with_worker_id("w2")).await;
        until("sixty again", || probe.seen().len() == 220).await;
        assert_eq!(data(&probe.seen()[160..]), data(&all[40..100]));
        second.shutdown(PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn a_shard_gets_past_a_record_that_cannot_be_processed() {
    for config in configs() {
        let aws = aws(1).await;
        let is_poison = |data: &[u8]| id_of(data) == Some(50);
        let probe = Probe::new().script(move |_, batch| {
            match batch.records().any(|record| is_poison(record.data())) {
                true => Deed::Fail,
                false => Deed::Take,
            }
        });
        put(&aws, &probe, 0..50).await;
        let worker = worker(&aws, &probe, config).await;
        until("the records before it", || probe.is_settled()).await;
        put(&aws, &Probe::new(), 50..51).await;
        let shard = open_shards(&aws)[0].clone();
        let failures = || worker.snapshot().shards.first().map_or(0, |shard| shard.failures);
        until("failures", || failures() > 2).await;
        put(&aws, &probe, 51..100).await;
        let poison = aws.records(STREAM)[0].records[50].sequence_number.to_string();
        let position = ShardPosition::AfterSequenceNumber(poison.parse().unwrap());
        let refused = worker.seek(&shard, position.clone(), false).await.unwrap_err();
        assert!(matches!(refused, SeekError::WouldSkip { .. }), "{refused}");
        worker.seek(&shard, position, true).await.unwrap();
        until("the records after it", || probe.is_settled()).await;
        probe.assert_exact();
        // The last call has been seen before it returned.
        until("health", || worker.health().is_healthy()).await;
        let elsewhere =
            worker.seek("shardId-000000000099", ShardPosition::TrimHorizon, false).await;
        assert!(matches!(elsewhere, Err(SeekError::NotProcessing { .. })));
        worker.shutdown(PATIENCE).await.unwrap();
    }
}
