//! The client of the SDK with the protocol, against an embedded Kinesis and against canned answers.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region, SharedHttpClient};
use aws_sdk_kinesis::operation::get_records::{GetRecordsError, GetRecordsOutput};
use aws_sdk_kinesis::operation::put_records::{PutRecordsError, PutRecordsOutput};
use aws_sdk_kinesis::primitives::{Blob, DateTime};
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, ShardIteratorType, StartingPosition};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use kinesis_testkit::{CborSupport, Fault, LocalAws, ManualClock};
use proptest::prelude::*;
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::*;
use crate::timestamp::whole_millis;

mod records;
mod setting;

const STREAM: &str = "orders";
const SHARD: &str = "shardId-000000000000";
const MILLIS: u64 = 1_767_225_600_123;

type Answer<T, E> = Result<T, SdkError<E, HttpResponse>>;

async fn aws(support: CborSupport) -> LocalAws {
    let clock = ManualClock::new(SystemTime::UNIX_EPOCH + Duration::from_millis(MILLIS));
    let aws = LocalAws::builder().clock(clock).cbor(support).build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    aws
}

fn config(aws: &LocalAws) -> Builder {
    Builder::from(&aws.in_process_config()).retry_config(RetryConfig::disabled())
}

fn client(aws: &LocalAws, wire: Wire) -> Client {
    let protocol = WireProtocol::in_environment(wire, |_| None);
    Client::from_conf(protocol.install(config(aws)).build())
}

async fn put(client: &Client, data: &[u8]) -> Answer<PutRecordsOutput, PutRecordsError> {
    let entry = PutRecordsRequestEntry::builder().data(Blob::new(data)).partition_key("k");
    let request = client.put_records().stream_name(STREAM).records(entry.build().unwrap());
    send(|| request.clone().send()).await
}

async fn iterator(client: &Client) -> String {
    let request = client
        .get_shard_iterator()
        .stream_name(STREAM)
        .shard_id(SHARD)
        .shard_iterator_type(ShardIteratorType::AtTimestamp)
        .timestamp(DateTime::from_millis(MILLIS as i64));
    send(|| request.clone().send()).await.unwrap().shard_iterator.unwrap()
}

async fn read(client: &Client) -> GetRecordsOutput {
    let request = client.get_records().shard_iterator(iterator(client).await);
    send(|| request.clone().send()).await.unwrap()
}

async fn read_into_buffer(
    client: &Client,
    iterator: &str,
) -> Answer<RecordsAnswer, GetRecordsError> {
    let request = client.get_records().shard_iterator(iterator);
    let answer = ReadRecords::default();
    let output = send(|| request.clone().customize().interceptor(answer.clone()).send()).await?;
    assert_eq!(output.records(), []);
    Ok(answer.take())
}

fn stored(aws: &LocalAws) -> Vec<Vec<u8>> {
    let shards = aws.records(STREAM);
    shards[0].records.iter().map(|record| record.data.to_vec()).collect()
}

