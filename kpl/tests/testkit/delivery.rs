//! Records arrive, whatever stands in the way.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kinesis_testkit::{Fault, LocalAws};
use kpl::{Compression, FailureCause, HashKey, Producer, ProducerConfig, Receipt, UserRecord};

use crate::reader::{builder, read, receipts, stream, unhurried, until};

fn quick() -> ProducerConfig {
    ProducerConfig { record_max_buffered_time: Duration::from_millis(10), ..unhurried() }
}

/// Sends records `0..count` and awaits each receipt.
async fn send_all(producer: &Producer, count: usize) -> Vec<(String, Receipt)> {
    let mut deliveries = Vec::new();
    for id in 0..count {
        let record = UserRecord::new(format!("key-{}", id % 101), format!("record {id}"));
        deliveries.push((format!("record {id}"), producer.send(record).await.unwrap()));
    }
    producer.flush().await;
    receipts(deliveries).await
}

/// Aggregates as large as they get, whatever the pace of the test: they go when `send_all` flushes.
fn patient() -> ProducerConfig {
    ProducerConfig { record_max_buffered_time: Duration::from_secs(20), ..unhurried() }
}

fn assert_seen(aws: &LocalAws, receipts: &[(String, Receipt)]) {
    let seen = read(aws, "s");
    assert_eq!(seen.dropped, 0);
    for (data, receipt) in receipts {
        seen.assert_holds(data.as_bytes(), receipt);
    }
}

#[tokio::test]
async fn records_arrive_aggregated_and_in_order() {
    let aws = stream(3).await;
    let producer = builder(&aws, patient()).build().await.unwrap();
    let receipts = send_all(&producer, 5000).await;
    assert_seen(&aws, &receipts);
    assert!(
        receipts.iter().all(|(_, receipt)| receipt.attempts == 1 && !receipt.may_be_duplicate())
    );

    let seen = read(&aws, "s");
    assert_eq!(seen.places.len(), 5000);
    assert!(seen.places.values().all(|places| places.len() == 1), "no duplicate");
    let stats = producer.stats();
    assert_eq!(stats.user_records_accepted, 5000);
    assert_eq!(stats.user_records_delivered, 5000);
    assert_eq!(stats.kinesis_records as usize, seen.kinesis_records);
    assert!(seen.kinesis_records < 100, "{}", seen.kinesis_records);
    assert_eq!(stats.put_records_calls, aws.calls("PutRecords"));
    assert_eq!(producer.buffered_bytes(), 0);
    assert!(producer.peak_buffered_bytes() > 0);

    // In the order of `send`, shard by shard.
    let mut decoder = kinesis_aggregation::Decoder::new(1 << 20);
    for shard in aws.records("s") {
        let mut ids = Vec::new();
        for record in shard.records {
            let Ok(kinesis_aggregation::Decoded::Aggregate(aggregate)) =
                decoder.decode(record.data)
            else {
                panic!("an aggregate")
            };
            assert_eq!(record.partition_key, "a");
            let first = aggregate.get(0).unwrap().hash_key().get();
            assert_eq!(record.explicit_hash_key, Some(first));
            ids.extend(
                aggregate.iter().map(|member| {
                    String::from_utf8_lossy(member.data())[7..].parse::<u32>().unwrap()
                }),
            );
        }
        assert!(!ids.is_empty() && ids.is_sorted());
    }
}

#[tokio::test]
async fn single_records_go_raw_and_frame_look_alikes_are_wrapped() {
    let aws = stream(1).await;
    let config = ProducerConfig { aggregation_enabled: false, ..quick() };
    let producer = builder(&aws, config).build().await.unwrap();
    let look_alike = [&[0xF3, 0x89, 0x9A, 0xC2][..], b"not an aggregate"].concat();
    let plain = UserRecord::new("k", "plain").with_explicit_hash_key(HashKey::new(7));
    let first = producer.send(plain).await.unwrap().await.unwrap();
    let second =
        producer.send(UserRecord::new("k", look_alike.clone())).await.unwrap().await.unwrap();

    let stored = &aws.records("s")[0].records;
    assert_eq!(&stored[0].data[..], b"plain");
    assert_eq!((&*stored[0].partition_key, stored[0].explicit_hash_key), ("k", Some(7)));
    assert_eq!(stored[1].partition_key, "k");
    assert!(stored[1].data.len() > look_alike.len());
    let seen = read(&aws, "s");
    seen.assert_holds(b"plain", &first);
    seen.assert_holds(&look_alike, &second);
}

