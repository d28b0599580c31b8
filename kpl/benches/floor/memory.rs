//! What the process grows to while the sink does not answer.

use std::time::{Duration, Instant};

use kpl::{Delivery, Producer, ProducerConfig, SendError, UserRecord};

use crate::Error;
use crate::client::sdk_config;
use crate::roles;
use crate::workload::{SHARDS, Workload};

const MIB: f64 = 1024.0 * 1024.0;

pub(crate) async fn run(record_bytes: usize, millis: u64) -> Result<(), Error> {
    let stall = Duration::from_millis(millis);
    let config = ProducerConfig {
        record_ttl: stall + Duration::from_secs(60),
        wire: roles::wire(),
        ..ProducerConfig::default()
    };
    let formula = config.max_buffered_bytes as f64
        + 2.3 * config.max_in_flight_bytes as f64
        + 1.4 * SHARDS as f64 * config.aggregation_max_size as f64;
    let producer = Producer::builder("bench", &sdk_config()?).config(config).build().await?;
    let workload = Workload::new(record_bytes);
    let before = peak_memory()?;

    let began = Instant::now();
    let mut deliveries: Vec<Delivery> = Vec::new();
    while began.elapsed() < stall {
        let record =
            UserRecord::new(workload.key(deliveries.len()).to_owned(), workload.payload.clone());
        match producer.try_send(record) {
            Ok(delivery) => deliveries.push(delivery),
            Err(SendError::Full { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) => return Err(error.into()),
        }
    }
    // The handles are the caller's, and so is the slack of the list that holds them.
    let handles = deliveries.capacity() * size_of::<Delivery>();
    println!(
        "grown_mib={} formula_mib={} accepted={}",
        (peak_memory()? - before) as f64 / MIB,
        (formula + handles as f64) / MIB,
        deliveries.len(),
    );
    producer.close(Duration::ZERO).await;
    Ok(())
}

/// Peak resident memory of this process, in bytes.
fn peak_memory() -> Result<usize, Error> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.ok_or("no VmHWM in /proc/self/status")?.parse::<usize>()? * 1024)
}
