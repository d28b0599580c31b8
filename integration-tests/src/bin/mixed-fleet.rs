//! `mixed-fleet run`: Java workers and ours in one application; `../interop/run` starts it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use integration_tests::consumer::{self, ConsumerArgs};
use integration_tests::mixed_fleet::{self, Tools};
use integration_tests::{Error, exit_code, init_logs};

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lets workers join, leave and die, reshards, and counts.
    Run(RunArgs),
    /// A worker of ours; `run` starts it.
    #[command(hide = true)]
    Consume(ConsumerArgs),
}

#[derive(clap::Args)]
struct RunArgs {
    /// The program `java`, 17 or newer.
    #[arg(long, default_value = "java")]
    java: PathBuf,
    /// Where `interop.Worker` and the Java library are.
    #[arg(long)]
    classpath: String,
    /// Folder for the workers' logs.
    #[arg(long)]
    logs: PathBuf,
    /// Failover time of every worker, in milliseconds; the libraries' own is 10,000.
    #[arg(long, default_value_t = 5_000)]
    failover_ms: u64,
    /// How often a Java leader assigns, in milliseconds; the library's own is 20,000.
    #[arg(long, default_value_t = 2_000)]
    assignment_ms: u64,
    /// Seconds until it gives up.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    init_logs();
    exit_code(match Args::parse().command {
        Command::Run(args) => run(args).await,
        Command::Consume(args) => consumer::consume(args).await.map(|()| true),
    })
}

async fn run(args: RunArgs) -> Result<bool, Error> {
    let tools = Tools {
        java: args.java,
        classpath: args.classpath,
        program: std::env::current_exe()?,
        logs: args.logs,
        failover: Duration::from_millis(args.failover_ms),
        assignment: Duration::from_millis(args.assignment_ms),
    };
    let outcome = mixed_fleet::run(&tools, Duration::from_secs(args.seconds)).await?;
    println!(
        "mixed-fleet: records={} lost={} out_of_order={} overlapping={} children_before_parents={} \
         misplaced={} redelivered={} changes_of_hands={}",
        outcome.records,
        outcome.lost,
        outcome.out_of_order,
        outcome.overlapping,
        outcome.children_before_parents,
        outcome.misplaced,
        outcome.redelivered,
        outcome.changes_of_hands,
    );
    Ok(outcome.is_good())
}
