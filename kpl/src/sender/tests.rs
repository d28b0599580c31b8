//! The sender on a scripted service, under paused time: hours pass in milliseconds, and a run can be repeated.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::FutureExt;
use futures::future::BoxFuture;
use kinesis_aggregation::{Decoded, Decoder, HashKey, looks_framed};

use super::*;
use crate::ack::Delivery;
use crate::config::{ProducerConfig, RecordOrdering};
use crate::error::DeliveryError;
use crate::producer::Producer;
use crate::producer::builder::{self, Components};
use crate::record::UserRecord;
use crate::service::Shard;
use crate::service::{CallErrorKind, Entry, Listing, StreamDescription};
use crate::shard::map::tests::shard;
use crate::sync::lock;

mod busy_shard;
mod compressed;
mod digests;
mod fatal_errors;
mod fill;
mod handles;
mod history;
mod isolation;
mod link;
mod measures;
mod model;
mod ordered;
mod placement;
mod record_size;
mod reshard;
mod send_all;
#[cfg(feature = "sink")]
mod sink;
mod split_singles;
mod telling;
mod throttles;
mod time_to_live;
mod troubles;
mod wakers;

type Reply = Result<Vec<EntryOutcome>, CallError>;
type Script = dyn Fn(Duration, &[Entry]) -> (Duration, Reply) + Send + Sync;

/// A service whose script gives the delay and the content of each answer. It gets the time since the start.
struct Scripted {
    script: Box<Script>,
    shards: Mutex<Vec<Shard>>,
    calls: Mutex<Vec<Duration>>,
    /// The time in which ListShards fails, and the times of its calls.
    list_outage: Mutex<std::ops::Range<Duration>>,
    list_calls: Mutex<Vec<Duration>>,
    /// How long a call of ListShards takes.
    list_takes: Mutex<Duration>,
    listings: Mutex<Vec<Listing>>,
    /// The description of the stream, and the errors that DescribeStreamSummary and ListShards answer with instead.
    is_auto: AtomicBool,
    max_record_size: Mutex<Option<usize>>,
    describe_fails: Mutex<Option<CallError>>,
    describe_calls: Mutex<Vec<Duration>>,
    list_fails: Mutex<Option<CallError>>,
    started: Instant,
    next_sequence: AtomicU64,
}

impl Scripted {
    fn new(
        script: impl Fn(Duration, &[Entry]) -> (Duration, Reply) + Send + Sync + 'static,
    ) -> Arc<Self> {
        let half = u128::MAX / 2;
        let shards = vec![shard("low", 0, half, true), shard("high", half + 1, u128::MAX, true)];
        Arc::new(Self {
            script: Box::new(script),
            shards: Mutex::new(shards),
            calls: Mutex::default(),
            list_outage: Mutex::default(),
            list_calls: Mutex::default(),
            list_takes: Mutex::default(),
            listings: Mutex::default(),
            is_auto: AtomicBool::new(false),
            max_record_size: Mutex::default(),
            describe_fails: Mutex::default(),
            describe_calls: Mutex::default(),
            list_fails: Mutex::default(),
            started: clock::now(),
            next_sequence: AtomicU64::new(0),
        })
    }

    fn calls(&self) -> Vec<Duration> {
        lock(&self.calls).clone()
    }
}

/// Whether data is not framed, or a frame that a consumer can open.
fn is_plain_or_whole(entry: &Entry) -> bool {
    let decode = || Decoder::new(1 << 24).decode(entry.data.clone());
    !looks_framed(&entry.data) || matches!(decode(), Ok(Decoded::Aggregate(_)))
}

/// The shards that a listing shows.
fn listed(shards: &[Shard], listing: Listing) -> Vec<Shard> {
    let shown = |shard: &&Shard| shard.is_open || listing == Listing::All;
    shards.iter().filter(shown).cloned().collect()
}

impl Service for Scripted {
    fn put_records(&self, entries: Vec<Entry>, _limit: Duration) -> BoxFuture<'static, Reply> {
        let passed = clock::now() - self.started;
        lock(&self.calls).push(passed);
        assert!(entries.iter().all(is_plain_or_whole), "an aggregate has a wrong digest");
        let (delay, mut reply) = (self.script)(passed, &entries);
        for outcome in reply.iter_mut().flatten() {
            if let EntryOutcome::Written { sequence_number, .. } = outcome {
                *sequence_number = self.next_sequence.fetch_add(1, Ordering::Relaxed).to_string();
            }
        }
        async move {
            tokio::time::sleep(delay).await;
            reply
        }
        .boxed()
    }

    fn list_shards(&self, listing: Listing) -> BoxFuture<'static, Result<Vec<Shard>, CallError>> {
        let passed = clock::now() - self.started;
        lock(&self.list_calls).push(passed);
        lock(&self.listings).push(listing);
        let answer = match lock(&self.list_fails).clone() {
            Some(error) => Err(error),
            None if lock(&self.list_outage).contains(&passed) => Err(unreachable()),
            None => Ok(listed(&lock(&self.shards), listing)),
        };
        let takes = *lock(&self.list_takes);
        async move {
            tokio::time::sleep(takes).await;
            answer
        }
        .boxed()
    }

    fn describe(&self) -> BoxFuture<'static, Result<StreamDescription, CallError>> {
        lock(&self.describe_calls).push(clock::now() - self.started);
        let description = StreamDescription {
            status: "ACTIVE".into(),
            is_usable: true,
            max_record_size: *lock(&self.max_record_size),
            service_places_records: self.is_auto.load(Ordering::Relaxed),
            incarnation: String::new(),
        };
        let answer = match lock(&self.describe_fails).clone() {
            Some(error) => Err(error),
            None => Ok(description),
        };
        async move { answer }.boxed()
    }
}

