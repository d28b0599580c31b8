//! The producer's side: `send` in a loop, every receipt awaited.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use kinesis_benchmark::Error;
use kinesis_benchmark::process::Endpoint;
use kinesis_benchmark::sdk::sdk_config;
use kinesis_benchmark::usage::cpu_seconds;
use kpl::{Producer, ProducerConfig, UserRecord, Wire};

use crate::workload::{AGGREGATE_BYTES, BATCH_BYTES, Workload};
use crate::{Put, Used};

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
    let (began, cpu) = (Instant::now(), cpu_seconds());

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
    let used =
        Used { cpu_seconds: cpu_seconds() - cpu, wall_seconds: began.elapsed().as_secs_f64() };
    let report = producer.close(Duration::from_secs(10)).await;
    if report.delivered != put.records as u64 + 1 {
        return Err(format!("{report:?}").into());
    }
    Ok(used)
}