#[tokio::test]
async fn each_operation_of_the_list_is_in_cbor_and_all_others_are_in_json() {
    let aws = aws(CborSupport::Full).await;
    let client = client(&aws, Wire::Cbor);
    put(&client, b"one").await.unwrap();
    let one = client.put_record().stream_name(STREAM).partition_key("k").data(Blob::new("two"));
    one.send().await.unwrap();
    assert_eq!(read(&client).await.records().len(), 2);
    let listed = client.list_shards().stream_name(STREAM).send().await.unwrap();
    assert_eq!(listed.shards()[0].shard_id(), SHARD);
    let described = client.describe_stream().stream_name(STREAM).send().await.unwrap();
    assert_eq!(described.stream_description.unwrap().stream_name(), STREAM);
    let summary = client.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
    let summary = summary.stream_description_summary.unwrap();
    assert_eq!(summary.stream_creation_timestamp().to_millis().unwrap(), MILLIS as i64);
    let consumer = client.register_stream_consumer().stream_arn(summary.stream_arn());
    let consumer = consumer.consumer_name("c").send().await.unwrap().consumer.unwrap();
    let described = client.describe_stream_consumer().consumer_arn(consumer.consumer_arn());
    let described = described.send().await.unwrap().consumer_description.unwrap();
    assert_eq!(described.consumer_creation_timestamp().to_millis().unwrap(), MILLIS as i64);
    let start = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon);
    let subscription = client
        .subscribe_to_shard()
        .consumer_arn(consumer.consumer_arn())
        .shard_id(SHARD)
        .starting_position(start.build().unwrap());
    let mut events = subscription.send().await.unwrap().event_stream;
    let event = events.recv().await.unwrap().unwrap();
    assert_eq!(event.as_subscribe_to_shard_event().unwrap().records()[0].data().as_ref(), b"one");

    for operation in [
        "PutRecords",
        "PutRecord",
        "GetRecords",
        "GetShardIterator",
        "ListShards",
        "DescribeStream",
        "DescribeStreamSummary",
        "DescribeStreamConsumer",
    ] {
        assert_eq!((aws.calls(operation), aws.calls_in_cbor(operation)), (1, 1), "{operation}");
    }
    for operation in ["RegisterStreamConsumer", "SubscribeToShard"] {
        assert_eq!((aws.calls(operation), aws.calls_in_cbor(operation)), (1, 0), "{operation}");
    }
}

#[tokio::test]
async fn both_encodings_have_the_same_records_at_the_same_times() {
    let aws = aws(CborSupport::Full).await;
    let [cbor, json] = [Wire::Auto, Wire::Json].map(|wire| client(&aws, wire));
    put(&cbor, b"one").await.unwrap();
    put(&json, b"two").await.unwrap();
    let (in_cbor, in_json) = (read(&cbor).await, read(&json).await);
    assert_eq!(in_cbor.records().len(), 2);
    for (in_cbor, in_json) in in_cbor.records().iter().zip(in_json.records()) {
        assert_eq!(in_cbor.data(), in_json.data());
        assert_eq!(in_cbor.sequence_number(), in_json.sequence_number());
        let [in_cbor, in_json] = [in_cbor, in_json]
            .map(|record| whole_millis(record.approximate_arrival_timestamp().unwrap()).unwrap());
        assert_eq!((in_cbor, in_json), (MILLIS as i64, MILLIS as i64));
    }
    assert_eq!(aws.calls_in_cbor("GetRecords"), 1);
    assert_eq!(aws.calls("GetRecords"), 2);
}

fn refused(code: &str) -> CborSupport {
    CborSupport::Refused { code: code.to_owned() }
}

#[tokio::test]
async fn an_endpoint_that_refuses_cbor_gets_json_and_each_record_once() {
    for support in [
        CborSupport::UnsupportedMediaType,
        refused("SerializationException"),
        refused("UnknownOperationException"),
        CborSupport::AnsweredInJson,
    ] {
        let aws = aws(support.clone()).await;
        let client = client(&aws, Wire::Auto);
        for data in [b"a", b"b", b"c"] {
            put(&client, data).await.unwrap();
        }
        assert_eq!(read(&client).await.records().len(), 3, "{support:?}");
        assert_eq!(stored(&aws), [b"a", b"b", b"c"], "{support:?}");
        // The first request only, whatever the operation.
        assert_eq!(aws.calls_in_cbor("PutRecords"), 1, "{support:?}");
        assert_eq!(aws.calls_in_cbor("GetShardIterator"), 0, "{support:?}");
        assert_eq!(aws.calls_in_cbor("GetRecords"), 0, "{support:?}");
    }
}

#[tokio::test]
async fn after_a_failure_of_the_server_the_next_request_is_in_json() {
    let aws = aws(CborSupport::Failed).await;
    let client = client(&aws, Wire::Auto);
    // Whether it had an effect is not known, so it is not sent again here.
    let error = client.list_shards().stream_name(STREAM).send().await.unwrap_err();
    assert_eq!(error.raw_response().unwrap().status().as_u16(), 500);
    let in_cbor = aws.calls_in_cbor("ListShards");
    client.list_shards().stream_name(STREAM).send().await.unwrap();
    assert_eq!(aws.calls_in_cbor("ListShards"), in_cbor);
    put(&client, b"a").await.unwrap();
    assert_eq!(aws.calls_in_cbor("PutRecords"), 0);
}

