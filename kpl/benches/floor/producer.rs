//! The producer's sides: `send` in a loop, or `send_all`; every receipt awaited.

use std::collections::VecDeque;
use std::time::Duration;

use kinesis_benchmark::Error;
use kinesis_benchmark::process::Endpoint;
use kinesis_benchmark::sdk::sdk_config;
use kinesis_benchmark::usage::{Begun, Used};
use kpl::{Deliveries, Producer, ProducerConfig, Record, Wire};

use crate::Put;
use crate::workload::{AGGREGATE_BYTES, BATCH_BYTES, Workload};

/// Receipts that may be open before the oldest is awaited.
const OPEN_DELIVERIES: usize = 1 << 20;
/// Records of a call of `send_all`.
const BATCH: usize = 1024;

pub(crate) async fn run(
    put: Put,
    wire: Wire,
    in_batches: bool,
    sink: &Endpoint,
) -> Result<Used, Error> {
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
    producer.send(Record::new("warm-up", "x")).await?.await?;
    let workload = Workload::new(put.record_bytes);
    let begun = Begun::now();

    if in_batches {
        send_all(&producer, &workload, put.records).await?;
    } else {
        send(&producer, &workload, put.records).await?;
    }
    let used = begun.used()?;
    let report = producer.close(Duration::from_secs(10)).await;
    if report.delivered != put.records as u64 + 1 {
        return Err(format!("{report:?}").into());
    }
    Ok(used)
}

/// Sends each record with a call of its own.
async fn send(producer: &Producer, workload: &Workload, records: usize) -> Result<(), Error> {
    let mut deliveries = VecDeque::new();
    for n in 0..records {
        if deliveries.len() == OPEN_DELIVERIES
            && let Some(oldest) = deliveries.pop_front()
        {
            oldest.await?;
        }
        deliveries.push_back(producer.send(workload.record(n)).await?);
    }
    for delivery in deliveries {
        delivery.await?;
    }
    Ok(())
}

/// Sends the records in batches.
async fn send_all(producer: &Producer, workload: &Workload, records: usize) -> Result<(), Error> {
    let mut batches = VecDeque::new();
    for first in (0..records).step_by(BATCH) {
        if batches.len() == OPEN_DELIVERIES / BATCH
            && let Some(oldest) = batches.pop_front()
        {
            delivered(oldest).await?;
        }
        let batch = (first..records.min(first + BATCH)).map(|n| workload.record(n));
        let accepted = producer.send_all(batch).await;
        batches.push_back(accepted.map_err(|error| error.to_string())?);
    }
    for batch in batches {
        delivered(batch).await?;
    }
    Ok(())
}

async fn delivered(batch: Deliveries) -> Result<(), Error> {
    for outcome in batch.await {
        outcome?;
    }
    Ok(())
}
