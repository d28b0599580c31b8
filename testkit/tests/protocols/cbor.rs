//! CBOR with a bare HTTP client: what the SDK for Java writes and expects.

use std::time::{Duration, SystemTime};

use aws_smithy_eventstream::frame::{DecodedFrame, MessageFrameDecoder};
use aws_smithy_types::event_stream::Message;
use bytes::{Bytes, BytesMut};
use ciborium::cbor;
use ciborium::value::Value;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kinesis_testkit::{CborSupport, Fault, LocalAws, ManualClock};

use super::{STREAM, connect};

const CBOR: &str = "application/x-amz-cbor-1.1";
/// The time of the service, in milliseconds.
const NOW: u64 = 1_767_225_600_123;

async fn start() -> (LocalAws, ManualClock) {
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_millis(NOW));
    let aws = LocalAws::builder().clock(clock.clone()).build().await;
    let aws = aws.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    (aws, clock)
}

async fn client(aws: &LocalAws) -> SendRequest<Full<Bytes>> {
    let socket = TokioIo::new(connect(aws.kinesis_url()).await);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), socket).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn send(
    client: &mut SendRequest<Full<Bytes>>,
    target: &str,
    body: Vec<u8>,
) -> Response<Incoming> {
    let request = Request::post("http://127.0.0.1/")
        .header("x-amz-target", target)
        .header("content-type", CBOR)
        .body(Full::new(body.into()))
        .unwrap();
    client.send_request(request).await.unwrap()
}

fn written(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

fn read(bytes: &[u8]) -> Value {
    ciborium::from_reader(bytes).unwrap()
}

/// The status and the body of an answer that is one item of CBOR.
async fn whole(response: Response<Incoming>) -> (u16, Value) {
    assert_eq!(response.headers()["content-type"], CBOR);
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, read(&body))
}

async fn call(
    client: &mut SendRequest<Full<Bytes>>,
    operation: &str,
    request: Result<Value, ciborium::value::Error>,
) -> Value {
    let target = format!("Kinesis_20131202.{operation}");
    let response = send(client, &target, written(&request.unwrap())).await;
    let (status, answer) = whole(response).await;
    assert_eq!(status, 200, "{operation}: {answer:?}");
    answer
}

fn member<'a>(value: &'a Value, name: &str) -> &'a Value {
    let members = value.as_map().unwrap();
    let found = members.iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value);
    found.unwrap_or_else(|| panic!("no {name} in {value:?}"))
}

fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    member(value, name).as_array().unwrap()
}

/// So many milliseconds since 1970.
fn time(millis: u64) -> Value {
    Value::Tag(1, Box::new(millis.into()))
}

fn record(key: &str, data: &[u8]) -> Value {
    cbor!({"PartitionKey" => key, "Data" => Value::Bytes(data.to_vec())}).unwrap()
}

async fn put(client: &mut SendRequest<Full<Bytes>>, data: &[u8]) {
    let records = vec![record("key", data)];
    let request = cbor!({"StreamName" => STREAM, "Records" => records});
    call(client, "PutRecords", request).await;
}

async fn iterator(client: &mut SendRequest<Full<Bytes>>, from: u64) -> Value {
    let request = cbor!({
        "StreamName" => STREAM,
        "ShardId" => "shardId-000000000000",
        "ShardIteratorType" => "AT_TIMESTAMP",
        "Timestamp" => time(from),
    });
    member(&call(client, "GetShardIterator", request).await, "ShardIterator").clone()
}

