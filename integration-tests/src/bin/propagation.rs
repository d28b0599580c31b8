//! Measures the propagation delay of records by enhanced fan-out and by polling: the time from the beginning of the
//! PutRecords call until `process_records` is given the record. The embedded AWS runs in a process of its own.
//!
//! ```text
//! cargo run --release -p integration-tests --bin propagation
//! ```

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use clap::{Parser, Subcommand};
use integration_tests::consumer::epoch_micros;
use integration_tests::stopped_server::{serve, server};
use integration_tests::{Error, exit_code, init_logs, sdk_config};
use kcl::{
    CheckpointPolicy, ConsumerConfig, FanOutConfig, InitialPosition, ProcessorError, RecordBatch,
    RecordProcessor, RetrievalMode, Scheduler, ShardContext, ShardEnd, ShardState, Shutdown,
};
use tokio::time::MissedTickBehavior;

const STREAM: &str = "orders";
/// Longest wait for records that are put.
const PATIENCE: Duration = Duration::from_secs(60);
/// Records of each shard that are not counted, because connections are opened then.
const WARM_UP: u64 = 100;

/// Measures the propagation delay of records.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[arg(long, default_value_t = 8)]
    shards: u32,
    /// Records a second and shard.
    #[arg(long, default_value_t = 100)]
    rate: u64,
    /// Records of each shard.
    #[arg(long, default_value_t = 2_000)]
    records: u64,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves an embedded AWS, until standard input closes.
    #[command(hide = true)]
    Serve {
        #[arg(long)]
        shards: u32,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    init_logs();
    let args = Args::parse();
    exit_code(match args.command {
        Some(Command::Serve { shards }) => serve(shards, None).await.map(|()| true),
        None => measure(&args).await.map(|()| true),
    })
}

async fn measure(args: &Args) -> Result<(), Error> {
    let mut line = Vec::new();
    let fan_out = RetrievalMode::FanOut(FanOutConfig::default());
    for (name, mode) in [("fanout", fan_out), ("polling", RetrievalMode::Polling)] {
        let mut delays = run(args, name, mode).await?;
        delays.sort_unstable();
        for percent in [50, 99] {
            let delay = delays[delays.len() * percent / 100];
            line.push(format!("{name}_p{percent}_ms={:.1}", delay as f64 / 1000.0));
        }
    }
    println!("{}", line.join(" "));
    Ok(())
}

/// Puts the records while a worker reads them. Returns the delay of each record, in microseconds.
async fn run(args: &Args, name: &str, mode: RetrievalMode) -> Result<Vec<u64>, Error> {
    let server = server(&std::env::current_exe()?, args.shards, None).await?;
    let config = ConsumerConfig::default()
        .with_initial_position(InitialPosition::TrimHorizon)
        .with_checkpoint(CheckpointPolicy::Interval(Duration::from_secs(5)))
        .with_retrieval(mode);
    let delays = Delays::default();
    let of_processors = delays.clone();
    let worker = Scheduler::builder(format!("billing-{name}"), STREAM, &sdk_config(&server.url))
        .processor(move |_: &ShardContext| of_processors.clone())
        .config(config)
        .build()
        .await?
        .spawn();
    let processing = || {
        let shards = worker.snapshot().shards;
        shards.iter().filter(|shard| shard.state == ShardState::Processing).count()
    };
    wait_for("all shards", || processing() == args.shards as usize).await?;
    put(args, &server.url).await?;
    let all = (WARM_UP + args.records) as usize * args.shards as usize;
    wait_for("all records", || delays.lock().len() >= all).await?;
    worker.shutdown(PATIENCE).await?;
    let warm_up = WARM_UP as usize * args.shards as usize;
    Ok(delays.lock().split_off(warm_up))
}

/// Puts one record into each shard at a time. Its data is the time at which the call began.
async fn put(args: &Args, url: &str) -> Result<(), Error> {
    let client = aws_sdk_kinesis::Client::new(&sdk_config(url));
    let listed = client.list_shards().stream_name(STREAM).send().await?;
    let ranges = listed.shards.unwrap_or_default().into_iter().filter_map(|it| it.hash_key_range);
    let hash_keys: Vec<_> = ranges.map(|range| range.starting_hash_key).collect();
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / args.rate as f64));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..WARM_UP + args.records {
        ticks.tick().await;
        let data = Blob::new(epoch_micros().to_be_bytes());
        let entries = hash_keys.iter().map(|hash_key| {
            let entry = PutRecordsRequestEntry::builder().partition_key("key");
            entry.explicit_hash_key(hash_key).data(data.clone()).build()
        });
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        let put = client.put_records().stream_name(STREAM).set_records(Some(entries));
        if put.send().await?.failed_record_count.unwrap_or_default() > 0 {
            return Err("a record was refused".into());
        }
    }
    Ok(())
}

async fn wait_for(what: &str, condition: impl Fn() -> bool) -> Result<(), Error> {
    let met = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, met).await.map_err(|_| format!("waited in vain: {what}").into())
}

/// The delays of all records, as their processors saw them.
#[derive(Debug, Clone, Default)]
struct Delays(Arc<Mutex<Vec<u64>>>);

impl Delays {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecordProcessor for Delays {
    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        let now = epoch_micros();
        let delays = batch.records().map(|record| {
            let sent = record.data().try_into().map(u64::from_be_bytes);
            sent.map(|sent| now.saturating_sub(sent))
        });
        let delays = delays.collect::<Result<Vec<_>, _>>()?;
        self.lock().extend(delays);
        Ok(())
    }

    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(end.checkpoint().await?)
    }

    async fn shutdown_requested(&mut self, last: Shutdown<'_>) -> Result<(), ProcessorError> {
        Ok(last.checkpointer().checkpoint().await?)
    }
}
