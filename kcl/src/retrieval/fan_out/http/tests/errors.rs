//! The class of a failure, as the SDK sees it.

use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::SdkError;
use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardError;
use kinesis_testkit::Fault;
use tokio::net::TcpListener;

use super::*;

async fn refused(
    service: &Service,
    url: &str,
    timeout: Duration,
) -> SdkError<SubscribeToShardError, HttpResponse> {
    let client = service.client_at(url, Settings::default());
    let client = client_for_subscriptions(&client, timeout);
    let start = StartingPosition::builder().r#type(ShardIteratorType::Latest).build().unwrap();
    let subscribe = client.subscribe_to_shard().consumer_arn(&service.consumer);
    subscribe.shard_id(shard_id(0)).starting_position(start).send().await.unwrap_err()
}

#[tokio::test]
async fn a_port_that_nothing_listens_to_is_an_io_error() {
    let service = Service::start(1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for url in [format!("https://{address}"), format!("http://{address}")] {
        let error = refused(&service, &url, PATIENCE).await;
        assert!(
            matches!(&error, SdkError::DispatchFailure(failure) if failure.is_io()),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_an_io_error() {
    let (service, other) = (Service::start(1).await, Service::start(1).await);
    let error = refused(&service, other.aws.tls_url().unwrap(), PATIENCE).await;
    assert!(matches!(&error, SdkError::DispatchFailure(failure) if failure.is_io()), "{error:?}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_the_handshake_is_a_timeout() {
    let service = Service::start(1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let error = refused(&service, &url, Duration::from_millis(50)).await;
    let is_timeout = matches!(&error, SdkError::DispatchFailure(failure) if failure.is_timeout());
    assert!(is_timeout, "{error:?}");
}

#[tokio::test]
async fn a_response_that_does_not_come_is_a_timeout() {
    let service = Service::start(1).await;
    service.aws.faults().add(Fault::delay(2 * PATIENCE).operation("SubscribeToShard"));
    for url in [service.aws.tls_url().unwrap(), service.aws.kinesis_url()] {
        let error = refused(&service, url, Duration::from_millis(500)).await;
        let is_timeout =
            matches!(&error, SdkError::DispatchFailure(failure) if failure.is_timeout());
        assert!(is_timeout, "{error:?}");
    }
}

#[tokio::test]
async fn a_refusal_of_the_service_is_an_error_of_the_service() {
    let service = Service::start(1).await;
    service.aws.faults().add(Fault::throttle().operation("SubscribeToShard"));
    let error = refused(&service, service.aws.tls_url().unwrap(), PATIENCE).await;
    let error = error.into_service_error();
    assert!(error.is_limit_exceeded_exception(), "{error:?}");
}
