//! The producer's side: `send` in a loop, every receipt awaited.

use std::collections::VecDeque;
use std::time::Duration;

use kinesis_benchmark::Error;
use kinesis_benchmark::process::Endpoint;
use kinesis_benchmark::sdk::sdk_config;
use kinesis_benchmark::usage::{Begun, Used};
use kpl::{Producer, ProducerConfig, UserRecord, Wire};

use crate::Put;
use crate::workload::{AGGREGATE_BYTES, BATCH_BYTES, Workload};

/// Receipts that may be open before the oldest is awaited.
const OPEN_DELIVERIES: usize = 1 << 20;

pub(crate) async fn run(put: Put, wire: Wire, sink: &Endpoint) -> Result<Used, Error> {
    let config = ProducerConfig {
        aggregation_max_size: AGGREGATE_BYTES,
        collection_max_size: BATCH_BYTES,
        // The sink has no limit.
        rate_limit: 1_000_000,
        wire,
        ..ProducerConfig::default()
    };
    let producer =
        Producer::builder("benchmark", &sdk_config(sink)?).config(config).build().await?;
    producer.send(UserRecord::new("warm-up", "x")).await?.await?;
    let workload = Workload::new(put.record_bytes);
    let begun = Begun::now();

    let mut deliveries = VecDeque::new();
    for n in 0..put.records {
        if deliveries.len() == OPEN_DELIVERIES
            && let Some(oldest) = deliveries.pop_front()
        {
            oldest.await?;
        }
        let record = UserRecord::new(workload.key(n).to_owned(), workload.payload.clone());
        deliveries.push_back(producer.send(record).await?);
    }
    for delivery in deliveries {
        delivery.await?;
    }
    let used = begun.used()?;
    let report = producer.close(Duration::from_secs(10)).await;
    if report.delivered != put.records as u64 + 1 {
        return Err(format!("{report:?}").into());
    }
    Ok(used)
}
