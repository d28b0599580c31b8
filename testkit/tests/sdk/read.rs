//! GetShardIterator and GetRecords.

use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::primitives::DateTime;
use kinesis_testkit::{Clock, LocalAws, ManualClock};

use super::*;

async fn with_clock(shards: u32) -> (LocalAws, Client, ManualClock) {
    let clock = ManualClock::default();
    let aws = LocalAws::builder().clock(clock.clone()).build().await.unwrap();
    aws.create_stream(STREAM, shards).await.unwrap();
    let client = client(&aws);
    (aws, client, clock)
}

fn date(time: SystemTime) -> DateTime {
    DateTime::from(time)
}

#[tokio::test]
async fn every_kind_of_iterator_starts_where_it_says() {
    let (_aws, client, clock) = with_clock(1).await;
    let mut numbers = Vec::new();
    let mut times = Vec::new();
    for data in ["a", "b", "c"] {
        clock.advance(Duration::from_millis(10));
        times.push(clock.now());
        numbers.push(put(&client, 0, data).await);
    }
    clock.advance(Duration::from_millis(10));
    let start = |kind: ShardIteratorType| {
        client.get_shard_iterator().stream_name(STREAM).shard_id(SHARD_0).shard_iterator_type(kind)
    };
    let read = async |request: aws_sdk_kinesis::operation::get_shard_iterator::builders::GetShardIteratorFluentBuilder| {
        let iterator = request.send().await.unwrap().shard_iterator.unwrap();
        texts(get(&client, iterator).await.records()).join("")
    };
    assert_eq!(read(start(ShardIteratorType::TrimHorizon)).await, "abc");
    assert_eq!(read(start(ShardIteratorType::Latest)).await, "");
    let at =
        |number: &str| start(ShardIteratorType::AtSequenceNumber).starting_sequence_number(number);
    let after = |number: &str| {
        start(ShardIteratorType::AfterSequenceNumber).starting_sequence_number(number)
    };
    assert_eq!(read(at(&numbers[1])).await, "bc");
    assert_eq!(read(after(&numbers[1])).await, "c");
    assert_eq!(read(after(&numbers[2])).await, "");
    let shard = shards(&client).await.remove(0);
    let first = shard.sequence_number_range().unwrap().starting_sequence_number();
    assert_eq!(read(at(first)).await, "abc");

    let at_time = |time| start(ShardIteratorType::AtTimestamp).timestamp(date(time));
    let millis = Duration::from_millis;
    assert_eq!(read(at_time(SystemTime::UNIX_EPOCH)).await, "abc");
    assert_eq!(read(at_time(times[1])).await, "bc");
    assert_eq!(read(at_time(times[1] + millis(1))).await, "c");
    assert_eq!(read(at_time(times[1] - millis(1))).await, "bc");
    assert_eq!(read(at_time(times[2] + millis(1))).await, "");
    let future = at_time(clock.now() + millis(1)).send().await;
    assert_eq!(code(future), "InvalidArgumentException");
}

#[tokio::test]
async fn an_iterator_that_cannot_be_is_refused() {
    let (_aws, client) = with_stream(2).await;
    let number = put(&client, 0, "x").await;
    let start = |shard: &str, kind: ShardIteratorType| {
        client.get_shard_iterator().stream_name(STREAM).shard_id(shard).shard_iterator_type(kind)
    };
    let at = ShardIteratorType::AtSequenceNumber;
    let foreign = start(SHARD_1, at.clone()).starting_sequence_number(number).send().await;
    assert_eq!(code(foreign), "InvalidArgumentException");
    let malformed = start(SHARD_0, at.clone()).starting_sequence_number("17").send().await;
    assert_eq!(code(malformed), "InvalidArgumentException");
    let missing = start(SHARD_0, at).send().await;
    assert_eq!(code(missing), "InvalidArgumentException");
    let shard = start("shardId-000000000009", ShardIteratorType::Latest).send().await;
    assert_eq!(code(shard), "ResourceNotFoundException");
    let kind = start(SHARD_0, ShardIteratorType::from("SOMEWHERE")).send().await;
    assert_eq!(code(kind), "ValidationException");
    let bogus = client.get_records().shard_iterator("bogus").send().await;
    assert_eq!(code(bogus), "InvalidArgumentException");
    let iterator = iterator(&client, SHARD_0, ShardIteratorType::TrimHorizon).await;
    for limit in [0, 10_001] {
        let limited = client.get_records().shard_iterator(&iterator).limit(limit).send().await;
        assert_eq!(code(limited), "ValidationException");
    }
}

