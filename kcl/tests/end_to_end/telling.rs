//! What a worker reports of itself, and of the shards that it does not process.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use kcl::{Checkpoint, ProblemKind, WhyNotRunning, WorkerError, WorkerState};

use crate::probe::{Deed, Probe};
use crate::setup::{
    APPLICATION, aws, builder, config, open_shards, processing, put, reason, split, until, worker,
};

const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_worker_tells_where_it_is_in_its_life() {
    let aws = aws(1).await;
    let probe = Probe::new();
    let builder = builder(&aws, &probe, config("w1"));
    let mut states = builder.watch_state();
    assert!(matches!(states.current(), WorkerState::Created));
    // A clone of the watch sees the states through which the build passes.
    let mut passing = builder.watch_state();
    let prepares = tokio::spawn(async move {
        let preparing = |state: &WorkerState| matches!(state, WorkerState::PreparingTable);
        passing.until(preparing).await.is_some()
    });
    let scheduler = builder.build().await.unwrap();
    assert!(prepares.await.unwrap());
    assert!(matches!(states.next().await, Some(WorkerState::Ready)));
    let worker = scheduler.spawn();
    assert!(matches!(states.next().await, Some(WorkerState::Running)));
    worker.shutdown(DEADLINE).await.unwrap();
    assert!(matches!(worker.state(), WorkerState::Stopped(None)));
    assert!(states.until(WorkerState::is_last).await.is_some());
    assert!(states.next().await.is_none());
    let why = worker.why_not_running("shardId-000000000000");
    assert_eq!(why, Some(WhyNotRunning::WorkerStopped));
}

#[tokio::test]
async fn a_worker_that_ends_otherwise_tells_why() {
    let aws = aws(1).await;
    let probe = Probe::new();
    let aborted = worker(&aws, &probe, config("w1")).await;
    until("it owns a shard", || !aborted.snapshot().shards.is_empty()).await;
    aborted.abort();
    let last = aborted.watch_state().until(WorkerState::is_last).await;
    assert!(matches!(last, Some(WorkerState::Stopped(Some(WorkerError::Aborted)))), "{last:?}");
    assert_eq!(aborted.snapshot().shards, [], "it owns none any more");
    let nowhere = kcl::Scheduler::builder(APPLICATION, "nowhere", &aws.sdk_config())
        .processor(probe.factory());
    let mut states = nowhere.watch_state();
    let error = nowhere.build().await.unwrap_err();
    let Some(WorkerState::NotStarted(told)) = states.next().await else {
        panic!("{:?}", states.current());
    };
    assert_eq!(told.to_string(), error.to_string());
}

#[tokio::test]
async fn any_worker_tells_where_each_shard_is() {
    let aws = aws(2).await;
    let probe = Probe::new();
    let one = worker(&aws, &probe, config("w1")).await;
    let two = worker(&aws, &probe, config("w2")).await;
    until("one each", || processing(&one) == 1 && processing(&two) == 1).await;
    let theirs = two.snapshot().shards[0].shard_id.clone();
    let mine = one.snapshot().shards[0].shard_id.clone();
    assert_eq!(one.why_not_running(&mine), None);
    until("the other's is known as the other's", || {
        matches!(
            one.why_not_running(&theirs),
            Some(WhyNotRunning::LeasedBy { worker, .. }) if worker == "w2"
        )
    })
    .await;
    let why = one.why_not_running("shardId-000000000009");
    assert_eq!(why, Some(WhyNotRunning::NotListed));

    let table = one.lease_table().unwrap();
    assert!(table.age < Duration::from_secs(60));
    let owners: Vec<_> = table
        .leases
        .iter()
        .map(|lease| (lease.shard_id.clone(), lease.owner.clone().unwrap()))
        .collect();
    let mut expected = [(mine, "w1".to_owned()), (theirs, "w2".to_owned())];
    expected.sort();
    assert_eq!(owners, expected);
    assert!(table.leases.iter().all(|lease| lease.counter > 0
        && lease.checkpoint == Checkpoint::TrimHorizon
        && lease.pending_owner.is_none()));

    let item = aws.dynamodb().put_item().table_name(APPLICATION);
    item.item("leaseKey", AttributeValue::S("shardId-000000000009".into()))
        .item("checkpoint", AttributeValue::S("LATEST".into()))
        .item("leaseCounter", AttributeValue::S("many".into()))
        .send()
        .await
        .unwrap();
    until("the item is found corrupt", || {
        reason(&one, "shardId-000000000009", ProblemKind::CorruptLease).is_some()
    })
    .await;
    one.shutdown(DEADLINE).await.unwrap();
    two.shutdown(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_failing_processor_and_what_waits_for_it_are_told() {
    let aws = aws(1).await;
    let parent = open_shards(&aws).remove(0);
    let failing = |worker: &kcl::WorkerHandle, text: &str| {
        let problem = reason(worker, &parent, ProblemKind::ProcessorFailing);
        problem.is_some_and(|problem| problem.failures >= 3 && problem.cause.contains(text))
    };
    let broken = Probe::new().script(|_, _| Deed::Fail);
    put(&aws, &broken, 0..10).await;
    let first = worker(&aws, &broken, config("w1")).await;
    until("it fails", || failing(&first, "told to fail")).await;
    first.shutdown(DEADLINE).await.unwrap();

    // A parent whose end is never checkpointed.
    let endless = Probe::new().without_checkpoints();
    let second = worker(&aws, &endless, config("w2")).await;
    until("it runs", || processing(&second) == 1).await;
    split(&aws, &parent).await;
    until("its end fails", || failing(&second, "did not checkpoint the end")).await;
    let child = open_shards(&aws).remove(0);
    until("the child waits", || {
        let Some(WhyNotRunning::WaitsForParents { parents, owner }) =
            second.why_not_running(&child)
        else {
            return false;
        };
        owner.as_deref() == Some("w2") && parents == [parent.clone()]
    })
    .await;
    second.shutdown(DEADLINE).await.unwrap();
}
