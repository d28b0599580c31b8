//! GetRecords.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::iterator::ShardIterator;
use super::shard::{Position, Record, ShardId};
use super::stream::Stream;
use super::wire::{HashKeyRange, StreamRef, ranged, required};
use super::{ACCOUNT, Kinesis};
use crate::clock::Timestamp;

const MAX_RECORDS: usize = 10_000;
const MAX_BYTES: usize = 10 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GetRecordsRequest {
    pub(crate) shard_iterator: Option<String>,
    pub(crate) limit: Option<i64>,
    #[serde(rename = "StreamARN")]
    pub(crate) stream_arn: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct GetRecordsResponse {
    #[serde(skip)]
    pub(crate) records: Vec<Record>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next_shard_iterator: Option<String>,
    pub(crate) millis_behind_latest: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) child_shards: Option<Vec<ChildShard>>,
}

/// A shard that follows one that has ended.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ChildShard {
    pub(crate) shard_id: ShardId,
    pub(crate) parent_shards: Vec<ShardId>,
    hash_key_range: HashKeyRange,
}

impl GetRecordsResponse {
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, io::Error> {
        records_json(&self.records, self)
    }
}

/// The JSON of an answer with records; `rest` is an object with its other members, one at least.
/// The records are written by hand: base64 goes straight to its place and is not searched for
/// characters to escape, which would be most of the cost of a read.
pub(crate) fn records_json(
    records: &[Record],
    rest: &impl Serialize,
) -> Result<Vec<u8>, io::Error> {
    let size = records.iter().map(|record| record.size() * 4 / 3 + 256).sum::<usize>();
    let mut json = Vec::with_capacity(size + 1024);
    json.extend_from_slice(b"{\"Records\":[");
    for (nth, record) in records.iter().enumerate() {
        if nth > 0 {
            json.push(b',');
        }
        json.extend_from_slice(b"{\"SequenceNumber\":\"");
        json.extend_from_slice(&record.sequence_number.digits());
        let arrival = record.arrival.millis();
        write!(
            json,
            "\",\"ApproximateArrivalTimestamp\":{}.{:03},\"Data\":\"",
            arrival / 1000,
            arrival % 1000
        )?;
        base64_simd::STANDARD.encode_append(&record.data, &mut json);
        if record.encrypted {
            json.extend_from_slice(b"\",\"EncryptionType\":\"KMS");
        }
        json.push(b'"');
        // A record that the service placed may have none.
        if !record.partition_key.is_empty() {
            json.extend_from_slice(b",\"PartitionKey\":");
            serde_json::to_writer(&mut json, &*record.partition_key)?;
        }
        json.push(b'}');
    }
    json.extend_from_slice(b"],");
    // The other members, as an object without its opening brace.
    let rest = serde_json::to_vec(rest)?;
    json.extend_from_slice(&rest[1..]);
    Ok(json)
}

impl Kinesis {
    pub(crate) fn get_records(
        &mut self,
        now: Timestamp,
        request: GetRecordsRequest,
    ) -> Result<GetRecordsResponse, ApiError> {
        let limit = ranged("limit", request.limit, MAX_RECORDS, 1, MAX_RECORDS)?;
        let token = required("shardIterator", request.shard_iterator)?;
        let iterator = ShardIterator::decode(&token)?;
        let (ttl, limited) = (self.settings.iterator_ttl, self.settings.shard_limits);
        let keep_expired = self.settings.keep_expired;
        let stream_ref =
            StreamRef { name: Some(&iterator.stream), arn: request.stream_arn.as_deref() };
        let stream = self.serving(now, stream_ref)?;
        if stream.incarnation != iterator.incarnation {
            return Err(ApiError::not_found(format!(
                "The stream {} of this iterator has been deleted.",
                iterator.stream
            )));
        }
        if iterator.shard.0 as usize >= stream.shards.len() {
            return Err(ApiError::invalid_argument("Invalid ShardIterator."));
        }
        if now > iterator.issued.plus(ttl) {
            return Err(ApiError::new(
                "ExpiredIteratorException",
                format!(
                    "Iterator expired. The iterator was created {} ms ago, which is more than the \
                     tolerated delay of {} ms.",
                    now.since(iterator.issued),
                    ttl.as_millis()
                ),
            ));
        }
        let id = iterator.shard;
        if limited && !stream.shard_mut(id).limits.admit_read(now) {
            return Err(ApiError::throughput_exceeded(format!(
                "Rate exceeded for shard {id} in stream {} under account {ACCOUNT}.",
                stream.name
            )));
        }
        let page = stream.read_page(now, id, iterator.position, limit, MAX_BYTES, keep_expired);
        stream.shard_mut(id).limits.charge_read(page.bytes());
        let next_iterator = || ShardIterator::new(stream, id, page.next, now).encode();
        Ok(GetRecordsResponse {
            next_shard_iterator: page.child_shards.is_none().then(next_iterator),
            records: page.records,
            millis_behind_latest: page.millis_behind_latest,
            child_shards: page.child_shards,
        })
    }
}

/// What a reader gets at once.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) records: Vec<Record>,
    /// Where the next page starts.
    pub(crate) next: Position,
    pub(crate) millis_behind_latest: u64,
    /// Given with the last page of a shard that has ended.
    pub(crate) child_shards: Option<Vec<ChildShard>>,
}

impl Page {
    pub(crate) fn bytes(&self) -> usize {
        self.records.iter().map(Record::size).sum()
    }
}

impl Stream {
    pub(crate) fn read_page(
        &mut self,
        now: Timestamp,
        id: ShardId,
        position: Position,
        limit: usize,
        max_bytes: usize,
        keep_expired: bool,
    ) -> Page {
        let horizon = self.horizon(now);
        if !keep_expired {
            self.shard_mut(id).free_before(horizon);
        }
        let shard = self.shard(id);
        let (records, next) = shard.read(position, horizon, limit, max_bytes);
        let unread_since = (next < shard.end()).then(|| {
            let last_read = records.last().map(|record| record.arrival);
            last_read.or_else(|| shard.arrival_of(next)).unwrap_or(now)
        });
        let ended = shard.closed.is_some() && next >= shard.end();
        Page {
            records,
            // A position beyond the last record (AFTER the end of the shard) must not move back.
            next: next.max(position),
            // Zero means caught up, so a record of this very millisecond still counts as one.
            millis_behind_latest: unread_since.map_or(0, |since| now.since(since).max(1)),
            child_shards: ended.then(|| self.child_shards(id)),
        }
    }

    fn child_shards(&self, id: ShardId) -> Vec<ChildShard> {
        let children = self.shard(id).children.iter().map(|child| self.shard(*child));
        children
            .map(|child| ChildShard {
                shard_id: child.id,
                parent_shards: child.parents.clone(),
                hash_key_range: child.range.into(),
            })
            .collect()
    }
}
