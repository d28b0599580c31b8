//! What the answers tell about the shards: a service that places records itself, a map with a gap, no map at all.

use super::*;
use crate::config::RecordOrdering;
use crate::error::{InvalidRecord, SendError};

const SECOND: Duration = Duration::from_secs(1);

/// Data that a consumer would take for a frame.
const LOOK_ALIKE: &[u8] = &[0xF3, 0x89, 0x9A, 0xC2, 1];

fn in_shard(shard_id: &str) -> EntryOutcome {
    EntryOutcome::Written {
        shard_id: shard_id.to_owned(),
        sequence_number: String::new(),
    }
}

/// Follows the keys until `until`; all records go to `shard_id` then.
fn follows_keys_until(until: Duration, shard_id: &'static str) -> Arc<Scripted> {
    Scripted::new(move |passed, entries| {
        let outcome = |entry: &Entry| match passed < until {
            true => written(entry),
            false => in_shard(shard_id),
        };
        (QUICK, Ok(entries.iter().map(outcome).collect()))
    })
}

async fn ordered(service: &Arc<Scripted>) -> Producer {
    let config = ProducerConfig {
        ordering: RecordOrdering::PerPartitionKey,
        ..Default::default()
    };
    producer(Arc::clone(service), config).await
}

fn try_record(producer: &Producer, data: &'static [u8]) -> Result<Delivery, SendError> {
    let record = UserRecord::new("k", data).with_explicit_hash_key(HashKey::MIN);
    producer.try_send(record)
}

#[tokio::test(start_paused = true)]
async fn a_lone_record_in_another_shard_ends_an_ordered_producer() {
    // The timer has described the stream by then, and does not again before 78 s.
    let change = 75 * SECOND;
    let service = follows_keys_until(change, "high");
    let producer = ordered(&service).await;
    tokio::time::sleep(change).await;
    service.is_auto.store(true, Ordering::Relaxed);
    send(&producer, 0, "seen").await.await.unwrap();
    tokio::time::sleep(SECOND).await;
    let Err(SendError::Closed { .. }) = try_record(&producer, b"late") else {
        panic!("the order is lost, and it goes on");
    };
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_is_not_forgotten_while_the_stream_cannot_be_described() {
    let change = 75 * SECOND;
    let service = Scripted::new(move |passed, entries| {
        let outcome = |entry: &Entry| match passed {
            passed if passed < change => written(entry),
            passed if passed < change + SECOND => in_shard("high"),
            // No evidence, but a reason to list the shards.
            _ => in_shard("new"),
        };
        (QUICK, Ok(entries.iter().map(outcome).collect()))
    });
    let producer = ordered(&service).await;
    tokio::time::sleep(change).await;
    service.is_auto.store(true, Ordering::Relaxed);
    *lock(&service.describe_fails) = Some(refused_request("LimitExceededException"));
    send(&producer, 0, "seen").await.await.unwrap();
    tokio::time::sleep(SECOND).await;
    *lock(&service.describe_fails) = None;
    send(&producer, 0, "unknown").await.await.unwrap();
    tokio::time::sleep(SECOND).await;
    let Err(SendError::Closed { .. }) = try_record(&producer, b"late") else {
        panic!("the order is lost, and it goes on");
    };
}

#[tokio::test(start_paused = true)]
async fn lone_records_tell_the_strategy_without_leave_to_describe() {
    let service = follows_keys_until(Duration::ZERO, "high");
    *lock(&service.describe_fails) = Some(refused_request("AccessDeniedException"));
    let producer = producer(Arc::clone(&service), ProducerConfig::default()).await;
    for _ in 0..60 {
        send(&producer, 0, "v").await.await.unwrap();
        tokio::time::sleep(SECOND / 2).await;
    }
    let Err(SendError::Invalid { reason, .. }) = try_record(&producer, LOOK_ALIKE) else {
        panic!("a consumer would take it for a frame");
    };
    assert_eq!(reason, InvalidRecord::LooksAggregated);
    let calls = lock(&service.list_calls).len();
    assert!(calls <= 3, "{calls} calls in half a minute");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_shard_in_a_gap_of_the_map_has_it_read_again() {
    let half = u128::MAX / 2;
    let service = follows_keys_until(Duration::ZERO, "high");
    let whole = std::mem::replace(
        &mut *lock(&service.shards),
        vec![shard("low", 0, half, true)],
    );
    let producer = producer(Arc::clone(&service), ProducerConfig::default()).await;
    *lock(&service.shards) = whole;
    send(&producer, u128::MAX, "alone").await.await.unwrap();
    tokio::time::sleep(SECOND).await;
    let before = producer.stats();
    let pair = [
        send(&producer, u128::MAX, "a").await,
        send(&producer, u128::MAX, "b").await,
    ];
    for delivery in pair {
        delivery.await.unwrap();
    }
    let written = producer.stats().kinesis_records - before.kinesis_records;
    assert_eq!(written, 1, "an aggregate");
}

#[tokio::test(start_paused = true)]
async fn without_any_leave_to_read_the_stream_look_alikes_survive_its_absence() {
    let service = Scripted::new(|passed, entries| match passed < 10 * SECOND {
        true => (QUICK, Err(refused_request("ResourceNotFoundException"))),
        false => all_written(entries),
    });
    let denied = refused_request("AccessDeniedException");
    *lock(&service.describe_fails) = Some(denied.clone());
    *lock(&service.list_fails) = Some(denied);
    let producer = producer(Arc::clone(&service), ProducerConfig::default()).await;
    let absent = try_record(&producer, LOOK_ALIKE).unwrap().await;
    assert!(absent.is_err());
    tokio::time::sleep(10 * SECOND).await;
    let began = clock::now();
    try_record(&producer, LOOK_ALIKE).unwrap().await.unwrap();
    assert!(began.elapsed() < SECOND);
}
