//! The producer beside its **floor**: what the wire itself costs.
//!
//! ```text
//! cargo bench -p kpl --bench floor [-- --rounds 5 --stall 60s --json]
//! ```
//! * **CPU**: a producer and the floor (one loop: hash the key, copy the record into an aggregate, MD5 it, PutRecords
//!   of 5 MB with five requests in flight, no queue and no future per record) put the same records into the same sink
//!   in turn, each in a process of its own, through the same SDK and TLS. 4 shards, 100,003 keys, aggregates of 50 KiB.
//!   CPU time is that of the process, user and system, without its start-up. The ratio of a round is the producer's CPU
//!   over the floor's; the result is the median of the rounds.
//! * **Latency**: 1,000 records/s, linger 0, from `send` to the receipt; beside it the sink's own: the same records at the
//!   same pace, one PutRecords call each, no producer.
//! * **Memory**: the sink stalls, the buffer fills; the growth of the process beside the documented formula.
//!
//! The sink is a process too: TLS, HTTP/1.1 and HTTP/2, answers as Kinesis does, checks and keeps nothing.
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

mod client;
mod floor;
mod latency;
mod memory;
mod producer;
mod roles;
mod sink;
mod workload;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::roles::{Role, Sink};

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
struct Args {
    /// Rounds of each record size; the floor and the producer take turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Megabytes of payload a side puts in a round.
    #[arg(long, default_value_t = 200)]
    megabytes: usize,
    /// Seconds of paced sending for the latencies.
    #[arg(long, default_value_t = 20)]
    latency_seconds: u64,
    /// How long the sink stalls while memory is watched.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    stall: Duration,
    /// Sends requests in JSON, on both sides, and not in CBOR.
    #[arg(long)]
    json: bool,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = match args.role {
        Some(role) => roles::play(role),
        None => measure(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Args) -> Result<(), Error> {
    let sink = Sink::start(false, args.json)?;
    let mut ratios = Vec::new();
    for record_bytes in [100, 1024] {
        let records = args.megabytes * 1_000_000 / record_bytes;
        println!("\n{record_bytes}-byte records, {records} a side and round, CPU in us a record");
        println!("round    floor  producer    ratio   producer's records/s");
        let mut rounds = Vec::new();
        for round in 1..=args.rounds {
            let put = Role::put(record_bytes, records);
            // In turn, and each first as often as the other: the machine may get slower or faster meanwhile.
            let [first, second] = if round % 2 == 1 {
                [Role::Floor(put), Role::Producer(put)]
            } else {
                [Role::Producer(put), Role::Floor(put)]
            };
            let (first, second) = (sink.run(first)?, sink.run(second)?);
            let [floor, producer] = if round % 2 == 1 { [first, second] } else { [second, first] };
            let per_record = |side: &roles::Figures| side.get("cpu_s") * 1e6 / records as f64;
            let ratio = producer.get("cpu_s") / floor.get("cpu_s");
            println!(
                "{round:>5} {:>8.3} {:>9.3} {ratio:>8.2} {:>12.0}",
                per_record(&floor),
                per_record(&producer),
                records as f64 / producer.get("wall_s"),
            );
            rounds.push(ratio);
        }
        rounds.sort_by(f64::total_cmp);
        ratios.push(rounds[rounds.len() / 2]);
    }

    let ack = sink.run(Role::AckLatency { seconds: args.latency_seconds })?;
    let own = sink.run(Role::SinkLatency { seconds: args.latency_seconds })?;
    println!("\nlatency in ms at 1,000 records/s, linger 0");
    for (name, figures) in [("ack", &ack), ("sink", &own)] {
        let [p50, p99, max] = ["p50", "p99", "max"].map(|key| figures.get(key));
        println!("{name:>5}: p50 {p50:.2}, p99 {p99:.2}, max {max:.2}");
    }
    drop(sink);

    println!("\nmemory in MiB while the sink stalls for {:?}", args.stall);
    let stalled = Sink::start(true, args.json)?;
    for record_bytes in [100, 1024, 200_000] {
        let figures =
            stalled.run(Role::Stalled { record_bytes, millis: args.stall.as_millis() as u64 })?;
        println!(
            "{record_bytes:>7}-byte records: grown {:.1}, formula {:.1}, {:.0} records accepted",
            figures.get("grown_mib"),
            figures.get("formula_mib"),
            figures.get("accepted"),
        );
    }

    println!(
        "\nfloor_ratio_100B={:.2} floor_ratio_1KiB={:.2} ack_p99_ms={:.2} sink_p99_ms={:.2}",
        ratios[0],
        ratios[1],
        ack.get("p99"),
        own.get("p99")
    );
    Ok(())
}
