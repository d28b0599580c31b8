//! The main job, end to end: real events are aggregated into a stream, two workers lease its
//! shards and count every record, and one shard splits half-way.
//!
//! `cargo run --release --example quickstart`; `-- --help` lists the options.

mod args;
mod consume;
mod input;
mod produce;
mod report;
mod tally;
mod target;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use kpl::{Compression, Producer, ProducerConfig};

use crate::args::Args;
use crate::report::Summary;
use crate::tally::Tally;
use crate::target::{Error, Target, in_full};

/// If no record was seen for this long, the missing records count as lost.
const STALLED: Duration = Duration::from_secs(60);
/// A worker that has no shard by then will not get one.
const START: Duration = Duration::from_secs(300);
const STOP: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| "error".into()))
        .with_writer(std::io::stderr)
        .init();
    match run(Args::parse()).await {
        Ok(faults) if faults.is_empty() => ExitCode::SUCCESS,
        Ok(faults) => {
            for fault in faults {
                eprintln!("failed: {fault}");
            }
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {}", in_full(&*error));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a program, not the library: it shows wall time")]
async fn run(args: Args) -> Result<Vec<String>, Error> {
    let started = Instant::now();
    let now = SystemTime::now();
    let run: Arc<str> = format!("{:x}", now.duration_since(UNIX_EPOCH)?.as_millis()).into();
    let lines = input::load(args.input.as_deref(), &args.key)?;
    let records = args.records.unwrap_or(lines.len() as u64);
    if usize::from(args.workers) > args.shards as usize {
        return Err("more workers than shards: some would have nothing to do".into());
    }

    let target = Target::open(&args, &run, now).await?;
    eprintln!(
        "{records} records keyed by {:?} into stream {} on {}",
        args.key, target.stream, target.description
    );
    let application = format!("quickstart-{run}");
    let tally = Arc::new(Tally::default());
    let bars = MultiProgress::new();
    let sent = bars.add(bar("sent", records));
    let seen = bars.add(bar("seen", records));

    let workers = consume::start_workers(&args, &target, &application, &run, &tally, &seen).await?;
    tokio::time::timeout(START, tally.all_workers_started(args.workers))
        .await
        .map_err(|_| "a worker got no shard; has the stream enough of them?")?;

    let compression =
        if args.compression { Compression::Zstd { level: 1 } } else { Compression::Off };
    let config = ProducerConfig::default().with_compression(compression);
    let producer =
        Producer::builder(&target.stream, &target.kinesis_config).config(config).build().await?;
    let half = if args.no_split || !target.owned { records } else { records / 2 };
    let mut produced = produce::produce(&producer, &run, &lines, 0..half, &tally, &sent).await?;
    if half < records {
        let busiest = produced.by_shard.iter().max_by_key(|(_, count)| **count);
        let busiest = busiest.map(|(shard, _)| shard.clone()).ok_or("no record was accepted")?;
        bars.println(format!("splitting {busiest}"))?;
        let rest = produce::produce(&producer, &run, &lines, half..records, &tally, &sent);
        let (split, rest) = tokio::join!(target.split(&busiest), rest);
        split.map_err(|e| format!("cannot split {busiest}: {}", in_full(&*e)))?;
        produced.merge(rest?);
    }
    if let Some(error) = &produced.first_failure {
        bars.println(format!("first failure: {error}"))?;
    }
    let stats = producer.stats();
    producer.close(STOP).await;
    sent.finish();

    settle(&tally).await;
    let elapsed = started.elapsed();
    seen.finish();
    for worker in workers {
        worker.shutdown(STOP).await?;
    }
    target.clean_up(&application).await;

    let summary = Summary {
        verdict: tally.verdict(),
        kinesis_records: stats.kinesis_records,
        put_records_calls: stats.put_records_calls,
        elapsed,
    };
    let shares = tally.shares();
    println!("{}", report::table(&shares));
    println!("{summary}");
    Ok(report::faults(&summary, &shares, args.workers, produced.failed))
}

/// Waits until every acknowledged record was seen, or until no more records arrive.
async fn settle(tally: &Tally) {
    let settled = tally.settled();
    tokio::pin!(settled);
    loop {
        tokio::select! {
            biased;
            () = &mut settled => return,
            moved = tokio::time::timeout(STALLED, tally.progress()) => {
                if moved.is_err() {
                    return;
                }
            }
        }
    }
}

fn bar(name: &'static str, records: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{prefix} [{bar:40}] {human_pos}/{human_len} {per_sec} {elapsed}",
    );
    let bar = ProgressBar::new(records).with_prefix(name);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
