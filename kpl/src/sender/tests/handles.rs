//! What users hold: permits, droppable records, a budget for several producers, and futures that are dropped half-way.

use std::sync::atomic::AtomicUsize;

use futures::stream::FuturesUnordered;
use futures::{StreamExt, poll};
use proptest::prelude::*;

use super::*;
use crate::buffer::MemoryBudget;
use crate::error::{ReserveError, SendError};
use crate::record::Priority;

const HOUR: Duration = Duration::from_secs(3600);
const KIB: usize = 1024;

fn record(key: u128, data: usize) -> UserRecord {
    UserRecord::new("k", vec![b'x'; data]).with_explicit_hash_key(HashKey::new(key))
}

fn small(max_buffered_bytes: usize) -> ProducerConfig {
    ProducerConfig {
        max_buffered_bytes,
        aggregation_enabled: false,
        record_max_buffered_time: Duration::ZERO,
        record_ttl: 100 * HOUR,
        ..Default::default()
    }
}

/// Takes nothing for an hour.
fn stalled() -> Arc<Scripted> {
    Scripted::new(|_, entries| (HOUR, Ok(entries.iter().map(written).collect())))
}

#[tokio::test(start_paused = true)]
async fn a_permit_holds_room_and_gives_back_what_is_left() {
    let service = Scripted::new(|_, entries| all_written(entries));
    let producer = producer(service, small(64 * KIB)).await;
    let permit = producer.reserve(10 * KIB).await.unwrap();
    assert_eq!(permit.bytes(), 10 * KIB);
    assert!(producer.buffered_bytes() > 10 * KIB);
    let delivery = permit.send(record(0, 100)).unwrap();
    assert!((100..2 * KIB).contains(&producer.buffered_bytes()));
    delivery.await.unwrap();
    assert_eq!(producer.buffered_bytes(), 0);
    drop(producer.reserve(10 * KIB).await.unwrap());
    assert_eq!(producer.buffered_bytes(), 0);

    // A record that cannot be sent comes back, and its room is free again.
    let error = producer.reserve(100).await.unwrap().send(record(0, 100)).unwrap_err();
    assert!(
        matches!(&error, SendError::PermitTooSmall { reserved: 100, actual: 101, record: back } if **back == record(0, 100)),
        "{error}"
    );
    let bad = producer.reserve(100).await.unwrap();
    assert!(matches!(bad.send(UserRecord::new("", "v")), Err(SendError::Invalid { .. })));
    assert_eq!(producer.buffered_bytes(), 0);
    let error = producer.reserve(64 * KIB).await.unwrap_err();
    assert!(
        matches!(error, ReserveError::TooLarge { limit, actual } if limit < actual && actual == 64 * KIB)
    );
}

