//! The cost of shards that have nothing, beside a bare SDK client that makes the same calls.
//!
//! ```text
//! cargo bench -p kcl --bench idle [-- --rounds 3 --seconds 20 --idle-millis 1000]
//! ```
//! * **CPU and memory**: a worker holds 1,000 shards without records. It reads each shard once a second, renews each
//!   lease every five seconds, and scans the lease table. The floor makes as many GetRecords and as many conditional
//!   UpdateItem calls, by the SDK as it is (JSON), in a loop for each shard. CPU time is that of the process, user and
//!   system, once all shards are read. `idle_read_ratio` is the worker's CPU over the floor's, for each GetRecords call
//!   with all that belongs to it. Memory is the growth of the process since before the worker was built.
//! * **Leases under load**: the same worker, while the application's code takes all threads of its runtime, as many as
//!   the machine has cores. Lost leases are counted. A renewal is late by the time that has passed since the one before,
//!   beyond half the failover time.
//!
//! The embedded Kinesis and DynamoDB are a process of their own, reached over TLS and HTTP/2.
#![allow(missing_docs, reason = "a program")]
#![allow(clippy::disallowed_methods, reason = "it measures real time")]

mod calls;
mod floor;
mod worker;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use kinesis_benchmark::comparison::turns;
use kinesis_benchmark::process::{self, Endpoint, Server};
use kinesis_benchmark::statistics::median;
use kinesis_benchmark::{Error, usage};
use kinesis_testkit::LocalAws;
use serde::{Deserialize, Serialize};

const STREAM: &str = "idle";

#[derive(Parser)]
struct Args {
    /// Rounds of the worker and of the floor, which take turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Shards of the stream.
    #[arg(long, default_value_t = 1000)]
    shards: u32,
    /// Pause between two reads of a shard.
    #[arg(long, default_value_t = 1000)]
    idle_millis: u64,
    /// Failover time. Each lease is renewed twice in it.
    #[arg(long, default_value_t = 10_000)]
    failover_millis: u64,
    /// Seconds that are measured, after as many to settle.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Measures. `cargo bench` passes it. Without it, as in `cargo test --bench idle`, each part runs once and briefly, to
    /// show that it works.
    #[arg(long)]
    bench: bool,
}

impl Args {
    fn or_brief(self) -> Self {
        if self.bench {
            return self;
        }
        Self { rounds: 1, shards: 4, seconds: 1, ..self }
    }
}

