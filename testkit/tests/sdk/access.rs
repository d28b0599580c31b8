//! Signatures, credentials, and denied operations.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sdk_kinesis::config::SharedCredentialsProvider;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_types::sdk_config::{SharedTimeSource, TimeSource};
use kinesis_testkit::Service;

use super::dynamodb::create_table;
use super::*;

const KEY: &str = "AKIATESTKIT";
const SECRET: &str = "a secret";

async fn guarded() -> LocalAws {
    let aws = LocalAws::builder().credentials(KEY, SECRET);
    let aws = aws.build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    aws
}

fn client_of(aws: &LocalAws, key: &str, secret: &str) -> Client {
    let credentials = Credentials::new(key, secret, None, None, "test");
    let config = aws_sdk_kinesis::config::Builder::from(&aws.sdk_config())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .retry_config(RetryConfig::disabled())
        .build();
    Client::from_conf(config)
}

#[tokio::test]
async fn only_the_right_key_and_secret_are_let_in() {
    let aws = guarded().await;
    let right = client_of(&aws, KEY, SECRET);
    put(&right, 0, "signed").await;
    assert_eq!(read_all(&right, SHARD_0).await, ["signed"]);
    let put_by = |client: &Client| {
        client.put_record().stream_name(STREAM).partition_key("k").data(Blob::new("x")).send()
    };
    let stranger = put_by(&client_of(&aws, "AKIAOTHER", SECRET)).await;
    assert_eq!(code(stranger), "UnrecognizedClientException");
    let forger = put_by(&client_of(&aws, KEY, "another secret")).await;
    assert_eq!(code(forger), "InvalidSignatureException");
    let held = aws.records(STREAM).remove(0).records.len();
    assert_eq!(held, 1);
}

#[tokio::test]
async fn clients_of_testkit_itself_sign_as_they_must() {
    let aws = guarded().await;
    put(&aws.kinesis(), 0, "a").await;
    put(&Client::new(&aws.in_process_config()), 0, "b").await;
    assert_eq!(read_all(&aws.kinesis(), SHARD_0).await, ["a", "b"]);
    create_table(&aws.dynamodb()).await;
}

