//! Batches of records.

use std::time::Duration;

use futures::FutureExt;
use kinesis_testkit::Fault;
use kpl::{Deliveries, ProducerConfig, Record, RecordOrdering};

use crate::reader::{Seen, builder, read, reshard, stream, unhurried};

/// Lines of a file: a key and data.
fn file(lines: usize) -> String {
    (0..lines).map(|id| format!("key-{}:record {id}\n", id % 101)).collect()
}

fn records(file: &str) -> impl Iterator<Item = Record<'_>> {
    file.lines().map(|line| {
        let (key, data) = line.split_once(':').unwrap();
        Record::new(key, data)
    })
}

/// Every line is seen where its receipt says.
async fn assert_holds(seen: impl FnOnce() -> Seen, file: &str, deliveries: Deliveries) {
    let outcomes = deliveries.await;
    let seen = seen();
    assert_eq!(seen.dropped, 0);
    assert_eq!(outcomes.len(), file.lines().count());
    for (record, outcome) in records(file).zip(outcomes) {
        seen.assert_holds(record.data(), &outcome.unwrap());
    }
}

#[tokio::test]
async fn a_file_arrives_aggregated() {
    let aws = stream(3).await;
    let patient =
        ProducerConfig { record_max_buffered_time: Duration::from_secs(20), ..unhurried() };
    let producer = builder(&aws, patient).build().await.unwrap();
    let file = file(5000);
    let deliveries = producer.send_all(records(&file)).await.unwrap();
    producer.flush().await;
    assert_holds(|| read(&aws, "s"), &file, deliveries).await;
    let seen = read(&aws, "s");
    assert!(seen.places.values().all(|places| places.len() == 1), "no duplicate");
    assert!(seen.kinesis_records < 100, "{}", seen.kinesis_records);
    assert_eq!(producer.stats().user_records_accepted, 5000);
    assert_eq!(producer.buffered_bytes(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_through_a_small_buffer_survive_faults_splits_and_merges() {
    let aws = stream(2).await;
    for fault in [
        Fault::refuse_entry("ProvisionedThroughputExceededException"),
        Fault::refuse_entry("InternalFailure"),
        Fault::response_lost().operation("PutRecords"),
    ] {
        aws.faults().add(fault.probability(0.1));
    }
    let config = ProducerConfig {
        ordering: RecordOrdering::PerPartitionKey,
        aggregation_max_size: 512,
        record_max_buffered_time: Duration::from_millis(5),
        max_buffered_bytes: 64 * 1024,
        ..unhurried()
    };
    let producer = builder(&aws, config).build().await.unwrap();
    let mut senders = tokio::task::JoinSet::new();
    for task in 0..4 {
        let producer = producer.clone();
        senders.spawn(async move {
            let lines =
                (0..800).map(|id| (format!("key-{task}-{}", id % 10), format!("{task}/{id}")));
            let lines: Vec<_> = lines.collect();
            let batch = lines.iter().map(|(key, data)| Record::new(key, data));
            let outcomes = producer.send_all(batch).await.unwrap().await;
            (lines, outcomes)
        });
    }
    reshard(&aws, &producer, [200, 800, 1500]).await;
    let all = senders.join_all().await;
    let seen = read(&aws, "s");
    for (lines, outcomes) in all {
        let mut latest = std::collections::HashMap::new();
        for ((key, data), outcome) in lines.into_iter().zip(outcomes) {
            let receipt = outcome.unwrap();
            seen.assert_holds(data.as_bytes(), &receipt);
            // The first place, as a KCL reads: parents before children, then by sequence number.
            let places = seen.places[data.as_bytes()].iter();
            let place = places
                .map(|(shard, number, sub)| (shard.clone(), number.len(), number.clone(), *sub));
            let place = place.min();
            let earlier = latest.insert(key, place.clone());
            assert!(earlier.is_none_or(|earlier| earlier < place), "{data} overtook");
        }
    }
}

#[tokio::test]
async fn a_batch_is_given_back_from_the_first_record_that_is_not_accepted() {
    let aws = stream(1).await;
    let producer = builder(&aws, unhurried()).build().await.unwrap();
    let mut sending = producer.send_all(["a", "b", "", "c"].map(|key| Record::new(key, "v")));
    let refused = (&mut sending).now_or_never().unwrap().unwrap_err();
    assert_eq!(refused.position(), 2);
    assert!(!refused.error().is_retryable());
    let (deliveries, rest) = sending.into_parts();
    let rest: Vec<_> = rest.map(|record| record.partition_key().to_owned()).collect();
    assert_eq!(rest, ["c"]);
    assert!(deliveries.await.iter().all(Result::is_ok));
    let report = producer.close(Duration::from_secs(60)).await;
    assert_eq!((report.delivered, report.failed), (2, 0));
}
