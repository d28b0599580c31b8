//! What the SDK does around the HTTP client.

use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use http_body_util::StreamBody;
use kinesis_testkit::TokioClock;

use super::*;

#[tokio::test]
async fn the_http_client_of_the_application_is_used_if_it_has_set_one() {
    let service = Service::start(1).await;
    let client = client_for_subscriptions(&service.without_socket, PATIENCE);
    let mut subscription = service.subscribe(&client, 0).await;
    service.put(0, b"one".to_vec()).await;
    assert_eq!(next(&mut subscription).await, [Blob::new("one")]);
    assert_eq!(service.aws.connections(), 0);
}

#[tokio::test]
async fn without_an_http_client_of_the_application_this_one_is_used() {
    let service = Service::start(2).await;
    let client = client_for_subscriptions(&service.aws.kinesis(), PATIENCE);
    let http = client.config().http_client().unwrap();
    assert!(format!("{http:?}").contains("SubscriptionHttpClient"), "{http:?}");
    let mut subscriptions = service.subscribe_to_all(&client, 2).await;
    service.put(1, b"one".to_vec()).await;
    assert_eq!(next(&mut subscriptions[1]).await, [Blob::new("one")]);
}

#[tokio::test(start_paused = true)]
async fn the_time_limits_of_the_sdk_do_not_cut_a_running_subscription() {
    let aws = LocalAws::builder().clock(TokioClock::current()).build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    let limit = Duration::from_secs(1);
    let limits = TimeoutConfig::builder()
        .read_timeout(limit)
        .operation_attempt_timeout(limit)
        .operation_timeout(limit);
    let config = aws.in_process_config().to_builder().timeout_config(limits.build()).build();
    let client = Client::new(&config);
    let register = client.register_stream_consumer().stream_arn(STREAM_ARN);
    let registered = register.consumer_name(CONSUMER).send().await.unwrap();
    let start = StartingPosition::builder().r#type(ShardIteratorType::Latest).build().unwrap();
    let subscribe = client.subscribe_to_shard().starting_position(start);
    let subscribe = subscribe.consumer_arn(registered.consumer.unwrap().consumer_arn);
    let mut subscription = subscribe.shard_id(shard_id(0)).send().await.unwrap();
    let mut events = 0;
    while let Some(_event) = subscription.event_stream.recv().await.unwrap() {
        events += 1;
    }
    // One every five seconds, until the service ends the subscription after five minutes.
    assert!(events > 50, "{events}");
}

/// Answers with headers, and never with a body.
#[derive(Debug, Clone)]
struct HeadersOnly;

impl HttpConnector for HeadersOnly {
    fn call(&self, _: HttpRequest) -> HttpConnectorFuture {
        let body = StreamBody::new(futures::stream::pending::<
            Result<hyper::body::Frame<bytes::Bytes>, std::io::Error>,
        >());
        let response = hyper::http::Response::new(SdkBody::from_body_1_x(body));
        HttpConnectorFuture::ready(Ok(HttpResponse::try_from(response).unwrap()))
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_limits_of_the_sdk_do_not_bound_the_wait_for_the_first_event() {
    let limit = Duration::from_secs(1);
    let limits = TimeoutConfig::builder()
        .read_timeout(limit)
        .operation_attempt_timeout(limit)
        .operation_timeout(limit);
    let http = http_client_fn(|_, _| SharedHttpConnector::new(HeadersOnly));
    let aws = LocalAws::start().await.unwrap();
    let config = aws.sdk_config().to_builder().timeout_config(limits.build()).http_client(http);
    let start = StartingPosition::builder().r#type(ShardIteratorType::Latest).build().unwrap();
    let subscribe = Client::new(&config.build()).subscribe_to_shard().starting_position(start);
    let subscribe = subscribe.consumer_arn("arn").shard_id(shard_id(0)).send();
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, subscribe).await.is_err(), "the SDK bounds it now");
}
