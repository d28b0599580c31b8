//! The limits of a shard, when they are on.

use std::time::Duration;

use aws_sdk_kinesis::operation::register_stream_consumer::builders::RegisterStreamConsumerFluentBuilder;
use aws_sdk_kinesis::types::StartingPosition;
use kinesis_testkit::{LocalAws, ManualClock};

use super::consumers::STREAM_ARN;
use super::*;

async fn limited(shards: u32) -> (LocalAws, Client, ManualClock) {
    let clock = ManualClock::default();
    let builder = LocalAws::builder().clock(clock.clone()).shard_limits(true);
    let aws = builder.build().await.unwrap();
    aws.create_stream(STREAM, shards).await.unwrap();
    let client = client(&aws);
    (aws, client, clock)
}

#[tokio::test]
async fn a_shard_takes_a_thousand_records_a_second_and_refuses_the_rest_one_by_one() {
    let (aws, client, clock) = limited(1).await;
    let put = async || {
        let entries = (0..500).map(|_| entry("k", "x")).collect();
        let put = client.put_records().stream_name(STREAM).set_records(Some(entries));
        put.send().await.unwrap()
    };
    assert_eq!(put().await.failed_record_count(), Some(0));
    assert_eq!(put().await.failed_record_count(), Some(0));
    let refused = put().await;
    assert_eq!(refused.failed_record_count(), Some(500));
    let first = &refused.records()[0];
    assert_eq!(first.error_code(), Some("ProvisionedThroughputExceededException"));
    assert!(first.error_message().unwrap().contains(SHARD_0));
    assert_eq!((first.sequence_number(), first.shard_id()), (None, None));
    let single = client.put_record().stream_name(STREAM).partition_key("k").data(Blob::new("x"));
    assert_eq!(code(single.send().await), "ProvisionedThroughputExceededException");

    clock.advance(Duration::from_millis(100));
    let partly = put().await;
    assert_eq!(partly.failed_record_count(), Some(400));
    assert!(partly.records()[..100].iter().all(|record| record.sequence_number().is_some()));
    assert_eq!(aws.records(STREAM)[0].records.len(), 1100);
}

#[tokio::test]
async fn a_shard_takes_a_mebibyte_a_second_with_keys_and_its_neighbour_is_not_touched() {
    let (_aws, client, clock) = limited(2).await;
    let put = |hash_key: u128, size: usize| {
        let put = client.put_record().stream_name(STREAM).partition_key("key");
        put.explicit_hash_key(hash_key.to_string()).data(Blob::new(vec![7; size])).send()
    };
    let half = (1 << 19) - 3;
    put(0, half).await.unwrap();
    put(0, half).await.unwrap();
    assert_eq!(code(put(0, 1).await), "ProvisionedThroughputExceededException");
    put(u128::MAX, half).await.unwrap();
    clock.advance(Duration::from_millis(500));
    put(0, half).await.unwrap();
}

#[tokio::test]
async fn a_shard_gives_five_reads_a_second_and_two_mebibytes() {
    let (_aws, client, clock) = limited(1).await;
    let start = iterator(&client, SHARD_0, ShardIteratorType::TrimHorizon).await;
    for _ in 0..5 {
        get(&client, &start).await;
    }
    let sixth = client.get_records().shard_iterator(&start).send().await;
    assert_eq!(code(sixth), "ProvisionedThroughputExceededException");

    for _ in 0..4 {
        clock.advance(Duration::from_secs(1));
        let put = client.put_record().stream_name(STREAM).partition_key("key");
        put.data(Blob::new(vec![7; (1 << 20) - 3])).send().await.unwrap();
    }
    assert_eq!(get(&client, &start).await.records().len(), 4);
    clock.advance(Duration::from_millis(999));
    let in_debt = client.get_records().shard_iterator(&start).send().await;
    assert_eq!(code(in_debt), "ProvisionedThroughputExceededException");
    clock.advance(Duration::from_millis(1));
    get(&client, &start).await;
}

#[tokio::test]
async fn without_the_setting_there_are_no_limits() {
    let (_aws, client) = with_stream(1).await;
    let start = iterator(&client, SHARD_0, ShardIteratorType::TrimHorizon).await;
    for _ in 0..5 {
        let entries = (0..500).map(|_| entry("k", vec![7; 10_000])).collect();
        let put = client.put_records().stream_name(STREAM).set_records(Some(entries));
        assert_eq!(put.send().await.unwrap().failed_record_count(), Some(0));
        get(&client, &start).await;
        get(&client, &start).await;
    }
}

fn register(client: &Client, name: &str) -> RegisterStreamConsumerFluentBuilder {
    client.register_stream_consumer().stream_arn(STREAM_ARN).consumer_name(name)
}

#[tokio::test]
async fn an_account_registers_five_consumers_a_second() {
    let (_aws, client, clock) = limited(1).await;
    for nth in 0..5 {
        register(&client, &format!("app-{nth}")).send().await.unwrap();
    }
    let sixth = || register(&client, "app-5").send();
    assert_eq!(code(sixth().await), "LimitExceededException");
    clock.advance(Duration::from_millis(200));
    sixth().await.unwrap();
}

#[tokio::test]
async fn at_most_five_consumers_are_created_at_a_time() {
    let clock = ManualClock::default();
    let transition = Duration::from_secs(5);
    let builder = LocalAws::builder().clock(clock.clone()).shard_limits(true);
    let aws = builder.transition_time(transition).build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    clock.advance(transition);
    let client = client(&aws);
    for nth in 0..5 {
        register(&client, &format!("app-{nth}")).send().await.unwrap();
    }
    clock.advance(transition - Duration::from_secs(1));
    let sixth = || register(&client, "app-5").send();
    assert_eq!(code(sixth().await), "LimitExceededException");
    clock.advance(Duration::from_secs(1));
    sixth().await.unwrap();
}

#[tokio::test]
async fn a_consumer_subscribes_to_a_shard_once_a_second() {
    let (_aws, client, clock) = limited(2).await;
    let consumer = register(&client, "app").send().await.unwrap().consumer.unwrap().consumer_arn;
    let subscribe = |shard: &str| {
        let start = StartingPosition::builder().r#type(ShardIteratorType::Latest).build().unwrap();
        let subscribe = client.subscribe_to_shard().consumer_arn(&consumer);
        subscribe.shard_id(shard).starting_position(start).send()
    };
    subscribe(SHARD_0).await.unwrap();
    clock.advance(Duration::from_millis(999));
    assert_eq!(code(subscribe(SHARD_0).await), "LimitExceededException");
    subscribe(SHARD_1).await.unwrap();
    clock.advance(Duration::from_millis(1));
    // Within the limit, but too early to take the subscription over.
    assert_eq!(code(subscribe(SHARD_0).await), "ResourceInUseException");
    clock.advance(Duration::from_secs(4));
    subscribe(SHARD_0).await.unwrap();
}
