//! TLS, HTTP/1.1 and HTTP/2, CBOR, with the SDK and with a bare HTTP client.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is a failure")]

mod cbor;

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::error::SdkError;
use aws_sdk_kinesis::primitives::Blob;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kinesis_testkit::{Fault, LocalAws};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const STREAM: &str = "orders";

async fn start() -> LocalAws {
    let aws = LocalAws::builder().tls_port(0).build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    aws
}

/// A client of the SDK over TLS, which trusts these certificates and no others.
fn over_tls(aws: &LocalAws, trusted: TrustStore) -> aws_types::SdkConfig {
    let context = TlsContext::builder().with_trust_store(trusted).build();
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(context.unwrap())
        .build_https();
    let config = aws.sdk_config().to_builder().http_client(http);
    config.endpoint_url(aws.tls_url().unwrap()).retry_config(RetryConfig::disabled()).build()
}

fn trusting(aws: &LocalAws) -> TrustStore {
    TrustStore::empty().with_pem_certificate(aws.certificate_pem().unwrap())
}

#[tokio::test]
async fn the_sdk_calls_both_services_over_tls() {
    let aws = start().await;
    let config = over_tls(&aws, trusting(&aws));
    let client = Client::new(&config);
    for nth in 0..10 {
        // Larger than a window of HTTP/2, so that flow control has its part in it.
        let data = Blob::new(vec![nth; 900 << 10]);
        let put = client.put_record().stream_name(STREAM).partition_key("key");
        put.data(data).send().await.unwrap();
    }
    let stored = &aws.records(STREAM)[0].records;
    let numbers: Vec<_> = stored.iter().map(|record| record.data[0]).collect();
    assert_eq!(numbers, (0..10).collect::<Vec<u8>>());
    assert!(stored.iter().all(|record| record.data.len() == 900 << 10));

    let tables = aws_sdk_dynamodb::Client::new(&config).list_tables().send();
    assert_eq!(tables.await.unwrap().table_names(), [] as [String; 0]);
}

#[tokio::test]
async fn a_client_that_does_not_trust_the_certificate_is_not_served() {
    let (aws, other) = (start().await, start().await);
    let client = Client::new(&over_tls(&aws, trusting(&other)));
    let error = client.list_streams().send().await.unwrap_err();
    assert!(matches!(error, SdkError::DispatchFailure(_)), "{error:?}");
    assert_eq!(aws.calls("ListStreams"), 0);
}

#[tokio::test]
async fn tls_is_served_only_if_asked_for() {
    let aws = LocalAws::start().await.unwrap();
    assert_eq!(aws.tls_url(), None);
    assert_eq!(aws.certificate_pem(), None);
}

#[tokio::test]
async fn a_response_lost_over_tls_was_written() {
    let aws = start().await;
    aws.faults().add(Fault::response_lost().times(1));
    let client = Client::new(&over_tls(&aws, trusting(&aws)));
    let put = client.put_record().stream_name(STREAM).partition_key("key");
    let error = put.data(Blob::new("lost")).send().await.unwrap_err();
    assert!(matches!(error, SdkError::DispatchFailure(_)), "{error:?}");
    assert_eq!(aws.records(STREAM)[0].records.len(), 1);
}

fn list_streams() -> Request<Full<Bytes>> {
    request("ListStreams", &serde_json::json!({}))
}

fn request(operation: &str, body: &serde_json::Value) -> Request<Full<Bytes>> {
    Request::post("http://127.0.0.1/")
        .header("x-amz-target", format!("Kinesis_20131202.{operation}"))
        .body(Full::new(body.to_string().into()))
        .unwrap()
}

async fn assert_lists_streams(response: Response<Incoming>, version: Version) {
    assert_eq!(response.version(), version);
    assert_eq!(response.status(), StatusCode::OK);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["StreamNames"], serde_json::json!([STREAM]));
}

/// Two requests one after the other on one connection.
async fn speak_http1<S>(stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..2 {
        let response = sender.send_request(list_streams()).await.unwrap();
        assert_lists_streams(response, Version::HTTP_11).await;
    }
    drop(sender);
    connection.await.unwrap().unwrap();
}

/// Two requests at the same time on one connection.
async fn speak_http2<S>(stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let (one, two) = (sender.send_request(list_streams()), sender.send_request(list_streams()));
    let (one, two) = tokio::join!(one, two);
    assert_lists_streams(one.unwrap(), Version::HTTP_2).await;
    assert_lists_streams(two.unwrap(), Version::HTTP_2).await;
    drop(sender);
    connection.await.unwrap().unwrap();
}

