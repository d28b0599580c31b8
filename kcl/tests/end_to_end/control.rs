//! Shards that the application pauses, continues, or moves.

use std::time::Duration;

use kcl::{ConsumerConfig, FanOutConfig, RetrievalMode, WhyNotRunning, WorkerHandle};

use crate::probe::Probe;
use crate::setup::{PATIENCE, aws, config, open_shards, put, until, worker};

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
        let of_other = aws.records(crate::setup::STREAM)[1].records.len();
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
