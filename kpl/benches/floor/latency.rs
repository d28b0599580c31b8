//! From a record to its receipt at 1,000 records a second, and the sink's own share of that.

use std::time::{Duration, Instant};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use bytes::Bytes;
use kinesis_benchmark::Error;
use kinesis_benchmark::process::Endpoint;
use kinesis_benchmark::sdk::sdk_config;
use kinesis_benchmark::statistics::quantile;
use kpl::{Producer, ProducerConfig, UserRecord, Wire};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::workload::Workload;

const RECORD_BYTES: usize = 100;
const RECORDS_PER_SECOND: u64 = 1_000;

/// Milliseconds from a record to its receipt.
#[derive(Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

pub(crate) async fn of_the_producer(
    seconds: u64,
    wire: Wire,
    sink: &Endpoint,
) -> Result<Latency, Error> {
    let config = ProducerConfig {
        record_max_buffered_time: Duration::ZERO,
        wire,
        ..ProducerConfig::default()
    };
    let producer =
        Producer::builder("benchmark", &sdk_config(sink)?).config(config).build().await?;
    let latency = paced(seconds, |key, data| {
        let producer = producer.clone();
        async move {
            producer.send(UserRecord::new(key, data)).await?.await?;
            Ok(())
        }
    })
    .await?;
    producer.close(Duration::from_secs(10)).await;
    Ok(latency)
}

pub(crate) async fn of_the_sink(seconds: u64, sink: &Endpoint) -> Result<Latency, Error> {
    let client = Client::new(&sdk_config(sink)?);
    paced(seconds, |key, data| {
        let client = client.clone();
        async move { put_one(&client, &key, data).await }
    })
    .await
}

/// One record, one call.
pub(crate) async fn put_one(client: &Client, key: &str, data: Bytes) -> Result<(), Error> {
    let entry = PutRecordsRequestEntry::builder()
        .data(Blob::from_maybe_shared(data))
        .partition_key(key)
        .build()?;
    let request = client.put_records().stream_name("benchmark").records(entry);
    request.send().await?;
    Ok(())
}

/// Puts records at a steady pace and times each; the first second warms up.
async fn paced<F>(seconds: u64, put: impl Fn(String, Bytes) -> F) -> Result<Latency, Error>
where
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let workload = Workload::new(RECORD_BYTES);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RECORDS_PER_SECOND as u32);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut puts = JoinSet::new();
    for n in 0..(seconds + 1) * RECORDS_PER_SECOND {
        ticks.tick().await;
        let one = put(workload.key(n as usize).to_owned(), workload.payload.clone());
        puts.spawn(async move {
            let began = Instant::now();
            one.await?;
            Ok::<_, Error>((n, began.elapsed()))
        });
    }
    let mut millis = Vec::new();
    while let Some(ended) = puts.join_next().await {
        let (n, took) = ended??;
        if n >= RECORDS_PER_SECOND {
            millis.push(took.as_secs_f64() * 1e3);
        }
    }
    let at = |share: f64| quantile(millis.iter().copied(), share);
    Ok(Latency { p50: at(0.5), p99: at(0.99), max: at(1.0) })
}
