//! Open aggregates of a shard that takes less than it is sent.

use super::*;

/// A shard that takes at most `per_second` records a second, those of one second at once. It refuses the rest as a
/// full shard does.
fn slow_shard(per_second: f64) -> Arc<Scripted> {
    let burst = per_second.max(1.0);
    let bucket = Mutex::new((Duration::ZERO, burst));
    Scripted::new(move |passed, entries| {
        let mut bucket = lock(&bucket);
        let (filled_at, tokens) = &mut *bucket;
        let income = (passed - *filled_at).as_secs_f64() * per_second;
        (*filled_at, *tokens) = (passed, (*tokens + income).min(burst));
        let outcome = |entry: &Entry| {
            if *tokens < 1.0 {
                return refused("ProvisionedThroughputExceededException");
            }
            *tokens -= 1.0;
            written(entry)
        };
        (QUICK, Ok(entries.iter().map(outcome).collect()))
    })
}

/// Sends records of 100 bytes to one shard for two minutes. Returns the time that each took.
async fn send_for_two_minutes(producer: &Producer, per_second: u32) -> Vec<Duration> {
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..120 * per_second {
        let delivery = send(producer, 0, &"x".repeat(100)).await;
        let began = clock::now();
        waiting.spawn(async move {
            delivery.await.unwrap();
            began.elapsed()
        });
        tokio::time::sleep(Duration::from_secs(1) / per_second).await;
    }
    waiting.join_all().await
}

#[tokio::test(start_paused = true)]
async fn no_record_expires_while_its_shard_takes_aggregates_slowly() {
    for (per_second, linger, ordering) in [
        (20, 100, RecordOrdering::BestEffort),
        (200, 100, RecordOrdering::BestEffort),
        (200, 100, RecordOrdering::PerPartitionKey),
        (200, 10, RecordOrdering::BestEffort),
        (20, 0, RecordOrdering::BestEffort),
    ] {
        let config = ProducerConfig {
            record_max_buffered_time: Duration::from_millis(linger),
            ordering,
            ..Default::default()
        };
        let producer = producer(slow_shard(5.0), config).await;
        let took = send_for_two_minutes(&producer, per_second).await;
        let longest = took.iter().max().unwrap();
        let case = format!("{per_second}/s, linger {linger} ms, {ordering:?}");
        assert!(*longest < Duration::from_secs(15), "{case}: {longest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_aggregate_stays_open_while_requests_have_no_room() {
    let service = Scripted::new(|_, entries| {
        let delay = Duration::from_secs(10);
        (delay, Ok(entries.iter().map(written).collect()))
    });
    let config = ProducerConfig { max_requests_in_flight: 1, ..Default::default() };
    let producer = producer(service, config).await;
    let mut deliveries = Vec::new();
    for _ in 0..100 {
        deliveries.push(send(&producer, 0, "v").await);
        tokio::time::sleep(Duration::from_millis(90)).await;
    }
    all_delivered(deliveries).await;
    assert_eq!(producer.stats().kinesis_records, 2);
}

#[tokio::test(start_paused = true)]
async fn a_flush_seals_what_stays_open_and_waits_for_it() {
    let service = slow_shard(0.5);
    let producer = producer(service, ProducerConfig::default()).await;
    drop(send(&producer, 0, "the shard is full now").await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let refused = send(&producer, 0, "refused").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let open = send(&producer, 0, "stays open").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    producer.flush().await;
    for delivery in [refused, open] {
        delivery.now_or_never().expect("completed").unwrap();
    }
    assert_eq!(producer.stats().sealed_by_flush, 1);
}

#[tokio::test(start_paused = true)]
async fn a_free_shard_adds_no_latency_to_the_linger() {
    let service = Scripted::new(|_, entries| all_written(entries));
    let producer = producer(service, ProducerConfig::default()).await;
    for _ in 0..20 {
        let began = clock::now();
        send(&producer, 0, "v").await.await.unwrap();
        let took = began.elapsed();
        assert!(took <= Duration::from_millis(107), "{took:?}");
    }
}

/// The most failures between two turns of another task while a full buffer fails: those reported, and those counted as
/// expired.
async fn failures_at_a_time(ordering: RecordOrdering, is_closed: bool) -> (usize, u64) {
    let turn = Arc::new(AtomicU64::new(0));
    let failures = Arc::new(Mutex::new(std::collections::HashMap::new()));
    let (counted, noted) = (Arc::clone(&turn), Arc::clone(&failures));
    let hook = move |_: &crate::error::DeliveryError| {
        let turn = counted.load(Ordering::Relaxed);
        *lock(&noted).entry(turn).or_insert(0) += 1;
    };
    let service = Scripted::new(|_, _| (QUICK, Err(unreachable())));
    let components =
        Components { seed: Some(42), on_failure: Some(Arc::new(hook)), ..Default::default() };
    let config = ProducerConfig { ordering, ..Default::default() };
    let started = builder::start("s".into(), service, config, components).await;
    let producer = started.unwrap();
    for id in 0..40_000_u128 {
        drop(send(&producer, id << 112, "v").await);
    }
    let (most_expired, watched) = (Arc::new(AtomicU64::new(0)), producer.clone());
    let expired_at_a_time = Arc::clone(&most_expired);
    let other = tokio::spawn(async move {
        let mut expired = 0;
        loop {
            turn.fetch_add(1, Ordering::Relaxed);
            let now = watched.stats().user_records_expired;
            expired_at_a_time.fetch_max(now - expired, Ordering::Relaxed);
            expired = now;
            tokio::task::yield_now().await;
        }
    });
    if is_closed {
        producer.close(Duration::ZERO).await;
    } else {
        // With a task that is never idle, paused time does not advance by itself.
        tokio::time::advance(Duration::from_secs(31)).await;
        producer.flush().await;
    }
    other.abort();
    let failures = lock(&failures);
    assert_eq!(failures.values().sum::<usize>(), 40_000);
    (failures.values().copied().max().unwrap(), most_expired.load(Ordering::Relaxed))
}

#[tokio::test(start_paused = true)]
async fn other_tasks_have_their_turns_while_a_full_buffer_fails() {
    for ordering in [RecordOrdering::BestEffort, RecordOrdering::PerPartitionKey] {
        for is_closed in [false, true] {
            let (most, expired) = failures_at_a_time(ordering, is_closed).await;
            assert!(most < 5000, "{most}, {ordering:?}, closed: {is_closed}");
            // In ordered mode, records that fail with others are decided together.
            if ordering == RecordOrdering::BestEffort {
                assert!(expired < 5000, "{expired}, closed: {is_closed}");
            }
        }
    }
}
