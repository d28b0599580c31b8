//! How a worker reports reads that fail, and what it reads.

use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{RecordDistributionStrategy, StreamMode, StreamModeDetails};
use kcl::{HealthStatus, InitialPosition, ProblemKind};
use kinesis_testkit::{Fault, LocalAws};

use crate::paused::{self, Paused};
use crate::probe::Probe;
use crate::setup::{STREAM, aws, config, payload, processing, put, reason, until, worker};

const DEADLINE: Duration = Duration::from_secs(20);
const SHARD: &str = "shardId-000000000000";

#[tokio::test]
async fn reads_that_are_refused_for_good_are_told_everywhere() {
    for (operation, code, advice) in [
        ("GetRecords", "AccessDeniedException", "kinesis:GetRecords"),
        ("GetRecords", "KMSAccessDeniedException", "kms:Decrypt"),
        ("GetShardIterator", "AccessDeniedException", "kinesis:GetShardIterator"),
        ("GetShardIterator", "InvalidArgumentException", "correct the checkpoint"),
    ] {
        let aws = aws(1).await;
        let probe = Probe::new();
        put(&aws, &probe, 0..10).await;
        let fault = aws.faults().add(Fault::refuse(code).operation(operation));
        let worker = worker(&aws, &probe, config("w1")).await;
        until("it is told", || {
            let problem = reason(&worker, SHARD, ProblemKind::ReadsFailing);
            problem.is_some_and(|problem| problem.failures >= 2 && problem.cause.contains(advice))
        })
        .await;
        let text = worker.why_not_running(SHARD).unwrap().to_string();
        assert!(text.contains(advice) && text.contains(code), "{text}");
        let shard = worker.snapshot().shards.remove(0);
        assert!(shard.read_failures >= 2);
        assert!(shard.last_read_failure.unwrap().contains(advice));
        let health = worker.health();
        assert_eq!(health.status, HealthStatus::Degraded);
        let problem = &health.problems[0];
        assert_eq!(problem.kind, ProblemKind::ReadsFailing);
        assert_eq!(problem.shard_id.as_deref(), Some(SHARD));
        assert!(problem.cause.contains(advice), "{problem}");
        aws.faults().remove(fault);
        until("all is read", || probe.is_settled()).await;
        assert_eq!(worker.why_not_running(SHARD), None);
        assert!(worker.health().is_healthy());
        worker.shutdown(DEADLINE).await.unwrap();
    }
}

#[tokio::test]
async fn records_without_a_key_are_delivered_in_order_with_the_others() {
    let aws = LocalAws::start().await.unwrap();
    let client = aws.kinesis();
    let mode = StreamModeDetails::builder().stream_mode(StreamMode::OnDemand);
    let create = client.create_stream().stream_name(STREAM);
    let create = create.stream_mode_details(mode.build().unwrap());
    create.send().await.unwrap();
    let summary = client.describe_stream_summary().stream_name(STREAM);
    let summary = summary.send().await.unwrap();
    let summary = summary.stream_description_summary.unwrap();
    let update = client
        .update_stream_record_distribution_strategy()
        .stream_arn(summary.stream_arn)
        .record_distribution_strategy(RecordDistributionStrategy::Auto);
    update.send().await.unwrap();
    let probe = Probe::new();
    for id in 0..40 {
        let request = client.put_record().stream_name(STREAM);
        let request = request.data(Blob::new(payload(id)));
        let key = id.is_multiple_of(3).then(|| format!("key-{id}"));
        request.set_partition_key(key).send().await.unwrap();
        probe.acknowledged(id..id + 1);
    }
    let worker = worker(&aws, &probe, config("w1")).await;
    until("all records", || probe.is_settled()).await;
    probe.assert_exact();
    for seen in probe.seen() {
        let id = crate::setup::id_of(&seen.data).unwrap();
        let expected = id.is_multiple_of(3).then(|| format!("key-{id}"));
        assert_eq!(seen.key, expected);
    }
    worker.shutdown(DEADLINE).await.unwrap();
}

/// Records that are put after `build()` returned are delivered. Of the records that were put before, only
/// those of the last three seconds may be.
#[tokio::test(start_paused = true)]
async fn latest_delivers_what_is_put_after_the_build_and_nothing_from_more_than_three_seconds_before()
 {
    let paused = Paused::start(2).await;
    let before = Probe::new();
    put(&paused.aws, &before, 0..20).await;
    tokio::time::sleep(Duration::from_millis(3_100)).await;
    let probe = Probe::new();
    let config = paused::config("w1").with_initial_position(InitialPosition::Latest);
    let built = paused.builder(&probe, config).build().await.unwrap();
    put(&paused.aws, &probe, 20..60).await;
    let worker = built.spawn();
    until("what was put after the build", || probe.is_settled()).await;
    until("it is at the tip", || processing(&worker) == 2).await;
    assert_eq!(probe.seen().len(), 40);
    probe.assert_exact();
    worker.shutdown(DEADLINE).await.unwrap();
}