#[tokio::test(start_paused = true)]
async fn who_waits_to_reserve_is_served_in_turn_or_sent_away() {
    let producer = producer(stalled(), small(64 * KIB)).await;
    let held = producer.reserve(40 * KIB).await.unwrap();
    let mut first = Box::pin(producer.reserve(30 * KIB));
    let mut second = Box::pin(producer.reserve(20 * KIB));
    let mut third = Box::pin(producer.reserve(36 * KIB));
    assert!(poll!(&mut first).is_pending());
    assert!(poll!(&mut second).is_pending() && poll!(&mut third).is_pending());
    let buffered = producer.buffered_bytes();
    drop(first);
    assert!(poll!(&mut second).is_pending(), "a third is for others");
    drop(held);
    let second = second.await.unwrap();
    assert!(producer.buffered_bytes() < buffered);
    assert!(poll!(&mut third).is_pending());
    let closing = producer.close(Duration::ZERO);
    let (third, _) = futures::join!(third, closing);
    assert!(matches!(third, Err(ReserveError::Closed { reason: StopReason::Closed })));
    let error = second.send(record(0, 1)).unwrap_err();
    assert!(matches!(error, SendError::Closed { .. }));
    assert!(matches!(producer.reserve(1).await, Err(ReserveError::Closed { .. })));
    assert_eq!(producer.buffered_bytes(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_hot_shard_behind_permits_stalls_no_sender_of_another() {
    let service = Scripted::new(|passed, entries| {
        let outcome = |entry: &Entry| match shard_of(entry) {
            "low" if passed < HOUR => refused("ProvisionedThroughputExceededException"),
            _ => written(entry),
        };
        (QUICK, Ok(entries.iter().map(outcome).collect()))
    });
    let producer = producer(service, small(256 * KIB)).await;
    let mut stuck = Vec::new();
    let began = clock::now();
    while let Ok(permit) =
        tokio::time::timeout(Duration::from_secs(60), producer.reserve(4 * KIB)).await
    {
        stuck.push(permit.unwrap().send(record(0, 4000)).unwrap());
    }
    assert!(producer.buffered_bytes() > 128 * KIB, "more than `send` would give it");
    let waits = tokio::spawn({
        let producer = producer.clone();
        async move { producer.reserve(4 * KIB).await.map(drop) }
    });
    for _ in 0..50 {
        producer.send(record(u128::MAX, 4000)).await.unwrap().await.unwrap();
    }
    assert!(began.elapsed() < HOUR && !waits.is_finished());
    waits.await.unwrap().unwrap();
    all_delivered(stuck).await;
}

#[tokio::test(start_paused = true)]
async fn droppable_records_give_way_and_critical_ones_never() {
    let reported = Arc::new(AtomicUsize::new(0));
    let hook = Arc::clone(&reported);
    let components = Components {
        on_failure: Some(Arc::new(move |error: &crate::error::DeliveryError| {
            assert_eq!(*error.cause(), FailureCause::Dropped);
            hook.fetch_add(1, Ordering::SeqCst);
        })),
        ..Default::default()
    };
    let config = small(256 * KIB).with_droppable_limit(25);
    let producer = builder::start("s".into(), stalled(), config, components).await.unwrap();
    let droppable = |key| record(key, 4000).with_priority(Priority::Droppable);
    let mut taken = Vec::new();
    let dropped = loop {
        let mut delivery = producer.send(droppable(0)).now_or_never().unwrap().unwrap();
        match (&mut delivery).now_or_never() {
            None => taken.push(delivery),
            Some(outcome) => break outcome.unwrap_err(),
        }
    };
    assert!((24 * KIB..=32 * KIB).contains(&producer.buffered_bytes()));
    assert_eq!(*dropped.cause(), FailureCause::Dropped);
    assert!(dropped.is_retryable() && !dropped.may_have_been_written());
    assert_eq!(dropped.into_record(), Some(droppable(0)));

    // Above the mark there is room for the others, up to the last byte.
    let mut critical = Vec::new();
    for key in [0, u128::MAX] {
        while let Ok(delivery) = producer.try_send(record(key, 4000)) {
            critical.push(delivery);
        }
    }
    assert!(producer.buffered_bytes() > 160 * KIB);
    let mut waits = Box::pin(producer.send(record(0, 64_000)));
    assert!(poll!(&mut waits).is_pending());
    // No caller looks at these deliveries, so the hook is told. `send` does not wait, `try_send` does not refuse.
    drop(producer.send(droppable(0)).now_or_never().unwrap().unwrap());
    drop(producer.try_send(droppable(u128::MAX)).unwrap());
    assert_eq!(reported.load(Ordering::SeqCst), 2);

    critical.push(waits.await.unwrap());
    let stats = producer.stats();
    assert_eq!((stats.user_records_dropped, stats.user_records_failed), (3, 3));
    for delivery in taken.into_iter().chain(critical) {
        delivery.await.unwrap();
    }
    let report = producer.close(HOUR).await;
    let stats = producer.stats();
    assert_eq!((report.failed, report.abandoned), (3, 0));
    assert_eq!(stats.user_records_accepted, report.delivered + 3);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_producer_leaves_room_to_others_of_its_budget() {
    let pool = MemoryBudget::new(256 * KIB);
    let within = |service: Arc<Scripted>, config| {
        let components = Components { memory_budget: Some(pool.clone()), ..Default::default() };
        builder::start("s".into(), service, config, components)
    };
    let hot = within(stalled(), small(usize::MAX)).await.unwrap();
    let mut held = Vec::new();
    while let Ok(delivery) = hot.try_send(record(0, 4000)) {
        held.push(delivery);
    }
    let hot_bytes = hot.buffered_bytes();
    assert!((120 * KIB..=128 * KIB).contains(&hot_bytes));
    let quick = Scripted::new(|_, entries| all_written(entries));
    // Its open aggregates would wait for more records for hours. They are sent to make room for the third producer.
    let patient = ProducerConfig {
        record_max_buffered_time: 2 * HOUR,
        record_ttl: 3 * HOUR,
        ..Default::default()
    };
    let patient = within(Arc::clone(&quick), patient).await.unwrap();
    let mut open = Vec::new();
    while let Ok(delivery) = patient.try_send(record(0, 4000)) {
        open.push(delivery);
        open.extend(patient.try_send(record(u128::MAX, 4000)));
    }
    let third = within(quick, small(usize::MAX)).await.unwrap();
    let began = clock::now();
    for _ in 0..100 {
        third.send(record(0, 20_000)).await.unwrap().await.unwrap();
    }
    assert!(began.elapsed() < HOUR);
    assert_eq!((third.buffered_bytes(), hot.buffered_bytes()), (0, hot_bytes));
    assert!(pool.peak() <= pool.limit());
    assert_eq!(hot.close(Duration::ZERO).await.abandoned as usize, held.len());
    all_delivered(open).await;
    drop((hot, held, patient));
    assert_eq!(pool.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_ends_every_wait() {
    let service = Scripted::new(|passed, entries| {
        assert!(passed < Duration::from_secs(1), "the script panics");
        all_written(entries)
    });
    let producer = producer(service, small(64 * KIB)).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let permit = producer.reserve(40 * KIB).await.unwrap();
    drop(producer.try_send(record(u128::MAX, 1)).unwrap());
    let reserve = producer.reserve(20 * KIB);
    let (mut reserve, mut send) = (Box::pin(reserve), Box::pin(producer.send(record(0, 40_000))));
    assert!(poll!(&mut reserve).is_pending() && poll!(&mut send).is_pending());
    let panicked = |reason: &StopReason| matches!(reason, StopReason::Panicked { .. });
    assert!(
        matches!(reserve.await.unwrap_err(), ReserveError::Closed { reason } if panicked(&reason))
    );
    assert!(
        matches!(send.await.unwrap_err(), SendError::Closed { reason, .. } if panicked(&reason))
    );
    assert!(matches!(permit.send(record(0, 1)), Err(SendError::Closed { .. })));
    producer.flush().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_resolves_what_is_in_flight_and_what_is_still_open() {
    let linger = Duration::from_secs(10);
    let service = Scripted::new(move |passed, entries| {
        assert!(passed < 2 * linger, "the script panics");
        (HOUR, Ok(entries.iter().map(written).collect()))
    });
    let config = ProducerConfig {
        record_max_buffered_time: linger,
        record_ttl: 100 * HOUR,
        ..Default::default()
    };
    let producer = producer(service, config).await;
    let began = clock::now();
    let in_flight = producer.send(record(0, 1)).await.unwrap();
    tokio::time::sleep(linger + linger / 5).await;
    assert!(producer.in_flight_bytes() > 0);
    let panics = producer.send(record(u128::MAX, 1)).await.unwrap();
    tokio::time::sleep(linger / 5).await;
    let open = producer.send(record(0, 1)).await.unwrap();
    for delivery in [in_flight, panics, open] {
        let error = delivery.await.unwrap_err();
        assert!(matches!(error.cause(), FailureCause::Abandoned(StopReason::Panicked { .. })));
        // The producer does not know how far an abandoned record came.
        assert!(error.may_have_been_written());
    }
    let passed = began.elapsed();
    assert!(passed < linger * 12 / 5, "the last was open: {passed:?}");
    assert_eq!(producer.close(HOUR).await.abandoned, 3);
    assert_eq!(producer.buffered_bytes(), 0);
}

/// How a call is used: polled this often and then dropped, or awaited.
#[derive(Debug, Clone, Copy)]
enum Call {
    Send(Option<u8>),
    Reserve(Option<u8>),
    Flush(u8),
}

/// Polls a future `times`, a moment apart, and drops it unless it is done. `None` awaits it.
async fn up_to<F: Future>(times: Option<u8>, future: F) -> Option<F::Output> {
    let Some(times) = times else {
        return Some(future.await);
    };
    let mut future = std::pin::pin!(future);
    for _ in 0..times {
        if let std::task::Poll::Ready(output) = poll!(future.as_mut()) {
            return Some(output);
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    None
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Calls are dropped at any point. Accepted records are delivered in the order of the calls, all other calls go on,
    /// and no room is lost.
    #[test]
    fn futures_dropped_anywhere_lose_nothing(
        calls in proptest::collection::vec(
            prop_oneof![
                4 => proptest::option::of(0..4_u8).prop_map(Call::Send),
                2 => proptest::option::of(0..4_u8).prop_map(Call::Reserve),
                1 => (0..4_u8).prop_map(Call::Flush),
            ],
            1..40,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let order = Arc::new(Mutex::new(Vec::new()));
            let seen = Arc::clone(&order);
            let service = Scripted::new(move |_, entries| {
                let ids = entries.iter().map(|entry| entry.data[0]);
                lock(&seen).extend(ids);
                all_written(entries)
            });
            let config = small(64 * KIB).with_max_requests_in_flight(1);
            let producer = producer(service, config).await;
            let permitted = AtomicUsize::new(0);
            let mut under_way = FuturesUnordered::new();
            for (id, call) in calls.iter().enumerate() {
                let (producer, permitted) = (&producer, &permitted);
                let record = UserRecord::new("k", vec![id as u8; 12_000])
                    .with_explicit_hash_key(HashKey::MIN);
                let mut call = Box::pin(async move {
                    let delivery = match *call {
                        Call::Send(times) => up_to(times, producer.send(record)).await?,
                        Call::Reserve(times) => {
                            let permit = up_to(times, producer.reserve(12_001)).await?.unwrap();
                            permitted.fetch_add(1, Ordering::SeqCst);
                            // The order of permits is that of their use.
                            drop(permit);
                            return None;
                        }
                        Call::Flush(times) => {
                            up_to(Some(times), producer.flush()).await;
                            return None;
                        }
                    };
                    Some((id as u8, delivery.unwrap()))
                });
                match poll!(&mut call) {
                    std::task::Poll::Ready(done) => under_way.push(Box::pin(async move { done }) as std::pin::Pin<Box<dyn Future<Output = _> + '_>>),
                    std::task::Poll::Pending => under_way.push(call),
                }
            }
            let mut accepted = Vec::new();
            while let Some(done) = under_way.next().await {
                if let Some((id, delivery)) = done {
                    delivery.await.unwrap();
                    accepted.push(id);
                }
            }
            let awaited = calls.iter().filter(|call| matches!(call, Call::Send(None))).count();
            assert!(accepted.len() >= awaited);
            let reserved = calls.iter().filter(|call| matches!(call, Call::Reserve(None))).count();
            assert!(permitted.load(Ordering::SeqCst) >= reserved);
            let order = lock(&order).clone();
            assert!(order.is_sorted(), "{order:?}");
            accepted.sort_unstable();
            assert_eq!(order, accepted);
            drop(under_way);
            assert_eq!(producer.buffered_bytes(), 0);
            let report = producer.close(HOUR).await;
            assert_eq!(report.delivered as usize, accepted.len());
        });
    }
}

#[tokio::test(start_paused = true)]
async fn a_close_that_is_dropped_is_ended_by_the_next() {
    let producer = producer(stalled(), small(64 * KIB)).await;
    let delivery = producer.send(record(0, 1)).await.unwrap();
    let mut close = Box::pin(producer.close(2 * HOUR));
    assert!(poll!(&mut close).is_pending());
    drop(close);
    let refused = producer.send(record(0, 1)).await.unwrap_err();
    assert!(matches!(refused, SendError::Closed { .. }));
    let mut flush = Box::pin(producer.flush());
    assert!(poll!(&mut flush).is_pending());
    drop(flush);
    let report = producer.close(2 * HOUR).await;
    assert_eq!((report.delivered, report.abandoned), (1, 0));
    delivery.await.unwrap();
}

/// A service that takes its time to tell of the stream.
struct Slow(Arc<Scripted>);

impl Service for Slow {
    fn put_records(&self, entries: Vec<Entry>, limit: Duration) -> BoxFuture<'static, Reply> {
        self.0.put_records(entries, limit)
    }

    fn list_shards(&self, listing: Listing) -> BoxFuture<'static, Result<Vec<Shard>, CallError>> {
        let answer = self.0.list_shards(listing);
        tokio::time::sleep(QUICK).then(|()| answer).boxed()
    }

    fn describe(&self) -> BoxFuture<'static, Result<StreamDescription, CallError>> {
        let answer = self.0.describe();
        tokio::time::sleep(QUICK).then(|()| answer).boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn a_build_that_is_dropped_leaves_nothing_behind() {
    let pool = MemoryBudget::new(64 * KIB);
    let mut built = 0;
    for polls in 0..12 {
        let service = Arc::new(Slow(Scripted::new(|_, entries| all_written(entries))));
        let components = Components { memory_budget: Some(pool.clone()), ..Default::default() };
        let build = builder::start(
            "s".into(),
            Arc::clone(&service) as Arc<dyn Service>,
            small(64 * KIB),
            components,
        );
        if let Some(producer) = up_to(Some(polls), build).await {
            producer.unwrap().close(HOUR).await;
            built += 1;
        }
        assert_eq!(Arc::strong_count(&service), 1, "after {polls} polls");
    }
    assert!((1..12).contains(&built), "{built}");
    assert_eq!(pool.used(), 0);
}
