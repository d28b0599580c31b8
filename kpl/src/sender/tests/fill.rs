//! How full aggregates and requests are, and what seals them.

use super::*;

/// Sends `count` records of 1,000 bytes to one shard whose requests take a while. Returns the largest entry and the
/// producer.
async fn largest_entry(config: ProducerConfig, count: usize) -> (usize, Producer) {
    let largest = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&largest);
    let service = Scripted::new(move |_, entries| {
        let sizes = entries.iter().map(|entry| entry.data.len());
        let mut largest = lock(&seen);
        *largest = sizes.fold(*largest, usize::max);
        let delay = Duration::from_millis(500);
        (delay, Ok(entries.iter().map(written).collect()))
    });
    let producer = producer(service, config).await;
    let mut deliveries = Vec::new();
    for id in 0..count {
        deliveries.push(send(&producer, 0, &"x".repeat(1000)).await);
        if id % 10 == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    all_delivered(deliveries).await;
    let largest = *lock(&largest);
    (largest, producer)
}

#[tokio::test(start_paused = true)]
async fn aggregates_grow_while_their_shard_is_busy_if_asked() {
    let base = ProducerConfig::default().aggregation_max_size;
    let (largest, fixed) = largest_entry(ProducerConfig::default(), 5000).await;
    assert!(largest <= base, "{largest}");
    let config = ProducerConfig { aggregation_adaptive: true, ..Default::default() };
    let (largest, adaptive) = largest_entry(config, 5000).await;
    assert!(largest > 8 * base && largest <= 1 << 20, "{largest}");
    assert!(adaptive.stats().aggregates < fixed.stats().aggregates / 2);

    // Idle again: the next are small.
    let before = adaptive.stats();
    for _ in 0..100 {
        drop(send(&adaptive, 0, &"x".repeat(1000)).await);
    }
    adaptive.flush().await;
    assert!(adaptive.stats().aggregates - before.aggregates >= 2);
}

#[tokio::test(start_paused = true)]
async fn without_a_linger_aggregates_stay_large_while_others_wait() {
    let round_trip = Duration::from_millis(500);
    let service =
        Scripted::new(move |_, entries| (round_trip, Ok(entries.iter().map(written).collect())));
    let config = ProducerConfig {
        aggregation_adaptive: true,
        record_max_buffered_time: Duration::ZERO,
        ..Default::default()
    };
    let producer = producer(service, config).await;
    let mut deliveries = Vec::new();
    // Of 250 KB in a round trip, at most 50 KB went as one.
    for _ in 0..5000 {
        deliveries.push(send(&producer, 0, &"x".repeat(1000)).await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    all_delivered(deliveries).await;
    let aggregates = producer.stats().aggregates;
    assert!(aggregates < 28, "{aggregates}");
}

#[tokio::test(start_paused = true)]
async fn aggregates_stay_large_while_a_record_of_their_shard_is_retried() {
    let recovers = Duration::from_secs(60);
    for linger in [Duration::ZERO, Duration::from_millis(100)] {
        let service = Scripted::new(move |passed, entries| {
            let outcome = |entry: &Entry| match entry.data.starts_with(b"slow") {
                true if passed < recovers => refused("InternalFailure"),
                _ => written(entry),
            };
            let outcomes = entries.iter().map(outcome).collect();
            (Duration::from_millis(50), Ok(outcomes))
        });
        let config = ProducerConfig {
            aggregation_adaptive: true,
            aggregation_max_size: 4096,
            record_max_buffered_time: linger,
            record_ttl: recovers * 2,
            ..Default::default()
        };
        let producer = producer(service, config).await;
        let slow = UserRecord::new("k", "slow").with_explicit_hash_key(HashKey::MIN);
        let slow = slow.with_time_to_live(recovers * 3);
        let slow = producer.send(slow).await.unwrap();
        // The record is sent alone.
        tokio::time::sleep(linger + QUICK).await;
        let mut deliveries = Vec::new();
        for id in 0..1000 {
            deliveries.push(send(&producer, 0, &"x".repeat(500)).await);
            if id % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        tokio::time::sleep(recovers / 2).await;
        let before = producer.stats().aggregates;
        for _ in 0..100 {
            deliveries.push(send(&producer, 0, &"x".repeat(500)).await);
        }
        slow.await.unwrap();
        all_delivered(deliveries).await;
        let written = producer.stats().aggregates - before;
        assert!(written <= 2, "{linger:?}: {written}");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_linger_a_record_goes_when_its_shard_is_free() {
    let round_trip = Duration::from_secs(1);
    let service =
        Scripted::new(move |_, entries| (round_trip, Ok(entries.iter().map(written).collect())));
    let config = ProducerConfig { record_max_buffered_time: Duration::ZERO, ..Default::default() };
    let producer = producer(Arc::clone(&service), config).await;
    let began = clock::now();
    let first = send(&producer, 0, "first").await;
    tokio::time::sleep(round_trip / 4).await;
    let mut behind = Vec::new();
    for _ in 0..10 {
        behind.push(send(&producer, 0, "behind").await);
    }
    let other = send(&producer, u128::MAX, "of another shard").await;
    first.await.unwrap();
    assert_eq!(began.elapsed(), round_trip, "at once");
    other.await.unwrap();
    assert_eq!(began.elapsed(), round_trip * 5 / 4, "at once, too");
    all_delivered(behind).await;
    assert_eq!(began.elapsed(), round_trip * 2, "together, when the first was completed");
    let stats = producer.stats();
    assert_eq!((stats.kinesis_records, stats.aggregated_user_records), (3, 10));
}

#[tokio::test(start_paused = true)]
async fn each_reason_for_sealing_is_counted() {
    let quick = || Scripted::new(|_, entries| all_written(entries));
    let patient = ProducerConfig {
        record_max_buffered_time: Duration::from_secs(10),
        aggregation_max_size: 4096,
        aggregation_max_count: 8,
        ..Default::default()
    };
    let producer = producer(quick(), patient).await;
    // Eight small ones by count, five that make 4 KiB by size, two by linger, one by flush, one alone and the one
    // before it.
    for _ in 0..8 {
        drop(send(&producer, 0, "v").await);
    }
    for _ in 0..5 {
        drop(send(&producer, 0, &"x".repeat(1000)).await);
    }
    drop(send(&producer, u128::MAX, "v").await);
    tokio::time::sleep(Duration::from_secs(11)).await;
    drop(send(&producer, 0, "v").await);
    producer.flush().await;
    drop(send(&producer, 0, "v").await);
    let raw = UserRecord::raw("k", "v").with_explicit_hash_key(HashKey::MIN);
    drop(producer.send(raw).await.unwrap());
    producer.flush().await;
    let stats = producer.stats();
    assert_eq!((stats.sealed_alone, stats.sealed_before_single), (1, 1));
    assert_eq!((stats.sealed_by_count, stats.sealed_by_size), (1, 1));
    assert_eq!((stats.sealed_by_linger, stats.sealed_by_flush), (2, 1));
    assert_eq!((stats.sealed_by_pressure, stats.sealed_by_handover), (0, 0));
    assert_eq!((stats.aggregates, stats.aggregated_user_records), (2, 12));
    assert_eq!(stats.records_per_aggregate(), Some(6.0));
    assert!((0.4..0.7).contains(&stats.aggregate_fill().unwrap()));
    assert_eq!(stats.put_records_entries, 7);
    assert_eq!(stats.put_records_bytes, stats.kinesis_bytes);
    assert!(stats.entries_per_request() >= Some(1.0) && stats.bytes_per_request().is_some());
}
