//! A record whose requests are refused as a whole fails alone: no other record fails with it.

use kinesis_aggregation::{Decoded, Decoder};

use super::*;
use crate::config::{OnGap, RecordOrdering};
use crate::retry;

const SECOND: Duration = Duration::from_secs(1);
const MARKER: &[u8] = b"poisoned";

fn holds(entries: &[Entry], marker: &[u8]) -> bool {
    entries.iter().any(|entry| entry.data.windows(marker.len()).any(|part| part == marker))
}

fn is_poisoned(entries: &[Entry]) -> bool {
    holds(entries, MARKER)
}

/// A service that answers each request with a marked record in it with `error`.
fn poisoned_by(error: CallError) -> Arc<Scripted> {
    Scripted::new(move |_, entries| match is_poisoned(entries) {
        true => (QUICK, Err(error.clone())),
        false => all_written(entries),
    })
}

/// What became of 100 good records and one poisoned record a second, for a minute.
struct Outcome {
    good_lost: usize,
    slowest: Duration,
    poisoned: Vec<DeliveryError>,
}

async fn a_minute(producer: &Producer) -> Outcome {
    let (mut good, mut poisoned) = (Vec::new(), Vec::new());
    for id in 0..6000_u128 {
        let sent = clock::now();
        let delivery = send(producer, id << 115, &format!("good {id}")).await;
        good.push(tokio::spawn(async move { (delivery.await, sent.elapsed()) }));
        if id % 100 == 50 {
            poisoned.push(send(producer, id << 115, "poisoned").await);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut outcome = Outcome { good_lost: 0, slowest: Duration::ZERO, poisoned: Vec::new() };
    for delivery in good {
        let (result, took) = delivery.await.unwrap();
        outcome.good_lost += usize::from(result.is_err());
        outcome.slowest = outcome.slowest.max(took);
    }
    for delivery in poisoned {
        outcome.poisoned.push(delivery.await.unwrap_err());
    }
    outcome
}

/// An answer of a proxy, or with a code that is not known.
fn answer(status: u16, code: &str) -> CallError {
    let kind = CallErrorKind::Unknown { status, has_code: !code.starts_with("Http") };
    CallError {
        kind,
        may_have_been_written: retry::answer_may_follow_a_write(status, code),
        ..refused_request(code)
    }
}

#[tokio::test(start_paused = true)]
async fn isolated_records_expire_on_time() {
    let error = answer(500, "Mystery");
    let service = Scripted::new(move |_, _| (QUICK, Err(error.clone())));
    let producer = producer(service, ProducerConfig::default()).await;
    for milliseconds in [7_310, 9_770, 12_430, 17_890] {
        let time_to_live = Duration::from_millis(milliseconds);
        let record = UserRecord::new("k", "v").with_time_to_live(time_to_live);
        let began = clock::now();
        producer.send(record).await.unwrap().await.unwrap_err();
        let late = began.elapsed().saturating_sub(time_to_live);
        assert!(late < Duration::from_millis(20), "{milliseconds}: {late:?}");
    }
}

async fn check(error: CallError, aggregation_enabled: bool, is_final: bool) {
    let config = ProducerConfig { aggregation_enabled, ..Default::default() };
    let (code, may_have_been_written) = (Arc::clone(&error.code), error.may_have_been_written);
    let what = format!("{code}, aggregation: {aggregation_enabled}");
    let producer = producer(poisoned_by(error), config).await;
    let outcome = a_minute(&producer).await;
    assert_eq!(outcome.good_lost, 0, "good records lost: {what}");
    assert!(outcome.slowest < 5 * SECOND, "{:?}: {what}", outcome.slowest);
    for error in outcome.poisoned {
        assert!(error.to_string().contains(&*code), "{error}");
        let is_rejected = matches!(error.cause(), FailureCause::Rejected { .. });
        assert_eq!(is_rejected, is_final, "{error}");
        assert_eq!(error.may_have_been_written(), may_have_been_written, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_a_proxy_refuses_fails_alone() {
    for aggregation_enabled in [false, true] {
        check(answer(413, "Http413"), aggregation_enabled, true).await;
        check(answer(400, "Http400"), aggregation_enabled, false).await;
        check(answer(403, "Http403"), aggregation_enabled, false).await;
        check(answer(400, "SomethingNew"), aggregation_enabled, false).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_requests_fail_for_an_unknown_reason_fails_alone() {
    for aggregation_enabled in [false, true] {
        check(answer(502, "Http502"), aggregation_enabled, false).await;
        check(CallError::unusable("no JSON"), aggregation_enabled, false).await;
        let failure =
            CallError { may_have_been_written: true, ..refused_request("InternalFailure") };
        check(failure, aggregation_enabled, false).await;
    }
}

/// A proxy that is set up wrongly for a while refuses all requests with such a status, whatever they hold.
#[tokio::test(start_paused = true)]
async fn a_proxy_that_refuses_all_requests_for_a_while_loses_no_record() {
    for status in [400, 403, 411, 414, 415, 417, 422, 431] {
        let service = Scripted::new(move |passed, entries| match passed < 5 * SECOND {
            true => (QUICK, Err(answer(status, &format!("Http{status}")))),
            false => all_written(entries),
        });
        let producer = producer(service, ProducerConfig::default()).await;
        let mut deliveries = Vec::new();
        for id in 0..100_u128 {
            deliveries.push(send(&producer, id << 121, "good").await);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        all_delivered(deliveries).await;
    }
}

/// A service that never answers a request with a marked record in it.
fn hung_by_a_marked_record() -> Arc<Scripted> {
    Scripted::new(|_, entries| match is_poisoned(entries) {
        true => {
            let limit = 6 * SECOND;
            (limit, Err(CallError::timed_out(limit)))
        }
        false => all_written(entries),
    })
}

/// The timeouts shrink the window, so that a large record does not fit into it beside any other.
#[tokio::test(start_paused = true)]
async fn records_whose_requests_hang_leave_room_for_large_records() {
    for (hanging, size) in [(1, 8), (3, 50 << 10)] {
        let config = ProducerConfig { aggregation_enabled: false, ..Default::default() };
        let producer = producer(hung_by_a_marked_record(), config).await;
        for id in 0..hanging {
            drop(send(&producer, id, &"poisoned".repeat(size / 8)).await);
        }
        let mut good = Vec::new();
        for id in 0..200_u128 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let size = if id == 75 || id == 130 { 300 << 10 } else { 10 };
            let delivery = send(&producer, id << 120, &"x".repeat(size)).await;
            let sent = clock::now();
            good.push(tokio::spawn(async move { (delivery.await, sent.elapsed()) }));
        }
        for (id, good) in good.into_iter().enumerate() {
            let (delivered, took) = good.await.unwrap();
            delivered.unwrap();
            // The first ones may share a request with one that hangs.
            assert!(took < SECOND || id < 5, "{id}: {took:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_whose_requests_hang_takes_turns_with_the_others() {
    let config = ProducerConfig {
        aggregation_enabled: false,
        max_requests_in_flight: 1,
        record_ttl: 60 * SECOND,
        ..Default::default()
    };
    let producer = producer(hung_by_a_marked_record(), config).await;
    drop(send(&producer, 0, "poisoned").await);
    tokio::time::sleep(20 * SECOND).await;
    let sent = clock::now();
    send(&producer, 1, "good").await.await.unwrap();
    assert!(sent.elapsed() < 8 * SECOND, "{:?}", sent.elapsed());
}

/// Requests that hang take room from the others, but not all of it.
#[tokio::test(start_paused = true)]
async fn a_record_whose_requests_hang_fails_alone() {
    let config = ProducerConfig { aggregation_enabled: false, ..Default::default() };
    let producer = producer(hung_by_a_marked_record(), config).await;
    let mut good = Vec::new();
    for id in 0..3000_u128 {
        good.push(send(&producer, id << 115, "good").await);
        if id % 1000 == 500 {
            drop(send(&producer, id << 115, "poisoned").await);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    all_delivered(good).await;
}

#[tokio::test(start_paused = true)]
async fn in_ordered_mode_the_other_records_of_an_aggregate_keep_their_order() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let service = Scripted::new(move |_, entries| {
        if is_poisoned(entries) {
            return (QUICK, Err(answer(413, "Http413")));
        }
        for entry in entries {
            match Decoder::new(1 << 20).decode(entry.data.clone()).unwrap() {
                Decoded::Aggregate(aggregate) => {
                    lock(&noted).extend(aggregate.iter().map(|member| member.data_bytes()));
                }
                _ => lock(&noted).push(entry.data.clone()),
            }
        }
        all_written(entries)
    });
    let config = ProducerConfig {
        ordering: RecordOrdering::PerPartitionKey,
        on_gap: OnGap::Continue,
        ..Default::default()
    };
    let producer = producer(service, config).await;
    let mut deliveries = Vec::new();
    for id in 0..500_u128 {
        let data = match id % 100 {
            37 => "poisoned".to_owned(),
            _ => format!("{id:03}"),
        };
        deliveries.push(send(&producer, 7, &data).await);
    }
    let mut failed = 0;
    for delivery in deliveries {
        failed += usize::from(delivery.await.is_err());
    }
    assert_eq!(failed, 5);
    let seen = lock(&seen);
    assert_eq!(seen.len(), 495);
    assert!(seen.is_sorted(), "{seen:?}");
}

/// In ordered mode the second half of an aggregate waits for the first. No other record is refused with it.
#[tokio::test(start_paused = true)]
async fn in_ordered_mode_a_refused_aggregate_takes_no_other_record_along() {
    let dragged = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&dragged);
    let service = Scripted::new(move |_, entries| match is_poisoned(entries) {
        true => {
            *lock(&counted) += entries.len() - 1;
            (QUICK, Err(answer(413, "Http413")))
        }
        false => all_written(entries),
    });
    let config = ProducerConfig {
        ordering: RecordOrdering::PerPartitionKey,
        on_gap: OnGap::Continue,
        record_max_buffered_time: Duration::from_millis(20),
        // Records that come while a request is in flight share the next one.
        max_requests_in_flight: 1,
        ..Default::default()
    };
    let producer = producer(service, config).await;
    let mut deliveries = Vec::new();
    for id in 0..64 {
        deliveries.push(send(&producer, 0, if id == 63 { "poisoned" } else { "good" }).await);
    }
    // Before the aggregate is alone, it may share a request.
    tokio::time::sleep(Duration::from_millis(30)).await;
    *lock(&dragged) = 0;
    for _ in 0..100 {
        deliveries.push(send(&producer, u128::MAX, "good").await);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut failed = 0;
    for delivery in deliveries {
        failed += usize::from(delivery.await.is_err());
    }
    assert_eq!((failed, *lock(&dragged)), (1, 0));
}

/// The second half of an aggregate is sent apart until the service has answered for it, whatever the answer.
#[tokio::test(start_paused = true)]
async fn in_ordered_mode_a_half_that_was_answered_is_sent_with_others_again() {
    const NAMES: [&str; 3] = ["half", "first", "second"];
    let requests = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&requests);
    let service = Scripted::new(move |_, entries| {
        if is_poisoned(entries) {
            return (QUICK, Err(answer(413, "Http413")));
        }
        let mut names: Vec<_> =
            NAMES.into_iter().filter(|n| holds(entries, n.as_bytes())).collect();
        names.sort_unstable();
        let is_refused = lock(&noted).is_empty();
        lock(&noted).push(names);
        let outcome = |entry: &Entry| match is_refused {
            true => refused("InternalFailure"),
            false => written(entry),
        };
        (SECOND / 2, Ok(entries.iter().map(outcome).collect()))
    });
    let config = ProducerConfig {
        ordering: RecordOrdering::PerPartitionKey,
        on_gap: OnGap::Continue,
        // What comes while a request is in flight shares the next one.
        max_requests_in_flight: 1,
        ..Default::default()
    };
    let producer = producer(service, config).await;
    let poisoned = send(&producer, 0, "poisoned").await;
    let mut deliveries = vec![send(&producer, 1, "half").await];
    poisoned.await.unwrap_err();
    // The half is refused alone. The first record is sent while it backs off, and both are back before the second is
    // sent.
    for (name, count) in [("first", 1), ("second", 2)] {
        while lock(&requests).len() < count {
            tokio::time::sleep(QUICK).await;
        }
        deliveries.push(send(&producer, u128::MAX, name).await);
    }
    all_delivered(deliveries).await;
    assert_eq!(*lock(&requests), [vec!["half"], vec!["first"], vec!["half", "second"]]);
}

/// Sends a record each millisecond for 20 s, and waits until all are delivered.
async fn send_for_20_seconds(producer: &Producer) {
    let mut deliveries = Vec::new();
    for id in 0..20_000_u128 {
        deliveries.push(send(producer, id << 113, &"x".repeat(100)).await);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    all_delivered(deliveries).await;
}

/// An outage splits few of the aggregates that wait for its end.
#[tokio::test(start_paused = true)]
async fn an_outage_splits_few_aggregates() {
    let service = Scripted::new(|passed, entries| match passed < 20 * SECOND {
        true => (QUICK, Err(answer(503, "Http503"))),
        false => all_written(entries),
    });
    let producer = producer(Arc::clone(&service), ProducerConfig::default()).await;
    send_for_20_seconds(&producer).await;
    let records = producer.stats().kinesis_records;
    assert!(records < 600, "{records} Kinesis records");
    let calls = service.calls().iter().filter(|passed| **passed < 20 * SECOND).count();
    assert!(calls < 200, "{calls} calls");
}

/// A service that fails most requests, whatever they hold, splits few of the aggregates.
#[tokio::test(start_paused = true)]
async fn a_brownout_splits_few_aggregates() {
    let random = Mutex::new(fastrand::Rng::with_seed(7));
    let service = Scripted::new(move |passed, entries| {
        let fails = passed < 20 * SECOND && lock(&random).f64() < 0.7;
        match fails {
            true => (QUICK, Err(answer(503, "Http503"))),
            false => all_written(entries),
        }
    });
    let producer = producer(Arc::clone(&service), ProducerConfig::default()).await;
    send_for_20_seconds(&producer).await;
    let (records, calls) = (producer.stats().kinesis_records, service.calls().len());
    assert!(records < 1000, "{records} Kinesis records in {calls} calls");
}

/// A proxy that refuses large requests refuses few of them: later requests stay below its limit. So does a service that
/// answers with an error code.
#[tokio::test(start_paused = true)]
async fn requests_stay_below_the_size_that_is_refused() {
    for error in [answer(413, "Http413"), refused_request("RequestEntityTooLargeException")] {
        check_learned_limit(error).await;
    }
}

async fn check_learned_limit(error: CallError) {
    const LIMIT: usize = 300_000;
    let refused = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&refused);
    let service = Scripted::new(move |_, entries| {
        let size: usize = entries.iter().map(|entry| entry.data.len()).sum();
        if size > LIMIT {
            counted.fetch_add(1, Ordering::Relaxed);
            return (QUICK, Err(error.clone()));
        }
        all_written(entries)
    });
    let config = ProducerConfig { aggregation_enabled: false, ..Default::default() };
    let producer = producer(Arc::clone(&service), config).await;
    for _ in 0..100 {
        let mut deliveries = Vec::new();
        for id in 0..60_u128 {
            deliveries.push(send(&producer, id << 122, &"x".repeat(20_000)).await);
        }
        all_delivered(deliveries).await;
        // Each shard has room for the next records at once, so that these may share requests.
        tokio::time::sleep(2 * SECOND).await;
    }
    let small = refused.swap(0, Ordering::Relaxed);
    assert!((1..20).contains(&small), "{small} of {} requests refused", service.calls().len());
    // A record that is larger than the limit fails alone.
    let error = send(&producer, 0, &"x".repeat(LIMIT + 1)).await.await.unwrap_err();
    assert!(matches!(error.cause(), FailureCause::Rejected { .. }), "{error}");
    assert_eq!(refused.load(Ordering::Relaxed), 1);
}
