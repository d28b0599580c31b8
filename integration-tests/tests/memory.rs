//! While the stream stalls, the process stays within the documented formula, and no record is lost.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

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
