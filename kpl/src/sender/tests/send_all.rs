//! Batches of records.

use futures::poll;
use kinesis_aggregation::{Decoded, Decoder};
use proptest::prelude::*;

use super::*;
use crate::error::SendError;
use crate::record::{InvalidRecord, Priority, Record};

const HOUR: Duration = Duration::from_secs(3600);
const KIB: usize = 1024;

/// Everything that was put, in order: shard, partition key, explicit hash key, data.
type Wire = Arc<Mutex<Vec<(&'static str, String, Option<HashKey>, Vec<u8>)>>>;

/// Writes all, and notes what it got.
fn noting() -> (Arc<Scripted>, Wire) {
    let wire = Wire::default();
    let noted = Arc::clone(&wire);
    let service = Scripted::new(move |_, entries| {
        lock(&noted).extend(entries.iter().map(|entry| {
            let key = entry.partition_key.to_string();
            (shard_of(entry), key, entry.explicit_hash_key, entry.data.to_vec())
        }));
        all_written(entries)
    });
    (service, wire)
}

fn stalled() -> Arc<Scripted> {
    Scripted::new(|_, entries| (HOUR, Ok(entries.iter().map(written).collect())))
}

fn small(max_buffered_bytes: usize) -> ProducerConfig {
    ProducerConfig { max_buffered_bytes, record_ttl: 100 * HOUR, ..Default::default() }
}

fn record(id: usize) -> UserRecord {
    UserRecord::new(format!("key-{}", id % 7), format!("{id:06}"))
}

/// The data of all user records that were put to a shard.
fn members(wire: &Wire, shard: &str) -> Vec<Vec<u8>> {
    let mut decoder = Decoder::new(1 << 20);
    let mut all = Vec::new();
    for (_, _, _, data) in lock(wire).iter().filter(|(at, ..)| *at == shard) {
        match decoder.decode(data.clone().into()).unwrap() {
            Decoded::Aggregate(members) => all.extend(members.iter().map(|m| m.data().to_vec())),
            _ => all.push(data.clone()),
        }
    }
    all
}

/// What came of a record.
fn told(outcome: Result<crate::Receipt, DeliveryError>) -> Result<(String, u64), String> {
    match outcome {
        Ok(receipt) => Ok((
            format!("{} {}", receipt.shard_id, receipt.sequence_number),
            receipt.sub_sequence_number,
        )),
        Err(error) => Err(error.to_string()),
    }
}

fn any_record() -> impl Strategy<Value = UserRecord> {
    (
        0..20_u8,
        prop_oneof![Just(0_usize), 0..40_usize, 300..600_usize],
        any::<(bool, bool)>(),
        proptest::option::weighted(0.2, any::<u128>()),
        proptest::option::weighted(0.2, 1..3_u64),
    )
        .prop_map(|(key, size, (is_special, is_raw), hash_key, time_to_live)| {
            let key = format!("key-{key}");
            let data = vec![size as u8; size];
            let mut record = match is_special && is_raw {
                true => UserRecord::raw(key, data),
                false => UserRecord::new(key, data),
            };
            if is_special && !is_raw {
                record = record.with_priority(Priority::Droppable);
            }
            record.explicit_hash_key = hash_key.map(HashKey::new);
            record.time_to_live = time_to_live.map(|minutes| Duration::from_secs(60 * minutes));
            record
        })
}

fn any_config() -> impl Strategy<Value = ProducerConfig> {
    (any::<(bool, bool)>(), 1..40_usize, 1..200_u32, 1..100_u32).prop_map(
        |((is_ordered, adapts), size, count, limit)| ProducerConfig {
            ordering: match is_ordered {
                true => RecordOrdering::PerPartitionKey,
                false => RecordOrdering::BestEffort,
            },
            aggregation_max_size: 64 * size,
            aggregation_max_count: count,
            aggregation_adaptive: adapts,
            droppable_limit: limit,
            record_ttl: 100 * HOUR,
            ..Default::default()
        },
    )
}

/// Runs on a clock of its own, which never waits.
fn run<T>(task: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_time().start_paused(true).build().unwrap().block_on(task)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The same bytes in the same requests, and the same results, as from a loop of `send`.
    #[test]
    fn a_batch_is_what_a_loop_of_send_is(
        records in proptest::collection::vec(any_record(), 0..300),
        config in any_config(),
    ) {
        let one_by_one = run(async {
            let (service, wire) = noting();
            let producer = producer(service, config.clone()).await;
            let mut deliveries = Vec::new();
            for record in records.clone() {
                deliveries.push(producer.send(record).await.unwrap());
            }
            let outcomes = futures::future::join_all(deliveries).await;
            let outcomes: Vec<_> = outcomes.into_iter().map(told).collect();
            (outcomes, std::mem::take(&mut *lock(&wire)), producer.stats())
        });
        let together = run(async {
            let (service, wire) = noting();
            let producer = producer(service, config.clone()).await;
            // Key and data are borrowed.
            let borrowed = records.iter().map(|record| Record {
                partition_key: record.partition_key().into(),
                data: record.data().into(),
                explicit_hash_key: record.explicit_hash_key,
                priority: record.priority,
                time_to_live: record.time_to_live,
                is_raw: record.is_raw,
            });
            let outcomes = producer.send_all(borrowed).await.unwrap().await;
            let outcomes: Vec<_> = outcomes.into_iter().map(told).collect();
            (outcomes, std::mem::take(&mut *lock(&wire)), producer.stats())
        });
        prop_assert_eq!(together, one_by_one);
    }

    /// With too little room, each shard still gets its records in the order of the batch, and each record has its own
    /// result.
    #[test]
    fn a_batch_larger_than_the_buffer_keeps_its_order(
        sizes in proptest::collection::vec((any::<bool>(), 0..2000_usize), 100..400),
        limit in 64..256_usize,
    ) {
        run(async {
            let (service, wire) = noting();
            let producer = producer(service, small(limit * KIB)).await;
            let records = (0..).zip(&sizes).map(|(id, (is_high, size))| {
                let key = if *is_high { u128::MAX } else { id };
                UserRecord::new("k", format!("{id:06}{}", "x".repeat(*size)))
                    .with_explicit_hash_key(HashKey::new(key))
            });
            let mut deliveries = producer.send_all(records).await.unwrap();
            assert!(deliveries.next_failure().await.is_none());
            assert!(producer.peak_buffered_bytes() <= limit * KIB);
            let [low, high] = ["low", "high"].map(|shard| members(&wire, shard));
            assert!(low.is_sorted() && high.is_sorted());
            assert_eq!(low.len() + high.len(), sizes.len());
            assert_eq!(producer.buffered_bytes(), 0);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalid_record_stops_the_batch_which_may_go_on_behind_it() {
    let (service, _) = noting();
    let producer = producer(service, ProducerConfig::default()).await;
    let invalid = [0, 70, 71, 199];
    let records = (0..200).map(|id| match invalid.contains(&id) {
        true => UserRecord::new("", format!("{id:06}")),
        false => record(id),
    });
    let mut sending = producer.send_all(records);
    let mut refused = Vec::new();
    let deliveries = loop {
        match (&mut sending).await {
            Ok(deliveries) => break deliveries,
            Err(error) => {
                let position = error.position();
                assert!(error.to_string().starts_with(&format!("record {position} of the batch")));
                let SendError::Invalid { record, reason } = error.error() else {
                    panic!("{error}")
                };
                assert!(matches!(reason, InvalidRecord::PartitionKeyLength { actual: 0, .. }));
                assert_eq!(record.data(), format!("{position:06}").as_bytes());
                refused.push(position);
                let before = (0..position).filter(|id| !invalid.contains(id));
                assert_eq!(sending.accepted(), before.count());
            }
        }
    };
    assert_eq!(refused, invalid);
    assert_eq!(deliveries.len(), 196);
    assert!(deliveries.await.iter().all(Result::is_ok));
    assert_eq!(producer.stats().user_records_delivered, 196);
}

#[tokio::test(start_paused = true)]
async fn a_refused_record_comes_back_with_the_accepted_and_the_others() {
    let (service, _) = noting();
    let producer = producer(service, ProducerConfig::default()).await;
    let mut records: Vec<_> = (0..100).map(record).collect();
    records[40] = UserRecord::new("k", vec![0; 2 << 20]);
    let all = records.clone();
    let mut sending = producer.send_all(records);
    let error = (&mut sending).await.unwrap_err();
    assert!(matches!(error.error(), SendError::TooLarge { actual: 2_097_153, .. }));
    let (deliveries, rest) = sending.into_parts();
    assert_eq!(deliveries.len(), 40);
    assert_eq!(error.into_record(), all[40]);
    assert_eq!(rest.collect::<Vec<_>>(), all[41..]);
    assert!(deliveries.await.iter().all(Result::is_ok));
    // `?` makes the plain error of it.
    let invalid = producer.send_all([record(0), UserRecord::new("", "")]).await;
    assert!(matches!(invalid.map_err(SendError::from), Err(SendError::Invalid { .. })));
    assert!(producer.send_all([]).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_rest_comes_back_when_the_producer_closes() {
    let producer = producer(stalled(), small(64 * KIB)).await;
    let all: Vec<_> = (0..3000).map(record).collect();
    let mut sending = producer.send_all(all.clone());
    assert!(poll!(&mut sending).is_pending());
    let accepted = sending.accepted();
    assert!((100..2000).contains(&accepted), "{accepted}");
    let (sent, report) = futures::join!(&mut sending, producer.close(Duration::from_secs(1)));
    let refused = sent.unwrap_err();
    assert_eq!(refused.position(), accepted);
    assert!(matches!(refused.error(), SendError::Closed { reason: StopReason::Closed, .. }));
    assert_eq!(refused.into_record(), all[accepted]);
    let (deliveries, rest) = sending.into_parts();
    assert_eq!(rest.collect::<Vec<_>>(), all[accepted + 1..]);
    // Each of the others has an outcome, and has its own record.
    let outcomes = deliveries.await;
    assert_eq!((outcomes.len(), report.abandoned), (accepted, accepted as u64));
    for (outcome, record) in outcomes.into_iter().zip(&all) {
        assert_eq!(outcome.unwrap_err().into_record().as_ref(), Some(record));
    }
    // A batch that comes too late is given back whole.
    let mut sending = producer.send_all(all.clone());
    let refused = (&mut sending).await.unwrap_err();
    let (deliveries, rest) = sending.into_parts();
    assert_eq!((refused.into_record(), deliveries.len()), (all[0].clone(), 0));
    assert_eq!(rest.collect::<Vec<_>>(), all[1..]);
    assert_eq!(producer.buffered_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_is_stopped_accepts_a_first_part_and_gives_back_the_rest() {
    let (service, wire) = noting();
    // The number of times that the batch is polled before it is stopped.
    for polls in 0..20 {
        lock(&wire).clear();
        let producer = producer(Arc::clone(&service), small(64 * KIB)).await;
        let all: Vec<_> = (0..1000)
            .map(|id| UserRecord::new(format!("key-{id}"), format!("{id:06}{}", "x".repeat(500))))
            .collect();
        let mut sending = producer.send_all(all.iter().cloned());
        for _ in 0..polls {
            assert!(poll!(&mut sending).is_pending(), "it is far larger than the buffer");
            tokio::time::sleep(QUICK / 2).await;
        }
        let accepted = sending.accepted();
        assert_eq!(accepted == 0, polls == 0);
        let (deliveries, rest) = sending.into_parts();
        assert_eq!(rest.collect::<Vec<_>>(), all[accepted..]);
        assert_eq!(deliveries.len(), accepted);
        assert!(deliveries.await.iter().all(Result::is_ok));
        let [low, high] = ["low", "high"].map(|shard| members(&wire, shard));
        assert!(low.is_sorted() && high.is_sorted());
        let mut put = [low, high].concat();
        put.sort();
        let expected: Vec<_> =
            all[..accepted].iter().map(|record| record.data().to_vec()).collect();
        assert_eq!(put, expected);
        assert_eq!(producer.buffered_bytes(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_batch_leaves_its_turn_to_others() {
    let producer = producer(stalled(), small(64 * KIB)).await;
    let wide = |id: usize| UserRecord::new("k", format!("{id:06}{}", "x".repeat(4000)));
    let mut first = producer.send_all((0..100).map(wide));
    let mut second = producer.send_all((100..200).map(wide));
    assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
    assert_eq!(second.accepted(), 0);
    let before = first.accepted();
    drop(first);
    assert!(poll!(&mut second).is_pending(), "the buffer is full");
    // After an hour there is room.
    tokio::time::sleep(HOUR + Duration::from_secs(1)).await;
    assert!(poll!(&mut second).is_pending());
    assert!(second.accepted() > 0);
    assert_eq!(producer.stats().user_records_accepted as usize, before + second.accepted());
}

#[tokio::test(start_paused = true)]
async fn the_deliveries_of_a_long_batch_can_be_taken_while_it_goes_on() {
    const RECORDS: usize = 500;
    let (service, _) = noting();
    let producer = producer(service, small(64 * KIB)).await;
    let mut sending = producer.send_all((0..RECORDS).map(record));
    let mut outcomes = Vec::new();
    let last = loop {
        match tokio::time::timeout(Duration::from_millis(1), &mut sending).await {
            Ok(last) => break last.unwrap(),
            Err(_) => outcomes.extend(sending.take_deliveries().await),
        }
        assert_eq!(sending.accepted(), 0);
    };
    assert!(!outcomes.is_empty(), "the batch is larger than the buffer");
    assert!(last.len() < RECORDS);
    outcomes.extend(last.await);
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), RECORDS);
}

#[tokio::test(start_paused = true)]
async fn a_batch_without_end_starves_no_other_caller() {
    let (service, _) = noting();
    let producer = producer(service, small(64 * KIB)).await;
    let endless = tokio::spawn({
        let producer = producer.clone();
        async move {
            let records = (0..).map(|id: usize| {
                UserRecord::new("k", format!("{id:06}{}", "x".repeat(1000)))
                    .with_explicit_hash_key(HashKey::MIN)
            });
            producer.send_all(records).await.unwrap_err().position()
        }
    });
    for _ in 0..50 {
        for key in [0, u128::MAX] {
            send(&producer, key, &"y".repeat(1000)).await.await.unwrap();
        }
        let others = (0..100).map(|_| UserRecord::new("k", vec![b'z'; 1000]));
        let mut deliveries = producer.send_all(others).await.unwrap();
        assert!(deliveries.next_failure().await.is_none());
    }
    assert!(!endless.is_finished());
    assert!(producer.peak_buffered_bytes() <= 64 * KIB);
    producer.close(Duration::from_secs(60)).await;
    assert!(endless.await.unwrap() > 1000);
}

#[tokio::test(start_paused = true)]
async fn droppable_records_of_a_batch_give_way_at_their_places() {
    let config = small(256 * KIB).with_droppable_limit(25);
    let producer = producer(stalled(), config).await;
    let records = (0..100).map(|id| {
        let record = UserRecord::new("k", format!("{id:06}{}", "x".repeat(1000)));
        let record = record.with_explicit_hash_key(HashKey::MIN);
        if id % 2 == 0 { record.with_priority(Priority::Droppable) } else { record }
    });
    let mut deliveries = producer.send_all(records).now_or_never().unwrap().unwrap();
    assert_eq!(deliveries.len(), 100);
    let mut dropped = Vec::new();
    let waited = tokio::time::timeout(Duration::from_secs(1), async {
        while let Some((position, error)) = deliveries.next_failure().await {
            dropped.push((position, error));
        }
    });
    assert!(waited.await.is_err(), "the first record is not answered");
    tokio::time::sleep(HOUR).await;
    while let Some((position, error)) = deliveries.next_failure().await {
        assert!(position % 2 == 0);
        assert_eq!(*error.cause(), FailureCause::Dropped);
        assert!(error.record().unwrap().data().starts_with(format!("{position:06}").as_bytes()));
        dropped.push((position, error));
    }
    assert!((20..50).contains(&dropped.len()), "{}", dropped.len());
    let stats = producer.stats();
    assert_eq!(stats.user_records_dropped as usize, dropped.len());
    assert_eq!(
        (stats.user_records_accepted, stats.user_records_delivered + stats.user_records_failed),
        (100, 100)
    );
}

#[tokio::test(start_paused = true)]
async fn a_batch_goes_on_in_the_new_shards_while_the_old_one_hands_over() {
    let (service, wire) = noting();
    let half = u128::MAX / 2;
    *lock(&service.shards) = vec![shard("all", 0, u128::MAX, true)];
    let producer = producer(Arc::clone(&service), small(64 * KIB)).await;
    let records = (0..500_usize)
        .map(|id| UserRecord::new(format!("key-{id}"), format!("{id:06}{}", "x".repeat(1000))));
    let mut sending = producer.send_all(records);
    assert!(poll!(&mut sending).is_pending());
    let children = vec![shard("low", 0, half, true), shard("high", half + 1, u128::MAX, true)];
    producer.shards().install(9, crate::shard::map::ShardMap::new(children));
    let mut deliveries = sending.await.unwrap();
    assert!(deliveries.next_failure().await.is_none());
    let [low, high] = ["low", "high"].map(|shard| members(&wire, shard));
    assert_eq!(low.len() + high.len(), 500);
    assert!(low.is_sorted() && high.is_sorted());
    assert_eq!(producer.buffered_bytes(), 0);
}
