//! The state machine behind a lock, a clock and JSON.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::consumers::stream_of;
use super::error::ApiError;
use super::iterator::ShardIterator;
use super::put::{Put, PutRecordRequest, PutRecordsRequest, RefusedEntries};
use super::subscribe::{SubscribeRequest, Subscription};
use super::wire::StreamRef;
use super::{Kinesis, hash_key};
use crate::clock::{Clock, Timestamp};
use crate::faults::Part;

pub(crate) struct KinesisService {
    state: Mutex<Kinesis>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for KinesisService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KinesisService").finish_non_exhaustive()
    }
}

impl KinesisService {
    pub(crate) fn new(kinesis: Kinesis, clock: Arc<dyn Clock>) -> Self {
        Self { state: Mutex::new(kinesis), clock }
    }

    /// Answers one request. The entries that `refused` names are not put.
    pub(crate) fn call(
        &self,
        operation: &str,
        body: &[u8],
        refused: RefusedEntries,
    ) -> Result<Vec<u8>, ApiError> {
        match operation {
            "CreateStream" => self.run(body, Kinesis::create_stream),
            "DeleteStream" => self.run(body, Kinesis::delete_stream),
            "DescribeStream" => self.run(body, Kinesis::describe_stream),
            "DescribeStreamSummary" => self.run(body, Kinesis::describe_stream_summary),
            "ListStreams" => self.run(body, Kinesis::list_streams),
            "ListShards" => self.run(body, Kinesis::list_shards),
            "GetShardIterator" => self.run(body, Kinesis::get_shard_iterator),
            "GetRecords" => {
                let request = parse(body)?;
                let response = self.with_state(|kinesis, now| kinesis.get_records(now, request))?;
                response.to_json().map_err(unwritable)
            }
            "SplitShard" => self.run(body, Kinesis::split_shard),
            "MergeShards" => self.run(body, Kinesis::merge_shards),
            "UpdateShardCount" => self.run(body, Kinesis::update_shard_count),
            "IncreaseStreamRetentionPeriod" => self.run(body, Kinesis::increase_retention),
            "DecreaseStreamRetentionPeriod" => self.run(body, Kinesis::decrease_retention),
            "UpdateStreamMode" => self.run(body, Kinesis::update_stream_mode),
            "UpdateStreamRecordDistributionStrategy" => {
                self.run(body, Kinesis::update_distribution)
            }
            "EnableEnhancedMonitoring" => self.run(body, Kinesis::enable_enhanced_monitoring),
            "DisableEnhancedMonitoring" => self.run(body, Kinesis::disable_enhanced_monitoring),
            "StartStreamEncryption" => self.run(body, Kinesis::start_stream_encryption),
            "StopStreamEncryption" => self.run(body, Kinesis::stop_stream_encryption),
            "DescribeLimits" => self.run(body, Kinesis::describe_limits),
            "RegisterStreamConsumer" => self.run(body, Kinesis::register_stream_consumer),
            "DescribeStreamConsumer" => self.run(body, Kinesis::describe_stream_consumer),
            "ListStreamConsumers" => self.run(body, Kinesis::list_stream_consumers),
            "DeregisterStreamConsumer" => self.run(body, Kinesis::deregister_stream_consumer),
            "AddTagsToStream" => self.run(body, Kinesis::add_tags_to_stream),
            "RemoveTagsFromStream" => self.run(body, Kinesis::remove_tags_from_stream),
            "ListTagsForStream" => self.run(body, Kinesis::list_tags_for_stream),
            "TagResource" => self.run(body, Kinesis::tag_resource),
            "UntagResource" => self.run(body, Kinesis::untag_resource),
            "ListTagsForResource" => self.run(body, Kinesis::list_tags_for_resource),
            "UpdateMaxRecordSize" => self.run(body, Kinesis::update_max_record_size),
            // Decoding and hashing are done before the lock is taken.
            "PutRecord" => {
                let put = Put::try_from(parse::<PutRecordRequest<'_>>(body)?)?;
                self.locked(|kinesis, now| kinesis.put_record(now, put))
            }
            "PutRecords" => {
                let put = Put::try_from(parse::<PutRecordsRequest<'_>>(body)?)?;
                self.locked(|kinesis, now| kinesis.put_records(now, put, refused))
            }
            _ => Err(unknown_operation(operation)),
        }
    }

    /// Answers a SubscribeToShard.
    pub(crate) fn subscribe(&self, body: &[u8]) -> Result<Subscription, ApiError> {
        let request: SubscribeRequest = parse(body)?;
        self.with_state(|kinesis, now| kinesis.subscribe_to_shard(now, &request))
    }

    fn run<'a, Q: Deserialize<'a>, R: Serialize>(
        &self,
        body: &'a [u8],
        operation: impl FnOnce(&mut Kinesis, Timestamp, Q) -> Result<R, ApiError>,
    ) -> Result<Vec<u8>, ApiError> {
        let request = parse(body)?;
        self.locked(|kinesis, now| operation(kinesis, now, request))
    }

    /// Runs one step under the lock; the response is written after it is released.
    fn locked<R: Serialize>(
        &self,
        step: impl FnOnce(&mut Kinesis, Timestamp) -> Result<R, ApiError>,
    ) -> Result<Vec<u8>, ApiError> {
        let response = self.with_state(step)?;
        serde_json::to_vec(&response).map_err(unwritable)
    }

    /// Runs one step under the lock, at the time the clock shows once the lock is held.
    pub(crate) fn with_state<R>(&self, step: impl FnOnce(&mut Kinesis, Timestamp) -> R) -> R {
        let mut state = self.lock();
        let now = self.clock.now().into();
        step(&mut state, now)
    }

    fn lock(&self) -> MutexGuard<'_, Kinesis> {
        // A panic would have been a bug of ours; the tests that follow it should still be served.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse<'a, Q: Deserialize<'a>>(body: &'a [u8]) -> Result<Q, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::new("SerializationException", error.to_string()))
}

fn unwritable(error: impl fmt::Display) -> ApiError {
    ApiError::new("InternalFailure", error.to_string())
}

fn unknown_operation(operation: &str) -> ApiError {
    ApiError::new(
        "UnknownOperationException",
        format!("{operation} is not an operation of testkit"),
    )
}

/// As much of any request as tells what it touches.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Locate<'a> {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    #[serde(rename = "ConsumerARN")]
    consumer_arn: Option<String>,
    #[serde(rename = "ResourceARN")]
    resource_arn: Option<String>,
    shard_id: Option<String>,
    shard_to_split: Option<String>,
    shard_to_merge: Option<String>,
    shard_iterator: Option<String>,
    #[serde(flatten, borrow)]
    key: Key<'a>,
    #[serde(borrow)]
    records: Vec<Key<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Key<'a> {
    #[serde(borrow)]
    partition_key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    explicit_hash_key: Option<Cow<'a, str>>,
}

impl Key<'_> {
    fn hash_key(&self) -> Option<u128> {
        match (&self.explicit_hash_key, &self.partition_key) {
            (Some(text), _) => text.parse().ok(),
            (None, Some(key)) => Some(hash_key::of_partition_key(key)),
            (None, None) => None,
        }
    }
}

