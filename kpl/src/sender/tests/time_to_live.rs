//! Records with a time to live of their own.

use super::*;
use crate::record::Priority;

const SECOND: Duration = Duration::from_secs(1);

fn record(data: &'static str, seconds: u64) -> UserRecord {
    UserRecord::new("k", data)
        .with_explicit_hash_key(HashKey::MIN)
        .with_time_to_live(Duration::from_secs(seconds))
}

/// Refuses everything until `until`.
fn refusing(code: &'static str, until: Duration) -> Arc<Scripted> {
    Scripted::new(move |passed, entries| {
        if passed < until {
            (QUICK, Ok(entries.iter().map(|_| refused(code)).collect()))
        } else {
            all_written(entries)
        }
    })
}

async fn expires(delivery: Delivery, after: Duration, since: Instant) -> UserRecord {
    let error = delivery.await.unwrap_err();
    let FailureCause::Expired { ttl, .. } = error.cause() else { panic!("{error}") };
    assert_eq!(*ttl, after);
    let passed = since.elapsed();
    assert!(passed >= after && passed < after + Duration::from_millis(20), "{passed:?}");
    error.into_record().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_short_one_fails_alone_and_its_neighbours_go_on() {
    for code in ["ProvisionedThroughputExceededException", "InternalFailure"] {
        let producer = producer(refusing(code, 45 * SECOND), ProducerConfig::default()).await;
        let began = clock::now();
        let before = send(&producer, 0, "before").await;
        let short = producer.send(record("short", 3)).await.unwrap();
        let long = producer.send(record("long", 600)).await.unwrap();
        let shortest = producer.send(record("shortest", 1)).await.unwrap();
        let usual = send(&producer, 1, "usual").await;
        let shortest = expires(shortest, SECOND, began).await;
        assert_eq!(shortest, record("shortest", 1), "with its time to live");
        expires(short, 3 * SECOND, began).await;
        for delivery in [before, usual] {
            let error = delivery.await.unwrap_err();
            assert!(
                matches!(error.cause(), FailureCause::Expired { ttl, .. } if *ttl == 30 * SECOND)
            );
        }
        assert!(began.elapsed() >= 30 * SECOND);
        long.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn equal_ones_share_an_aggregate_and_what_they_were_sent_with_comes_back() {
    let producer =
        producer(refusing("InternalFailure", 60 * SECOND), ProducerConfig::default()).await;
    let records: Vec<_> = (0..70)
        .map(|id| match id % 3 {
            0 => record("v", 10).with_priority(Priority::Droppable),
            _ => record("v", 10),
        })
        .collect();
    let mut deliveries = Vec::new();
    for record in &records {
        deliveries.push(producer.send(record.clone()).await.unwrap());
    }
    let began = clock::now();
    for (delivery, record) in deliveries.into_iter().zip(records) {
        assert_eq!(expires(delivery, 10 * SECOND, began).await, record);
    }
    let stats = producer.stats();
    assert_eq!(stats.put_records_entries, stats.retries + 1, "one Kinesis record");
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_wait_for_company_does_not() {
    let service = Scripted::new(|_, entries| all_written(entries));
    let config = ProducerConfig { record_max_buffered_time: 20 * SECOND, ..Default::default() };
    let producer = producer(service, config).await;
    let began = clock::now();
    let patient = producer.send(record("patient", 41)).await.unwrap();
    producer.send(record("urgent", 39)).await.unwrap().await.unwrap();
    assert!(began.elapsed() < SECOND);
    patient.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn short_ones_behind_a_stalled_request_fail_on_time() {
    let service =
        Scripted::new(|_, entries| (100 * SECOND, Ok(entries.iter().map(written).collect())));
    let config = ProducerConfig {
        max_requests_in_flight: 1,
        record_ttl: 200 * SECOND,
        ..Default::default()
    };
    let producer = producer(Arc::clone(&service), config).await;
    let first = send(&producer, 0, "first").await;
    tokio::time::sleep(SECOND).await;
    assert_eq!(service.calls().len(), 1);
    // The sender looks for expired records once a second because of it.
    let long = send(&producer, 1, "long").await;
    tokio::time::sleep(SECOND * 3 / 10).await;
    let began = clock::now();
    let short = |milliseconds| {
        let time_to_live = Duration::from_millis(milliseconds);
        let record = UserRecord::new("k", "v").with_time_to_live(time_to_live);
        (producer.try_send(record).unwrap(), time_to_live)
    };
    for (delivery, time_to_live) in [short(250), short(420), short(610)] {
        expires(delivery, time_to_live, began).await;
    }
    first.await.unwrap();
    long.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn without_a_linger_short_ones_behind_a_long_one_fail_on_time() {
    let config = ProducerConfig { record_max_buffered_time: Duration::ZERO, ..Default::default() };
    let producer = producer(refusing("InternalFailure", 4000 * SECOND), config).await;
    let long = producer.send(record("long", 3600)).await.unwrap();
    // It is refused again and again: its queue is not free.
    tokio::time::sleep(100 * SECOND).await;
    // Each of them seals the one before, whose timer is too late for it.
    let mut short = Vec::new();
    for seconds in [600, 60, 2, 30] {
        short.push((clock::now(), producer.send(record("short", seconds)).await.unwrap(), seconds));
        tokio::time::sleep(SECOND / 10).await;
    }
    short.sort_by_key(|(_, _, seconds)| *seconds);
    for (began, delivery, seconds) in short {
        expires(delivery, Duration::from_secs(seconds), began).await;
    }
    let began = clock::now();
    expires(send(&producer, 0, "usual").await, 30 * SECOND, began).await;
    drop(long);
}

#[tokio::test(start_paused = true)]
async fn unequal_ones_share_aggregates() {
    let service = Scripted::new(|_, entries| all_written(entries));
    let producer = producer(service, ProducerConfig::default()).await;
    for id in 0..10_000 {
        let record = record("v", 10 + id % 2 * 10);
        drop(producer.send(record).await.unwrap());
    }
    producer.flush().await;
    let stats = producer.stats();
    assert_eq!(stats.user_records_delivered, 10_000);
    assert!(stats.kinesis_records < 10, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn when_a_member_expires_the_others_stay_together() {
    let producer =
        producer(refusing("InternalFailure", 25 * SECOND), ProducerConfig::default()).await;
    let began = clock::now();
    let mut deliveries = Vec::new();
    for id in 0..300 {
        // A third each: they expire, they expire later, and they are delivered.
        let seconds = [5, 10, 60][id % 3];
        let delivery = producer.send(record("v", seconds)).await.unwrap();
        deliveries.push((seconds, delivery));
    }
    deliveries.sort_by_key(|(seconds, _)| *seconds);
    for (seconds, delivery) in deliveries {
        if seconds < 25 {
            expires(delivery, Duration::from_secs(seconds), began).await;
        } else {
            let receipt = delivery.await.unwrap();
            assert!(receipt.may_be_duplicate(), "what was tried before counts");
        }
    }
    let stats = producer.stats();
    assert_eq!((stats.user_records_expired, stats.kinesis_records), (200, 1));
}

#[tokio::test(start_paused = true)]
async fn a_young_one_outlives_the_old_ones_of_an_aggregate_that_stays_open() {
    let code = "ProvisionedThroughputExceededException";
    for linger in [0, 100] {
        let config = ProducerConfig {
            record_max_buffered_time: Duration::from_millis(linger),
            ..Default::default()
        };
        let producer = producer(refusing(code, 45 * SECOND), config).await;
        let began = clock::now();
        let first = send(&producer, 0, "first").await;
        tokio::time::sleep(SECOND).await;
        // The others wait in an open aggregate behind the first, which is refused.
        let mut behind = Vec::new();
        for seconds in 1..40 {
            let (since, delivery) = (clock::now(), send(&producer, 0, "behind").await);
            let outcome = async move { (delivery.await, since.elapsed(), seconds) };
            behind.push(tokio::spawn(outcome));
            tokio::time::sleep(SECOND).await;
        }
        assert!(first.await.is_err() && began.elapsed() < 41 * SECOND);
        for outcome in behind {
            let (outcome, took, seconds) = outcome.await.unwrap();
            let is_early = took < 28 * SECOND;
            match outcome {
                // The shard took it between 45 and 51 seconds, when it was tried again.
                Ok(_) => assert!(seconds > 15, "{seconds}"),
                Err(error) => assert!(seconds < 22 && !is_early, "{seconds}: {error}, {took:?}"),
            }
        }
        assert!(producer.stats().kinesis_records < 10);
    }
}

#[tokio::test(start_paused = true)]
async fn in_ordered_mode_an_aggregate_has_one_time_to_live() {
    let service = Scripted::new(|_, entries| all_written(entries));
    let config = ProducerConfig { ordering: RecordOrdering::PerPartitionKey, ..Default::default() };
    let producer = producer(service, config).await;
    for seconds in [10, 10, 20, 20] {
        drop(producer.send(record("v", seconds)).await.unwrap());
    }
    producer.flush().await;
    let stats = producer.stats();
    let reasons = (stats.sealed_by_time_to_live, stats.sealed_by_flush);
    assert_eq!((stats.aggregates, reasons), (2, (1, 1)));
}