#[tokio::test]
async fn a_setting_without_fallback_is_followed() {
    let refusing = aws(CborSupport::UnsupportedMediaType).await;
    let error = put(&client(&refusing, Wire::Cbor), b"a").await.unwrap_err();
    assert_eq!(error.raw_response().unwrap().status().as_u16(), 415);
    assert_eq!((refusing.calls("PutRecords"), refusing.calls_in_cbor("PutRecords")), (1, 1));
    put(&client(&refusing, Wire::Json), b"a").await.unwrap();
    assert_eq!(refusing.calls_in_cbor("PutRecords"), 1);

    // An answer in JSON is read all the same.
    let answering = aws(CborSupport::AnsweredInJson).await;
    let client = client(&answering, Wire::Cbor);
    put(&client, b"a").await.unwrap();
    put(&client, b"b").await.unwrap();
    assert_eq!(answering.calls_in_cbor("PutRecords"), 2);
    assert_eq!(stored(&answering), [b"a", b"b"]);
}

#[tokio::test]
async fn a_refusal_after_a_success_is_for_the_content() {
    let aws = aws(CborSupport::Full).await;
    let client = client(&aws, Wire::Auto);
    put(&client, b"a").await.unwrap();
    aws.faults().add(Fault::refuse("SerializationException").operation("PutRecords").times(1));
    let error = put(&client, b"b").await.unwrap_err();
    assert_eq!(error.code(), Some("SerializationException"));
    put(&client, b"c").await.unwrap();
    assert_eq!((aws.calls("PutRecords"), aws.calls_in_cbor("PutRecords")), (3, 3));
}

#[tokio::test]
async fn a_refusal_in_both_encodings_is_for_the_content_too() {
    let aws = aws(CborSupport::Full).await;
    let client = client(&aws, Wire::Auto);
    aws.faults().add(Fault::refuse("SerializationException").operation("PutRecords").times(2));
    let error = put(&client, b"a").await.unwrap_err();
    assert_eq!(error.code(), Some("SerializationException"));
    put(&client, b"b").await.unwrap();
    put(&client, b"c").await.unwrap();
    // The second request was in JSON.
    assert_eq!((aws.calls("PutRecords"), aws.calls_in_cbor("PutRecords")), (4, 3));
}

#[tokio::test]
async fn a_server_that_reads_cbor_without_bytes_gets_json() {
    let aws = aws(CborSupport::Full).await;
    let client = client(&aws, Wire::Auto);
    client.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
    // The next request is in JSON.
    aws.faults().add(Fault::refuse("SerializationException").operation("PutRecords").times(1));
    put(&client, b"a").await.unwrap();
    put(&client, b"b").await.unwrap();
    client.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
    assert_eq!(aws.calls_in_cbor("PutRecords"), 1);
    assert_eq!(aws.calls_in_cbor("DescribeStreamSummary"), 1);
    assert_eq!(stored(&aws), [b"a", b"b"]);
}

#[tokio::test]
async fn throttles_and_refused_entries_are_told_in_cbor() {
    let aws = aws(CborSupport::Full).await;
    let client = client(&aws, Wire::Cbor);
    let code = "ProvisionedThroughputExceededException";
    aws.faults().add(Fault::refuse(code).message("slow down").operation("PutRecords").times(1));
    let error = put(&client, b"a").await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Some(code), Some("slow down")));
    let error = error.into_service_error();
    assert!(error.is_provisioned_throughput_exceeded_exception(), "{error:?}");
    aws.faults().add(Fault::refuse_entry(code).times(1));
    let output = put(&client, b"a").await.unwrap();
    assert_eq!(output.failed_record_count(), Some(1));
    assert_eq!(output.records()[0].error_code(), Some(code));
}

