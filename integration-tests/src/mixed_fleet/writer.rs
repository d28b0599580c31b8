//! Puts numbered records into every shard, all the time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::judge::Receipt;
use super::seen::Seen;
use crate::Error;

/// Even over the hash space: shards of the same width get the same.
const KEYS: u64 = 64;
/// Records of a key in a heavy shard for one of others.
const HEAVY: u32 = 2;
const PAUSE: Duration = Duration::from_millis(200);

/// Writes until it is told to stop.
pub(super) async fn write(
    kinesis: &Client,
    stream: &str,
    seen: &Arc<Seen>,
    stop: &CancellationToken,
) -> Result<(), Error> {
    let mut next = 0;
    let mut shards: HashMap<u64, String> = HashMap::new();
    while !stop.is_cancelled() {
        let heavy = seen.state().heavy.clone();
        let mut keys = Vec::new();
        for key in 0..KEYS {
            let is_heavy = shards.get(&key).is_some_and(|shard| heavy.contains(shard));
            keys.extend((0..if is_heavy { HEAVY } else { 1 }).map(|_| key));
        }
        let entries = keys.iter().zip(next..).map(|(key, id): (&u64, u64)| {
            PutRecordsRequestEntry::builder()
                .partition_key(format!("key-{key}"))
                .explicit_hash_key((u128::from(*key) * (u128::MAX / u128::from(KEYS))).to_string())
                .data(Blob::from_maybe_shared(Bytes::copy_from_slice(&id.to_be_bytes())))
                .build()
        });
        let entries = entries.collect::<Result<Vec<_>, _>>()?;
        let request = kinesis.put_records().stream_name(stream);
        let answer = request.set_records(Some(entries)).send().await?;
        let mut receipts = Vec::with_capacity(keys.len());
        for (entry, key) in answer.records.iter().zip(&keys) {
            let (Some(shard), Some(number)) = (entry.shard_id(), entry.sequence_number()) else {
                return Err("a record was refused, though there are no limits".into());
            };
            shards.insert(*key, shard.to_owned());
            let receipt = Receipt {
                key: format!("key-{key}"),
                shard: shard.to_owned(),
                sequence_number: number.to_owned(),
            };
            receipts.push((next, receipt));
            next += 1;
        }
        seen.update(|state| {
            for (id, receipt) in receipts {
                state.acknowledged(id, receipt);
            }
        });
        stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
    }
    Ok(())
}