#[tokio::test]
async fn records_come_as_they_were_put_with_a_time_in_milliseconds() {
    let (_aws, client, clock) = with_clock(1).await;
    clock.advance(Duration::from_millis(123));
    let number = put(&client, 0, "data").await;
    let start = iterator(&client, SHARD_0, ShardIteratorType::TrimHorizon).await;
    let records = get(&client, start).await.records;
    let record = &records[0];
    assert_eq!((record.sequence_number(), record.partition_key()), (&*number, Some("key")));
    let arrival = record.approximate_arrival_timestamp().unwrap().as_secs_f64();
    let expected = clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!((arrival - expected).abs() < 0.000_5, "{arrival} is not {expected}");
}

#[tokio::test]
async fn a_reader_goes_on_where_it_stopped_and_knows_how_far_behind_it_is() {
    let (_aws, client, clock) = with_clock(1).await;
    for data in ["a", "b", "c"] {
        put(&client, 0, data).await;
        clock.advance(Duration::from_secs(10));
    }
    let mut iterator = iterator(&client, SHARD_0, ShardIteratorType::TrimHorizon).await;
    for (data, behind) in [("a", 30_000), ("b", 20_000), ("c", 0), ("", 0)] {
        let read = client.get_records().shard_iterator(iterator).limit(1).send().await.unwrap();
        assert_eq!(texts(read.records()).concat(), data);
        assert_eq!(read.millis_behind_latest(), Some(behind));
        assert!(read.child_shards().is_empty());
        iterator = read.next_shard_iterator.unwrap();
    }
    put(&client, 0, "d").await;
    assert_eq!(texts(get(&client, iterator).await.records()), ["d"]);
}

#[tokio::test]
async fn one_read_gives_ten_thousand_records_or_ten_mebibytes() {
    let (_aws, client) = with_stream(1).await;
    for _ in 0..21 {
        let entries = (0..500).map(|_| entry("k", "x")).collect();
        client.put_records().stream_name(STREAM).set_records(Some(entries)).send().await.unwrap();
    }
    let start = iterator(&client, SHARD_0, ShardIteratorType::TrimHorizon).await;
    let read = get(&client, start).await;
    assert_eq!(read.records().len(), 10_000);
    let rest = get(&client, read.next_shard_iterator.unwrap()).await;
    assert_eq!(rest.records().len(), 500);

    for _ in 0..2 {
        let entries = (0..8).map(|_| entry("key", vec![7; (1 << 20) - 3])).collect();
        client.put_records().stream_name(STREAM).set_records(Some(entries)).send().await.unwrap();
    }
    let read = get(&client, rest.next_shard_iterator.unwrap()).await;
    assert_eq!(read.records().len(), 10);
    let rest = get(&client, read.next_shard_iterator.unwrap()).await;
    assert_eq!(rest.records().len(), 6);
}

#[tokio::test]
async fn an_iterator_expires() {
    let clock = ManualClock::default();
    let ttl = Duration::from_secs(60);
    let builder = LocalAws::builder().clock(clock.clone()).iterator_ttl(ttl);
    let aws = builder.build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    let client = client(&aws);
    let first = iterator(&client, SHARD_0, ShardIteratorType::TrimHorizon).await;
    clock.advance(ttl);
    let next = get(&client, &first).await.next_shard_iterator.unwrap();
    clock.advance(Duration::from_millis(1));
    let expired = client.get_records().shard_iterator(first).send().await;
    assert_eq!(code(expired), "ExpiredIteratorException");
    get(&client, next).await;
}