#[tokio::test]
async fn an_answer_that_is_cut_or_garbled_is_an_error_and_proves_nothing() {
    let aws = aws(CborSupport::Full).await;
    let client = client(&aws, Wire::Auto);
    aws.faults().add(Fault::garbled_response().operation("PutRecords").times(1));
    let error = put(&client, b"a").await.unwrap_err();
    assert!(matches!(error, SdkError::ResponseError(_)), "{error:?}");
    aws.faults().add(Fault::cut_response().operation("PutRecords").times(1));
    put(&client, b"b").await.unwrap_err();
    put(&client, b"c").await.unwrap();
    assert_eq!(stored(&aws), [b"a", b"b", b"c"]);
}

/// Status, error code in a header, and body of an answer.
type CannedAnswer = (u16, Option<&'static str>, &'static [u8]);

/// Answers one after the other, and keeps the requests.
#[derive(Debug, Default)]
struct Canned {
    answers: Mutex<VecDeque<CannedAnswer>>,
    requests: Mutex<Vec<HttpRequest>>,
}

#[derive(Debug, Clone)]
struct Connector(Arc<Canned>);

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (status, header, body) = self.0.answers.lock().unwrap().pop_front().unwrap();
        self.0.requests.lock().unwrap().push(request);
        let mut response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body));
        if let Some(code) = header {
            response.headers_mut().insert("x-amzn-errortype", code);
        }
        HttpConnectorFuture::ready(Ok(response))
    }
}

impl Canned {
    fn client(wire: Wire, answers: &[CannedAnswer]) -> (Client, Arc<Self>) {
        let canned =
            Arc::new(Self { answers: Mutex::new(answers.to_vec().into()), ..Self::default() });
        let connector = Connector(Arc::clone(&canned));
        let http: SharedHttpClient =
            http_client_fn(move |_, _| SharedHttpConnector::new(connector.clone()));
        (canned_client(wire, http), canned)
    }
}

fn canned_client(wire: Wire, http: SharedHttpClient) -> Client {
    let config = Builder::new()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .credentials_provider(Credentials::new("a", "b", None, None, "test"))
        .retry_config(RetryConfig::disabled())
        .http_client(http);
    let protocol = WireProtocol::in_environment(wire, |_| None);
    Client::from_conf(protocol.install(config).build())
}

/// Refuses requests in CBOR, as soon as a number of them is in flight, and answers those in JSON.
#[derive(Debug, Clone)]
struct RefusesTogether(Arc<Barrier>);

impl HttpConnector for RefusesTogether {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let in_cbor = request.headers().get("content-type") == Some("application/x-amz-cbor-1.1");
        let all = Arc::clone(&self.0);
        HttpConnectorFuture::new(async move {
            if !in_cbor {
                return Ok(HttpResponse::new(200.try_into().unwrap(), SdkBody::from("{}")));
            }
            all.wait().await;
            let refusal = SdkBody::from(r#"{"__type":"SerializationException"}"#);
            Ok(HttpResponse::new(400.try_into().unwrap(), refusal))
        })
    }
}

#[tokio::test]
async fn requests_that_are_refused_together_are_all_sent_again() {
    const IN_FLIGHT: usize = 24;
    let connector = RefusesTogether(Arc::new(Barrier::new(IN_FLIGHT)));
    let http = http_client_fn(move |_, _| SharedHttpConnector::new(connector.clone()));
    let client = canned_client(Wire::Auto, http);
    let mut requests = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let client = client.clone();
        requests.spawn(async move { put(&client, b"data").await });
    }
    for answer in requests.join_all().await {
        answer.unwrap();
    }
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_in_json_whatever_others_found() {
    let refusal: CannedAnswer = (400, Some("SerializationException"), b"");
    let (client, canned) = Canned::client(Wire::Auto, &[refusal, refusal, (200, None, b"{}")]);
    let request = client.list_shards().stream_name(STREAM);
    let is_again = AtomicBool::new(false);
    let answer = send(async || {
        if is_again.swap(true, Ordering::Relaxed) {
            // Another request is refused in JSON, too. That ends the trial of JSON.
            request.clone().send().await.unwrap_err();
        }
        request.clone().send().await
    });
    answer.await.unwrap();
    let requests = canned.requests.lock().unwrap();
    let encodings = requests.iter().map(|request| request.headers().get("content-type").unwrap());
    let [cbor, json] = ["application/x-amz-cbor-1.1", "application/x-amz-json-1.1"];
    assert_eq!(encodings.collect::<Vec<_>>(), [cbor, json, json]);
}

