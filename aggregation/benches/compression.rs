//! How small the example's flights get: aggregates of several sizes at several levels of zstd.
//!
//! ```text
//! cargo bench -p kinesis-aggregation --bench compression
//! ```
//! The ratio is plain aggregate over compressed frame; the speed is that of compressing, on one core.
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

use std::process::ExitCode;
use std::time::Instant;

use kinesis_aggregation::{AggregateBuilder, Compressor, UndigestedAggregate};

const FLIGHTS: &str = include_str!("../../examples/data/flights-20k.ndjson");
const KIB: usize = 1024;

/// The airport of departure, as the examples key flights.
fn origin(flight: &str) -> &str {
    let (_, rest) = flight.split_once(r#""origin":""#).unwrap_or(("", "?"));
    rest.split('"').next().unwrap_or(rest)
}

fn aggregates(max_size: usize) -> Vec<UndigestedAggregate> {
    let mut sealed = Vec::new();
    let mut open = AggregateBuilder::new(max_size);
    for flight in FLIGHTS.lines() {
        if open.push(origin(flight), None, flight.as_bytes()).is_err() {
            sealed.push(
                std::mem::replace(&mut open, AggregateBuilder::new(max_size)).seal_without_digest(),
            );
            // The first record always fits.
            let _ = open.push(origin(flight), None, flight.as_bytes());
        }
    }
    sealed.push(open.seal_without_digest());
    sealed
}

fn main() -> ExitCode {
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure() -> Result<(), Box<dyn std::error::Error>> {
    println!("aggregate  level   ratio   MB/s");
    for kib in [10, 50, 250, 1_000] {
        let aggregates = aggregates(kib * KIB);
        let plain: usize = aggregates.iter().map(|sealed| sealed.size()).sum();
        for level in [1, 3, 9] {
            let mut compressor = Compressor::new(level)?;
            let began = Instant::now();
            let mut small = 0;
            for sealed in &aggregates {
                let compressed = compressor.compress(sealed)?;
                small += compressed.map_or(sealed.size(), |bytes| bytes.len());
            }
            let speed = plain as f64 / 1e6 / began.elapsed().as_secs_f64();
            let ratio = plain as f64 / small as f64;
            println!("{kib:>5} KiB {level:>6} {ratio:>7.1} {speed:>6.0}");
        }
    }
    Ok(())
}
