//! `end-to-end run`: the main job under load, with a split, a merge and a killed worker.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use integration_tests::consumer::{self, ConsumerArgs};
use integration_tests::scenario::{self, Scenario};
use integration_tests::stopped_server;
use integration_tests::{Error, exit_code, init_logs};

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Sends records, reshards, kills a worker, and counts.
    Run {
        /// Records to send; 100,000 are about 600 MB.
        #[arg(long, default_value_t = 100_000)]
        records: u64,
        /// Seed of the sizes and keys.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Failover time of the workers, in milliseconds.
        #[arg(long, default_value_t = 3_000)]
        failover_ms: u64,
    },
    /// A worker; `run` starts it.
    #[command(hide = true)]
    Consume(ConsumerArgs),
    /// Kinesis and DynamoDB, with the stream of every run, until standard input closes.
    #[command(hide = true)]
    Serve {
        /// Shards of the stream.
        #[arg(long)]
        shards: u32,
        /// Serve over TLS too, and write the certificate for clients to trust to this file.
        #[arg(long)]
        certificate: Option<PathBuf>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    init_logs();
    exit_code(match Args::parse().command {
        Command::Run { records, seed, failover_ms } => run(records, seed, failover_ms).await,
        Command::Consume(args) => consumer::consume(args).await.map(|()| true),
        Command::Serve { shards, certificate } => {
            stopped_server::serve(shards, certificate.as_deref()).await.map(|()| true)
        }
    })
}

async fn run(records: u64, seed: u64, failover_ms: u64) -> Result<bool, Error> {
    let scenario = Scenario {
        records,
        seed,
        failover: Duration::from_millis(failover_ms),
        program: std::env::current_exe()?,
        stalled: Duration::from_secs(60),
    };
    let shown = std::io::stderr().is_terminal();
    let outcome = scenario::run(&scenario, move |acknowledged, seen| {
        if shown {
            eprint!("\racknowledged {acknowledged} of {records}, seen {seen} ");
            let _ = std::io::stderr().flush();
        }
    })
    .await?;
    let v = &outcome.verdict;
    println!(
        "acknowledged={} failed={} delivered={} lost={} false_receipts={} redelivered={} \
         redelivered_before_the_kill={} written_twice={} out_of_order={} megabytes={}",
        v.acknowledged,
        outcome.failed,
        v.delivered,
        v.lost,
        outcome.false_receipts,
        v.redelivered,
        outcome.redelivered_before_the_kill,
        v.written_twice,
        v.out_of_order,
        outcome.bytes / 1_000_000,
    );
    if !outcome.lost_ids.is_empty() {
        println!("lost ids, first ten: {:?}", &outcome.lost_ids[..outcome.lost_ids.len().min(10)]);
    }
    Ok(v.acknowledged == records
        && v.lost == 0
        && v.out_of_order == 0
        && outcome.false_receipts == 0
        && outcome.redelivered_before_the_kill == 0)
}