impl KinesisService {
    /// What a request touches: one part, or one for each entry of a batch.
    pub(crate) fn locate(&self, body: &[u8]) -> Vec<Part> {
        let request: Locate<'_> = serde_json::from_slice(body).unwrap_or_default();
        let iterator = request.shard_iterator.as_deref().map(ShardIterator::decode);
        let iterator = iterator.and_then(Result::ok);
        let stream =
            StreamRef { name: request.stream_name.as_deref(), arn: request.stream_arn.as_deref() };
        let stream = super::resolve(stream).ok().map(str::to_owned);
        let resource = request.consumer_arn.or(request.resource_arn);
        let of_resource = |arn: &str| stream_of(arn).or(super::name_of_arn(arn)).map(str::to_owned);
        let stream = stream.or_else(|| resource.as_deref().and_then(of_resource));
        let stream = stream.or_else(|| iterator.as_ref().map(|iterator| iterator.stream.clone()));
        let named_shard = request.shard_id.or(request.shard_to_split).or(request.shard_to_merge);
        let named_shard =
            named_shard.or_else(|| iterator.map(|iterator| iterator.shard.to_string()));
        let keys = if request.records.is_empty() { vec![request.key] } else { request.records };
        self.with_state(|kinesis, now| {
            let stream_ref = StreamRef { name: stream.as_deref(), arn: None };
            let served = kinesis.serving(now, stream_ref).ok();
            let route = |key: &Key<'_>| {
                let stream = served.as_ref()?;
                let shard = key.hash_key().and_then(|hash_key| stream.foreseen(hash_key))?;
                Some(shard.to_string())
            };
            let parts = keys.iter().map(|key| Part {
                resource: stream.clone(),
                shard: named_shard.clone().or_else(|| route(key)),
            });
            parts.collect()
        })
    }
}
