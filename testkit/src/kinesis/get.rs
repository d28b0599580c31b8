//! GetRecords.

use serde::{Deserialize, Serialize};

use super::error::ApiError;
use super::iterator::ShardIterator;
use super::shard::{Record, ShardId};
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
    /// The JSON of the response. The records are written by hand: base64 goes straight to its place
    /// and is not searched for characters to escape, which would be most of the cost of a read.
    pub(crate) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let size = self
            .records
            .iter()
            .map(|record| record.size() * 4 / 3 + 256)
            .sum::<usize>();
        let mut json = Vec::with_capacity(size + 1024);
        json.extend_from_slice(b"{\"Records\":[");
        for (nth, record) in self.records.iter().enumerate() {
            if nth > 0 {
                json.push(b',');
            }
            let (number, arrival) = (record.sequence_number, record.arrival.millis());
            let head = format!(
                "{{\"SequenceNumber\":\"{number}\",\"ApproximateArrivalTimestamp\":{}.{:03},\"Data\":\"",
                arrival / 1000,
                arrival % 1000
            );
            json.extend_from_slice(head.as_bytes());
            base64_simd::STANDARD.encode_append(&record.data, &mut json);
            json.extend_from_slice(b"\",\"PartitionKey\":");
            serde_json::to_writer(&mut json, &*record.partition_key)?;
            json.push(b'}');
        }
        json.extend_from_slice(b"],");
        // The other members, as an object without its opening brace.
        let rest = serde_json::to_vec(self)?;
        json.extend_from_slice(&rest[1..]);
        Ok(json)
    }
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
        let stream_ref = StreamRef {
            name: Some(&iterator.stream),
            arn: request.stream_arn.as_deref(),
        };
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
        let horizon = stream.horizon(now);
        if !keep_expired {
            stream.shard_mut(id).free_before(horizon);
        }
        let shard = stream.shard(id);
        let (records, next) = shard.read(iterator.position, horizon, limit, MAX_BYTES);
        let unread_since = (next < shard.end()).then(|| {
            let last_read = records.last().map(|record| record.arrival);
            last_read.or_else(|| shard.arrival_of(next)).unwrap_or(now)
        });
        // Zero means caught up, so a record of this very millisecond still counts as one.
        let millis_behind_latest = unread_since.map_or(0, |since| now.since(since).max(1));
        let ended = shard.closed.is_some() && next >= shard.end();
        let bytes = records.iter().map(Record::size).sum::<usize>();
        // A position beyond the last record (AFTER the end of the shard) must not move back.
        let next = next.max(iterator.position);
        let next_shard_iterator =
            (!ended).then(|| ShardIterator::new(stream, id, next, now).encode());
        let child_shards = ended.then(|| stream.child_shards(id));
        stream.shard_mut(id).limits.charge_read(bytes);
        Ok(GetRecordsResponse {
            records,
            next_shard_iterator,
            millis_behind_latest,
            child_shards,
        })
    }
}

impl Stream {
    fn child_shards(&self, id: ShardId) -> Vec<ChildShard> {
        let children = self
            .shard(id)
            .children
            .iter()
            .map(|child| self.shard(*child));
        children
            .map(|child| ChildShard {
                shard_id: child.id,
                parent_shards: child.parents.clone(),
                hash_key_range: child.range.into(),
            })
            .collect()
    }
}
