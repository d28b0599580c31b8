//! `send` to sealed aggregate, 100-byte records, on one core, next to the floor: MD5 of each key, one copy, and MD5 of the
//! aggregates. Compare within one run only.
#![allow(missing_docs, reason = "criterion's macros make public items")]
#![allow(clippy::unwrap_used, reason = "a benchmark")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use kinesis_testkit::{Fault, LocalAws, Service};
use kpl::{Producer, ProducerConfig, UserRecord};
use md5::{Digest, Md5};

const RECORDS: usize = 200_000;
const DATA: [u8; 100] = [7; 100];
const AGGREGATE_BYTES: usize = 50 * 1024;

fn keys() -> Vec<String> {
    (0..RECORDS).map(|n| format!("key-{}", n % 100_003)).collect()
}

/// A producer whose requests are never answered: what it seals stays in its queues.
async fn producer(aws: &LocalAws) -> Producer {
    let config = ProducerConfig {
        max_buffered_bytes: 1 << 30,
        max_requests_in_flight: 1,
        collection_max_count: 1,
        record_max_buffered_time: Duration::from_secs(3_600),
        record_ttl: Duration::from_secs(7_200),
        request_timeout: Duration::from_secs(600),
        ..ProducerConfig::default()
    };
    Producer::builder("bench", &aws.in_process_config()).config(config).build().await.unwrap()
}

/// Sends all keys and waits until nothing is open any more; the time of that alone.
async fn send_all(aws: &LocalAws, keys: &[String]) -> Duration {
    let producer = producer(aws).await;
    let mut deliveries = Vec::with_capacity(keys.len());
    let records: Vec<_> =
        keys.iter().map(|key| UserRecord::new(key.clone(), DATA.as_slice().to_vec())).collect();
    let began = Instant::now();
    for record in records {
        deliveries.push(producer.send(record).await.unwrap());
    }
    // Closes the open aggregates; the sender, on this thread too, then seals all.
    tokio::select! {
        biased;
        () = producer.flush() => {}
        () = tokio::task::yield_now() => {}
    }
    let took = began.elapsed();
    producer.close(Duration::ZERO).await;
    took
}

fn floor(keys: &[String]) {
    let mut open = Vec::with_capacity(AGGREGATE_BYTES);
    for key in keys {
        black_box(Md5::digest(key.as_bytes()));
        open.extend_from_slice(key.as_bytes());
        open.extend_from_slice(&DATA);
        if open.len() + 200 > AGGREGATE_BYTES {
            black_box(Md5::digest(&open));
            open = Vec::with_capacity(AGGREGATE_BYTES);
        }
    }
    black_box(Md5::digest(&open));
}

fn send(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let aws = runtime.block_on(async {
        let aws = LocalAws::start().await.unwrap();
        aws.create_stream("bench", 4).await.unwrap();
        aws.faults().add(
            Fault::delay(Duration::from_secs(3_600))
                .service(Service::Kinesis)
                .operation("PutRecords"),
        );
        aws
    });
    let keys = keys();
    let mut group = c.benchmark_group("100_bytes");
    group.sample_size(10);
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("floor", |b| b.iter(|| floor(&keys)));
    group.bench_function("send_to_sealed", |b| {
        b.iter_custom(|times| (0..times).map(|_| runtime.block_on(send_all(&aws, &keys))).sum());
    });
    group.finish();
}

criterion_group!(benches, send);
criterion_main!(benches);