#[tokio::test]
async fn compressed_aggregates_are_read_back() {
    let aws = stream(1).await;
    let config = ProducerConfig { compression: Compression::Zstd { level: 3 }, ..patient() };
    let producer = builder(&aws, config).build().await.unwrap();
    let receipts = send_all(&producer, 1000).await;
    assert_seen(&aws, &receipts);
    let stored = aws.records("s")[0].records.iter().map(|record| record.data.len()).sum::<usize>();
    assert!(stored < 1000 * 10 / 2, "{stored}");
}

#[tokio::test]
async fn throttles_internal_failures_and_lost_responses_lose_nothing() {
    let aws = stream(2).await;
    let throttled = Fault::refuse_entry("ProvisionedThroughputExceededException").skip(3).times(40);
    let failed = Fault::refuse_entry("InternalFailure").skip(9).times(10);
    let lost = Fault::response_lost().operation("PutRecords").skip(25).times(5);
    let broken = Fault::internal_failure().operation("PutRecords").skip(9).times(3);
    let faults: Vec<_> =
        [throttled, failed, lost, broken].map(|fault| aws.faults().add(fault)).into();
    let config = ProducerConfig { aggregation_max_size: 400, collection_max_count: 5, ..quick() };
    let producer = builder(&aws, config).build().await.unwrap();
    let receipts = send_all(&producer, 4000).await;
    assert_seen(&aws, &receipts);

    for fault in &faults {
        assert!(aws.faults().count(*fault) > 0, "every fault struck");
    }
    let stats = producer.stats();
    assert!(stats.throttled > 0 && stats.retries > 0);
    // The receipt of a record that lies in the stream twice says so.
    let seen = read(&aws, "s");
    let mut twice = 0;
    for (data, receipt) in &receipts {
        if seen.places[data.as_bytes()].len() > 1 {
            twice += 1;
            assert!(receipt.may_be_duplicate(), "{data}");
        }
        assert!(receipt.attempts >= 1);
    }
    assert!(twice > 0, "a lost response leaves a duplicate");
    assert_eq!(producer.buffered_bytes(), 0);
}

#[tokio::test]
async fn a_poisoned_record_fails_alone() {
    let aws = stream(4).await;
    // Any request that touches the last shard is refused as a whole.
    let poison =
        Fault::refuse("ValidationException").operation("PutRecords").shard("shardId-000000000003");
    let poison = aws.faults().add(poison);
    let config =
        ProducerConfig { aggregation_enabled: false, max_requests_in_flight: 1, ..quick() };
    let producer = builder(&aws, config).build().await.unwrap();

    // The others wait behind a held request, so that they travel with the poisoned one.
    let hold = Fault::delay(Duration::from_secs(1)).operation("PutRecords").times(1);
    aws.faults().add(hold);
    let record = |id: u64, hash_key| {
        UserRecord::new("k", format!("record {id}")).with_explicit_hash_key(HashKey::new(hash_key))
    };
    let mut deliveries = Vec::new();
    for id in 0..500 {
        let hash_key = if id == 250 { u128::MAX } else { u128::from(id % 3) << 126 };
        deliveries.push((id, producer.send(record(id, hash_key)).await.unwrap()));
    }
    let mut receipts = Vec::new();
    for (id, delivery) in deliveries {
        match delivery.await {
            Ok(receipt) => receipts.push((format!("record {id}"), receipt)),
            Err(error) => {
                assert_eq!(id, 250);
                assert!(
                    matches!(error.cause(), FailureCause::Rejected { code, .. } if &**code == "ValidationException")
                );
                assert!(!error.is_retryable() && !error.may_have_been_written());
                assert!(!error.attempts().is_empty());
                assert_eq!(error.record(), Some(&record(250, u128::MAX)));
            }
        }
    }
    assert_eq!(receipts.len(), 499);
    assert_seen(&aws, &receipts);
    assert!(aws.faults().count(poison) > 2, "the request was halved");
    let stats = producer.stats();
    assert_eq!((stats.user_records_delivered, stats.user_records_failed), (499, 1));
}

