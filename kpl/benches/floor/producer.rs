//! The producer's side: `send` in a loop, or batches by `send_all`. Every outcome is awaited.

use std::collections::VecDeque;
use std::time::Duration;

use kinesis_benchmark::Error;
use kinesis_benchmark::process::Endpoint;
use kinesis_benchmark::sdk::sdk_config;
use kinesis_benchmark::usage::{Begun, Used};
use kpl::{Deliveries, Producer, ProducerConfig, Record, Wire};

use crate::Put;
use crate::workload::{AGGREGATE_BYTES, BATCH_BYTES, Workload};

/// Records without an outcome before the oldest is awaited.
const OPEN_RECORDS: usize = 1 << 20;

/// Records of a call of `send_all`.
const BATCH_RECORDS: usize = 10_000;

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

    match in_batches {
        true => send_in_batches(&producer, &workload, put.records).await?,
        false => send_one_by_one(&producer, &workload, put.records).await?,
    }
    let used = begun.used()?;
    let report = producer.close(Duration::from_secs(10)).await;
    if report.delivered != put.records as u64 + 1 {
        return Err(format!("{report:?}").into());
    }
    Ok(used)
}

async fn send_one_by_one(
    producer: &Producer,
    workload: &Workload,
    records: usize,
) -> Result<(), Error> {
    let mut deliveries = VecDeque::new();
    for n in 0..records {
        if deliveries.len() == OPEN_RECORDS
            && let Some(oldest) = deliveries.pop_front()
        {
            oldest.await?;
        }
        let record = Record::new(workload.key(n), &workload.payload);
        deliveries.push_back(producer.send(record).await?);
    }
    for delivery in deliveries {
        delivery.await?;
    }
    Ok(())
}

async fn send_in_batches(
    producer: &Producer,
    workload: &Workload,
    records: usize,
) -> Result<(), Error> {
    let mut batches = VecDeque::new();
    for start in (0..records).step_by(BATCH_RECORDS) {
        if batches.len() == OPEN_RECORDS / BATCH_RECORDS
            && let Some(oldest) = batches.pop_front()
        {
            all_delivered(oldest).await?;
        }
        let numbers = start..records.min(start + BATCH_RECORDS);
        let batch = numbers.map(|n| Record::new(workload.key(n), &workload.payload));
        batches.push_back(producer.send_all(batch).await?);
    }
    for batch in batches {
        all_delivered(batch).await?;
    }
    Ok(())
}

async fn all_delivered(mut batch: Deliveries) -> Result<(), Error> {
    match batch.next_failure().await {
        None => Ok(()),
        Some((_, error)) => Err(error.into()),
    }
}
