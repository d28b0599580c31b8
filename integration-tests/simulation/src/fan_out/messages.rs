//! Answers and events, as the service writes them.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use kcl::internals::{ChildShard, RawRecord};
use kinesis_aggregation::HashKeyRange;
use serde_json::{Value, json};

use crate::stream::Stream;

/// A part of the body of a subscription, or the end of its connection.
pub(super) type Frame = Result<Bytes, std::io::Error>;

/// Why the service does not do what it is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refusal {
    code: &'static str,
    pub(super) status: u16,
}

impl Refusal {
    pub(super) const IN_USE: Self = Self::of_request("ResourceInUseException");
    pub(super) const INVALID: Self = Self::of_request("InvalidArgumentException");
    pub(super) const NOT_FOUND: Self = Self::of_request("ResourceNotFoundException");
    pub(super) const THROTTLED: Self = Self::of_request("LimitExceededException");
    pub(super) const INTERNAL: Self = Self { code: "InternalFailureException", status: 500 };

    const fn of_request(code: &'static str) -> Self {
        Self { code, status: 400 }
    }

    pub(super) fn body(self) -> Value {
        json!({ "__type": self.code, "message": "simulated" })
    }

    /// The refusal as the last frame of a subscription.
    pub(super) fn frame(self) -> Bytes {
        frame("exception", ":exception-type", self.code, &self.body())
    }
}

/// The frame that opens a subscription.
pub(super) fn opening() -> Bytes {
    frame("event", ":event-type", "initial-response", &json!({}))
}

/// An event of a subscription. `then`: the number to continue after, or the children of a shard that has ended.
pub(super) fn event(
    records: &[RawRecord],
    then: &Result<u64, Vec<ChildShard>>,
    behind: u64,
) -> Bytes {
    let records: Vec<_> = records.iter().map(record).collect();
    let mut event = json!({ "Records": records, "MillisBehindLatest": behind });
    match then {
        Ok(number) => event["ContinuationSequenceNumber"] = number.to_string().into(),
        Err(children) => event["ChildShards"] = children.iter().map(child).collect(),
    }
    frame("event", ":event-type", "SubscribeToShardEvent", &event)
}

fn record(record: &RawRecord) -> Value {
    json!({
        "SequenceNumber": record.sequence_number.as_str(),
        "PartitionKey": record.partition_key,
        "Data": STANDARD.encode(&record.data),
    })
}

fn child(child: &ChildShard) -> Value {
    json!({
        "ShardId": child.shard_id,
        "ParentShards": child.parents,
        "HashKeyRange": hash_keys(child.hash_key_range),
    })
}

fn hash_keys(range: HashKeyRange) -> Value {
    json!({
        "StartingHashKey": range.start().get().to_string(),
        "EndingHashKey": range.end().get().to_string(),
    })
}

fn frame(message_type: &str, kind: &'static str, name: &str, payload: &Value) -> Bytes {
    let text = |value: &str| HeaderValue::String(value.to_owned().into());
    let message = Message::new(payload.to_string().into_bytes())
        .add_header(Header::new(":message-type", text(message_type)))
        .add_header(Header::new(kind, text(name)))
        .add_header(Header::new(":content-type", text("application/json")));
    let mut bytes = Vec::new();
    write_message_to(&message, &mut bytes).expect("a few records fit into a frame");
    bytes.into()
}

/// The answer of ListShards.
pub(super) fn list_shards(stream: &Stream) -> Value {
    let shards = stream.shards().into_iter().map(|(id, shard)| {
        json!({
            "ShardId": id,
            "HashKeyRange": hash_keys(shard.range),
            "SequenceNumberRange": { "StartingSequenceNumber": shard.first.to_string() },
        })
    });
    json!({ "Shards": shards.collect::<Vec<_>>() })
}

/// The answer of DescribeStreamSummary.
pub(super) fn stream_summary(name: &Value) -> Value {
    json!({ "StreamDescriptionSummary": {
        "StreamName": name,
        "StreamARN": "arn:injected",
        "StreamStatus": "ACTIVE",
        "RetentionPeriodHours": 24,
        "StreamCreationTimestamp": 0.001,
        "EnhancedMonitoring": [],
        "OpenShardCount": 1,
    } })
}

/// The answer of DescribeStreamConsumer. `status`: of the consumer.
pub(super) fn stream_consumer(request: &Value, status: &str) -> Value {
    let (stream, name) = (&request["StreamARN"], &request["ConsumerName"]);
    json!({ "ConsumerDescription": {
        "ConsumerName": name,
        "ConsumerARN": "arn:injected/consumer/injected:1",
        "ConsumerStatus": status,
        "ConsumerCreationTimestamp": 1.0,
        "StreamARN": stream,
    } })
}
