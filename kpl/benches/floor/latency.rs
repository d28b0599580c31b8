//! From a record to its receipt at 1,000 records a second, and the sink's own share of that.

use std::time::{Duration, Instant};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use bytes::Bytes;
use kpl::{Producer, ProducerConfig, UserRecord};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::Error;
use crate::client::{client, sdk_config};
use crate::roles;
use crate::workload::Workload;

const RECORD_BYTES: usize = 100;
const RECORDS_PER_SECOND: u64 = 1_000;

pub(crate) async fn of_the_producer(seconds: u64) -> Result<(), Error> {
    let config = ProducerConfig {
        record_max_buffered_time: Duration::ZERO,
        wire: roles::wire(),
        ..ProducerConfig::default()
    };
    let producer = Producer::builder("bench", &sdk_config()?).config(config).build().await?;
    paced(seconds, |key, data| {
        let producer = producer.clone();
        async move {
            producer.send(UserRecord::new(key, data)).await?.await?;
            Ok(())
        }
    })
    .await?;
    producer.close(Duration::from_secs(10)).await;
    Ok(())
}

pub(crate) async fn of_the_sink(seconds: u64) -> Result<(), Error> {
    let client = client()?;
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
    let request = client.put_records().stream_name("bench").records(entry);
    request.send().await?;
    Ok(())
}

/// Puts records at a steady pace and prints how long each took; the first second warms up.
async fn paced<F>(seconds: u64, put: impl Fn(String, Bytes) -> F) -> Result<(), Error>
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
    millis.sort_by(f64::total_cmp);
    let at = |share: f64| millis[((millis.len() - 1) as f64 * share) as usize];
    println!("p50={} p99={} max={}", at(0.5), at(0.99), at(1.0));
    Ok(())
}
