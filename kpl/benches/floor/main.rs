//! The producer beside its **floor**: what the wire itself costs.
//!
//! ```text
//! cargo bench -p kpl --bench floor [-- --rounds 5 --stall 60s --plot FILE]
//! ```
//! * **CPU**: the sides put the same records into the same sink in turn, each in a process of its own, through the same
//!   SDK and TLS. The floor is one loop (hash the key, copy the record into an aggregate, MD5 it, PutRecords of 5 MB with
//!   five requests in flight, no queue and no future per record) over the SDK as it is, so in JSON. The other sides are
//!   the producer by `send` in JSON, by `send` in CBOR, and by `send_all` in CBOR. 4 shards, 100,003 keys, aggregates of
//!   50 KiB. CPU time is that of the process, user and system, without its start-up. A ratio of a round is a side's CPU
//!   over the floor's; the result is the median of the rounds.
//! * **Latency**: 1,000 records/s, linger 0, from `send` to the receipt; beside it the sink's own: the same records at the
//!   same pace, one PutRecords call each, no producer.
//! * **Memory**: the sink stalls, the buffer fills; the growth of the process beside the documented formula.
//!
//! The sink is a process too: TLS, HTTP/1.1 and HTTP/2, answers as Kinesis does, checks and keeps nothing.
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

mod floor;
mod latency;
mod memory;
mod producer;
mod sink;
mod workload;

use std::fmt::{self, Display, Formatter};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use kinesis_benchmark::Error;
use kinesis_benchmark::comparison::{Measured, compare};
use kinesis_benchmark::plot::bars;
use kinesis_benchmark::process::{self, Endpoint, Server};
use kpl::Wire;
use serde::{Deserialize, Serialize};

#[derive(Parser)]
struct Args {
    /// Rounds of each record size; the sides take turns.
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
    /// Draws the CPU of the sides into this file, as SVG. A relative path begins at the crate's folder.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Measures. `cargo bench` passes it. Without it, as in `cargo test --bench floor`, each part runs once and
    /// briefly, to show that it works.
    #[arg(long)]
    bench: bool,
}

impl Args {
    fn or_brief(self) -> Self {
        if self.bench {
            return self;
        }
        Self { rounds: 1, megabytes: 1, latency_seconds: 1, stall: Duration::from_secs(1), ..self }
    }
}

/// A part of the benchmark that is a process of its own.
#[derive(Serialize, Deserialize)]
enum Role {
    /// Answers PutRecords; if it is stalled, it never does.
    Sink { stalled: bool },
    /// Puts records as fast as it can.
    Put { side: Side, put: Put, sink: Endpoint },
    /// Times records at a steady pace.
    Latency { side: Side, seconds: u64, sink: Endpoint },
    /// Fills the producer's buffer while nothing is answered.
    Stalled { record_bytes: usize, stall: Duration, sink: Endpoint },
}

/// What puts the records.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Side {
    Floor,
    Json,
    Cbor,
    /// CBOR by `send_all`.
    Batches,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Put {
    pub(crate) record_bytes: usize,
    pub(crate) records: usize,
}

impl Side {
    const ALL: [Self; 4] = [Self::Floor, Self::Json, Self::Cbor, Self::Batches];

    /// The encoding of the producer's requests. `None`: the side is the floor.
    fn wire(self) -> Option<Wire> {
        match self {
            Self::Floor => None,
            Self::Json => Some(Wire::Json),
            Self::Cbor | Self::Batches => Some(Wire::Cbor),
        }
    }
}

impl Display for Side {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Floor => "floor, JSON",
            Self::Json => "send, JSON",
            Self::Cbor => "send, CBOR",
            Self::Batches => "send_all, CBOR",
        })
    }
}

fn main() -> ExitCode {
    kinesis_benchmark::program(play, |args: Args| measure(&args.or_brief()))
}

async fn play(role: Role) -> Result<(), Error> {
    match role {
        Role::Sink { stalled } => sink::serve(stalled).await,
        Role::Put { side, put, sink } => process::report(&match side.wire() {
            None => floor::run(put, &sink).await?,
            Some(wire) => producer::run(put, wire, matches!(side, Side::Batches), &sink).await?,
        }),
        Role::Latency { side, seconds, sink } => process::report(&match side.wire() {
            None => latency::of_the_sink(seconds, &sink).await?,
            Some(wire) => latency::of_the_producer(seconds, wire, &sink).await?,
        }),
        Role::Stalled { record_bytes, stall, sink } => {
            process::report(&memory::run(record_bytes, stall, &sink).await?)
        }
    }
}

fn measure(args: &Args) -> Result<(), Error> {
    let sink = Server::start(&Role::Sink { stalled: false })?;
    let small = cpu(args, 100, &sink)?;
    let large = cpu(args, 1024, &sink)?;

    println!("\nlatency in ms at 1,000 records/s, linger 0");
    let latency = |name, side| -> Result<latency::Latency, Error> {
        let (seconds, sink) = (args.latency_seconds, sink.endpoint());
        let latency: latency::Latency = process::run(&Role::Latency { side, seconds, sink })?;
        println!(
            "{name:>5}: p50 {:.2}, p99 {:.2}, max {:.2}",
            latency.p50, latency.p99, latency.max
        );
        Ok(latency)
    };
    let (ack, own) = (latency("ack", Side::Cbor)?, latency("sink", Side::Floor)?);
    drop(sink);

    println!("\nmemory in MiB while the sink stalls for {:?}", args.stall);
    let stalled = Server::start(&Role::Sink { stalled: true })?;
    for record_bytes in [100, 1024, 200_000] {
        let (stall, sink) = (args.stall, stalled.endpoint());
        let memory: memory::Memory = process::run(&Role::Stalled { record_bytes, stall, sink })?;
        println!(
            "{record_bytes:>7}-byte records: grown {:.1}, formula {:.1}, {} records accepted",
            memory.grown, memory.formula, memory.accepted,
        );
    }

    if let Some(file) = &args.plot {
        let groups: [(&str, &[Measured]); 2] =
            [("100-byte records", &small), ("1 KiB records", &large)];
        std::fs::write(file, bars("CPU of the producer, over the floor's", &groups))?;
    }
    println!(
        "\nfloor_ratio_100B={:.2} floor_ratio_1KiB={:.2} ack_p99_ms={:.2} sink_p99_ms={:.2} \
         send_all_ratio_100B={:.2} send_all_ratio_1KiB={:.2} \
         json_ratio_100B={:.2} json_ratio_1KiB={:.2}",
        small[Side::Cbor as usize].ratio,
        large[Side::Cbor as usize].ratio,
        ack.p99,
        own.p99,
        small[Side::Batches as usize].ratio,
        large[Side::Batches as usize].ratio,
        small[Side::Json as usize].ratio,
        large[Side::Json as usize].ratio,
    );
    Ok(())
}

/// Runs all sides with records of one size.
fn cpu(args: &Args, record_bytes: usize, sink: &Server) -> Result<Vec<Measured>, Error> {
    let put = Put { record_bytes, records: args.megabytes * 1_000_000 / record_bytes };
    println!("\n{record_bytes}-byte records, {} a side and round: CPU in us a record", put.records);
    compare(args.rounds, put.records as u64, &Side::ALL, |side| {
        process::run(&Role::Put { side: *side, put, sink: sink.endpoint() })
    })
}