const QUICK: Duration = Duration::from_millis(5);

fn hash_key(entry: &Entry) -> HashKey {
    entry.explicit_hash_key.unwrap_or_else(|| HashKey::of_partition_key(&entry.partition_key))
}

fn shard_of(entry: &Entry) -> &'static str {
    if hash_key(entry).get() <= u128::MAX / 2 { "low" } else { "high" }
}

fn written(entry: &Entry) -> EntryOutcome {
    EntryOutcome::Written { shard_id: shard_of(entry).to_owned(), sequence_number: String::new() }
}

fn refused(code: &str) -> EntryOutcome {
    EntryOutcome::Refused { code: code.to_owned(), message: "scripted".to_owned() }
}

fn all_written(entries: &[Entry]) -> (Duration, Reply) {
    (QUICK, Ok(entries.iter().map(written).collect()))
}

fn unreachable() -> CallError {
    CallError {
        kind: CallErrorKind::Connection,
        code: "Connection".into(),
        message: "refused".into(),
        may_have_been_written: true,
        source: None,
    }
}

fn refused_request(code: &str) -> CallError {
    CallError {
        kind: CallErrorKind::Service,
        code: code.into(),
        message: "scripted".into(),
        may_have_been_written: false,
        source: None,
    }
}

async fn producer(service: Arc<Scripted>, config: ProducerConfig) -> Producer {
    let components = Components { seed: Some(42), ..Default::default() };
    builder::start("s".into(), service, config, components).await.unwrap()
}

async fn send(producer: &Producer, key: u128, data: &str) -> Delivery {
    let record = UserRecord::new("k", data.to_owned()).with_explicit_hash_key(HashKey::new(key));
    producer.send(record).await.unwrap()
}

/// Waits until all records are delivered.
async fn all_delivered(deliveries: impl IntoIterator<Item = Delivery>) {
    for delivery in deliveries {
        delivery.await.unwrap();
    }
}

