//! The text of each error of a start: one sentence with the cause and what to do.

use std::error::Error as _;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region, SharedCredentialsProvider};
use aws_types::SdkConfig;
use kcl::{BuildError, ConsumerConfig, Scheduler};
use kinesis_testkit::{LocalAws, Service};

use crate::probe::Probe;
use crate::setup::{APPLICATION, STREAM, aws, config};

async fn refused(sdk_config: &SdkConfig, config: ConsumerConfig) -> BuildError {
    let builder = Scheduler::builder(APPLICATION, STREAM, sdk_config);
    let builder = builder.processor(Probe::new().factory()).config(config);
    builder.build().await.map(drop).unwrap_err()
}

/// The text of the whole chain, as loggers print it. No part repeats another.
fn text(error: &BuildError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        assert!(!text.contains(&part), "{part:?} is repeated in {text:?}");
        text = format!("{text}: {part}");
        cause = error.source();
    }
    text
}

fn quick() -> ConsumerConfig {
    config("w").with_startup_timeout(Duration::from_millis(300))
}

fn key(id: &str) -> SharedCredentialsProvider {
    SharedCredentialsProvider::new(Credentials::new(id, "secret", None, None, "test"))
}

fn unset() -> aws_types::sdk_config::Builder {
    SdkConfig::builder().behavior_version(BehaviorVersion::v2026_01_12())
}

#[tokio::test]
async fn no_region() {
    let sdk_config = unset().credentials_provider(key("key")).build();
    assert_eq!(
        text(&refused(&sdk_config, quick()).await),
        "no AWS region is set for Kinesis: set AWS_REGION, a region in the profile, or one in the SdkConfig"
    );
    let aws = aws(1).await;
    let builder = Scheduler::builder(APPLICATION, STREAM, &aws.sdk_config())
        .dynamodb_config(&sdk_config)
        .processor(Probe::new().factory());
    let error = builder.build().await.map(drop).unwrap_err();
    assert!(text(&error).starts_with("no AWS region is set for DynamoDB: "), "{error}");
}

/// A source of credentials that has none, or that fails for a while.
#[derive(Debug)]
struct Provider(fn() -> CredentialsError);

impl ProvideCredentials for Provider {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err((self.0)()))
    }
}

#[tokio::test]
async fn no_credentials() {
    let aws = aws(1).await;
    let without = unset().region(Region::new("us-east-1"));
    let without = without.endpoint_url(aws.kinesis_url()).build();
    let empty = Provider(|| CredentialsError::not_loaded("none here"));
    let mut with_empty = without.clone().into_builder();
    with_empty.set_credentials_provider(Some(SharedCredentialsProvider::new(empty)));
    for sdk_config in [without, with_empty.build()] {
        let text = text(&refused(&sdk_config, quick()).await);
        assert!(
            text.starts_with("no AWS credentials were found for Kinesis (")
                && text.ends_with(
                    "): configure a role, a profile or the environment, and load the SdkConfig with aws_config"
                ),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_source_of_credentials_that_fails_is_asked_again() {
    let aws = aws(1).await;
    let failing = Provider(|| CredentialsError::provider_error("the metadata service is away"));
    let sdk_config = aws.sdk_config().into_builder();
    let sdk_config = sdk_config.credentials_provider(SharedCredentialsProvider::new(failing));
    let text = text(&refused(&sdk_config.build(), quick()).await);
    assert!(
        text.starts_with("Kinesis did not answer DescribeStreamSummary in ")
            && text.contains("the metadata service is away"),
        "{text}"
    );
}

#[tokio::test]
async fn refused_credentials() {
    let aws = LocalAws::builder().credentials("key", "secret").build();
    let aws = aws.await.unwrap();
    let sdk_config = aws.sdk_config().into_builder();
    let sdk_config = sdk_config.credentials_provider(key("another")).build();
    assert_eq!(
        text(&refused(&sdk_config, quick()).await),
        "AWS refused the credentials for Kinesis (UnrecognizedClientException: The security token included \
         in the request is invalid.): check that they are current and belong to the right account"
    );
}

#[tokio::test]
async fn no_permission() {
    for (service, operation, action, resource) in [
        (
            Service::Kinesis,
            "DescribeStreamSummary",
            "kinesis:DescribeStreamSummary",
            "stream orders",
        ),
        (Service::Kinesis, "ListShards", "kinesis:ListShards", "stream orders"),
        (Service::DynamoDb, "DescribeTable", "dynamodb:DescribeTable", "table billing"),
        (Service::DynamoDb, "PutItem", "dynamodb:PutItem", "table billing"),
        (Service::DynamoDb, "Scan", "dynamodb:Scan", "table billing"),
    ] {
        let aws = LocalAws::builder().deny(service, operation).build();
        let aws = aws.await.unwrap();
        aws.create_stream(STREAM, 1).await.unwrap();
        let error = refused(&aws.sdk_config(), quick()).await;
        assert_eq!(
            text(&error),
            format!(
                "the worker may not call {action} on {resource} (AccessDeniedException: User: \
                 arn:aws:iam::000000000000:user/testkit is not authorized to perform: {action}): \
                 allow it in the policy of its role"
            )
        );
    }
}

#[tokio::test]
async fn a_refused_connection() {
    let aws = aws(1).await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let sdk_config = aws.sdk_config().into_builder().endpoint_url(url).build();
    let text = text(&refused(&sdk_config, quick()).await);
    assert!(
        text.starts_with("Kinesis did not answer DescribeStreamSummary in ")
            && text.contains("Connection refused")
            && text.ends_with(
                "): check the endpoint, the region and the network, or raise startup_timeout"
            ),
        "{text}"
    );
}
