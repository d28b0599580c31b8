//! What the producer learns from the answers: a service that places records itself, a map with a gap, no map at all.

use kinesis_aggregation::{Decoded, Decoder};

use super::*;
use crate::config::RecordOrdering;
use crate::error::SendError;
use crate::record::InvalidRecord;

const SECOND: Duration = Duration::from_secs(1);

/// Data that a consumer would take for a frame.
const LOOK_ALIKE: &[u8] = &[0xF3, 0x89, 0x9A, 0xC2, 1];

fn in_shard(shard_id: &str) -> EntryOutcome {
    EntryOutcome::Written { shard_id: shard_id.to_owned(), sequence_number: String::new() }
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
    let config = ProducerConfig { ordering: RecordOrdering::PerPartitionKey, ..Default::default() };
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

/// An account may make few calls of DescribeStreamSummary in a second.
#[tokio::test(start_paused = true)]
async fn a_stream_that_cannot_be_described_is_not_described_with_every_refresh() {
    let service = Scripted::new(|_, entries| {
        let outcome = |_: &Entry| in_shard("unlisted");
        (QUICK, Ok(entries.iter().map(outcome).collect()))
    });
    let config = ProducerConfig { record_ttl: 300 * SECOND, ..Default::default() };
    let producer = producer(Arc::clone(&service), config).await;
    *lock(&service.describe_fails) = Some(refused_request("LimitExceededException"));
    // An aggregate whose shard is not listed has the map refreshed again and again.
    let pair = [send(&producer, 0, "a").await, send(&producer, 1, "b").await];
    tokio::time::sleep(60 * SECOND).await;
    drop(pair);
    let lists = lock(&service.list_calls).len();
    let descriptions = lock(&service.describe_calls).len();
    assert!(lists > 60 && (5..30).contains(&descriptions), "{descriptions} beside {lists}");
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
async fn a_stream_created_again_is_not_taken_for_one_that_places_records() {
    let half = u128::MAX / 2;
    let absent = 5 * SECOND..10 * SECOND;
    let absence = absent.clone();
    // After that, the two shards have exchanged their names.
    let service = Scripted::new(move |passed, entries| match passed {
        passed if absence.contains(&passed) => {
            (QUICK, Err(refused_request("ResourceNotFoundException")))
        }
        passed if passed < absence.start => all_written(entries),
        _ => (QUICK, Ok(entries.iter().map(|_| in_shard("high")).collect())),
    });
    *lock(&service.describe_fails) = Some(refused_request("AccessDeniedException"));
    let producer = producer(Arc::clone(&service), ProducerConfig::default()).await;
    *lock(&service.list_outage) = absent.start..absent.end + 5 * SECOND;
    tokio::time::sleep(absent.start).await;
    let lost = UserRecord::new("k", "lost").with_time_to_live(SECOND);
    assert!(producer.send(lost).await.unwrap().await.is_err());
    *lock(&service.shards) =
        vec![shard("high", 0, half, true), shard("low", half + 1, u128::MAX, true)];
    tokio::time::sleep(absent.end - absent.start).await;
    send(&producer, 0, "under the old map").await.await.unwrap();
    tokio::time::sleep(20 * SECOND).await;
    try_record(&producer, LOOK_ALIKE).unwrap().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unknown_shard_in_a_gap_of_the_map_has_it_read_again() {
    let half = u128::MAX / 2;
    let service = follows_keys_until(Duration::ZERO, "high");
    let whole = std::mem::replace(&mut *lock(&service.shards), vec![shard("low", 0, half, true)]);
    let producer = producer(Arc::clone(&service), ProducerConfig::default()).await;
    *lock(&service.shards) = whole;
    send(&producer, u128::MAX, "alone").await.await.unwrap();
    tokio::time::sleep(SECOND).await;
    let before = producer.stats();
    let pair = [send(&producer, u128::MAX, "a").await, send(&producer, u128::MAX, "b").await];
    all_delivered(pair).await;
    let written = producer.stats().kinesis_records - before.kinesis_records;
    assert_eq!(written, 1, "an aggregate");
}

#[tokio::test(start_paused = true)]
async fn without_any_leave_to_read_the_stream_look_alikes_survive_its_absence() {
    let service = Scripted::new(|passed, entries| match passed < 20 * SECOND {
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

#[tokio::test(start_paused = true)]
async fn what_is_held_for_a_shard_check_goes_alone_or_expires() {
    let service = follows_keys_until(Duration::ZERO, "unknown");
    let producer = producer(service, ProducerConfig::default()).await;
    let began = clock::now();
    let pair = [send(&producer, 0, "a").await, send(&producer, 1, "b").await];
    for delivery in pair {
        let receipt = delivery.await.unwrap();
        assert!(receipt.may_be_duplicate() && &*receipt.shard_id == "unknown");
    }
    assert!(began.elapsed() < 16 * SECOND, "in half of the time to live: {:?}", began.elapsed());
    assert_eq!(producer.stats().resent_for_wrong_shard, 2);
    // It stays in a frame, alone too.
    let error = try_record(&producer, LOOK_ALIKE).unwrap().await;
    let error = error.unwrap_err();
    assert!(matches!(error.cause(), FailureCause::Expired { .. }) && error.may_have_been_written());
    assert_eq!(&*error.attempts()[0].code, "UnknownShard");
}

/// The member hash keys of a frame.
fn framed(entry: &Entry) -> Option<Vec<u128>> {
    match Decoder::new(1 << 20).decode(entry.data.clone()).unwrap() {
        Decoded::Aggregate(aggregate) => {
            Some(aggregate.iter().map(|m| m.hash_key().get()).collect())
        }
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_reshard_is_survived_while_shards_cannot_be_listed_for_minutes() {
    let half = u128::MAX / 2;
    let low = [
        shard("low", 0, half, false),
        shard("a", 0, 499, true),
        shard("b", 500, half, true),
        shard("high", half + 1, u128::MAX, true),
    ];
    for ordering in [RecordOrdering::BestEffort, RecordOrdering::PerPartitionKey] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (sink, shards) = (Arc::clone(&seen), low.clone());
        let service = Scripted::new(move |passed, entries| {
            let put = |entry: &Entry| {
                let taker = shards.iter().find(|shard| {
                    // It is listed as it is after the split.
                    let is_open = shard.is_open == (passed >= 10 * SECOND);
                    is_open && shard.range.contains(hash_key(entry))
                });
                let taker = taker.unwrap();
                let is_dropped = framed(entry).is_some_and(|keys| {
                    keys.iter().any(|key| !taker.range.contains(HashKey::new(*key)))
                });
                if !is_dropped {
                    let keys = framed(entry).unwrap_or(vec![hash_key(entry).get()]);
                    lock(&sink).extend(keys);
                }
                in_shard(&taker.id)
            };
            (QUICK, Ok(entries.iter().map(put).collect()))
        });
        let config = ProducerConfig { ordering, ..Default::default() };
        let producer = producer(Arc::clone(&service), config).await;
        *lock(&service.list_outage) = 5 * SECOND..200 * SECOND;
        *lock(&service.shards) = low.to_vec();
        let mut deliveries = Vec::new();
        for id in 0..500 {
            deliveries.push(send(&producer, id, "v").await);
            deliveries.push(send(&producer, 500 + id, "v").await);
            tokio::time::sleep(SECOND / 5).await;
            if id == 200 {
                // The first records waited for half of their time to live. The records behind them do not wait as
                // long again.
                let late = send(&producer, id, "late").await;
                let completed = tokio::time::timeout(SECOND, late).await;
                completed.expect("it is not held up").unwrap();
            }
        }
        all_delivered(deliveries).await;
        let mut all = std::mem::take(&mut *lock(&seen));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all, (0..1000).collect::<Vec<_>>(), "consumers see them all");
        // With the map, records travel together again.
        tokio::time::sleep(150 * SECOND).await;
        let before = producer.stats();
        let mut deliveries = Vec::new();
        for id in 0..1000 {
            deliveries.push(send(&producer, id, "v").await);
        }
        all_delivered(deliveries).await;
        assert_eq!(producer.stats().kinesis_records - before.kinesis_records, 2);
    }
}
