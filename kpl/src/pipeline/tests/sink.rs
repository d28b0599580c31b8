//! The producer as a sink.

use futures::{SinkExt, poll};

use super::*;
use crate::error::SendError;
use crate::sink::SinkError;

fn record(id: usize) -> UserRecord {
    UserRecord::new("k", format!("{id:05}{}", "x".repeat(8000)))
        .with_explicit_hash_key(HashKey::MIN)
}

/// Aggregates wait for company for longer than any test waits.
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
        matches!(refused, SinkError::Send(SendError::Closed { record: back, .. }) if back == record(101))
    );
    // The producer goes on, and a sink that is dropped takes nothing along.
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

#[tokio::test(start_paused = true)]
async fn a_sink_tells_each_failure_once_and_goes_on() {
    let service = Scripted::new(|_, entries| {
        let outcome = |entry: &Entry| match entry.partition_key.as_ref() {
            "bad" => refused("KMSDisabledException"),
            _ => written(entry),
        };
        (QUICK, Ok(entries.iter().map(outcome).collect()))
    });
    let config = ProducerConfig {
        aggregation_enabled: false,
        ..config()
    };
    let producer = producer(service, config).await;
    let mut sink = producer.sink();
    let mut failed = 0;
    for id in 0..30 {
        let key = if id % 10 == 3 { "bad" } else { "good" };
        let record = UserRecord::new(key, format!("{id}"));
        while let Err(error) = sink.feed(record.clone()).await {
            let SinkError::Delivery(error) = error else {
                panic!("{error}")
            };
            assert_eq!(error.record().unwrap().partition_key(), "bad");
            failed += 1;
        }
    }
    while sink.flush().await.is_err() {
        failed += 1;
    }
    assert_eq!(failed, 3);
    assert_eq!(producer.stats().failures_unobserved, 0);
    let invalid = sink.feed(UserRecord::new("", "v")).await.unwrap_err();
    assert!(matches!(
        invalid,
        SinkError::Send(SendError::Invalid { .. })
    ));
    assert_eq!(producer.close(Duration::from_secs(60)).await.delivered, 27);
    let closed = sink.send(UserRecord::new("k", "v")).await.unwrap_err();
    assert!(matches!(closed, SinkError::Send(SendError::Closed { .. })));
}