#[tokio::test]
async fn records_and_times_are_the_same_both_ways() {
    let (aws, _clock) = start().await;
    let mut client = client(&aws).await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    let records = vec![
        record("bytes", &all_bytes),
        record("empty", b""),
        record("text", b"a text is bytes too"),
    ];
    let request = cbor!({"StreamName" => STREAM, "Records" => records});
    let answer = call(&mut client, "PutRecords", request).await;
    assert_eq!(member(&answer, "FailedRecordCount"), &Value::from(0));
    assert_eq!(items(&answer, "Records").len(), 3);
    let stored = &aws.records(STREAM)[0].records;
    assert_eq!(stored[0].data, all_bytes);

    let iterator = iterator(&mut client, NOW).await;
    let request = cbor!({"ShardIterator" => iterator});
    let answer = call(&mut client, "GetRecords", request).await;
    assert_eq!(member(&answer, "MillisBehindLatest"), &Value::from(0));
    let records = items(&answer, "Records");
    assert_eq!(records.len(), 3);
    for (got, stored) in records.iter().zip(stored) {
        assert_eq!(member(got, "Data").as_bytes().unwrap(), &stored.data[..]);
        assert_eq!(member(got, "PartitionKey").as_text().unwrap(), stored.partition_key);
        assert_eq!(member(got, "ApproximateArrivalTimestamp"), &time(NOW));
    }

    let request = cbor!({"StreamName" => STREAM});
    let answer = call(&mut client, "DescribeStreamSummary", request).await;
    let created = member(&answer, "StreamDescriptionSummary");
    assert_eq!(member(created, "StreamCreationTimestamp"), &time(NOW));
}

#[tokio::test]
async fn a_time_in_a_request_is_read_to_the_millisecond() {
    let (aws, clock) = start().await;
    let mut client = client(&aws).await;
    put(&mut client, b"one").await;
    clock.advance(Duration::from_millis(1));
    put(&mut client, b"two").await;
    for (from, expected) in [(NOW, 2), (NOW + 1, 1)] {
        let iterator = iterator(&mut client, from).await;
        let request = cbor!({"ShardIterator" => iterator});
        let answer = call(&mut client, "GetRecords", request).await;
        assert_eq!(items(&answer, "Records").len(), expected, "{from}");
    }
}

async fn refused(
    client: &mut SendRequest<Full<Bytes>>,
    target: &str,
    body: Vec<u8>,
) -> (u16, String) {
    let (status, answer) = whole(send(client, target, body).await).await;
    assert!(!member(&answer, "message").as_text().unwrap().is_empty());
    let code = member(&answer, "__type").as_text().unwrap().to_owned();
    (status, code)
}

#[tokio::test]
async fn a_refusal_names_its_kind() {
    let (aws, _clock) = start().await;
    let mut client = client(&aws).await;
    let unknown = written(&cbor!({"StreamName" => "none"}).unwrap());
    for (target, body, expected) in [
        ("Kinesis_20131202.DescribeStream", unknown.clone(), "ResourceNotFoundException"),
        ("Kinesis_20131202.SubscribeToShard", written(&cbor!({}).unwrap()), "ValidationException"),
        ("Kinesis_20131202.Fly", unknown.clone(), "UnknownOperationException"),
        ("Other.Fly", unknown, "UnknownOperationException"),
        // Garbage, JSON, nothing, something after the end, and a number where a name belongs.
        ("Kinesis_20131202.DescribeStream", b"\x1c\xff\x00".to_vec(), "SerializationException"),
        ("Kinesis_20131202.DescribeStream", b"{}".to_vec(), "SerializationException"),
        ("Kinesis_20131202.DescribeStream", Vec::new(), "SerializationException"),
        ("Kinesis_20131202.DescribeStream", b"\xa0\xa0".to_vec(), "SerializationException"),
        (
            "Kinesis_20131202.DescribeStream",
            written(&cbor!({"StreamName" => 1}).unwrap()),
            "SerializationException",
        ),
    ] {
        let answer = refused(&mut client, target, body).await;
        assert_eq!(answer, (400, expected.to_owned()), "{target}");
    }
    aws.faults().add(Fault::internal_failure().operation("ListStreams"));
    let nothing = written(&cbor!({}).unwrap());
    let answer = refused(&mut client, "Kinesis_20131202.ListStreams", nothing).await;
    assert_eq!(answer, (500, "InternalFailure".to_owned()));
}