/// Sends a record each 20 ms for 20 s, and returns their errors. Each must fail.
async fn errors_of_20_seconds(producer: &Producer) -> Vec<DeliveryError> {
    let mut deliveries = Vec::new();
    for _ in 0..1000 {
        deliveries.push(send(producer, 0, "v").await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let errors = deliveries.into_iter().map(async |delivery| delivery.await.unwrap_err());
    futures::future::join_all(errors).await
}

#[tokio::test(start_paused = true)]
async fn an_absent_service_is_not_hammered_and_all_recovers() {
    let service = Scripted::new(|passed, entries| {
        if passed < Duration::from_secs(60) {
            (Duration::from_micros(200), Err(unreachable()))
        } else {
            all_written(entries)
        }
    });
    let bound = 1 << 20;
    let config = ProducerConfig {
        aggregation_max_size: 4096,
        max_buffered_bytes: bound,
        record_ttl: Duration::from_secs(300),
        ..Default::default()
    };
    let producer = producer(Arc::clone(&service), config).await;
    let sender = tokio::spawn({
        let producer = producer.clone();
        async move {
            let mut deliveries = Vec::new();
            for id in 0..4000_u128 {
                let data = format!("{id}{}", "x".repeat(500));
                deliveries.push(send(&producer, id << 116, &data).await);
            }
            for delivery in deliveries {
                assert!(delivery.await.unwrap().attempts >= 1);
            }
        }
    });
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert!(producer.buffered_bytes() > bound / 3 && producer.peak_buffered_bytes() <= bound);
    let calls = service.calls().len();
    assert!((10..200).contains(&calls), "{calls} calls in a minute");
    sender.await.unwrap();
    assert_eq!(producer.stats().user_records_delivered, 4000);
    assert_eq!(producer.buffered_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_shard_backs_off_while_the_other_goes_on() {
    let service = Scripted::new(|passed, entries| {
        let full = passed < Duration::from_secs(20);
        let outcome = |entry: &Entry| match shard_of(entry) {
            "low" if full => refused("ProvisionedThroughputExceededException"),
            _ => written(entry),
        };
        (QUICK, Ok(entries.iter().map(outcome).collect()))
    });
    let producer = producer(Arc::clone(&service), ProducerConfig::default()).await;
    let low = send(&producer, 0, "low").await;
    for _ in 0..20 {
        let before = clock::now();
        send(&producer, u128::MAX, "high").await.await.unwrap();
        assert!(before.elapsed() < Duration::from_millis(200));
    }
    let receipt = low.await.unwrap();
    assert!((5..60).contains(&receipt.attempts), "{}", receipt.attempts);
    assert!(!receipt.may_be_duplicate());
    assert_eq!(producer.stats().throttled, u64::from(receipt.attempts) - 1);
}

#[tokio::test(start_paused = true)]
async fn records_expire_at_their_time_to_live_wherever_they_are() {
    for code in ["ProvisionedThroughputExceededException", "InternalFailure"] {
        let service = Scripted::new(move |_, entries| {
            (QUICK, Ok(entries.iter().map(|_| refused(code)).collect()))
        });
        let ttl = Duration::from_secs(30);
        let producer = producer(service, ProducerConfig::default()).await;
        let began = clock::now();
        let error = send(&producer, 0, "v").await.await.unwrap_err();
        let took = began.elapsed();
        assert!(took >= ttl && took < ttl + Duration::from_secs(3), "{code}: {took:?}");
        assert!(matches!(error.cause(), FailureCause::Expired { .. }));
        assert_eq!(error.may_have_been_written(), code == "InternalFailure");
        assert!(!error.attempts().is_empty());
        assert!(error.attempts().iter().all(|attempt| &*attempt.code == code));
    }
}

#[tokio::test(start_paused = true)]
async fn a_panicking_request_resolves_every_delivery_with_the_message() {
    let service = Scripted::new(|passed, entries| {
        assert!(passed < Duration::from_secs(1), "the script panics");
        all_written(entries)
    });
    let producer = producer(service, ProducerConfig::default()).await;
    send(&producer, 0, "fine").await.await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let left = [send(&producer, 0, "a").await, send(&producer, u128::MAX, "b").await];
    for delivery in left {
        let error = delivery.await.unwrap_err();
        let FailureCause::Abandoned(StopReason::Panicked { message }) = error.cause() else {
            panic!("{error}")
        };
        assert_eq!(&**message, "the script panics");
    }
    let refused = producer.try_send(UserRecord::new("k", "v")).unwrap_err();
    assert!(refused.to_string().contains("the script panics"), "{refused}");
    assert_eq!(producer.close(Duration::from_secs(1)).await.abandoned, 2);
}

#[tokio::test(start_paused = true)]
async fn requests_in_flight_are_bounded_in_number_and_bytes() {
    for (max_requests, max_bytes, expected) in [(3, 1 << 30, 3), (100, 128 * 1024, 2)] {
        let in_flight = Arc::new(Mutex::new((0_usize, 0_usize)));
        let counted = Arc::clone(&in_flight);
        let service = Scripted::new(move |_, entries| {
            let mut in_flight = lock(&counted);
            in_flight.0 += 1;
            in_flight.1 += entries.iter().map(|entry| entry.data.len()).sum::<usize>();
            (Duration::from_secs(3600), Ok(entries.iter().map(written).collect()))
        });
        let config = ProducerConfig {
            aggregation_enabled: false,
            max_requests_in_flight: max_requests,
            max_in_flight_bytes: max_bytes,
            collection_max_size: 64 * 1024,
            record_ttl: Duration::from_secs(36_000),
            ..Default::default()
        };
        let producer = producer(service, config).await;
        for id in 0..20_u128 {
            drop(send(&producer, id << 123, &"x".repeat(60 * 1024)).await);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (requests, bytes) = *lock(&in_flight);
        assert_eq!(requests, expected);
        assert!(bytes <= max_bytes);
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_aggregate_gives_way_when_its_shard_has_no_room() {
    let service = Scripted::new(|_, entries| all_written(entries));
    let config = ProducerConfig {
        record_max_buffered_time: Duration::from_secs(1000),
        record_ttl: Duration::from_secs(2000),
        aggregation_max_size: 1 << 20,
        max_buffered_bytes: 128 * 1024,
        ..Default::default()
    };
    let producer = producer(service, config).await;
    let began = clock::now();
    for _ in 0..100 {
        drop(send(&producer, 0, &"x".repeat(5000)).await);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "no send waited for the linger");
    assert!(producer.peak_buffered_bytes() <= 128 * 1024);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run() {
    let run = || async {
        let service = Scripted::new(|passed, entries| match passed.as_millis() % 3 {
            0 => (QUICK, Err(unreachable())),
            1 => (QUICK, Ok(entries.iter().map(|_| refused("InternalFailure")).collect())),
            _ => all_written(entries),
        });
        let config = ProducerConfig { record_ttl: Duration::from_secs(300), ..Default::default() };
        let producer = producer(Arc::clone(&service), config).await;
        let mut deliveries = Vec::new();
        for id in 0..50_u128 {
            deliveries.push(send(&producer, id << 122, "v").await);
            tokio::time::sleep(Duration::from_millis(37)).await;
        }
        all_delivered(deliveries).await;
        service.calls()
    };
    let first = run().await;
    assert!(first.len() > 10);
    assert_eq!(first, run().await);
}
