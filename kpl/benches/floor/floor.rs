//! The floor: one loop that does what must be done for each record, and the same requests through the plain SDK.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use bytes::Bytes;
use md5::{Digest, Md5};
use tokio::task::JoinSet;

use kinesis_benchmark::Error;
use kinesis_benchmark::process::Endpoint;
use kinesis_benchmark::sdk::sdk_config;
use kinesis_benchmark::usage::{Begun, Used};

use crate::workload::{AGGREGATE_BYTES, BATCH_BYTES, STREAM, Workload, shard_of};
use crate::{Put, latency};

const REQUESTS_IN_FLIGHT: usize = 5;

/// Bytes of a member beside key and data: tags, lengths and a key's index, as the aggregate format has them.
const MEMBER_FRAME: usize = 10;

/// One shard's aggregate in the making.
struct Open {
    bytes: Vec<u8>,
    first_hash_key: u128,
}

impl Open {
    fn new() -> Self {
        Self { bytes: Vec::with_capacity(AGGREGATE_BYTES), first_hash_key: 0 }
    }
}

pub(crate) async fn run(put: Put, sink: &Endpoint) -> Result<Used, Error> {
    let client = Client::new(&sdk_config(sink)?);
    // The connection and the first use of everything are start-up.
    latency::put_one(&client, "warm-up", Bytes::from_static(b"x")).await?;
    let workload = Workload::new(put.record_bytes);
    let begun = Begun::now();

    let mut open: Vec<Open> = (0..STREAM.shards).map(|_| Open::new()).collect();
    let mut batch = Batch::default();
    let mut requests = JoinSet::new();
    for n in 0..put.records {
        let key = workload.key(n);
        let hash_key = u128::from_be_bytes(Md5::digest(key.as_bytes()).into());
        let shard = &mut open[shard_of(hash_key)];
        let member = key.len() + workload.payload.len() + MEMBER_FRAME;
        if shard.bytes.len() + member + 16 > AGGREGATE_BYTES {
            let sealed = seal(std::mem::replace(shard, Open::new()));
            batch.push(sealed)?;
            if batch.bytes >= BATCH_BYTES {
                send(&client, &mut requests, std::mem::take(&mut batch)).await?;
            }
        }
        if shard.bytes.is_empty() {
            shard.first_hash_key = hash_key;
        }
        shard.bytes.extend_from_slice(&[0; MEMBER_FRAME]);
        shard.bytes.extend_from_slice(key.as_bytes());
        shard.bytes.extend_from_slice(&workload.payload);
    }
    for shard in open {
        batch.push(seal(shard))?;
    }
    send(&client, &mut requests, batch).await?;
    while let Some(ended) = requests.join_next().await {
        ended??;
    }
    begun.used()
}

fn seal(mut open: Open) -> (Bytes, u128) {
    let checksum = Md5::digest(&open.bytes);
    open.bytes.extend_from_slice(&checksum);
    (open.bytes.into(), open.first_hash_key)
}

#[derive(Default)]
struct Batch {
    entries: Vec<PutRecordsRequestEntry>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, (data, hash_key): (Bytes, u128)) -> Result<(), Error> {
        self.bytes += data.len() + 1;
        self.entries.push(
            PutRecordsRequestEntry::builder()
                .data(Blob::from_maybe_shared(data))
                .partition_key("a")
                .explicit_hash_key(hash_key.to_string())
                .build()?,
        );
        Ok(())
    }
}

async fn send(
    client: &Client,
    requests: &mut JoinSet<Result<(), Error>>,
    batch: Batch,
) -> Result<(), Error> {
    if requests.len() >= REQUESTS_IN_FLIGHT
        && let Some(ended) = requests.join_next().await
    {
        ended??;
    }
    let request = client.put_records().stream_name("benchmark");
    let request = request.set_records(Some(batch.entries));
    requests.spawn(async move {
        request.send().await?;
        Ok(())
    });
    Ok(())
}
