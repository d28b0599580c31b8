//! A host whose clock is wrong: AWS refuses its signatures until the client has learned the time from an answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use aws_types::sdk_config::{SharedTimeSource, TimeSource};
use kinesis_testkit::LocalAws;
use kpl::{Producer, UserRecord};

use crate::reader::{unhurried, until};

/// A clock that is wrong by some seconds.
#[derive(Debug, Clone, Default)]
struct WrongClock(Arc<AtomicI64>);

impl WrongClock {
    fn set(&self, seconds: i64) {
        self.0.store(seconds, Ordering::SeqCst);
    }
}

impl TimeSource for WrongClock {
    fn now(&self) -> SystemTime {
        let now = SharedTimeSource::default().now();
        let seconds = self.0.load(Ordering::SeqCst);
        let off = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 { now - off } else { now + off }
    }
}

/// A service that looks at the time of signatures, and a producer with that clock.
async fn start(clock: &WrongClock) -> (LocalAws, Producer) {
    let aws = LocalAws::builder().check_time(true).build().await.unwrap();
    aws.create_stream("s", 2).await.unwrap();
    let sdk_config = aws.sdk_config().into_builder().time_source(clock.clone());
    let producer = Producer::builder("s", &sdk_config.build())
        .config(kpl::ProducerConfig {
            shard_map_refresh_interval: Duration::from_millis(500),
            ..unhurried()
        })
        .seed(1);
    let producer = producer.build().await.unwrap();
    (aws, producer)
}

async fn delivers(producer: &Producer) {
    let mut deliveries = Vec::new();
    for id in 0..100 {
        let record = UserRecord::new(format!("key-{id}"), "v");
        deliveries.push(producer.send(record).await.unwrap());
    }
    for delivery in deliveries {
        assert!(!delivery.await.unwrap().may_be_duplicate());
    }
}

#[tokio::test]
async fn a_producer_starts_and_delivers_with_a_clock_that_is_ten_minutes_off() {
    for minutes in [-10, 10] {
        let clock = WrongClock::default();
        clock.set(minutes * 60);
        let (aws, producer) = start(&clock).await;
        delivers(&producer).await;
        let listed = aws.calls("ListShards");
        until(|| aws.calls("ListShards") > listed + 1).await;
        delivers(&producer).await;
    }
}

#[tokio::test]
async fn a_clock_that_jumps_under_way_costs_an_attempt() {
    let clock = WrongClock::default();
    let (aws, producer) = start(&clock).await;
    delivers(&producer).await;
    for minutes in [-10, 10, 0] {
        clock.set(minutes * 60);
        delivers(&producer).await;
        let described = aws.calls("DescribeStreamSummary");
        until(|| aws.calls("DescribeStreamSummary") > described + 2).await;
    }
    let report = producer.close(Duration::from_secs(600)).await;
    assert_eq!((report.delivered, report.failed), (400, 0));
}
