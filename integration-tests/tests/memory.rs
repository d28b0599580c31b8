//! While the stream or the processors are slow, the memory of producer and consumer stays within the documented formula,
//! and no record is lost.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use kcl::{
    ConsumerConfig, FanOutConfig, InitialPosition, ProcessorError, RecordBatch, RecordProcessor,
    RetrievalMode, Scheduler, ShardContext, ShardEnd, Shutdown,
};
use kinesis_aggregation::{Decoded, Decoder};
use kinesis_testkit::{Fault, LocalAws, Service};

const MIB: usize = 1 << 20;
const SHARDS: usize = 4;

fn numbers(line: &str) -> HashMap<String, usize> {
    line.split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
        .collect()
}

async fn stall(record_bytes: usize) {
    let aws = LocalAws::start().await.unwrap();
    aws.create_stream("orders", SHARDS as u32).await.unwrap();
    let fault = aws.faults().add(
        Fault::delay(Duration::from_secs(3_600)).service(Service::Kinesis).operation("PutRecords"),
    );
    let (max_buffered, max_in_flight) = (16 * MIB, 8 * MIB);

    let mut child = Command::new(env!("CARGO_BIN_EXE_stalled-producer"))
        .args(["--url", aws.kinesis_url(), "--stream", "orders", "--calls", "12"])
        .args(["--max-buffered-bytes", &max_buffered.to_string()])
        .args(["--max-in-flight-bytes", &max_in_flight.to_string()])
        .args(["--record-bytes", &record_bytes.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let stalled = numbers(&lines.next().unwrap().unwrap());

    assert!(stalled["gauge_peak"] <= max_buffered, "{stalled:?}");
    // The buffer was full: the free room is less than one shard's fair share.
    assert!(stalled["gauge_peak"] > max_buffered / 2 && stalled["refused"] > 0, "{stalled:?}");
    let in_flight = max_in_flight * 13 / 10;
    let open = 3 * SHARDS * 50 * 1024;
    let connections = 8 * MIB;
    let formula = max_buffered + in_flight + open + connections;
    // The test keeps a `Delivery` of its own for each record.
    let handles = stalled["accepted"] * 64;
    let grown = stalled["peak"] - stalled["before"];
    assert!(grown <= formula + handles, "{grown} bytes, {formula} allowed: {stalled:?}");

    aws.faults().remove(fault);
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let recovered = numbers(&lines.next().unwrap().unwrap());
    assert!(child.wait().unwrap().success());
    assert_eq!(recovered["delivered"], stalled["accepted"]);
    assert_eq!(recovered["buffered"], 0);

    let mut decoder = Decoder::new(16 * MIB);
    let mut stored = 0;
    for shard in aws.records("orders") {
        for record in shard.records {
            stored += match decoder.decode(record.data).unwrap() {
                Decoded::Aggregate(aggregate) => aggregate.len(),
                _ => 1,
            };
        }
    }
    assert!(stored >= recovered["delivered"], "{stored} in the stream: {recovered:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_stream_stays_within_the_formula_with_small_records() {
    stall(100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stalled_stream_stays_within_the_formula_with_large_records() {
    stall(200_000).await;
}

/// Takes a batch in a while, and counts its records.
struct Slow(Arc<AtomicUsize>);

impl RecordProcessor for Slow {
    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        tokio::time::sleep(Duration::from_millis(200)).await;
        self.0.fetch_add(batch.len(), Ordering::Relaxed);
        Ok(batch.checkpointer().checkpoint().await?)
    }

    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(end.checkpoint().await?)
    }

    async fn shutdown_requested(&mut self, last: Shutdown<'_>) -> Result<(), ProcessorError> {
        Ok(last.checkpointer().checkpoint().await?)
    }
}

/// Each shard has a backlog of several events of the largest size.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_of_slow_processors_stay_within_the_formula() {
    const SHARDS: usize = 16;
    const EVENT: usize = 2 * MIB;
    const RECORD: usize = 200_000;
    const PER_SHARD: usize = 30;
    let aws = LocalAws::start().await.unwrap();
    aws.create_stream("orders", SHARDS as u32).await.unwrap();
    let client = aws_sdk_kinesis::Client::new(&aws.in_process_config());
    let width = u128::MAX / SHARDS as u128;
    for _ in 0..PER_SHARD {
        let entries = (0..SHARDS as u128).map(|shard| {
            PutRecordsRequestEntry::builder()
                .partition_key("key")
                .explicit_hash_key((shard * width + width / 2).to_string())
                .data(Blob::new(vec![7; RECORD]))
                .build()
                .unwrap()
        });
        let put = client.put_records().stream_name("orders").set_records(Some(entries.collect()));
        assert_eq!(put.send().await.unwrap().failed_record_count, Some(0));
    }
    let max_buffered = 24 * MIB;
    let processed = Arc::new(AtomicUsize::new(0));
    let of_processors = Arc::clone(&processed);
    let worker = Scheduler::builder("billing", "orders", &aws.sdk_config())
        .processor(move |_: &ShardContext| Slow(Arc::clone(&of_processors)))
        .config(
            ConsumerConfig::default()
                .with_initial_position(InitialPosition::TrimHorizon)
                .with_max_buffered_bytes(max_buffered)
                .with_retrieval(RetrievalMode::FanOut(FanOutConfig::default())),
        )
        .build()
        .await
        .unwrap()
        .spawn();
    // A record takes some memory besides its data.
    let page = EVENT + 10 * 1_024;
    let formula = max_buffered.max(max_buffered / 2 + SHARDS * page);
    let mut peak = 0;
    let all = async {
        while processed.load(Ordering::Relaxed) < SHARDS * PER_SHARD {
            peak = peak.max(worker.snapshot().buffered_bytes);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), all).await.unwrap();
    assert!(peak <= formula, "{peak} bytes, {formula} allowed");
    // The backlog is larger than the budget, so all of it was used.
    assert!(peak > max_buffered / 2, "{peak} bytes");
    assert_eq!(processed.load(Ordering::Relaxed), SHARDS * PER_SHARD);
    worker.shutdown(Duration::from_secs(60)).await.unwrap();
}
