//! What an outage of DynamoDB looks like from outside: in the health, the reasons, the snapshot and the log.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use kcl::{HealthStatus, ProblemKind, WorkerHandle};
use kinesis_testkit::{Fault, Service};
use tokio::time::sleep;

use crate::logs::Logs;
use crate::paused::{Paused, config};
use crate::probe::Probe;
use crate::setup::{APPLICATION, processing, reason};

const SECOND: Duration = Duration::from_secs(1);
/// The failover time.
const F: Duration = Duration::from_secs(10);
const SHARD: &str = "shardId-000000000000";

struct Running {
    paused: Paused,
    worker: WorkerHandle,
}

impl Running {
    async fn start() -> Self {
        let paused = Paused::start(2).await;
        let probe = Probe::new();
        let built = paused
            .builder(&probe, config("w1").with_idle_time_between_reads(5 * SECOND))
            .build()
            .await;
        let worker = built.unwrap().spawn();
        let running = Self { paused, worker };
        let both = || processing(&running.worker) == 2 && running.worker.health().is_healthy();
        running.until("the start", both).await;
        running
    }

    /// Returns the time until then.
    async fn until(&self, what: &str, condition: impl Fn() -> bool) -> Duration {
        let began = self.paused.now();
        for _ in 0..1_200 {
            if condition() {
                return self.paused.now() - began;
            }
            sleep(SECOND / 10).await;
        }
        let health = self.worker.health();
        panic!("waited in vain: {what}; {health}");
    }

    fn has(&self, kind: ProblemKind) -> bool {
        let health = self.worker.health();
        health.problems.iter().any(|problem| problem.kind == kind)
    }
}

/// The texts of the failures contain `cause`.
async fn is_told(fault: Fault, cause: &str) {
    let logs = Logs::capture();
    let running = Running::start().await;
    let worker = &running.worker;
    let fault = running.paused.aws.faults().add(fault.service(Service::DynamoDb));

    let noticed = running.until("the health", || !worker.health().is_healthy()).await;
    assert!(noticed <= 5 * SECOND, "{cause}: noticed after {noticed:?}");
    running.until("the renewals", || running.has(ProblemKind::LeaseRenewalFailing)).await;
    let texts = worker.health().to_string();
    assert!(texts.contains(cause), "{cause}: {texts}");

    let lost = running.until("the leases are lost", || processing(worker) == 0).await;
    assert!(lost <= F, "{lost:?}");
    running
        .until("the reason", || {
            let kinds = [ProblemKind::LeaseTableFailing, ProblemKind::LeaseAcquisitionFailing];
            let reason = kinds.iter().find_map(|kind| reason(worker, SHARD, *kind));
            reason.is_some_and(|problem| problem.cause.contains(cause))
        })
        .await;
    running
        .until("the scan fails for the failover time", || {
            worker.health().status == HealthStatus::Unhealthy
        })
        .await;
    let failures = worker.snapshot().failures;
    for kind in [
        ProblemKind::LeaseTableFailing,
        ProblemKind::LeaseDiscoveryFailing,
        ProblemKind::LeaseRenewalFailing,
        ProblemKind::HeartbeatFailing,
    ] {
        // The row is written each 30 s.
        running
            .until(&format!("{kind:?}"), || worker.snapshot().failures.contains_key(&kind))
            .await;
    }
    assert!(failures[&ProblemKind::LeaseRenewalFailing] > 0);

    let warnings = logs.lines("WARN");
    let lost: Vec<_> = warnings.iter().filter(|line| line.contains("lease lost")).collect();
    assert_eq!(lost.len(), 2, "{warnings:#?}");
    assert!(lost.iter().all(|line| line.contains(cause)), "{lost:#?}");
    // The first warning of each kind and shard is logged, and then one each 30 s.
    let seconds = running.paused.now().as_secs() as usize;
    assert!(warnings.len() <= 12 + seconds / 2, "{}", warnings.len());

    running.paused.aws.faults().remove(fault);
    let back = running
        .until("all is well again", || processing(worker) == 2 && worker.health().is_healthy())
        .await;
    // The row was due, and its attempts may have waited.
    assert!(back <= F + 10 * SECOND, "{back:?}: {}", worker.health());
    assert_eq!(worker.why_not_running(SHARD), None);
    worker.shutdown(F).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn refusals_are_told() {
    is_told(Fault::throttle(), "ProvisionedThroughputExceededException").await;
}

#[tokio::test(start_paused = true)]
async fn denied_access_is_told() {
    is_told(Fault::refuse("AccessDeniedException"), "AccessDeniedException").await;
}

#[tokio::test(start_paused = true)]
async fn silence_is_told() {
    is_told(Fault::delay(3_600 * SECOND), "").await;
}

#[tokio::test(start_paused = true)]
async fn connections_that_fail_are_told() {
    is_told(Fault::cut_connection(), "").await;
}

#[tokio::test(start_paused = true)]
async fn an_item_that_cannot_be_read_is_told_and_logged_at_a_limited_rate() {
    let logs = Logs::capture();
    let running = Running::start().await;
    let worker = &running.worker;
    let dynamodb = aws_sdk_dynamodb::Client::new(&running.paused.aws.in_process_config());
    let key = AttributeValue::S("shardId-broken".to_owned());
    let put = dynamodb.put_item().table_name(APPLICATION);
    put.item("leaseKey", key.clone()).send().await.unwrap();
    running.until("it is told", || running.has(ProblemKind::CorruptLease)).await;
    assert_eq!(worker.health().status, HealthStatus::Degraded);
    sleep(100 * SECOND).await;
    let warnings = logs.lines("WARN");
    let skipped = warnings.iter().filter(|line| line.contains("item skipped"));
    // A hundred scans; one line each 30 s.
    assert!((2..=4).contains(&skipped.count()), "{warnings:#?}");
    let delete = dynamodb.delete_item().table_name(APPLICATION);
    delete.key("leaseKey", key).send().await.unwrap();
    running.until("it is gone", || worker.health().is_healthy()).await;
    worker.shutdown(F).await.unwrap();
}

/// If one kind of call fails, it alone is reported, and the rest goes on.
#[tokio::test(start_paused = true)]
async fn a_shard_sync_that_fails_is_told() {
    let running = Running::start().await;
    let worker = &running.worker;
    let denied = Fault::refuse("AccessDeniedException").service(Service::Kinesis);
    let fault = running.paused.aws.faults().add(denied.operation("ListShards"));
    running.until("the sync", || running.has(ProblemKind::ShardSyncFailing)).await;
    assert_eq!(worker.health().status, HealthStatus::Degraded);
    assert_eq!(processing(worker), 2);
    assert!(reason(worker, "shardId-000000000009", ProblemKind::ShardSyncFailing).is_some());
    running.paused.aws.faults().remove(fault);
    running.until("it works again", || worker.health().is_healthy()).await;
    worker.shutdown(F).await.unwrap();
}