async fn connect(url: &str) -> TcpStream {
    let (_, address) = url.split_once("://").unwrap();
    TcpStream::connect(address).await.unwrap()
}

/// A TLS connection of a client that speaks these protocols.
async fn handshake(aws: &LocalAws, protocols: &[&str]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    let pem = aws.certificate_pem().unwrap();
    let trusted = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    roots.add(trusted).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("localhost").unwrap();
    let socket = connect(aws.tls_url().unwrap()).await;
    connector.connect(name, socket).await.unwrap()
}

#[tokio::test]
async fn plain_ports_answer_http1_and_http2_with_prior_knowledge() {
    let aws = start().await;
    for url in [aws.kinesis_url(), aws.dynamodb_url()] {
        speak_http1(connect(url).await).await;
        speak_http2(connect(url).await).await;
    }
    assert_eq!(aws.calls("ListStreams"), 8);
}

#[tokio::test]
async fn the_tls_port_negotiates_http1_and_http2() {
    let aws = start().await;
    let stream = handshake(&aws, &["http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    speak_http1(stream).await;

    let stream = handshake(&aws, &["http/1.1", "h2"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    speak_http2(stream).await;

    // A client without ALPN speaks what it likes, as in the clear.
    let stream = handshake(&aws, &[]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), None);
    speak_http1(stream).await;
}

/// Waits until the connection has ended, well or not; the time is for a failure not to hang.
async fn ended<T>(connection: JoinHandle<T>) {
    let ended = tokio::time::timeout(Duration::from_secs(60), connection).await;
    drop(ended.expect("the connection is still open").unwrap());
}

#[tokio::test]
async fn a_cut_closes_a_whole_connection_of_http2() {
    let aws = start().await;
    let socket = connect(aws.kinesis_url()).await;
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(socket));
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let response = sender.send_request(list_streams()).await.unwrap();
    assert_lists_streams(response, Version::HTTP_2).await;

    aws.faults().add(Fault::cut_connection().times(1));
    sender.send_request(list_streams()).await.unwrap_err();
    ended(connection).await;
    assert!(sender.is_closed());
}

#[tokio::test]
async fn a_cut_in_the_middle_of_a_subscription_closes_its_connection_of_http2() {
    let aws = start().await;
    let client = aws.kinesis();
    let stream = client.describe_stream_summary().stream_name(STREAM);
    let stream = stream.send().await.unwrap().stream_description_summary;
    let consumer = client.register_stream_consumer().consumer_name("billing");
    let consumer = consumer.stream_arn(stream.unwrap().stream_arn);
    let consumer = consumer.send().await.unwrap().consumer.unwrap();

    let socket = connect(aws.kinesis_url()).await;
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(socket));
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let fault = Fault::cut_connection().operation("SubscribeToShardEvent");
    aws.faults().add(fault);
    let subscribe = serde_json::json!({
        "ConsumerARN": consumer.consumer_arn,
        "ShardId": "shardId-000000000000",
        "StartingPosition": {"Type": "TRIM_HORIZON"},
    });
    let response = sender.send_request(request("SubscribeToShard", &subscribe));
    let response = response.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let put = client.put_record().stream_name(STREAM).partition_key("key");
    put.data(Blob::new("never seen")).send().await.unwrap();
    response.into_body().collect().await.unwrap_err();
    ended(connection).await;
    assert!(sender.is_closed());
}

#[tokio::test]
async fn clients_are_told_how_many_requests_a_connection_carries() {
    let aws = LocalAws::builder().max_concurrent_streams(4).build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    let socket = connect(aws.kinesis_url()).await;
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(socket));
    let (mut sender, mut connection) = handshake.await.unwrap();
    let response = tokio::select! {
        response = sender.send_request(list_streams()) => response.unwrap(),
        ended = &mut connection => panic!("{ended:?}"),
    };
    assert_eq!(connection.current_max_send_streams(), 4);
    assert_eq!(aws.connections(), 1);
    let connection = tokio::spawn(connection);
    assert_lists_streams(response, Version::HTTP_2).await;
    drop(sender);
    ended(connection).await;
    let closed = async {
        while aws.connections() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), closed).await.unwrap();
}
