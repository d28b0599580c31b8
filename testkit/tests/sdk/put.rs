//! PutRecord and PutRecords: routing, numbers, and what is refused.

use super::*;

const MIB: usize = 1 << 20;

#[tokio::test]
async fn records_go_where_their_hash_key_falls_and_numbers_rise() {
    let (aws, client) = with_stream(2).await;
    let entries = [
        ("a", None),
        ("a", Some(0)),
        ("a", Some((1 << 127) - 1)),
        ("a", Some(1 << 127)),
        ("a", Some(u128::MAX)),
    ];
    let entries = entries.map(|(key, hash_key): (&str, Option<u128>)| {
        let mut entry = entry(key, "x");
        entry.explicit_hash_key = hash_key.map(|hash_key| hash_key.to_string());
        entry
    });
    let put = client.put_records().stream_name(STREAM).set_records(Some(entries.to_vec()));
    let response = put.send().await.unwrap();
    assert_eq!(response.failed_record_count(), Some(0));
    let shards: Vec<_> =
        response.records().iter().map(|record| record.shard_id().unwrap()).collect();
    // The MD5 of "a" begins with 0x0c.
    assert_eq!(shards, [SHARD_0, SHARD_0, SHARD_0, SHARD_1, SHARD_1]);
    let numbers: Vec<_> =
        response.records().iter().map(|record| record.sequence_number().unwrap()).collect();
    assert!(numbers.iter().all(|number| number.len() == 56));
    assert!(numbers[..3].is_sorted_by(|a, b| a < b) && numbers[3] < numbers[4]);

    let oracle = aws.records(STREAM);
    assert_eq!(oracle[0].records[1].explicit_hash_key, Some(0));
    assert_eq!(oracle[0].records[0].explicit_hash_key, None);
    let held: Vec<_> = oracle[0].records.iter().map(|record| &record.sequence_number).collect();
    assert_eq!(held, numbers[..3]);
    assert_eq!(aws.calls("PutRecords"), 1);
    assert!(aws.records("no such stream").is_empty());
}

#[tokio::test]
async fn a_put_record_answers_where_the_record_is() {
    let (_aws, client) = with_stream(2).await;
    let put = client.put_record().stream_name(STREAM).partition_key("a").data(Blob::new("x"));
    let response = put.explicit_hash_key(u128::MAX.to_string()).send().await.unwrap();
    assert_eq!(response.shard_id(), SHARD_1);
    let ordered = client.put_record().stream_name(STREAM).partition_key("a").data(Blob::new("y"));
    let ordered = ordered.explicit_hash_key(u128::MAX.to_string());
    let ordered = ordered.sequence_number_for_ordering(response.sequence_number());
    let ordered = ordered.send().await.unwrap();
    assert!(ordered.sequence_number() > response.sequence_number());
}

#[tokio::test]
async fn five_hundred_records_are_a_batch_and_one_more_is_not() {
    let (aws, client) = with_stream(1).await;
    let put = |count: usize| {
        let entries = (0..count).map(|nth| entry(&nth.to_string(), "x")).collect();
        client.put_records().stream_name(STREAM).set_records(Some(entries)).send()
    };
    assert_eq!(put(500).await.unwrap().records().len(), 500);
    assert_eq!(code(put(501).await), "ValidationException");
    assert_eq!(code(put(0).await), "ValidationException");
    assert_eq!(aws.records(STREAM)[0].records.len(), 500);
}

#[tokio::test]
async fn a_record_may_be_as_large_as_the_stream_allows_with_its_key() {
    let (aws, client) = with_stream(1).await;
    let put = |size: usize| {
        let put = client.put_record().stream_name(STREAM).partition_key("key");
        put.data(Blob::new(vec![7; size])).send()
    };
    put(MIB - 3).await.unwrap();
    assert_eq!(code(put(MIB - 2).await), "InvalidArgumentException");
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
    let resize =
        |kib| client.update_max_record_size().stream_arn(arn).max_record_size_in_kib(kib).send();
    assert_eq!(code(resize(1023).await), "ValidationException");
    assert_eq!(code(resize(10_241).await), "ValidationException");
    resize(10_240).await.unwrap();
    put(10 * MIB - 3).await.unwrap();
    assert_eq!(code(put(10 * MIB - 2).await), "InvalidArgumentException");
    assert_eq!(code(put(10 * MIB + 1).await), "ValidationException");
    assert_eq!(aws.records(STREAM)[0].records[1].data.len(), 10 * MIB - 3);
}

#[tokio::test]
async fn a_batch_may_hold_ten_mebibytes_with_its_keys() {
    let (aws, client) = with_stream(1).await;
    let put = |last: usize| {
        let mut entries: Vec<_> = (0..10).map(|_| entry("key", vec![7; MIB - 3])).collect();
        entries.push(entry("k", vec![7; last]));
        client.put_records().stream_name(STREAM).set_records(Some(entries)).send()
    };
    assert_eq!(code(put(1).await), "InvalidArgumentException");
    let entries = (0..10).map(|_| entry("key", vec![7; MIB - 3])).collect();
    let full = client.put_records().stream_name(STREAM).set_records(Some(entries)).send().await;
    assert_eq!(full.unwrap().failed_record_count(), Some(0));
    assert_eq!(aws.records(STREAM)[0].records.len(), 10);
}

#[tokio::test]
async fn malformed_records_are_refused_and_nothing_of_their_batch_is_put() {
    let (aws, client) = with_stream(1).await;
    let put = |key: &str, hash_key: Option<&str>| {
        let mut bad = entry(key, "x");
        bad.explicit_hash_key = hash_key.map(str::to_owned);
        client.put_records().stream_name(STREAM).records(entry("good", "x")).records(bad).send()
    };
    assert_eq!(code(put("", None).await), "ValidationException");
    assert_eq!(code(put(&"k".repeat(257), None).await), "ValidationException");
    assert_eq!(code(put("k", Some("-1")).await), "ValidationException");
    let over = "340282366920938463463374607431768211456";
    assert_eq!(code(put("k", Some(over)).await), "InvalidArgumentException");
    assert!(aws.records(STREAM)[0].records.is_empty());
    put(&"\u{e9}".repeat(256), Some("340282366920938463463374607431768211455")).await.unwrap();
}

#[tokio::test]
async fn a_dry_run_puts_nothing() {
    let (aws, client) = with_stream(1).await;
    let put = client.put_records().stream_name(STREAM).records(entry("k", "x")).dry_run(true);
    assert_eq!(code(put.send().await), "DryRunOperationException");
    assert!(aws.records(STREAM)[0].records.is_empty());
}
