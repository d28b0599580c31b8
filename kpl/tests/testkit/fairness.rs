//! Producers that share a shard, in paused time: a minute passes in seconds.

use std::time::Duration;

use kinesis_testkit::{Fault, LocalAws, TokioClock};
use kpl::{Producer, ProducerConfig, ProducerStats, UserRecord};

const PRODUCERS: usize = 8;

/// Sends as fast as the producer takes it, for ever.
async fn flood(producer: Producer) {
    for id in 0_u64.. {
        let sent = producer.send(UserRecord::new(id.to_string(), "x".repeat(100)));
        drop(sent.await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn eight_producers_share_a_throttled_shard_without_aggregation() {
    let aws = LocalAws::builder()
        .clock(TokioClock::current())
        .shard_limits(true)
        .shard_capacity(1 << 20)
        .build()
        .await
        .unwrap();
    aws.create_stream("s", 1).await.unwrap();
    let round_trip = Fault::delay(Duration::from_millis(100)).operation("PutRecords");
    aws.faults().add(round_trip);
    let sdk_config = aws.in_process_config();
    let mut producers = Vec::new();
    for seed in 0..PRODUCERS as u64 {
        let config = ProducerConfig {
            aggregation_enabled: false,
            max_buffered_bytes: 256 * 1024,
            // Requests wait 50 ms to fill: the test is bound by their number.
            record_max_buffered_time: Duration::from_secs(1),
            record_ttl: Duration::from_secs(600),
            ..Default::default()
        };
        let producer = Producer::builder("s", &sdk_config).config(config).seed(seed);
        let producer = producer.build().await.unwrap();
        tokio::spawn(flood(producer.clone()));
        producers.push(producer);
    }
    let stats = || -> Vec<ProducerStats> { producers.iter().map(Producer::stats).collect() };
    tokio::time::sleep(Duration::from_secs(15)).await;
    let warm = stats();
    let measured = 12;
    tokio::time::sleep(Duration::from_secs(measured)).await;
    let done = stats();

    let of = |count: fn(&ProducerStats) -> u64| -> Vec<u64> {
        let pairs = done.iter().zip(&warm);
        pairs.map(|(done, warm)| count(done) - count(warm)).collect()
    };
    let written = of(|stats| stats.kinesis_records);
    let refused: u64 = of(|stats| stats.throttled).iter().sum();
    let all: u64 = written.iter().sum();
    assert!(all > measured * 900, "the shard is used: {written:?}");
    let slowest = written.iter().min().unwrap() * PRODUCERS as u64;
    assert!(slowest * 2 >= all, "no producer is starved: {written:?}");
    assert!(refused * 20 < all, "{refused} of {} refused", all + refused);
    for producer in producers {
        let load = &producer.hot_spots().shards[0];
        assert!(load.utilisation > 0.04 && load.rate < 0.5, "{load:?}");
    }
}
