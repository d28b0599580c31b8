//! How a worker reports reads that fail, and what it reads.

use std::time::Duration;

use kcl::{HealthStatus, InitialPosition, ProblemKind};
use kinesis_testkit::Fault;

use crate::paused::{self, Paused};
use crate::probe::Probe;
use crate::setup::{aws, config, processing, put, reason, until, worker};

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
