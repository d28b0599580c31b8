//! Reads a stream from its oldest record to its tip, and exits: a job, without a lease table.
//!
//! ```text
//! cargo run --release -p kinesis-examples --example backfill              # on an embedded stream with sample records
//! cargo run --release -p kinesis-examples --example backfill -- STREAM    # a name or an ARN, with your AWS credentials
//! ```
//!
//! The exit code is 0 if every record that was in the stream at the start was processed.

use std::error::Error;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_config::BehaviorVersion;
use aws_sdk_kinesis::primitives::Blob;
use aws_types::SdkConfig;
use kcl::{
    ConsumerConfig, InitialPosition, ProcessorError, RecordBatch, RecordProcessor, ReplayReport,
    Scheduler, ShardContext, ShardEnd, Shutdown, Until,
};
use kinesis_testkit::LocalAws;

/// Adds up the records of one shard. A real job writes them to a file or a database.
struct Sum {
    bytes: u64,
    total: Arc<AtomicU64>,
}

impl Sum {
    /// Hands in what was collected. It is called once for each shard, at its end.
    fn finish(&mut self) {
        self.total.fetch_add(std::mem::take(&mut self.bytes), Ordering::Relaxed);
    }
}

impl RecordProcessor for Sum {
    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        self.bytes += batch.records().map(|record| record.data().len() as u64).sum::<u64>();
        Ok(())
    }

    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        self.finish();
        Ok(end.checkpoint().await?)
    }

    async fn shutdown_requested(&mut self, last: Shutdown<'_>) -> Result<(), ProcessorError> {
        self.finish();
        Ok(last.checkpointer().checkpoint().await?)
    }
}

/// Reads the stream to its tip. Returns the payload bytes, and the report.
async fn backfill(
    stream: &str,
    sdk_config: &SdkConfig,
) -> Result<(u64, ReplayReport), Box<dyn Error>> {
    let total = Arc::new(AtomicU64::new(0));
    let sum = Arc::clone(&total);
    let config = ConsumerConfig::default()
        .with_initial_position(InitialPosition::TrimHorizon)
        .with_until(Until::Tip);
    let worker = Scheduler::standalone(stream, sdk_config)
        .processor(move |_shard: &ShardContext| Sum { bytes: 0, total: Arc::clone(&sum) })
        .config(config)
        .build()
        .await?
        .spawn();
    let report = worker.join().await?.replay.ok_or("until is set, so there is a report")?;
    Ok((total.load(Ordering::Relaxed), report))
}

/// A stream of two shards with 1,000 records of 10 bytes.
async fn sample() -> Result<LocalAws, Box<dyn Error>> {
    let aws = LocalAws::start().await?;
    aws.create_stream("orders", 2).await?;
    let kinesis = aws.kinesis();
    for id in 0..1_000 {
        let put = kinesis.put_record().stream_name("orders").partition_key(format!("key-{id}"));
        put.data(Blob::new(format!("id={id:07}"))).send().await?;
    }
    Ok(aws)
}

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let (bytes, report) = match std::env::args().nth(1) {
        Some(stream) => {
            backfill(&stream, &aws_config::load_defaults(BehaviorVersion::v2026_01_12()).await)
                .await?
        }
        None => backfill("orders", &sample().await?.sdk_config()).await?,
    };
    println!("{report}\n{bytes} bytes in all");
    Ok(if report.is_complete { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_record_is_read_once_and_the_job_ends() {
        let aws = sample().await.unwrap();
        let (bytes, report) = backfill("orders", &aws.sdk_config()).await.unwrap();
        assert!(report.is_complete, "{report}");
        assert_eq!(bytes, 10_000);
    }
}
