//! The sink: answers PutRecords and the calls about the stream; checks and keeps nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use kinesis_benchmark::Error;
use kinesis_benchmark::server::{self, Call};
use kinesis_benchmark::stream::{sequence_number, shard_id};
use serde::Deserialize;
use serde_json::json;

use crate::workload::{STREAM, shard_of};

/// Serves until the process is killed. A stalled sink never answers PutRecords.
pub(crate) async fn serve(stalled: bool) -> Result<(), Error> {
    server::serve(move |call| answer(call, stalled)).await
}

async fn answer(call: Call, stalled: bool) -> Bytes {
    match &*call.operation {
        "PutRecords" if stalled => std::future::pending().await,
        "PutRecords" => put_records(&call),
        _ => STREAM.answer(&call).expect("the sides make no other call"),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutRecords {
    records: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    explicit_hash_key: Option<String>,
}

fn put_records(call: &Call) -> Bytes {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let request: PutRecords = call.read();
    let records = request.records.iter().map(|entry| {
        // A record alone may be told any shard.
        let hash_key = entry.explicit_hash_key.as_ref().and_then(|text| text.parse().ok());
        json!({
            "SequenceNumber": sequence_number(NEXT.fetch_add(1, Ordering::Relaxed)),
            "ShardId": shard_id(shard_of(hash_key.unwrap_or(0))),
        })
    });
    let records: Vec<_> = records.collect();
    call.encoding.write(&json!({ "FailedRecordCount": 0, "Records": records }))
}
