//! Records and batches of the largest size there is, and what memory they take for how long.

use std::time::Duration;

use kinesis_testkit::ManualClock;

use super::consumers::{STREAM_ARN, register};
use super::*;

const MEBIBYTE: usize = 1 << 20;

async fn set_max(client: &Client, kib: i32) {
    let update = client.update_max_record_size().stream_arn(STREAM_ARN);
    let update = update.max_record_size_in_kib(kib);
    update.send().await.unwrap();
}

/// Bytes that differ from place to place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 31 % 251) as u8).collect()
}

#[tokio::test]
async fn a_record_of_ten_mebibytes_is_put_read_and_pushed_whole() {
    let (_aws, client) = with_stream(1).await;
    let consumer = register(&client, "app").await;
    let key = "key";
    let data = pattern(10 * MEBIBYTE - key.len());
    let put = |data: Vec<u8>| {
        client.put_record().stream_name(STREAM).partition_key(key).data(Blob::new(data)).send()
    };
    assert_eq!(code(put(data.clone()).await), "InvalidArgumentException");
    set_max(&client, 10 * 1024).await;
    let number = put(data.clone()).await.unwrap().sequence_number;
    // The partition key counts.
    let mut larger = data.clone();
    larger.push(0);
    assert_eq!(code(put(larger).await), "InvalidArgumentException");

    let start = iterator(&client, SHARD_0, ShardIteratorType::TrimHorizon).await;
    let read = get(&client, start).await.records;
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].sequence_number(), number);
    assert!(read[0].data().as_ref() == data, "the data is another");

    let from_start = aws_sdk_kinesis::types::StartingPosition::builder()
        .r#type(ShardIteratorType::TrimHorizon)
        .build()
        .unwrap();
    let subscribe = client
        .subscribe_to_shard()
        .consumer_arn(consumer)
        .shard_id(SHARD_0)
        .starting_position(from_start);
    let mut subscription = subscribe.send().await.unwrap();
    let event = subscription.event_stream.recv().await.unwrap().unwrap();
    let event = event.as_subscribe_to_shard_event().unwrap();
    assert!(event.records()[0].data().as_ref() == data, "the data is another");
}

#[tokio::test]
async fn a_batch_holds_ten_mebibytes_and_no_more() {
    let (aws, client) = with_stream(2).await;
    set_max(&client, 10 * 1024).await;
    let batch = |last: usize| {
        let sizes = [6 * MEBIBYTE, 3 * MEBIBYTE, last];
        let entries = sizes.map(|size| entry("k", pattern(size - 1)));
        let put = client.put_records().stream_name(STREAM);
        put.set_records(Some(entries.to_vec())).send()
    };
    assert_eq!(code(batch(MEBIBYTE + 1).await), "InvalidArgumentException");
    let put = batch(MEBIBYTE).await.unwrap();
    assert_eq!(put.failed_record_count(), Some(0));
    let held = aws.records(STREAM);
    let held = held.iter().flat_map(|shard| &shard.records);
    let held: Vec<_> = held.map(|record| record.data.len() + 1).collect();
    assert_eq!(held, [6 * MEBIBYTE, 3 * MEBIBYTE, MEBIBYTE]);
}

#[tokio::test]
async fn memory_is_freed_as_retention_passes_also_where_no_one_looks() {
    let clock = ManualClock::default();
    let aws = LocalAws::builder().clock(clock.clone());
    let aws = aws.build().await.unwrap();
    aws.create_stream(STREAM, 2).await.unwrap();
    let client = client(&aws);
    put(&client, 0, "low").await;
    put(&client, u128::MAX, "high").await;
    split(&client, SHARD_1, 3 << 126).await;
    let data = |shard: usize| aws.records(STREAM)[shard].records[0].data.clone();
    let data = [data(0), data(1)];
    assert!(!data.iter().any(|data| data.is_unique()));
    clock.advance(Duration::from_secs(24 * 3600 - 1));
    client.list_shards().stream_name(STREAM).send().await.unwrap();
    assert!(!data.iter().any(|data| data.is_unique()));
    clock.advance(Duration::from_secs(2));
    client.list_shards().stream_name(STREAM).send().await.unwrap();
    assert!(data.iter().all(|data| data.is_unique()), "still held");
}

#[tokio::test]
async fn a_shard_can_be_kept_to_so_many_bytes() {
    let aws = LocalAws::builder().shard_capacity(100);
    let aws = aws.build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    let client = client(&aws);
    let start = iterator(&client, SHARD_0, ShardIteratorType::TrimHorizon).await;
    for nth in 0..9 {
        // Each of them 30 bytes, its key counted.
        put(&client, 0, &format!("{nth:027}")).await;
    }
    let left = ["6", "7", "8"].map(|nth| format!("{nth:0>27}"));
    assert_eq!(texts(get(&client, start).await.records()), left);
    put(&client, 0, &"x".repeat(1000)).await;
    let only: Vec<_> = aws.records(STREAM).remove(0).records;
    assert_eq!(only.len(), 1);
    assert_eq!(only[0].data.len(), 1000);
}
