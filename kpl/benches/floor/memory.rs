//! What the process grows to while the sink does not answer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kinesis_benchmark::Error;
use kinesis_benchmark::process::Endpoint;
use kinesis_benchmark::sdk::sdk_config;
use kinesis_benchmark::usage::peak_resident_bytes;
use kpl::{Delivery, Producer, ProducerConfig, SendError, UserRecord, Wire};
use serde::{Deserialize, Serialize};

use crate::workload::{STREAM, Workload};

const MIB: f64 = 1024.0 * 1024.0;

/// Memory of the producer's process, in MiB.
#[derive(Serialize, Deserialize)]
pub(crate) struct Memory {
    /// How much its peak rose while the sink stalled.
    pub(crate) grown: f64,
    /// What the documentation says that it rises to.
    pub(crate) formula: f64,
    pub(crate) accepted: usize,
}

pub(crate) async fn run(
    record_bytes: usize,
    stall: Duration,
    sink: &Endpoint,
) -> Result<Memory, Error> {
    let config = ProducerConfig {
        record_ttl: stall + Duration::from_secs(60),
        wire: Wire::Cbor,
        ..ProducerConfig::default()
    };
    let formula = config.max_buffered_bytes as f64
        + 1.3 * config.max_in_flight_bytes as f64
        + 1.4 * STREAM.shards as f64 * config.aggregation_max_size as f64;
    let producer =
        Producer::builder("benchmark", &sdk_config(sink)?).config(config).build().await?;
    let workload = Workload::new(record_bytes);
    let before = peak_resident_bytes()?;

    let began = Instant::now();
    let mut deliveries: Vec<Delivery> = Vec::new();
    while began.elapsed() < stall {
        // Data of its own, as an application's record has it: shared data would cost nothing in a queue.
        let data = Bytes::copy_from_slice(&workload.payload);
        let record = UserRecord::new(workload.key(deliveries.len()).to_owned(), data);
        match producer.try_send(record) {
            Ok(delivery) => deliveries.push(delivery),
            Err(SendError::Full { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) => return Err(error.into()),
        }
    }
    // The handles are the caller's, and so is the slack of the list that holds them.
    let handles = deliveries.capacity() * size_of::<Delivery>();
    let memory = Memory {
        grown: (peak_resident_bytes()? - before) as f64 / MIB,
        formula: (formula + handles as f64) / MIB,
        accepted: deliveries.len(),
    };
    producer.close(Duration::ZERO).await;
    Ok(memory)
}