#[tokio::test]
async fn a_fatal_error_that_lasts_fails_the_record_with_its_cause() {
    let aws = stream(1).await;
    let producer = builder(&aws, quick()).build().await.unwrap();
    aws.faults().add(Fault::refuse("AccessDeniedException").operation("PutRecords"));
    let error = producer.send(UserRecord::new("k", "v")).await.unwrap().await.unwrap_err();
    assert!(
        matches!(error.cause(), FailureCause::Fatal { code, .. } if &**code == "AccessDeniedException")
    );
    assert!(error.sdk_error().is_some());
    assert!(std::error::Error::source(&error).is_none(), "its text is in {error}");
    assert!(error.to_string().contains("kinesis:PutRecords"), "{error}");
    assert_eq!(error.into_record(), Some(UserRecord::new("k", "v")));
}

#[tokio::test]
async fn a_throttled_record_expires_with_its_attempts() {
    let aws = stream(1).await;
    aws.faults().add(Fault::refuse_entry("ProvisionedThroughputExceededException"));
    let config = ProducerConfig { record_ttl: Duration::from_millis(400), ..quick() };
    let producer = builder(&aws, config).build().await.unwrap();
    let error = producer.send(UserRecord::new("k", "v")).await.unwrap().await.unwrap_err();
    assert!(matches!(error.cause(), FailureCause::Expired { .. }), "{error}");
    assert!(error.is_retryable() && !error.may_have_been_written());
    assert_eq!(&*error.attempts()[0].code, "ProvisionedThroughputExceededException");
    assert_eq!(producer.buffered_bytes(), 0);
}

/// What is logged.
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn put_only_credentials_work_and_the_missing_actions_are_named() {
    // Nothing else in this process logs to it: the test runs on its own thread.
    let log = Arc::new(Mutex::new(Vec::new()));
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer({
            let log = Arc::clone(&log);
            move || Log(Arc::clone(&log))
        })
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let aws = stream(3).await;
    aws.faults().add(Fault::refuse("AccessDeniedException").operation("DescribeStreamSummary"));
    aws.faults().add(Fault::refuse("AccessDeniedException").operation("ListShards"));
    let producer = builder(&aws, quick()).build().await.unwrap();
    let receipts = send_all(&producer, 300).await;
    assert_seen(&aws, &receipts);
    assert_eq!(read(&aws, "s").kinesis_records, 300);
    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    for action in ["kinesis:DescribeStreamSummary", "kinesis:ListShards"] {
        assert_eq!(log.matches(action).count(), 1, "{action}: {log}");
    }
}

#[tokio::test]
async fn a_failure_that_is_not_awaited_reaches_the_hook() {
    let aws = stream(1).await;
    let (failed, mut failures) = tokio::sync::mpsc::channel(10);
    let producer = builder(&aws, quick())
        .on_failure(move |error| failed.try_send(error.record().cloned()).unwrap())
        .build()
        .await
        .unwrap();
    aws.faults().add(Fault::refuse("ValidationException").operation("PutRecords"));
    drop(producer.send(UserRecord::new("k", "one")).await.unwrap());
    assert_eq!(failures.recv().await.unwrap(), Some(UserRecord::new("k", "one")));

    // Dropped after the failure, unseen.
    let unseen = producer.send(UserRecord::new("k", "two")).await.unwrap();
    until(|| producer.stats().user_records_failed == 2).await;
    drop(unseen);
    assert_eq!(failures.recv().await.unwrap(), Some(UserRecord::new("k", "two")));

    // Awaited: not the hook's business.
    producer.send(UserRecord::new("k", "three")).await.unwrap().await.unwrap_err();
    assert_eq!(producer.stats().failures_unobserved, 2);
    assert!(failures.try_recv().is_err());
}

#[tokio::test]
async fn no_linger_sends_at_once() {
    let aws = stream(1).await;
    let config = ProducerConfig { record_max_buffered_time: Duration::ZERO, ..unhurried() };
    let producer = builder(&aws, config).build().await.unwrap();
    let receipts = send_all(&producer, 3000).await;
    assert_seen(&aws, &receipts);
    assert!(producer.stats().kinesis_records < 1500, "records gather while the queue is busy");
}