/// A request by hand; the code of the refusal.
async fn raw(aws: &LocalAws, headers: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = aws.kinesis_url().strip_prefix("http://").unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\nx-amz-target: Kinesis_20131202.ListStreams\r\n\
         {headers}content-length: 2\r\nconnection: close\r\n\r\n{{}}"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    socket.read_to_string(&mut response).await.unwrap();
    let (_, body) = response.split_once("\r\n\r\n").unwrap();
    let (_, rest) = body.split_once("\"__type\":\"").unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

#[tokio::test]
async fn requests_without_a_whole_signature_are_refused() {
    let aws = guarded().await;
    let missing = raw(&aws, "").await;
    assert_eq!(missing, "MissingAuthenticationTokenException");
    let other_kind = raw(&aws, "authorization: Bearer token\r\n").await;
    assert_eq!(other_kind, "IncompleteSignatureException");
    // It does not say when it was signed.
    let dateless = format!(
        "authorization: AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1/kinesis/aws4_request, \
         SignedHeaders=host, Signature=00\r\n"
    );
    let dateless = raw(&aws, &dateless).await;
    assert_eq!(dateless, "IncompleteSignatureException");
}

#[tokio::test]
async fn a_denied_operation_is_denied_in_its_service_only() {
    let aws = LocalAws::builder()
        .deny(Service::Kinesis, "SplitShard")
        .deny(Service::DynamoDb, "DescribeStream");
    let aws = aws.build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    let client = client(&aws);
    let split = client.split_shard().stream_name(STREAM);
    let split = split.shard_to_split(SHARD_0).new_starting_hash_key("7");
    assert_eq!(code(split.send().await), "AccessDeniedException");
    let describe = client.describe_stream().stream_name(STREAM);
    describe.send().await.unwrap();
    put(&client, 0, "a").await;
    assert_eq!(shards(&client).await.len(), 1);
}

/// A client in another region than the services are in.
fn elsewhere(aws: &LocalAws) -> (Client, aws_sdk_dynamodb::Client) {
    let config = aws.sdk_config().into_builder();
    let config = config.region(aws_sdk_kinesis::config::Region::new("eu-central-1")).build();
    (Client::new(&config), aws_sdk_dynamodb::Client::new(&config))
}

const ARN: &str = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
const ARN_ELSEWHERE: &str = "arn:aws:kinesis:eu-central-1:000000000000:stream/orders";
const TABLE_ELSEWHERE: &str = "arn:aws:dynamodb:eu-central-1:000000000000:table/leases";

#[tokio::test]
async fn a_resource_of_another_region_does_not_exist() {
    let aws = LocalAws::start().await.unwrap();
    aws.create_stream("orders", 1).await.unwrap();
    create_table(&aws.dynamodb()).await;
    let (foreign, foreign_table) = elsewhere(&aws);
    for client in [&aws.kinesis(), &foreign] {
        let shards = client.list_shards().stream_arn(ARN_ELSEWHERE).send().await;
        assert_eq!(code(shards), "ResourceNotFoundException");
        let summary = client.describe_stream_summary().stream_arn(ARN_ELSEWHERE);
        assert_eq!(code(summary.send().await), "ResourceNotFoundException");
        let put = client.put_record().stream_arn(ARN_ELSEWHERE).partition_key("k");
        let put = put.data(Blob::new("x")).send().await;
        assert_eq!(code(put), "ResourceNotFoundException");
        let tags = client.list_tags_for_resource().resource_arn(ARN_ELSEWHERE);
        assert_eq!(code(tags.send().await), "ResourceNotFoundException");
        let consumer = format!("{ARN_ELSEWHERE}/consumer/app:1");
        let describe = client.describe_stream_consumer().consumer_arn(consumer);
        assert_eq!(code(describe.send().await), "ResourceNotFoundException");
    }
    for client in [&aws.dynamodb(), &foreign_table] {
        let describe = client.describe_table().table_name(TABLE_ELSEWHERE).send().await;
        assert_eq!(code(describe), "ResourceNotFoundException");
    }
    aws.kinesis().list_shards().stream_arn(ARN).send().await.unwrap();
}

#[tokio::test]
async fn an_arn_is_of_the_region_that_the_request_is_signed_for() {
    let aws = LocalAws::start().await.unwrap();
    aws.create_stream("orders", 1).await.unwrap();
    let (client, _) = elsewhere(&aws);
    let by_arn = client.list_shards().stream_arn(ARN).send().await;
    assert_eq!(code(by_arn), "ResourceNotFoundException");
    // By name any region will do, unless it is to be checked.
    client.list_shards().stream_name("orders").send().await.unwrap();
    let strict = LocalAws::builder().check_region(true);
    let strict = strict.build().await.unwrap();
    let (client, dynamodb) = elsewhere(&strict);
    assert_eq!(code(client.list_streams().send().await), "InvalidSignatureException");
    assert_eq!(code(dynamodb.list_tables().send().await), "InvalidSignatureException");
    strict.kinesis().list_streams().send().await.unwrap();
}

#[tokio::test]
async fn a_signature_of_another_time_is_refused_where_that_is_asked_for() {
    for (seconds, message) in [
        (0, None),
        (299, None),
        (-299, None),
        (600, Some("Signature not yet current: ")),
        (-600, Some("Signature expired: ")),
    ] {
        let services = SharedTimeSource::default().now();
        let aws = LocalAws::builder().check_time(true).build().await.unwrap();
        aws.create_stream(STREAM, 1).await.unwrap();
        let off = Duration::from_secs(i64::unsigned_abs(seconds));
        let host = if seconds < 0 { services - off } else { services + off };
        let config = aws_sdk_kinesis::config::Builder::from(&aws.sdk_config())
            .time_source(StaticTime(host))
            .retry_config(RetryConfig::disabled());
        let client = Client::from_conf(config.build());
        let answer = client.list_shards().stream_name(STREAM).send().await;
        match (answer, message) {
            (Ok(_), None) => {}
            (Err(error), Some(message)) => {
                let error = error.into_service_error();
                assert_eq!(error.code(), Some("InvalidSignatureException"));
                let text = error.message().unwrap_or_default();
                assert!(text.starts_with(message) && text.ends_with(" 5 min.)"), "{text}");
            }
            (answer, _) => panic!("{seconds}: {answer:?}"),
        }
    }
}

#[derive(Debug)]
struct StaticTime(SystemTime);

impl TimeSource for StaticTime {
    fn now(&self) -> SystemTime {
        self.0
    }
}
