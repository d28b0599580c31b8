//! Starts a fleet of workers on a large stream that has no leases yet, and prints the time and the calls that
//! this takes.
//!
//! ```text
//! cargo run --release -p integration-tests --bin cold-start -- simulated --shards 2000 --workers 100
//! cargo run --release -p integration-tests --bin cold-start -- embedded --shards 1000 --workers 4
//! ```

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use integration_tests::{Error, exit_code};
use kcl::{ConsumerConfig, InitialPosition, Scheduler, ShardContext, ShardState, WorkerHandle};
use kcl_simulation::cold_start;
use kcl_simulation::idle::IdleProcessor;
use kinesis_testkit::LocalAws;

/// Measures a cold start of a large fleet.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    on: On,
}

#[derive(Debug, Subcommand)]
enum On {
    /// In simulated time, on a table in memory that takes 10 ms a call.
    Simulated {
        #[arg(long, default_value_t = 2000)]
        shards: u32,
        #[arg(long, default_value_t = 100)]
        workers: u32,
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// In real time, on the embedded AWS.
    Embedded {
        #[arg(long, default_value_t = 1000)]
        shards: u32,
        #[arg(long, default_value_t = 4)]
        workers: u32,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    exit_code(match Args::parse().on {
        On::Simulated { shards, workers, seed } => simulated(shards, workers, seed),
        On::Embedded { shards, workers } => embedded(shards, workers).await,
    })
}

/// True if the fleet reads every shard within a minute and writes each lease about once.
fn simulated(shards: u32, workers: u32, seed: u64) -> Result<bool, Error> {
    // It has a runtime of its own.
    let simulation = std::thread::spawn(move || cold_start(shards, workers, seed));
    let found = simulation.join().map_err(|_| "the simulation panicked")?;
    println!("{found:#?}");
    let within = |when: Option<Duration>| when.is_some_and(|when| when < Duration::from_secs(60));
    let writes_once = found.creates * 10 <= u64::from(shards) * 12;
    Ok(within(found.running) && within(found.owned) && within(found.read) && writes_once)
}

/// True if every shard is processed within 20 s.
#[expect(clippy::disallowed_methods, reason = "a program, not the library: it measures wall time")]
async fn embedded(shards: u32, workers: u32) -> Result<bool, Error> {
    let aws = LocalAws::start().await?;
    aws.create_stream("orders", shards).await?;
    let began = Instant::now();
    let starts = (0..workers).map(|number| {
        let config = ConsumerConfig::default()
            .with_worker_id(format!("worker-{number}"))
            .with_initial_position(InitialPosition::TrimHorizon);
        Scheduler::builder("billing", "orders", &aws.sdk_config())
            .processor(|_: &ShardContext| IdleProcessor)
            .config(config)
            .build()
    });
    let mut fleet = Vec::new();
    let starts: Vec<_> = starts.map(|start| tokio::spawn(Box::pin(start))).collect();
    for start in starts {
        fleet.push(start.await??.spawn());
    }
    println!("all workers run after {:.1?}", began.elapsed());
    let processing = |worker: &WorkerHandle| {
        let shards = worker.snapshot().shards;
        let processed = shards.iter().filter(|shard| shard.state == ShardState::Processing);
        processed.count()
    };
    loop {
        let counts: Vec<_> = fleet.iter().map(processing).collect();
        if counts.iter().sum::<usize>() >= shards as usize {
            let took = began.elapsed();
            let puts = aws.calls("PutItem");
            println!("every shard is processed after {took:.1?}: {counts:?}, {puts} PutItem calls");
            return Ok(took < Duration::from_secs(20));
        }
        if began.elapsed() > Duration::from_secs(120) {
            println!("given up after two minutes: {counts:?}");
            return Ok(false);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