/// A part of the benchmark that is a process of its own.
#[derive(Serialize, Deserialize)]
enum Role {
    /// The embedded Kinesis and DynamoDB.
    Server { shards: u32 },
    /// Makes the calls of a worker by the SDK alone.
    Floor(Load),
    /// Runs a worker.
    Worker { load: Load, application: String, is_saturated: bool },
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Load {
    pub(crate) shards: u32,
    /// Pause between two reads of a shard.
    pub(crate) idle: Duration,
    pub(crate) failover_time: Duration,
    /// Time that is measured, after as long to settle.
    pub(crate) time: Duration,
    pub(crate) server: Endpoint,
}

/// What a side used in the time that was measured.
#[derive(Serialize, Deserialize)]
pub(crate) struct Used {
    pub(crate) cpu_seconds: f64,
    pub(crate) wall_seconds: f64,
    pub(crate) reads: u64,
    pub(crate) renewals: u64,
    /// Growth of the process since it began.
    pub(crate) grown_bytes: usize,
    /// Leases that were lost.
    pub(crate) lost: u64,
    /// How late renewals were, in seconds, at the 99th percentile. `None`: no lease was renewed twice.
    pub(crate) lateness_p99: Option<f64>,
}

fn main() -> ExitCode {
    kinesis_benchmark::program(play, |args: Args| measure(&args.or_brief()))
}

async fn play(role: Role) -> Result<(), Error> {
    match role {
        Role::Server { shards } => serve(shards).await,
        Role::Floor(load) => process::report(&floor::run(load).await?),
        Role::Worker { load, application, is_saturated } => {
            process::report(&worker::run(load, &application, is_saturated).await?)
        }
    }
}

/// Serves until the process is killed.
async fn serve(shards: u32) -> Result<(), Error> {
    let aws = LocalAws::builder().tls_port(0).build().await?;
    aws.create_stream(STREAM, shards).await?;
    process::report(&Endpoint {
        url: aws.tls_url().ok_or("TLS is on")?.to_owned(),
        certificate: aws.certificate_pem().map(str::to_owned),
    })?;
    std::future::pending().await
}

fn measure(args: &Args) -> Result<(), Error> {
    let server = Server::start(&Role::Server { shards: args.shards })?;
    let Endpoint { url, certificate } = server.endpoint();
    let trusted = std::env::temp_dir().join(format!("idle-{}.pem", std::process::id()));
    std::fs::write(&trusted, certificate.ok_or("TLS is on")?)?;
    let load = Load {
        shards: args.shards,
        idle: Duration::from_millis(args.idle_millis),
        failover_time: Duration::from_millis(args.failover_millis),
        time: Duration::from_secs(args.seconds),
        server: Endpoint { url, certificate: None },
    };
    let per_read = |side: &Used| side.cpu_seconds * 1e6 / side.reads as f64;
    let per_shard = |side: &Used| side.grown_bytes as f64 / 1024.0 / f64::from(args.shards);
    let run = |role: &Role| process::run_trusting::<Used>(&trusted, role);

    println!(
        "{} shards without records, CPU in us a read with all that belongs to it",
        args.shards
    );
    println!(
        "round    floor   worker    ratio   % of a core   KiB a shard   floor's KiB   calls/s"
    );
    let (mut ratios, mut percent, mut memory, mut calls) = (vec![], vec![], vec![], vec![]);
    for round in 0..args.rounds {
        let worker = Role::Worker {
            load: load.clone(),
            // Each worker has a lease table of its own.
            application: format!("idle-{round}"),
            is_saturated: false,
        };
        let sides = [Role::Floor(load.clone()), worker];
        let [floor, worker] =
            <[Used; 2]>::try_from(turns(round, &sides, run)?).map_err(|_| "there are two sides")?;
        ratios.push(per_read(&worker) / per_read(&floor));
        percent.push(100.0 * worker.cpu_seconds / worker.wall_seconds);
        memory.push(per_shard(&worker));
        calls.push((worker.reads + worker.renewals) as f64 / worker.wall_seconds);
        println!(
            "{:>5} {:>8.0} {:>8.0} {:>8.2} {:>13.1} {:>13.1} {:>13.1} {:>9.0}",
            round + 1,
            per_read(&floor),
            per_read(&worker),
            ratios[round],
            percent[round],
            memory[round],
            per_shard(&floor),
            calls[round],
        );
    }

    let saturated = run(&Role::Worker {
        load: Load { time: load.time * 2, ..load },
        application: "saturated".to_owned(),
        is_saturated: true,
    });
    let _ = std::fs::remove_file(&trusted);
    let saturated = saturated?;
    let late_millis = saturated.lateness_p99.unwrap_or(f64::NAN) * 1e3;
    println!(
        "\nwhile user code takes all threads: {} renewals, {} leases lost, late by {:.0} ms at the 99th percentile",
        saturated.renewals, saturated.lost, late_millis,
    );
    println!(
        "\nidle_shards={} cpu_percent_of_core={:.1} rss_kib_per_shard={:.1} calls_per_second={:.0} \
         idle_read_ratio={:.2} lost_leases={} renewal_lateness_p99_ms={:.0}",
        args.shards,
        median(percent),
        median(memory),
        median(calls),
        median(ratios),
        saturated.lost,
        late_millis,
    );
    Ok(())
}

/// Measures a side that has begun to make its calls. `memory`: the process's before it began.
pub(crate) async fn watch(load: &Load, memory: usize, calls: &calls::Calls) -> Result<Used, Error> {
    tokio::time::sleep(load.time).await;
    let before = calls.counts();
    let (began, cpu) = (std::time::Instant::now(), usage::cpu_seconds());
    tokio::time::sleep(load.time).await;
    let (wall_seconds, cpu_seconds) = (began.elapsed().as_secs_f64(), usage::cpu_seconds() - cpu);
    let after = calls.counts();
    Ok(Used {
        cpu_seconds,
        wall_seconds,
        reads: after.0 - before.0,
        renewals: after.1 - before.1,
        grown_bytes: usage::resident_bytes()?.saturating_sub(memory),
        lost: 0,
        lateness_p99: calls.lateness(0.99),
    })
}
