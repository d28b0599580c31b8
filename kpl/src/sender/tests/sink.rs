//! The producer as a sink.

use futures::{SinkExt, poll};

use super::*;
use crate::error::SendError;
use crate::producer::SinkError;

fn record(id: usize) -> UserRecord {
    UserRecord::new("k", format!("{id:05}{}", "x".repeat(8000)))
        .with_explicit_hash_key(HashKey::MIN)
}

/// Aggregates wait for more records for longer than any test runs.
fn config() -> ProducerConfig {
    ProducerConfig {
        record_max_buffered_time: Duration::from_secs(3000),
        record_ttl: Duration::from_secs(6000),
        max_buffered_bytes: 64 * 1024,
        ..Default::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_sink_holds_back_flushes_and_closes() {
    let service = Scripted::new(|_, entries| all_written(entries));
    let producer = producer(service, config()).await;
    let mut sink = producer.sink();
    let began = clock::now();
    for id in 0..100 {
        sink.feed(record(id)).await.unwrap();
        assert!(producer.buffered_bytes() <= 64 * 1024);
    }
    let before = producer.stats().user_records_delivered;
    assert!((50..100).contains(&before), "{before}");
    sink.flush().await.unwrap();
    assert_eq!(producer.stats().user_records_delivered, 100);
    sink.feed(record(100)).await.unwrap();
    sink.close().await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(3000));
    let refused = sink.feed(record(101)).await.unwrap_err();
    assert!(
        matches!(refused, SinkError::Send(SendError::Closed { record: back, .. }) if *back == record(101))
    );
    // The producer goes on. A sink that is dropped loses no record.
    let mut other = producer.sink();
    other.feed(record(102)).await.unwrap();
    drop(other);
    assert_eq!(producer.close(Duration::from_secs(60)).await.delivered, 102);
}

#[tokio::test(start_paused = true)]
async fn a_full_sink_waits_and_a_dropped_call_loses_nothing() {
    let stall = Duration::from_secs(100);
    let service =
        Scripted::new(move |_, entries| (stall, Ok(entries.iter().map(written).collect())));
    let producer = producer(service, config()).await;
    let mut sink = producer.sink();
    let mut fed = 0;
    loop {
        let mut feed = Box::pin(sink.feed(record(fed)));
        if poll!(&mut feed).is_pending() {
            break;
        }
        fed += 1;
    }
    // The last was taken, and waits for room; the one whose `feed` was dropped was not.
    let accepted = producer.stats().user_records_accepted as usize;
    assert_eq!(fed, accepted + 1);
    let mut flush = Box::pin(sink.flush());
    assert!(poll!(&mut flush).is_pending());
    drop(flush);
    sink.flush().await.unwrap();
    assert_eq!(producer.stats().user_records_delivered as usize, fed);
    assert_eq!(producer.buffered_bytes(), 0);
}

/// Fails the records of key "bad".
fn picky() -> Arc<Scripted> {
    Scripted::new(|_, entries| {
        let outcome = |entry: &Entry| match entry.partition_key.as_ref() {
            "bad" => refused("KMSDisabledException"),
            _ => written(entry),
        };
        (QUICK, Ok(entries.iter().map(outcome).collect()))
    })
}

fn alone() -> ProducerConfig {
    ProducerConfig { aggregation_enabled: false, ..config() }
}

#[tokio::test(start_paused = true)]
async fn a_sink_tells_each_failure_once_at_a_flush_and_takes_every_record() {
    let producer = producer(picky(), alone()).await;
    let mut sink = producer.sink();
    for id in 0..30 {
        let key = if id % 10 == 3 { "bad" } else { "good" };
        // The sink takes each record, whatever failed before: only the sink holds it.
        sink.feed(UserRecord::new(key, format!("{id}"))).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let mut failed = Vec::new();
    while let Err(error) = sink.flush().await {
        let SinkError::Delivery(error) = error else { panic!("{error}") };
        failed.push(error.into_record().unwrap());
    }
    let expected = ["3", "13", "23"].map(|id| UserRecord::new("bad", id));
    assert_eq!(failed, expected);
    assert_eq!(producer.stats().failures_unobserved, 0);
    let invalid = sink.feed(UserRecord::new("", "v")).await.unwrap_err();
    assert!(matches!(invalid, SinkError::Send(SendError::Invalid { .. })));
    assert_eq!(producer.close(Duration::from_secs(60)).await.delivered, 27);
    let closed = sink.send(UserRecord::new("k", "v")).await.unwrap_err();
    assert!(matches!(closed, SinkError::Send(SendError::Closed { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_sink_holds_nothing_of_what_is_completed_whatever_the_first_waits_for() {
    let service = Scripted::new(|passed, entries| {
        let outcome = |entry: &Entry| match shard_of(entry) {
            "low" if passed < Duration::from_secs(3000) => {
                refused("ProvisionedThroughputExceededException")
            }
            _ => written(entry),
        };
        (QUICK, Ok(entries.iter().map(outcome).collect()))
    });
    let producer = producer(service, alone()).await;
    let mut sink = producer.sink();
    sink.feed(record(0)).await.unwrap();
    for id in 1..200 {
        let record = record(id).with_explicit_hash_key(HashKey::MAX);
        sink.feed(record).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(sink.pending() <= 2, "{}", sink.pending());
    }
    sink.flush().await.unwrap();
    assert_eq!(sink.pending(), 0);
    assert_eq!(producer.stats().user_records_delivered, 200);
}

#[tokio::test(start_paused = true)]
async fn what_a_sink_cannot_tell_goes_to_the_hook() {
    let reported = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&reported);
    let components = Components {
        on_failure: Some(Arc::new(move |error: &crate::error::DeliveryError| {
            lock(&hook).push(error.record().unwrap().clone());
        })),
        ..Default::default()
    };
    let producer = builder::start("s".into(), picky(), alone(), components).await.unwrap();
    let mut sink = producer.sink();
    let bad = |id: usize| UserRecord::new("bad", format!("{id}"));
    for id in 0..70 {
        sink.feed(bad(id)).await.unwrap();
        while producer.stats().user_records_failed as usize <= id {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    // More than a flush could be asked to tell; the last is not looked at yet.
    assert_eq!(*lock(&reported), (64..69).map(bad).collect::<Vec<_>>());
    for _ in 0..2 {
        sink.flush().await.unwrap_err();
    }
    lock(&reported).clear();
    drop(sink);
    assert_eq!(lock(&reported).len(), 70 - 5 - 2);
    assert_eq!(producer.stats().failures_unobserved, 70 - 2);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_waits_in_a_sink_that_is_dropped_is_told() {
    let service = Scripted::new(|_, entries| {
        let answers = entries.iter().map(written).collect();
        (Duration::from_secs(100), Ok(answers))
    });
    let reported = Arc::new(Mutex::new(Vec::new()));
    let hook = Arc::clone(&reported);
    let components = Components {
        on_failure: Some(Arc::new(move |error: &crate::error::DeliveryError| {
            lock(&hook).push((error.cause().clone(), error.record().unwrap().clone()));
        })),
        ..Default::default()
    };
    let producer = builder::start("s".into(), service, config(), components).await.unwrap();
    let mut sink = producer.sink();
    let mut fed = 0;
    while poll!(Box::pin(sink.feed(record(fed)))).is_ready() {
        fed += 1;
    }
    drop(sink);
    let waited = record(fed - 1);
    assert_eq!(*lock(&reported), [(FailureCause::Dropped, waited)]);
    let report = producer.close(Duration::from_secs(600)).await;
    assert_eq!((report.delivered as usize, report.failed), (fed - 1, 1));
}
