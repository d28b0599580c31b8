//! Several workers on one stream.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use kcl::{CheckpointPolicy, OnStop, WorkerHandle};
use kinesis_testkit::LocalAws;

use crate::probe::{Call, Deed, Probe};
use crate::setup::{APPLICATION, aws, config, process_all, processing, put, until, worker};

const DEADLINE: Duration = Duration::from_secs(20);

/// The owners of all leases, as the table has them.
async fn owners(aws: &LocalAws) -> Vec<Option<String>> {
    let scan = aws.dynamodb().scan().table_name(APPLICATION).consistent_read(true);
    let items = scan.send().await.unwrap().items.unwrap_or_default();
    let leases = items.iter().filter(|item| item.contains_key("checkpoint"));
    let owner = |value: &AttributeValue| value.as_s().unwrap().clone();
    leases.map(|lease| lease.get("leaseOwner").map(owner)).collect()
}

/// Two workers that share four shards.
async fn two_each(aws: &LocalAws, probe: &Probe) -> (WorkerHandle, WorkerHandle) {
    let one = worker(aws, probe, config("w1")).await;
    let two = worker(aws, probe, config("w2")).await;
    until("two each", || processing(&one) == 2 && processing(&two) == 2).await;
    (one, two)
}

#[tokio::test]
async fn two_workers_share_four_shards() {
    let aws = aws(4).await;
    let probe = Probe::new();
    let one = worker(&aws, &probe, config("w1")).await;
    until("the first worker has all", || processing(&one) == 4).await;
    put(&aws, &probe, 0..200).await;
    let two = worker(&aws, &probe, config("w2")).await;
    until("two each", || processing(&one) == 2 && processing(&two) == 2).await;
    put(&aws, &probe, 200..600).await;
    until("all records", || probe.is_settled()).await;
    assert_eq!(probe.workers(), ["w1", "w2"]);
    probe.assert_exact();
    let (first, second) = tokio::join!(one.shutdown(DEADLINE), two.shutdown(DEADLINE));
    first.unwrap();
    second.unwrap();
    one.join().await.unwrap();
    probe.assert_exact();
}

#[tokio::test]
async fn a_planned_stop_hands_over_without_loss_or_duplicate() {
    let aws = aws(4).await;
    let probe = Probe::new();
    let (one, two) = two_each(&aws, &probe).await;
    put(&aws, &probe, 0..400).await;
    let report = one.shutdown(DEADLINE).await.unwrap();
    assert_eq!(report.drained.len(), 2);
    assert!(report.aborted.is_empty());
    assert!(one.is_finished());
    assert_eq!(
        owners(&aws).await,
        vec![Some("w2".to_owned()); 4],
        "transferred, not left to expire"
    );
    until("the other one has all", || processing(&two) == 4).await;
    put(&aws, &probe, 400..600).await;
    until("all records", || probe.is_settled()).await;
    probe.assert_exact();
    assert!(probe.calls(Call::ShutdownRequested).len() >= 2);
    two.shutdown(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_worker_that_was_aborted_is_replaced_after_the_failover_time() {
    let aws = aws(4).await;
    let probe = Probe::new();
    let (one, two) = two_each(&aws, &probe).await;
    put(&aws, &probe, 0..400).await;
    until("all records", || probe.is_settled()).await;
    probe.assert_exact();
    one.abort();
    let error = one.join().await.unwrap_err();
    assert!(matches!(error, kcl::WorkerError::Aborted), "{error}");
    put(&aws, &probe, 400..800).await;
    until("the other one has all", || processing(&two) == 4).await;
    until("all records", || probe.is_settled()).await;
    let verdict = probe.verdict();
    assert_eq!((verdict.lost, verdict.out_of_order), (0, 0));
    two.shutdown(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_processor_that_hangs_is_aborted_at_the_deadline_and_its_lease_expires() {
    let aws = aws(1).await;
    let stuck = Probe::new().script(|_, _| Deed::Hang);
    let probe = Probe::new();
    put(&aws, &probe, 0..10).await;
    let one = worker(&aws, &stuck, config("w1")).await;
    until("it hangs", || !stuck.calls(Call::Waiting).is_empty()).await;
    let report = one.shutdown(Duration::from_millis(200)).await.unwrap();
    assert_eq!(report.aborted.len(), 1);
    assert!(report.drained.is_empty());
    assert_eq!(one.snapshot().records_delivered, 0);
    process_all(&aws, &probe, config("w2")).await;
}

#[tokio::test]
async fn the_interval_policy_checkpoints_at_the_stop_too() {
    let aws = aws(1).await;
    let probe = Probe::new().without_checkpoints();
    let hourly = CheckpointPolicy::Interval(Duration::from_secs(3600));
    let settings = || config("w").with_checkpoint(hourly).with_on_stop(OnStop::Release);
    put(&aws, &probe, 0..100).await;
    process_all(&aws, &probe, settings()).await;
    assert_eq!(owners(&aws).await, [None], "released");
    put(&aws, &probe, 100..200).await;
    process_all(&aws, &probe, settings()).await;
}

#[tokio::test]
async fn under_the_manual_policy_nothing_is_checkpointed_for_the_processor() {
    let aws = aws(1).await;
    let probe = Probe::new().without_checkpoints();
    put(&aws, &probe, 0..100).await;
    process_all(&aws, &probe, config("w1")).await;
    // The next worker starts from the beginning.
    let again = Probe::new();
    again.acknowledged(0..100);
    process_all(&aws, &again, config("w2")).await;
}
