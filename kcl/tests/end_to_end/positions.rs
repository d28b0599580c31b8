//! Positions at which shards start: at and after sequence numbers, for single shards, and at times.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use kcl::{
    BuildError, Clock as _, ConsumerConfig, InitialPosition, ResetTo, SequenceNumber,
    ShardPosition, ShardPositions, ShardState, StartError, StreamPosition, WhyNotRunning,
};
use kinesis_aggregation::AggregateBuilder;
use kinesis_testkit::LocalAws;

use crate::paused::{self, Paused};
use crate::probe::Probe;
use crate::setup::{
    APPLICATION, STREAM, aws, builder, config, id_of, key, open_shards, payload, process_all, put,
    put_raw, split, until,
};

const DEADLINE: Duration = Duration::from_secs(20);
const FIRST: &str = "shardId-000000000000";
const HOUR: Duration = Duration::from_secs(3600);

/// The position of one shard, and that of all others.
fn one(shard_id: &str, position: ShardPosition, others: StreamPosition) -> ConsumerConfig {
    let positions = ShardPositions::new(others).with(shard_id, position);
    config("w").with_initial_position(InitialPosition::PerShard(positions))
}

/// Puts an aggregate of these records. Returns its sequence number.
async fn put_aggregate(aws: &LocalAws, ids: std::ops::Range<u64>) -> SequenceNumber {
    let mut aggregate = AggregateBuilder::new(1 << 20);
    for id in ids {
        aggregate.push(&key(id), None, payload(id).as_bytes()).unwrap();
    }
    put_raw(aws, "a", aggregate.seal().into_bytes()).await.parse().unwrap()
}

/// The ids of the records that were processed.
fn seen(probe: &Probe) -> BTreeSet<u64> {
    probe.seen().into_iter().filter_map(|seen| id_of(&seen.data)).collect()
}

#[tokio::test]
async fn a_shard_starts_at_or_after_a_kinesis_record_with_all_its_user_records() {
    let aws = aws(1).await;
    put_aggregate(&aws, 0..10).await;
    let second = put_aggregate(&aws, 10..20).await;
    put_aggregate(&aws, 20..30).await;
    for (position, first) in [
        (ShardPosition::AtSequenceNumber(second.clone()), 10),
        (ShardPosition::AfterSequenceNumber(second), 20),
    ] {
        let probe = Probe::new();
        probe.acknowledged(first..30);
        process_all(&aws, &probe, one(FIRST, position, StreamPosition::Latest)).await;
        assert_eq!(seen(&probe), (first..30).collect());
        aws.dynamodb().delete_table().table_name(APPLICATION).send().await.unwrap();
    }
}

/// The item that a worker of the Java library reads.
#[tokio::test]
async fn a_lease_at_a_record_is_a_checkpoint_that_no_user_record_of_it_has_reached() {
    let aws = aws(1).await;
    let number = put_aggregate(&aws, 0..10).await;
    let position = ShardPosition::AtSequenceNumber(number.clone());
    let settings = one(FIRST, position, StreamPosition::Latest);
    let _scheduler = builder(&aws, &Probe::new(), settings).build().await.unwrap();
    let get = aws.dynamodb().get_item().table_name(APPLICATION);
    let item = get.key("leaseKey", AttributeValue::S(FIRST.into())).send().await.unwrap();
    let item = item.item.unwrap();
    assert_eq!(item["checkpoint"], AttributeValue::S(number.to_string()));
    assert_eq!(item["checkpointSubSequenceNumber"], AttributeValue::N("-1".into()));
}

#[tokio::test(start_paused = true)]
async fn a_closed_shard_that_is_named_is_read_and_its_children_follow_it() {
    let paused = Paused::start(2).await;
    put(&paused.aws, &Probe::new(), 0..100).await;
    split(&paused.aws, FIRST).await;
    put(&paused.aws, &Probe::new(), 100..200).await;
    // The other shard starts at the tip, less two seconds for differences between the service's hosts.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let shards = paused.aws.records(STREAM);
    let [closed, _, children @ ..] = &shards[..] else { panic!("{} shards", shards.len()) };
    let probe = Probe::new();
    let of_children = children.iter().flat_map(|shard| &shard.records);
    let expected = closed.records[20..].iter().chain(of_children);
    probe.acknowledged(expected.filter_map(|record| id_of(&record.data)));
    let last = closed.records[19].sequence_number.parse().unwrap();
    let position = ShardPosition::AfterSequenceNumber(last);
    let positions = ShardPositions::new(StreamPosition::Latest).with(FIRST, position);
    let settings = paused::config("w").with_initial_position(InitialPosition::PerShard(positions));
    let worker = paused.builder(&probe, settings).build().await.unwrap().spawn();
    until("the closed shard and its children are read", || probe.is_settled()).await;
    worker.shutdown(DEADLINE).await.unwrap();
    probe.assert_exact();
}

#[tokio::test]
async fn a_shard_that_does_not_exist_is_named_by_a_new_application_and_ignored_later() {
    let aws = aws(1).await;
    let probe = Probe::new();
    let settings =
        || one("shardId-000000000007", ShardPosition::Latest, StreamPosition::TrimHorizon);
    let refused = builder(&aws, &probe, settings()).build().await;
    let error = refused.unwrap_err();
    let BuildError::Start(StartError::UnknownShards { shard_ids, .. }) = &error else {
        panic!("{error}");
    };
    assert_eq!(shard_ids, &["shardId-000000000007"]);
    assert!(error.to_string().contains("shardId-000000000007"), "{error}");
    let early = ShardPosition::AfterSequenceNumber("1".parse().unwrap());
    let refused = builder(&aws, &probe, one(FIRST, early, StreamPosition::Latest)).build().await;
    let error = refused.unwrap_err();
    assert!(
        matches!(&error, BuildError::Start(StartError::PositionNotInShard { shard_id, .. })
            if shard_id == FIRST),
        "{error}"
    );
    // A shard leaves the stream after its retention. The settings may still name it.
    put(&aws, &probe, 0..20).await;
    process_all(&aws, &probe, config("w")).await;
    put(&aws, &probe, 20..40).await;
    process_all(&aws, &probe, settings()).await;
}

