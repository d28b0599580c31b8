//! Fills a producer's buffer while the stream does not answer, prints the memory that this took, and delivers
//! everything once the stream answers again. Its parent is `tests/memory.rs`.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser;
use integration_tests::{Error, exit_code};
use kpl::{Producer, ProducerConfig, SendError, UserRecord};

#[derive(Parser)]
struct Args {
    #[arg(long)]
    url: String,
    #[arg(long)]
    stream: String,
    #[arg(long)]
    max_buffered_bytes: usize,
    #[arg(long)]
    max_in_flight_bytes: usize,
    /// Bytes of each record.
    #[arg(long)]
    record_bytes: usize,
    /// Calls that must have failed before memory is read.
    #[arg(long)]
    calls: u64,
}

/// Peak resident memory of this process, bytes.
fn peak_memory() -> Result<usize, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no VmHWM")?;
    Ok(kib.trim().parse::<usize>()? * 1024)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    exit_code(run(Args::parse()).await.map(|()| true))
}

async fn run(args: Args) -> Result<(), Error> {
    let config = ProducerConfig::default()
        .with_max_buffered_bytes(args.max_buffered_bytes)
        .with_max_in_flight_bytes(args.max_in_flight_bytes)
        .with_request_timeout(Duration::from_millis(300))
        .with_record_ttl(Duration::from_secs(600));
    let producer = Producer::builder(&args.stream, &integration_tests::sdk_config(&args.url))
        .config(config)
        .build()
        .await?;
    let before = peak_memory()?;

    // One payload shared by all records: what the producer holds is its own copy.
    let payload = Bytes::from(vec![b'x'; args.record_bytes]);
    let mut deliveries = Vec::with_capacity(args.max_buffered_bytes / args.record_bytes);
    let mut refused = 0;
    loop {
        let key = format!("key-{}", deliveries.len() % 1_000);
        match producer.try_send(UserRecord::new(key, payload.clone())) {
            Ok(delivery) => deliveries.push(delivery),
            Err(SendError::Full { .. }) => {
                refused += 1;
                if producer.stats().put_records_calls >= args.calls {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    println!(
        "stalled accepted={} refused={refused} before={before} peak={} gauge_peak={}",
        deliveries.len(),
        peak_memory()?,
        producer.peak_buffered_bytes(),
    );
    std::io::stdout().flush()?;

    // A line on standard input: the stream answers again.
    std::io::stdin().lock().read_line(&mut String::new())?;
    let mut delivered = 0;
    for delivery in deliveries {
        delivery.await?;
        delivered += 1;
    }
    println!("recovered delivered={delivered} buffered={}", producer.buffered_bytes());
    Ok(())
}
