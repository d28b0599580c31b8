//! Readers that tail a stream beside many writers: every record, once, in order.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const SHARDS: usize = 2;
const WRITERS: usize = 16;
const READERS: usize = 4;
const ROUNDS: usize = 40;
const BATCH: usize = 25;

/// Writes batches and single records in turn; the numbers they got, by shard.
async fn write(client: Client, writer: usize) -> Vec<(String, String)> {
    let mut written = Vec::new();
    for round in 0..ROUNDS {
        let keys = (0..BATCH).map(|nth| format!("{writer}/{round}/{nth}"));
        let entries = keys.map(|key| entry(&key, key.as_str())).collect();
        let put = client.put_records().stream_name(STREAM).set_records(Some(entries));
        let response = put.send().await.unwrap();
        assert_eq!(response.failed_record_count(), Some(0));
        written.extend(
            response
                .records
                .into_iter()
                .map(|record| (record.shard_id.unwrap(), record.sequence_number.unwrap())),
        );
        let single = client.put_record().stream_name(STREAM).partition_key(writer.to_string());
        let single = single.data(Blob::new("single")).send().await.unwrap();
        written.push((single.shard_id, single.sequence_number));
    }
    written
}

/// Reads a shard from its start, as fast as it can, until nothing is left after the last write.
async fn tail(client: Client, shard: String, written: Arc<AtomicBool>) -> (String, Vec<String>) {
    let mut seen = Vec::new();
    let mut next = iterator(&client, &shard, ShardIteratorType::TrimHorizon).await;
    loop {
        let all_written = written.load(Ordering::SeqCst);
        let read = get(&client, next).await;
        next = read.next_shard_iterator.expect("the shard stays open");
        if all_written && read.records.is_empty() {
            return (shard, seen);
        }
        seen.extend(read.records.into_iter().map(|record| record.sequence_number));
    }
}

#[tokio::test]
async fn sixteen_writers_and_four_readers_a_shard_skip_nothing() {
    let (aws, client) = with_stream(SHARDS as u32).await;
    let written = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> =
        (0..WRITERS).map(|writer| tokio::spawn(write(client.clone(), writer))).collect();
    let shards = shards(&client).await;
    let readers: Vec<_> = (0..READERS)
        .flat_map(|_| &shards)
        .map(|shard| tail(client.clone(), shard.shard_id.clone(), Arc::clone(&written)))
        .map(tokio::spawn)
        .collect();
    let mut expected: HashMap<String, Vec<String>> = HashMap::new();
    for writer in writers {
        for (shard, number) in writer.await.unwrap() {
            expected.entry(shard).or_default().push(number);
        }
    }
    written.store(true, Ordering::SeqCst);
    // In the order of their numbers: no shard may show another.
    for numbers in expected.values_mut() {
        numbers.sort_unstable();
    }
    assert_eq!(expected.values().map(Vec::len).sum::<usize>(), WRITERS * ROUNDS * (BATCH + 1));
    for reader in readers {
        let (shard, seen) = reader.await.unwrap();
        assert_eq!(seen, expected[&shard], "a reader of {shard} saw something else");
    }
    for shard in aws.records(STREAM) {
        let held: Vec<_> = shard.records.into_iter().map(|record| record.sequence_number).collect();
        assert_eq!(held, expected[&shard.shard_id]);
    }
}

#[test]
fn a_blocked_test_runtime_does_not_starve_the_services() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let aws = runtime.block_on(async { with_stream(1).await.0 });
    // This runtime no longer runs; another one, on this thread, is served all the same.
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    other.block_on(async { put(&client(&aws), 0, "x").await });
    assert_eq!(aws.records(STREAM)[0].records.len(), 1);
}

#[tokio::test]
async fn it_stops_when_it_is_dropped() {
    let (aws, client) = with_stream(1).await;
    put(&client, 0, "x").await;
    drop(aws);
    let gone = client.list_streams().send().await;
    assert!(matches!(gone, Err(SdkError::DispatchFailure(_))), "{gone:?}");
}
