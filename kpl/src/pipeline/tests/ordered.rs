//! Ordered mode under random histories, as a KCL sees the stream.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use futures::FutureExt;
use proptest::prelude::*;

use super::model::{CURSED, Model, POISON};
use super::*;
use crate::config::{OnGap, RecordOrdering};
use crate::error::DeliveryError;

#[derive(Debug, Clone)]
struct History {
    seed: u64,
    shards: u128,
    /// Of a hundred.
    trouble: u32,
    poison: u32,
    reshards: u32,
    on_gap: OnGap,
    max_count: u32,
    linger: u64,
    ttl: u64,
}

fn histories() -> impl Strategy<Value = History> {
    let on_gap = prop_oneof![Just(OnGap::FailSuccessors), Just(OnGap::Continue)];
    let numbers = (any::<u64>(), 1..4_u128, 0..25_u32, 0..4_u32, 0..8_u32);
    let settings = (on_gap, 1..12_u32, 0..40_u64, 400..8000_u64);
    (numbers, settings).prop_map(
        |((seed, shards, trouble, poison, reshards), (on_gap, max_count, linger, ttl))| History {
            seed,
            shards,
            trouble,
            poison,
            reshards,
            on_gap,
            max_count,
            linger,
            ttl,
        },
    )
}

const KEYS: usize = 8;
const PER_KEY: usize = 40;

/// A record that was sent, and the earlier ones of its key that were not settled when `send` returned.
struct Sent {
    data: Bytes,
    outcome: Result<(), DeliveryError>,
    behind: Vec<usize>,
}

/// Sends the records of one key.
async fn send_key(producer: Producer, key: usize, history: History) -> Vec<Sent> {
    let mut rng = fastrand::Rng::with_seed(history.seed ^ (key as u64 + 1) << 32);
    let hash_key = HashKey::new(u128::MAX / KEYS as u128 * key as u128 + 12345);
    let mut deliveries: Vec<Delivery> = Vec::new();
    let mut sent: Vec<(Bytes, Option<Result<(), DeliveryError>>, Vec<usize>)> = Vec::new();
    for id in 0..PER_KEY {
        let mark = match rng.u32(0..100) {
            n if n < history.poison => POISON,
            n if n < history.poison * 2 => CURSED,
            _ => b"plain",
        };
        let data = Bytes::from([mark, format!(" {key}/{id}").as_bytes()].concat());
        let record = UserRecord::new("k", data.clone()).with_explicit_hash_key(hash_key);
        deliveries.push(producer.send(record).await.unwrap());
        let mut behind = Vec::new();
        for (earlier, (_, outcome, _)) in sent.iter_mut().enumerate() {
            if outcome.is_none() {
                match (&mut deliveries[earlier]).now_or_never() {
                    Some(settled) => *outcome = Some(settled.map(drop)),
                    None => behind.push(earlier),
                }
            }
        }
        sent.push((data, None, behind));
        if rng.u32(0..3) == 0 {
            tokio::time::sleep(Duration::from_millis(rng.u64(0..80))).await;
        }
    }
    let mut all = Vec::new();
    for ((data, outcome, behind), delivery) in sent.into_iter().zip(deliveries) {
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => delivery.await.map(drop),
        };
        all.push(Sent {
            data,
            outcome,
            behind,
        });
    }
    all
}

async fn run(history: &History, ordering: RecordOrdering) -> (Arc<Model>, Vec<Vec<Sent>>) {
    let model = Model::new(history.seed, history.shards, history.trouble);
    let config = ProducerConfig {
        ordering,
        on_gap: history.on_gap,
        aggregation_max_count: history.max_count,
        record_max_buffered_time: Duration::from_millis(history.linger),
        record_ttl: Duration::from_millis(history.ttl),
        shard_map_refresh_interval: Duration::from_millis(700),
        ..Default::default()
    };
    let components = Components {
        seed: Some(history.seed),
        ..Default::default()
    };
    let service: Arc<dyn Service> = Arc::clone(&model) as _;
    let producer = builder::start("s".into(), service, config, components)
        .await
        .unwrap();
    let mut senders = JoinSet::new();
    for key in 0..KEYS {
        senders.spawn(send_key(producer.clone(), key, history.clone()));
    }
    let mut rng = fastrand::Rng::with_seed(history.seed);
    for _ in 0..history.reshards {
        tokio::time::sleep(Duration::from_millis(rng.u64(0..400))).await;
        model.reshard();
    }
    let sent = senders.join_all().await;
    producer.close(Duration::from_secs(100)).await;
    assert_eq!(producer.buffered_bytes(), 0);
    // What is committed late is seen, too.
    tokio::time::sleep(Duration::from_secs(10)).await;
    (model, sent)
}

/// No acknowledged record is lost, and none is seen that says it was not written.
fn check_delivery(seen: &HashMap<HashKey, Vec<Bytes>>, sent: &[Vec<Sent>]) {
    let seen: HashSet<_> = seen.values().flatten().collect();
    for record in sent.iter().flatten() {
        match &record.outcome {
            Ok(()) => assert!(seen.contains(&record.data), "{:?} is lost", record.data),
            Err(error) if matches!(error.cause(), FailureCause::Abandoned(_)) => {
                panic!("{:?} was forgotten: {error}", record.data)
            }
            Err(error) if !error.may_have_been_written() => {
                assert!(!seen.contains(&record.data), "{:?}: {error}", record.data);
            }
            Err(_) => {}
        }
    }
}

/// First deliveries of acknowledged records follow `send`.
fn check_order(seen: &HashMap<HashKey, Vec<Bytes>>, sent: &[Vec<Sent>]) {
    let mut first: HashMap<&Bytes, usize> = HashMap::new();
    for (place, data) in seen.values().flatten().enumerate() {
        first.entry(data).or_insert(place);
    }
    for key in sent {
        let acknowledged: Vec<_> = key.iter().filter(|record| record.outcome.is_ok()).collect();
        for pair in acknowledged.windows(2) {
            let [before, after] = [pair[0], pair[1]];
            assert!(
                first[&before.data] < first[&after.data],
                "{:?} overtook {:?}",
                after.data,
                before.data
            );
        }
    }
}

fn check_gaps(sent: &[Vec<Sent>]) {
    for key in sent {
        for record in key.iter().filter(|record| record.outcome.is_ok()) {
            for &before in &record.behind {
                let failed = &key[before].outcome;
                assert!(failed.is_ok(), "{:?} went on after {failed:?}", record.data);
            }
        }
    }
}

fn simulate<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(run)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 20, ..ProptestConfig::default() })]

    #[test]
    fn a_key_keeps_its_order_through_all_troubles(history in histories()) {
        let (model, sent) = simulate(run(&history, RecordOrdering::PerPartitionKey));
        let seen = model.delivered();
        check_delivery(&seen, &sent);
        check_order(&seen, &sent);
        if history.on_gap == OnGap::FailSuccessors {
            check_gaps(&sent);
        }
    }

    #[test]
    fn nothing_acknowledged_is_lost_without_order_either(history in histories()) {
        let (model, sent) = simulate(run(&history, RecordOrdering::BestEffort));
        check_delivery(&model.delivered(), &sent);
    }
}