#[tokio::test]
async fn an_answer_without_a_body_is_an_error() {
    for wire in [Wire::Auto, Wire::Json] {
        let (client, _) = Canned::client(wire, &[(200, None, &b""[..]); 2]);
        let sent = client.get_records().shard_iterator("i").send().await;
        let read = read_into_buffer(&client, "i").await;
        if wire == Wire::Auto {
            for error in [sent.map(drop).unwrap_err(), read.map(drop).unwrap_err()] {
                assert!(matches!(error, SdkError::ResponseError(_)), "{error:?}");
            }
        } else {
            assert_eq!(sent.is_err(), read.is_err());
        }
    }
}

#[tokio::test]
async fn a_request_differs_from_one_in_json_by_content_type_and_body_only() {
    let [cbor, json] = {
        let mut requests = Vec::new();
        for wire in [Wire::Cbor, Wire::Json] {
            let (client, canned) = Canned::client(wire, &[(200, None, b"{}")]);
            put(&client, b"data").await.unwrap();
            requests.push(canned.requests.lock().unwrap().pop().unwrap());
        }
        <[_; 2]>::try_from(requests).unwrap()
    };
    assert_eq!(cbor.headers().get("content-type"), Some("application/x-amz-cbor-1.1"));
    assert_eq!(json.headers().get("content-type"), Some("application/x-amz-json-1.1"));
    assert_eq!(cbor.headers().get("x-amz-target"), Some("Kinesis_20131202.PutRecords"));
    let names = |request: &HttpRequest| {
        let mut names: Vec<_> = request.headers().iter().map(|(name, _)| name.to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&cbor), names(&json));
    assert_eq!((cbor.method(), cbor.uri()), (json.method(), json.uri()));
    assert_eq!(cbor.body().bytes().unwrap().first(), Some(&0xbf));
}

#[tokio::test]
async fn the_code_of_an_error_is_read_in_each_form() {
    for (header, body, code, message) in [
        (None, &b"\xa1\x66__type\x61A"[..], Some("A"), None),
        (None, b"\xbf\x66__type\x63x#A\x67message\x61m\xff", Some("A"), Some("m")),
        (None, br#"{"__type":"x#A","message":"m"}"#, Some("A"), Some("m")),
        (Some("A:http://internal/"), b"\xa1\x66__type\x61B", Some("A"), None),
        (Some("A"), br#"{"__type":"B"}"#, Some("A"), None),
        (Some("A"), b"", Some("A"), None),
        // The body cannot be read.
        (Some("A"), b"\xa1\x66__ty", Some("A"), None),
        (Some("A"), b"<html>", Some("A"), None),
        (None, b"\xa1\x66__ty", None, None),
        (None, b"<html>", None, None),
        (None, b"", None, None),
    ] {
        let (client, _) = Canned::client(Wire::Cbor, &[(400, header, body)]);
        let error = put(&client, b"a").await.unwrap_err();
        assert_eq!((error.code(), error.message()), (code, message), "{header:?} {body:02x?}");
        assert_eq!(error.raw_response().unwrap().status().as_u16(), 400);
    }
}

#[tokio::test]
async fn a_client_with_another_protocol_keeps_it() {
    let aws = aws(CborSupport::Full).await;
    let other = cbor_of_the_sdk(config(&aws));
    let protocol = WireProtocol::in_environment(Wire::Auto, |_| None);
    let client = Client::from_conf(protocol.install(other).build());
    put(&client, b"a").await.unwrap_err();
    assert_eq!((aws.calls("PutRecords"), aws.calls_in_cbor("PutRecords")), (0, 0));
}

/// A protocol that no endpoint understands.
fn cbor_of_the_sdk(config: Builder) -> Builder {
    use aws_smithy_schema::http_protocol::HttpRpcProtocol;
    use aws_smithy_schema::shape_id;

    let id = shape_id!("test", "other");
    config.protocol(HttpRpcProtocol::new(id, cbor::CborCodec::default(), "application/other"))
}