#[tokio::test]
async fn cbor_can_be_treated_as_by_a_server_that_speaks_json_only() {
    let json = "application/x-amz-json-1.1";
    let refused = CborSupport::Refused { code: "SerializationException".to_owned() };
    for (support, status, content_type, said) in [
        (CborSupport::AnsweredInJson, 200, json, "\"StreamStatus\":\"ACTIVE\""),
        (CborSupport::UnsupportedMediaType, 415, "text/plain", ""),
        (refused, 400, json, "\"__type\":\"SerializationException\""),
        (CborSupport::Failed, 500, "text/html", "<p>"),
    ] {
        let aws = LocalAws::builder().cbor(support.clone()).build().await.unwrap();
        aws.create_stream(STREAM, 1).await.unwrap();
        let mut client = client(&aws).await;
        let request = written(&cbor!({"StreamName" => STREAM}).unwrap());
        let target = "Kinesis_20131202.DescribeStreamSummary";
        let response = send(&mut client, target, request).await;
        assert_eq!(response.status().as_u16(), status, "{support:?}");
        assert_eq!(response.headers()["content-type"], content_type, "{support:?}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&body).contains(said), "{support:?}: {body:?}");
        // In JSON all is as ever.
        aws.kinesis().describe_stream_summary().stream_name(STREAM).send().await.unwrap();
        assert_eq!(aws.calls("DescribeStreamSummary"), 2);
        assert_eq!(aws.calls_in_cbor("DescribeStreamSummary"), 1);
    }
}

#[tokio::test]
async fn a_fault_strikes_the_shard_of_a_record() {
    let (aws, _clock) = start().await;
    let mut client = client(&aws).await;
    let elsewhere = Fault::throttle().shard("shardId-000000000001");
    aws.faults().add(elsewhere);
    put(&mut client, b"one").await;
    aws.faults().add(Fault::refuse_entry("Odd").shard("shardId-000000000000"));
    let records = vec![record("key", b"two")];
    let request = cbor!({"StreamName" => STREAM, "Records" => records});
    let answer = call(&mut client, "PutRecords", request).await;
    let entry = &items(&answer, "Records")[0];
    assert_eq!(member(entry, "ErrorCode").as_text(), Some("Odd"));
}

async fn register(client: &mut SendRequest<Full<Bytes>>) -> Value {
    let request = cbor!({"StreamName" => STREAM});
    let summary = call(client, "DescribeStreamSummary", request).await;
    let arn = member(member(&summary, "StreamDescriptionSummary"), "StreamARN");
    let request = cbor!({"StreamARN" => arn, "ConsumerName" => "billing"});
    let answer = call(client, "RegisterStreamConsumer", request).await;
    member(&answer, "Consumer").clone()
}

fn header(message: &Message, name: &str) -> String {
    let headers = message.headers().iter();
    let mut named = headers.filter(|header| header.name().as_str() == name);
    let value = named.next().unwrap().value().as_string().unwrap();
    value.as_str().to_owned()
}

/// The next frame of a body; none at its end.
async fn frame(
    body: &mut Incoming,
    decoder: &mut MessageFrameDecoder,
    buffer: &mut BytesMut,
) -> Option<Message> {
    loop {
        if let DecodedFrame::Complete(message) = decoder.decode_frame(&mut *buffer).unwrap() {
            return Some(message);
        }
        let data = body.frame().await?.unwrap();
        buffer.extend_from_slice(&data.into_data().unwrap());
    }
}

#[tokio::test]
async fn a_subscription_is_a_stream_of_events_in_cbor() {
    let (aws, _clock) = start().await;
    let mut client = client(&aws).await;
    let consumer = register(&mut client).await;
    assert_eq!(member(&consumer, "ConsumerCreationTimestamp"), &time(NOW));
    put(&mut client, b"first").await;

    let subscribe = cbor!({
        "ConsumerARN" => member(&consumer, "ConsumerARN"),
        "ShardId" => "shardId-000000000000",
        "StartingPosition" => {"Type" => "AT_TIMESTAMP", "Timestamp" => time(1)},
    });
    let subscribe = written(&subscribe.unwrap());
    let target = "Kinesis_20131202.SubscribeToShard";
    let response = send(&mut client, target, subscribe.clone()).await;
    let content_type = &response.headers()["content-type"];
    assert_eq!(content_type, "application/vnd.amazon.eventstream");
    let (mut body, mut decoder) = (response.into_body(), MessageFrameDecoder::new());
    let mut buffer = BytesMut::new();

    let message = frame(&mut body, &mut decoder, &mut buffer).await.unwrap();
    assert_eq!(header(&message, ":event-type"), "initial-response");
    assert_eq!(header(&message, ":content-type"), CBOR);
    assert_eq!(read(message.payload()), cbor!({}).unwrap());

    let message = frame(&mut body, &mut decoder, &mut buffer).await.unwrap();
    assert_eq!(header(&message, ":message-type"), "event");
    assert_eq!(header(&message, ":event-type"), "SubscribeToShardEvent");
    assert_eq!(header(&message, ":content-type"), CBOR);
    let event = read(message.payload());
    let first = &items(&event, "Records")[0];
    assert_eq!(member(first, "Data").as_bytes().unwrap(), b"first");
    assert_eq!(member(first, "ApproximateArrivalTimestamp"), &time(NOW));

    let response = send(&mut client, target, subscribe).await;
    let (status, refusal) = whole(response).await;
    let code = member(&refusal, "__type").as_text().unwrap();
    assert_eq!((status, code), (400, "ResourceInUseException"));

    let request = cbor!({
        "StreamName" => STREAM,
        "ShardToSplit" => "shardId-000000000000",
        "NewStartingHashKey" => "1000",
    });
    call(&mut client, "SplitShard", request).await;
    let message = frame(&mut body, &mut decoder, &mut buffer).await.unwrap();
    let children: Vec<_> = items(&read(message.payload()), "ChildShards")
        .iter()
        .map(|child| member(child, "ShardId").as_text().unwrap().to_owned())
        .collect();
    assert_eq!(children, ["shardId-000000000001", "shardId-000000000002"]);
    assert!(frame(&mut body, &mut decoder, &mut buffer).await.is_none());
}

#[tokio::test]
async fn an_exception_in_a_stream_of_events_is_cbor() {
    let (aws, _clock) = start().await;
    let mut client = client(&aws).await;
    let consumer = register(&mut client).await;
    let subscribe = cbor!({
        "ConsumerARN" => member(&consumer, "ConsumerARN"),
        "ShardId" => "shardId-000000000000",
        "StartingPosition" => {"Type" => "TRIM_HORIZON"},
    });
    let fault = Fault::throttle().operation("SubscribeToShardEvent");
    aws.faults().add(fault);
    put(&mut client, b"never seen").await;
    let target = "Kinesis_20131202.SubscribeToShard";
    let response = send(&mut client, target, written(&subscribe.unwrap())).await;
    let (mut body, mut decoder) = (response.into_body(), MessageFrameDecoder::new());
    let mut buffer = BytesMut::new();
    frame(&mut body, &mut decoder, &mut buffer).await.unwrap();
    let message = frame(&mut body, &mut decoder, &mut buffer).await.unwrap();
    assert_eq!(header(&message, ":message-type"), "exception");
    let code = header(&message, ":exception-type");
    let refusal = read(message.payload());
    assert_eq!(member(&refusal, "__type").as_text(), Some(&*code));
    assert_eq!(code, "LimitExceededException");
}

#[tokio::test]
async fn dynamodb_speaks_json_only() {
    let (aws, _clock) = start().await;
    let mut client = client(&aws).await;
    let target = "DynamoDB_20120810.ListTables";
    let response = send(&mut client, target, b"{}".to_vec()).await;
    assert_eq!(response.status(), 200);
    let content_type = &response.headers()["content-type"];
    assert_eq!(content_type, "application/x-amz-json-1.0");
}
