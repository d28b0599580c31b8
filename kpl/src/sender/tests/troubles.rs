//! Failures in a row or at the same time: throttles, outages, refused credentials, a missing stream, times out of
//! range.

use super::*;
use crate::config::Compression;
use crate::shard::map::ShardMap;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_record_that_expires_in_the_queue_lets_its_open_neighbour_go() {
    let service = Scripted::new(|passed, entries| {
        if passed < 60 * SECOND {
            let throttled = refused("ProvisionedThroughputExceededException");
            (QUICK, Ok(entries.iter().map(|_| throttled.clone()).collect()))
        } else {
            all_written(entries)
        }
    });
    let config = ProducerConfig { record_max_buffered_time: Duration::ZERO, ..Default::default() };
    let producer = producer(service, config).await;
    let began = clock::now();
    let first = send(&producer, 0, "a").await;
    tokio::time::sleep(SECOND).await;
    let second = send(&producer, 1, "b").await;
    for delivery in [first, second] {
        let completed = tokio::time::timeout(100 * SECOND, delivery).await;
        let error = completed.expect("it is completed").unwrap_err();
        assert!(matches!(error.cause(), FailureCause::Expired { .. }));
    }
    assert!(began.elapsed() < 33 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_longest_times_mean_never() {
    let service = Scripted::new(|_, entries| all_written(entries));
    let config = ProducerConfig {
        record_max_buffered_time: Duration::MAX - SECOND,
        record_ttl: Duration::MAX,
        request_timeout: Duration::MAX,
        connect_timeout: Duration::MAX,
        startup_timeout: Duration::MAX,
        shard_map_refresh_interval: Duration::MAX,
        ..Default::default()
    };
    let producer = producer(Arc::clone(&service), config).await;
    let delivery = send(&producer, 0, "a").await;
    tokio::time::sleep(100_000 * SECOND).await;
    assert!(service.calls().is_empty());
    assert_eq!(lock(&service.list_calls).len(), 1);
    producer.flush().await;
    delivery.await.unwrap();
    assert_eq!(producer.close(Duration::MAX).await.delivered, 1);
}

#[tokio::test(start_paused = true)]
async fn many_requests_that_fail_at_once_are_one_failure() {
    let service = Scripted::new(|passed, entries| {
        if passed < SECOND { (SECOND - passed, Err(unreachable())) } else { all_written(entries) }
    });
    let config = ProducerConfig {
        aggregation_enabled: false,
        collection_max_count: 1,
        max_requests_in_flight: 24,
        record_max_buffered_time: Duration::from_millis(1),
        ..Default::default()
    };
    let producer = producer(Arc::clone(&service), config).await;
    let mut deliveries = Vec::new();
    for id in 0..24_u128 {
        deliveries.push(send(&producer, id << 123, "v").await);
    }
    all_delivered(deliveries).await;
    let calls = service.calls();
    assert!(calls[23] < SECOND, "all were in flight: {calls:?}");
    let first_step = Duration::from_millis(50);
    assert!(calls[24] <= SECOND + first_step + QUICK, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn expired_credentials_are_waited_for() {
    for code in ["ExpiredTokenException", "InvalidSignatureException"] {
        let service = Scripted::new(move |passed, entries| {
            if passed < 10 * SECOND {
                (QUICK, Err(refused_request(code)))
            } else {
                all_written(entries)
            }
        });
        let producer = producer(service, ProducerConfig::default()).await;
        let receipt = send(&producer, 0, "v").await.await.unwrap();
        assert!(receipt.attempts > 2 && !receipt.may_be_duplicate());
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_stream_is_not_asked_for_with_every_record() {
    for (code, is_fatal) in [("ResourceNotFoundException", true), ("ValidationException", false)] {
        let service = Scripted::new(move |_, _| (QUICK, Err(refused_request(code))));
        let config =
            ProducerConfig { record_max_buffered_time: Duration::ZERO, ..Default::default() };
        let producer = producer(Arc::clone(&service), config).await;
        *lock(&service.describe_fails) = Some(refused_request("ResourceNotFoundException"));
        for error in errors_of_20_seconds(&producer).await {
            let fatal = matches!(error.cause(), FailureCause::Fatal { .. });
            assert_eq!(fatal, is_fatal, "{error}");
        }
        let calls = service.calls().len();
        assert!((2..60).contains(&calls), "{calls} calls in 20 s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_held_shard_check_does_not_wait_for_a_long_backoff() {
    let service = Scripted::new(|_, entries| {
        let outcome = |_: &Entry| EntryOutcome::Written {
            shard_id: "child".into(),
            sequence_number: String::new(),
        };
        (QUICK, Ok(entries.iter().map(outcome).collect()))
    });
    let producer = producer(
        Arc::clone(&service),
        ProducerConfig { record_ttl: 1000 * SECOND, ..Default::default() },
    )
    .await;
    *lock(&service.list_outage) = SECOND..400 * SECOND;
    *lock(&service.shards) = vec![shard("child", 0, u128::MAX, true)];
    tokio::time::sleep(200 * SECOND).await;
    let pair = [send(&producer, 0, "a").await, send(&producer, 1, "b").await];
    all_delivered(pair).await;
    assert!(clock::now() - service.started <= 405 * SECOND);
    let calls = lock(&service.list_calls).clone();
    let wanted =
        calls.windows(2).filter(|pair| pair[1] > 210 * SECOND).map(|pair| pair[1] - pair[0]);
    assert!(wanted.clone().count() > 30);
    assert!(wanted.max() <= Some(5 * SECOND), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn while_shards_cannot_be_listed_the_old_map_serves() {
    let service = Scripted::new(|_, entries| all_written(entries));
    let config = ProducerConfig { shard_map_refresh_interval: SECOND, ..Default::default() };
    let producer = producer(Arc::clone(&service), config).await;
    *lock(&service.list_outage) = SECOND..600 * SECOND;
    for _ in 0..300 {
        let before = producer.stats();
        let mut deliveries = Vec::new();
        for id in 0..20_u128 {
            deliveries.push(send(&producer, id << 123, "v").await);
        }
        for delivery in deliveries {
            assert_eq!(delivery.await.unwrap().attempts, 1);
        }
        let written = producer.stats().kinesis_records - before.kinesis_records;
        assert_eq!(written, 2, "an aggregate for each shard");
        tokio::time::sleep(SECOND).await;
    }
    let calls = lock(&service.list_calls).len();
    assert!((10..60).contains(&calls), "{calls} calls in five minutes");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_first_sent_after_its_time_to_live() {
    let service =
        Scripted::new(|_, entries| (100 * SECOND, Ok(entries.iter().map(written).collect())));
    let config = ProducerConfig { max_requests_in_flight: 1, ..Default::default() };
    let producer = producer(Arc::clone(&service), config).await;
    let first = send(&producer, 0, "a").await;
    tokio::time::sleep(SECOND).await;
    let late = send(&producer, u128::MAX, "b").await;
    first.await.unwrap();
    let error = late.await.unwrap_err();
    assert!(matches!(error.cause(), FailureCause::Expired { .. }));
    assert!(error.attempts().is_empty() && !error.may_have_been_written());
    assert_eq!(service.calls().len(), 1);
    assert_eq!(producer.buffered_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn of_many_attempts_few_are_kept_and_equal_ones_share_their_text() {
    let service = Scripted::new(|_, entries| {
        let failure = refused("InternalFailure");
        (QUICK, Ok(entries.iter().map(|_| failure.clone()).collect()))
    });
    let producer = producer(service, ProducerConfig::default()).await;
    let pair = [send(&producer, 0, "a").await, send(&producer, u128::MAX, "b").await];
    let began = clock::now();
    let mut firsts = Vec::new();
    for delivery in pair {
        let error = delivery.await.unwrap_err();
        assert_eq!(error.attempts().len(), 3);
        let all: Duration = error.attempts().iter().map(|a| a.delay + a.duration).sum();
        assert!(all <= began.elapsed());
        let text = error.to_string();
        let (_, count) = text.split_once("failed_attempts=").unwrap();
        let count: u32 = count.split(' ').next().unwrap().parse().unwrap();
        assert!(count > 8, "{text}");
        firsts.push(error.attempts()[0].clone());
    }
    assert!(firsts[0].delay >= Duration::from_millis(100), "the linger");
    assert!(Arc::ptr_eq(&firsts[0].code, &firsts[1].code));
    assert!(Arc::ptr_eq(&firsts[0].message, &firsts[1].message));
}

/// A sender that a test drives by hand, on one shard.
fn by_hand() -> (Arc<ShardRouter>, Sender) {
    let config = ProducerConfig { aggregation_max_count: 2, ..Default::default() };
    let context = Context::new(config, None, None);
    let shards = ShardRouter::new(Arc::clone(&context), 1 << 20, false);
    replace_shard(&shards, 1, "parent");
    let service = Scripted::new(|_, entries| all_written(entries));
    let sender = Sender::new(context, Arc::clone(&shards), service, 42).unwrap();
    (shards, sender)
}

/// `name` is the one shard of the stream now.
fn replace_shard(shards: &ShardRouter, generation: u64, name: &str) {
    shards.install(generation, ShardMap::new(vec![shard(name, 0, u128::MAX, true)]));
}

fn enter(shards: &Arc<ShardRouter>, data: &'static str) -> Delivery {
    let mut record = UserRecord::new("k", data);
    let hash_key = record.hash_key();
    shards.accept(&mut record, hash_key, &mut None).expect("it is accepted")
}

/// What the next request holds, as it is.
fn collected(sender: &mut Sender) -> Vec<bytes::Bytes> {
    sender.intake(clock::now());
    sender.collector.fill(&mut sender.queues, clock::now());
    let batch = sender.collector.take_batch().unwrap();
    let users = batch.records.iter().flat_map(KinesisRecord::user_records);
    users.map(UserRecord::into_data).collect()
}

#[tokio::test(start_paused = true)]
async fn a_key_keeps_its_order_when_its_shard_is_replaced() {
    let (shards, mut sender) = by_hand();
    let mut deliveries = vec![enter(&shards, "0")];
    sender.intake(clock::now());
    replace_shard(&shards, 2, "child");
    // A caller of `send` may say that the old intake is ready after the new map is in place, and before the old intake
    // is closed.
    let retired = shards.take_ready();
    deliveries.extend([enter(&shards, "1"), enter(&shards, "2")]);
    retired.iter().for_each(|intake| shards.add_ready(intake));
    assert_eq!(collected(&mut sender), ["0", "1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_key_keeps_its_order_when_shards_are_replaced_faster_than_they_are_fetched() {
    let (shards, mut sender) = by_hand();
    let mut deliveries = vec![enter(&shards, "0")];
    replace_shard(&shards, 2, "child");
    deliveries.push(enter(&shards, "1"));
    replace_shard(&shards, 3, "grandchild");
    deliveries.extend([enter(&shards, "2"), enter(&shards, "3")]);
    assert_eq!(collected(&mut sender), ["0", "1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_member_does_not_hold_its_aggregate() {
    for compression in [Compression::Off, Compression::Zstd { level: 1 }] {
        let service = Scripted::new(|_, entries| {
            let outcomes = entries.iter().map(|_| refused("AccessDeniedException"));
            (QUICK, Ok(outcomes.collect()))
        });
        let config = ProducerConfig { compression, ..Default::default() };
        let producer = producer(service, config).await;
        let mut deliveries = Vec::new();
        for _ in 0..40 {
            deliveries.push(send(&producer, 0, &"x".repeat(1000)).await);
        }
        let mut errors = Vec::new();
        for delivery in deliveries {
            errors.push(delivery.await.unwrap_err());
        }
        let first = errors.swap_remove(0);
        drop(errors);
        assert_eq!(producer.stats().aggregates, 1);
        let data = first.into_record().unwrap().into_data();
        assert_eq!(data, "x".repeat(1000));
        let memory = data.try_into_mut().unwrap().capacity();
        assert!(memory < 2000, "{compression:?}: {memory} bytes");
    }
}
