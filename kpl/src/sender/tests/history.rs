//! Random histories of a producer and the model of Kinesis, and what holds after each.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use futures::FutureExt;
use proptest::prelude::*;

use super::model::{CURSED, Model, POISON};
use super::*;
use crate::config::{OnGap, RecordOrdering};
use crate::error::{DeliveryError, SendError};
use crate::record::InvalidRecord;

/// Data that a consumer would take for a frame.
const LOOK_ALIKE: &[u8] = &[0xF3, 0x89, 0x9A, 0xC2];

#[derive(Debug, Clone)]
pub(super) struct History {
    pub(super) seed: u64,
    pub(super) shards: u128,
    /// Of a hundred.
    pub(super) trouble: u32,
    pub(super) poison: u32,
    pub(super) reshards: u32,
    /// Whether the record distribution strategy changes under way, and whether the role may read it.
    pub(super) strategy: Option<bool>,
    /// Whether shards cannot be listed once records are written.
    pub(super) is_unlisted: bool,
    /// When the producer is closed under way, and how long that may take, in milliseconds.
    pub(super) close: Option<(u64, u64)>,
    pub(super) on_gap: OnGap,
    pub(super) max_count: u32,
    pub(super) linger: u64,
    pub(super) adaptive: bool,
    pub(super) ttl: u64,
}

pub(super) fn histories() -> impl Strategy<Value = History> {
    let on_gap = prop_oneof![Just(OnGap::FailSuccessors), Just(OnGap::Continue)];
    let is_unlisted = prop_oneof![3 => Just(false), 1 => Just(true)];
    let reshards = (0..8_u32, is_unlisted);
    let numbers = (any::<u64>(), 1..4_u128, 0..25_u32, 0..4_u32, reshards);
    let linger = prop_oneof![Just(0), 0..40_u64];
    let settings = (on_gap, 1..12_u32, (linger, any::<bool>()), 400..8000_u64);
    (numbers, settings).prop_map(
        |(
            (seed, shards, trouble, poison, (reshards, is_unlisted)),
            (on_gap, max_count, (linger, adaptive), ttl),
        )| History {
            seed,
            shards,
            trouble,
            poison,
            reshards,
            is_unlisted,
            strategy: None,
            close: None,
            on_gap,
            max_count,
            linger,
            adaptive,
            ttl,
        },
    )
}

const KEYS: usize = 8;
const PER_KEY: usize = 40;

type Outcome = Result<(), DeliveryError>;

/// A record that was sent, and the earlier ones of its key that were not completed when `send` returned.
pub(super) struct Sent {
    pub(super) data: Bytes,
    pub(super) outcome: Outcome,
    pub(super) behind: Vec<usize>,
}

/// Sends the records of one key.
async fn send_key(producer: Producer, key: usize, history: History) -> Vec<Sent> {
    let mut rng = fastrand::Rng::with_seed(history.seed ^ (key as u64 + 1) << 32);
    let hash_key = HashKey::new(u128::MAX / KEYS as u128 * key as u128 + 12345);
    let mut deliveries: Vec<Delivery> = Vec::new();
    let mut sent: Vec<(Bytes, Option<Outcome>, Vec<usize>)> = Vec::new();
    for id in 0..PER_KEY {
        let mark = match rng.u32(0..100) {
            n if n < history.poison => POISON,
            n if n < history.poison * 2 => CURSED,
            n if n < 90 => b"plain",
            _ => LOOK_ALIKE,
        };
        let data = Bytes::from([mark, format!(" {key}/{id}").as_bytes()].concat());
        let mut record = UserRecord::new("k", data.clone()).with_explicit_hash_key(hash_key);
        if rng.u32(0..8) == 0 {
            record = record.with_time_to_live(Duration::from_millis(rng.u64(50..3000)));
        }
        match producer.send(record).await {
            Ok(delivery) => deliveries.push(delivery),
            Err(SendError::Invalid { reason, .. }) => {
                assert_eq!(reason, InvalidRecord::LooksAggregated);
                continue;
            }
            Err(SendError::Closed { .. }) if history.close.is_some() => break,
            Err(error) => panic!("{error}"),
        }
        let mut behind = Vec::new();
        for (earlier, (_, outcome, _)) in sent.iter_mut().enumerate() {
            if outcome.is_none() {
                match (&mut deliveries[earlier]).now_or_never() {
                    Some(completed) => *outcome = Some(completed.map(drop)),
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
        all.push(Sent { data, outcome, behind });
    }
    all
}

pub(super) async fn run(
    history: &History,
    ordering: RecordOrdering,
) -> (Arc<Model>, Vec<Vec<Sent>>) {
    let model = Model::new(history.seed, history.shards, history.trouble);
    if history.is_unlisted {
        model.deny_lists();
    }
    if history.strategy == Some(false) {
        model.deny_describe();
    }
    let config = ProducerConfig {
        ordering,
        on_gap: history.on_gap,
        aggregation_max_count: history.max_count,
        aggregation_max_size: if history.adaptive { 64 } else { 50 * 1024 },
        aggregation_adaptive: history.adaptive,
        record_max_buffered_time: Duration::from_millis(history.linger),
        record_ttl: Duration::from_millis(history.ttl),
        shard_map_refresh_interval: Duration::from_millis(700),
        ..Default::default()
    };
    let components = Components { seed: Some(history.seed), ..Default::default() };
    let service: Arc<dyn Service> = Arc::clone(&model) as _;
    let producer = builder::start("s".into(), service, config, components).await.unwrap();
    let mut senders = JoinSet::new();
    for key in 0..KEYS {
        senders.spawn(send_key(producer.clone(), key, history.clone()));
    }
    if let Some((after, deadline)) = history.close {
        let producer = producer.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(after)).await;
            producer.close(Duration::from_millis(deadline)).await;
        });
    }
    let mut rng = fastrand::Rng::with_seed(history.seed);
    for nth in 0..history.reshards {
        tokio::time::sleep(Duration::from_millis(rng.u64(0..400))).await;
        model.reshard();
        if history.strategy.is_some() {
            tokio::time::sleep(Duration::from_millis(rng.u64(0..400))).await;
            model.set_auto(nth % 2 == 0);
        }
    }
    let sent = senders.join_all().await;
    producer.close(Duration::from_secs(100)).await;
    assert_eq!(producer.buffered_bytes(), 0);
    // Records that are committed late are seen, too.
    tokio::time::sleep(Duration::from_secs(10)).await;
    (model, sent)
}

/// No acknowledged record is lost, and no record is seen whose error says that it was not written.
pub(super) fn check_delivery(
    history: &History,
    seen: &HashMap<HashKey, Vec<Bytes>>,
    sent: &[Vec<Sent>],
) {
    let seen: HashSet<_> = seen.values().flatten().collect();
    for record in sent.iter().flatten() {
        match &record.outcome {
            Ok(()) => assert!(seen.contains(&record.data), "{:?} is lost", record.data),
            Err(error)
                if history.close.is_none()
                    && matches!(error.cause(), FailureCause::Abandoned(_)) =>
            {
                panic!("{:?} was forgotten: {error}", record.data)
            }
            Err(error) if !error.may_have_been_written() => {
                assert!(!seen.contains(&record.data), "{:?}: {error}", record.data);
            }
            Err(_) => {}
        }
    }
}

pub(super) fn simulate<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(run)
}
