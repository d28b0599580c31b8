//! The consumer beside its **floor**: what the wire itself costs.
//!
//! ```text
//! cargo bench -p kcl --bench floor [-- --rounds 5 --plot FILE]
//! ```
//! * **CPU**: the sides read the same records from the same source in turn, each in a process of its own, through the
//!   same SDK and TLS. The floor is one loop on one thread over the SDK as it is, so in JSON: it checks the MD5 of each
//!   aggregate, hashes the key of each member, and touches each record. The other sides are a whole worker, in JSON and in
//!   CBOR, whose leases are in an embedded DynamoDB and whose processor touches each record and checkpoints each batch.
//!   4 shards, 100,003 keys. CPU time is that of the process, user and system, from the first processor's creation, which
//!   is before the first read, to the end of the last batch. A ratio of a round is a side's CPU over the floor's; the
//!   result is the median of the rounds. CPU and not time, because a worker reads a shard five times a second at most.
//! * **Memory**: the peak of a worker's process that catches up with 8 shards, with default settings.
//!
//! The source is a process too: TLS, HTTP/1.1 and HTTP/2, pages of up to 10,000 records and 10 MiB that are copied from
//! records written at its start. So is the DynamoDB.
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

mod consumer;
mod floor;
mod source;
mod workload;

use std::fmt::{self, Display, Formatter};
use std::hint::black_box;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use kcl::Wire;
use kinesis_benchmark::Error;
use kinesis_benchmark::comparison::{Measured, compare};
use kinesis_benchmark::plot::bars;
use kinesis_benchmark::process::{self, Endpoint, Server};
use kinesis_benchmark::statistics::median;
use kinesis_benchmark::usage::Used;
use serde::{Deserialize, Serialize};

use crate::source::Contents;
use crate::workload::Kind;

const MIB: f64 = 1024.0 * 1024.0;

#[derive(Parser)]
struct Args {
    /// Rounds of each kind of records; the sides take turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Plain records in each shard. Aggregated ones are four times as many.
    #[arg(long, default_value_t = 500_000)]
    records: u64,
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
        if self.bench { self } else { Self { rounds: 1, records: 2_000, ..self } }
    }
}

/// A part of the benchmark that is a process of its own.
#[derive(Serialize, Deserialize)]
enum Role {
    /// Answers GetRecords.
    Source(Contents),
    /// Answers DynamoDB's calls.
    Leases,
    /// Reads all records.
    Read { side: Side, contents: Contents, source: Endpoint, leases: Endpoint },
}

/// What reads the records.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Side {
    Floor,
    Json,
    Cbor,
}

impl Side {
    const ALL: [Self; 3] = [Self::Floor, Self::Json, Self::Cbor];
}

impl Display for Side {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Floor => "floor, JSON",
            Self::Json => "worker, JSON",
            Self::Cbor => "worker, CBOR",
        })
    }
}

/// Records that a side looked at, so that the compiler leaves nothing out.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    pub(crate) records: u64,
    sum: u64,
}

impl Touched {
    pub(crate) fn record(&mut self, key: &str, data: &[u8]) {
        self.records += 1;
        self.sum += key.len() as u64 + u64::from(*data.last().unwrap_or(&0));
    }

    pub(crate) fn hash(&mut self, hash_key: u128) {
        self.sum = self.sum.wrapping_add(hash_key as u64);
    }

    pub(crate) fn add(&mut self, more: Self) {
        self.records += more.records;
        self.sum = self.sum.wrapping_add(more.sum);
    }

    /// # Errors
    /// Records are missing, or were read twice.
    pub(crate) fn check(&self, contents: Contents) -> Result<(), Error> {
        black_box(self.sum);
        let there_are = contents.user_records();
        if self.records != there_are {
            return Err(format!("{} records of {there_are}", self.records).into());
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    kinesis_benchmark::program(play, |args: Args| measure(&args.or_brief()))
}

async fn play(role: Role) -> Result<(), Error> {
    match role {
        Role::Source(contents) => source::serve(contents).await,
        Role::Leases => consumer::serve_leases().await,
        Role::Read { side, contents, source, leases } => process::report(&match side {
            // It has a runtime of its own.
            Side::Floor => {
                tokio::task::spawn_blocking(move || floor::run(contents, &source)).await??
            }
            Side::Json => consumer::run(contents, Wire::Json, &source, &leases).await?,
            Side::Cbor => consumer::run(contents, Wire::Cbor, &source, &leases).await?,
        }),
    }
}

/// Runs a side with a lease table of its own.
fn read(side: Side, contents: Contents, source: &Server) -> Result<Used, Error> {
    let leases = Server::start(&Role::Leases)?;
    let (source, leases) = (source.endpoint(), leases.endpoint());
    process::run(&Role::Read { side, contents, source, leases })
}

fn measure(args: &Args) -> Result<(), Error> {
    let plain = Contents { kind: Kind::Plain, shards: 4, records: args.records };
    let members = Kind::MEMBERS as u64;
    let aggregated =
        Contents { kind: Kind::Aggregated, records: (args.records * 4).div_ceil(members), ..plain };
    let ratios =
        [cpu(args, "plain 200-byte", plain)?, cpu(args, "aggregated 100-byte", aggregated)?];

    println!("\npeak memory in MiB of a worker that catches up with 8 shards, CBOR");
    let mut peak = 0.0;
    for (name, contents) in [("plain", plain), ("aggregated", aggregated)] {
        let contents = Contents { shards: 8, records: contents.records.div_ceil(2), ..contents };
        let source = Server::start(&Role::Source(contents))?;
        let peaks = (0..args.rounds).map(|_| {
            let used = read(Side::Cbor, contents, &source)?;
            Ok(used.peak_resident_bytes as f64 / MIB)
        });
        let peaks = peaks.collect::<Result<Vec<_>, Error>>()?;
        let median = median(peaks.iter().copied());
        println!("{name:<10} median {median:.1}, of {peaks:.1?}");
        peak = f64::max(peak, median);
    }

    let [plain, aggregated] = &ratios;
    if let Some(file) = &args.plot {
        let groups: [(&str, &[Measured]); 2] = [
            ("plain records of 200 bytes", plain),
            ("aggregated records of 100 bytes", aggregated),
        ];
        std::fs::write(file, bars("CPU of the consumer, over the floor's", &groups))?;
    }
    println!(
        "\nconsumer_ratio_plain200={:.2} consumer_ratio_aggregated100={:.2} peak_rss_mib={peak:.0} \
         json_ratio_plain200={:.2} json_ratio_aggregated100={:.2}",
        plain[Side::Cbor as usize].ratio,
        aggregated[Side::Cbor as usize].ratio,
        plain[Side::Json as usize].ratio,
        aggregated[Side::Json as usize].ratio,
    );
    Ok(())
}

/// Runs all sides on one kind of records.
fn cpu(args: &Args, name: &str, contents: Contents) -> Result<Vec<Measured>, Error> {
    let records = contents.user_records();
    println!("\n{name} records, {records} a side and round: CPU in us a record");
    let source = Server::start(&Role::Source(contents))?;
    compare(args.rounds, records, &Side::ALL, |side| read(*side, contents, &source))
}
