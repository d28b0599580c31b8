//! Splits and merges: parents before children, in order, none lost.

use std::time::Duration;

use kcl::{CheckpointPolicy, OnStop};
use kinesis_testkit::{Fault, LocalAws, Service};

use crate::probe::{Call, Probe};
use crate::setup::{STREAM, aws, config, open_shards, processing, put, split, until, worker};

async fn merge(aws: &LocalAws, one: &str, two: &str) {
    let request = aws.kinesis().merge_shards().stream_name(STREAM).shard_to_merge(one);
    request.adjacent_shard_to_merge(two).send().await.unwrap();
}

/// The first record seen of a shard comes after the last one of each of its parents.
fn assert_parents_first(aws: &LocalAws, probe: &Probe) {
    let seen = probe.seen();
    let mut pairs = 0;
    for shard in aws.records(STREAM) {
        let first = seen.iter().position(|seen| seen.shard == shard.shard_id);
        for parent in &shard.parent_shard_ids {
            let last = seen.iter().rposition(|seen| seen.shard == *parent);
            if let (Some(first), Some(last)) = (first, last) {
                assert!(last < first, "{} before its parent {parent}", shard.shard_id);
                pairs += 1;
            }
        }
    }
    assert!(pairs > 0, "records of a shard and of its parent were seen");
}

#[tokio::test]
async fn one_worker_follows_a_split_and_a_merge_from_the_trim_horizon() {
    let aws = aws(2).await;
    let probe = Probe::new();
    put(&aws, &probe, 0..200).await;
    let open = open_shards(&aws);
    split(&aws, &open[0]).await;
    put(&aws, &probe, 200..400).await;
    let worker = worker(&aws, &probe, config("w1")).await;
    until("the backlog", || probe.is_settled()).await;

    // Live: the right child of the split and the other shard become one.
    let open = open_shards(&aws);
    assert_eq!(open.len(), 3);
    merge(&aws, &open[2], &open[0]).await;
    put(&aws, &probe, 400..600).await;
    until("the rest", || probe.is_settled()).await;
    until("two open shards", || processing(&worker) == 2).await;
    probe.assert_exact();
    assert_parents_first(&aws, &probe);
    let mut ended = probe.calls(Call::ShardEnded);
    ended.sort();
    ended.dedup();
    assert_eq!(ended.len(), 3, "each closed shard was told its end");
    worker.shutdown(Duration::from_secs(20)).await.unwrap();
    probe.assert_exact();
}

#[tokio::test]
async fn a_shard_end_is_not_passed_before_the_processor_has_checkpointed_it() {
    let aws = aws(1).await;
    let probe = Probe::new().without_checkpoints();
    put(&aws, &probe, 0..50).await;
    let parent = open_shards(&aws).remove(0);
    split(&aws, &parent).await;
    put(&aws, &probe, 50..100).await;
    let first = worker(&aws, &probe, config("w1")).await;
    until("shard_ended is called again and again", || probe.calls(Call::ShardEnded).len() >= 3)
        .await;
    let seen = probe.seen();
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|seen| seen.shard == parent), "children wait for the parent's end");
    first.shutdown(Duration::from_secs(20)).await.unwrap();

    // Under an automatic policy the library writes the end.
    let policy = CheckpointPolicy::AfterBatch;
    let second = worker(&aws, &probe, config("w2").with_checkpoint(policy)).await;
    until("all records", || probe.is_settled()).await;
    second.shutdown(Duration::from_secs(20)).await.unwrap();
    assert_eq!(probe.verdict().lost, 0);
    assert_parents_first_after(&probe, &parent);
}

#[tokio::test]
async fn a_stop_while_a_shard_end_cannot_be_recorded_keeps_what_was_processed() {
    let aws = aws(1).await;
    let probe = Probe::new().without_checkpoints();
    let hourly = CheckpointPolicy::Interval(Duration::from_secs(3600));
    let settings = || config("w").with_checkpoint(hourly).with_on_stop(OnStop::Release);
    put(&aws, &probe, 0..50).await;
    let parent = open_shards(&aws).remove(0);
    let first = worker(&aws, &probe, settings()).await;
    until("all records", || probe.is_settled()).await;
    // No lease can be created: none for the children.
    let fault = Fault::throttle().service(Service::DynamoDb).operation("PutItem");
    let fault = aws.faults().add(fault);
    split(&aws, &parent).await;
    until("the children cannot be recorded", || aws.faults().count(fault) > 0).await;
    first.shutdown(Duration::from_secs(20)).await.unwrap();
    aws.faults().remove(fault);
    assert_eq!(probe.calls(Call::ShutdownRequested), [parent]);

    let second = worker(&aws, &probe, settings()).await;
    put(&aws, &probe, 50..100).await;
    until("the rest", || probe.is_settled()).await;
    second.shutdown(Duration::from_secs(20)).await.unwrap();
    probe.assert_exact();
}

/// Once a child was seen, its parent is not seen again.
fn assert_parents_first_after(probe: &Probe, parent: &str) {
    let seen = probe.seen();
    let last = seen.iter().rposition(|seen| seen.shard == parent).unwrap();
    let first_child = seen.iter().position(|seen| seen.shard != parent).unwrap();
    assert!(last < first_child);
}