#[tokio::test(start_paused = true)]
async fn a_reset_takes_positions_of_single_shards() {
    let paused = Paused::start(2).await;
    let probe = Probe::new();
    put(&paused.aws, &probe, 0..100).await;
    let worker = paused.builder(&probe, paused::config("w")).build().await.unwrap().spawn();
    until("all records are processed", || probe.is_settled()).await;
    worker.shutdown(DEADLINE).await.unwrap();

    let shards = paused.aws.records(STREAM);
    let at = &shards[0].records[10];
    let positions = ShardPositions::new(StreamPosition::TrimHorizon)
        .with(FIRST, ShardPosition::AtSequenceNumber(at.sequence_number.parse().unwrap()));
    let admin = paused.builder(&probe, paused::config("w")).lease_admin().await.unwrap();
    let to = ResetTo::Application(InitialPosition::PerShard(positions));
    let plan = admin.plan(to).await.unwrap();
    let text = plan.to_string();
    assert!(text.contains(&format!("before {}", at.sequence_number)), "{text}");
    assert_eq!(plan.apply().await.unwrap(), 2);

    let again = Probe::new();
    let records = shards[0].records[10..].iter().chain(&shards[1].records);
    again.acknowledged(records.filter_map(|record| id_of(&record.data)));
    let worker = paused.builder(&again, paused::config("w")).build().await.unwrap().spawn();
    until("the records are processed again", || again.is_settled()).await;
    worker.shutdown(DEADLINE).await.unwrap();
    again.assert_exact();
}

/// The shard is split while it waits: its children have records from before the time, too.
#[tokio::test(start_paused = true)]
async fn a_time_in_the_future_waits_and_nothing_that_arrives_earlier_is_delivered() {
    let paused = Paused::start(2).await;
    let probe = Probe::new();
    let time = paused.clock.wall() + HOUR;
    let settings = paused::config("w").with_initial_position(InitialPosition::AtTimestamp(time));
    put(&paused.aws, &Probe::new(), 0..20).await;
    let worker = paused.builder(&probe, settings).build().await.unwrap().spawn();
    let state = |state: ShardState| {
        let shards = worker.snapshot().shards;
        shards.iter().filter(|shard| shard.state == state).count()
    };
    until("both shards wait", || state(ShardState::WaitingForStart) == 2).await;
    assert_eq!(worker.why_not_running(FIRST), Some(WhyNotRunning::WaitsForStart { time }));
    split(&paused.aws, FIRST).await;
    put(&paused.aws, &Probe::new(), 20..120).await;
    tokio::time::sleep(HOUR / 2).await;
    assert!(worker.health().is_healthy(), "{}", worker.health());
    assert_eq!(probe.seen().len(), 0);
    tokio::time::sleep(HOUR / 2 + Duration::from_secs(5)).await;
    put(&paused.aws, &probe, 120..220).await;
    until("the records after the time", || probe.is_settled()).await;
    assert_eq!(seen(&probe), (120..220).collect(), "none from before");
    assert_eq!(worker.why_not_running(&open_shards(&paused.aws)[0]), None);
    assert!(worker.health().is_healthy(), "{}", worker.health());
    assert_eq!(worker.snapshot().failures.values().sum::<u64>(), 0);
    worker.shutdown(DEADLINE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_time_before_the_retention_is_the_trim_horizon() {
    let paused = Paused::start(1).await;
    put(&paused.aws, &Probe::new(), 0..20).await;
    tokio::time::sleep(25 * HOUR).await;
    let probe = Probe::new();
    put(&paused.aws, &probe, 20..40).await;
    let time = paused.clock.wall() - 1000 * HOUR;
    let settings = paused::config("w").with_initial_position(InitialPosition::AtTimestamp(time));
    let worker = paused.builder(&probe, settings).build().await.unwrap().spawn();
    until("what is left", || probe.is_settled()).await;
    worker.shutdown(DEADLINE).await.unwrap();
    probe.assert_exact();
}

/// The record of the position was deleted by retention: records after it may be gone, too.
#[tokio::test(start_paused = true)]
async fn a_position_that_retention_has_deleted_is_an_alarm() {
    let paused = Paused::start(1).await;
    put(&paused.aws, &Probe::new(), 0..20).await;
    let last = paused.aws.records(STREAM)[0].records[9].sequence_number.clone();
    tokio::time::sleep(25 * HOUR).await;
    let probe = Probe::new();
    put(&paused.aws, &probe, 20..40).await;
    let position = ShardPosition::AfterSequenceNumber(last.parse().unwrap());
    let positions = ShardPositions::new(StreamPosition::Latest).with(FIRST, position);
    let settings = paused::config("w").with_initial_position(InitialPosition::PerShard(positions));
    let worker = paused.builder(&probe, settings).build().await.unwrap().spawn();
    until("what is left", || probe.is_settled()).await;
    let gap = worker.snapshot().shards.remove(0).records_trimmed.unwrap();
    let oldest = paused.aws.records(STREAM)[0].records[0].sequence_number.clone();
    for part in [&format!("after number {last}"), &format!("has number {oldest}"), "up to 20"] {
        assert!(gap.contains(part), "{part:?} is not in {gap}");
    }
    worker.shutdown(DEADLINE).await.unwrap();
}
