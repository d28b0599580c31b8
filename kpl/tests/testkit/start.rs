//! What the start of a producer waits for, and the text of each error that ends it.

use std::error::Error as _;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use aws_types::SdkConfig;
use aws_types::region::Region;
use kinesis_testkit::{Fault, LocalAws, Service};
use kpl::{BuildError, Producer, ProducerConfig};

use crate::reader::{builder, stream, unhurried};

/// More than the client's own attempts.
const FAILURES: u64 = 5;

#[tokio::test]
async fn every_call_of_a_start_is_tried_again_while_its_failure_may_pass() {
    for (operation, codes) in [
        ("DescribeStreamSummary", &["LimitExceededException", "InternalFailure"][..]),
        ("ListShards", &["LimitExceededException", "ExpiredNextTokenException"]),
    ] {
        for code in codes {
            let aws = stream(2).await;
            let fault = Fault::refuse(*code).operation(operation).times(FAILURES);
            let fault = aws.faults().add(fault);
            if let Err(error) = builder(&aws, unhurried()).build().await {
                panic!("{operation}: {code}: {error}");
            }
            assert_eq!(aws.faults().count(fault), FAILURES, "{operation}: {code}");
        }
    }
}

#[tokio::test]
async fn a_stream_that_is_being_created_is_waited_for_and_one_that_is_deleted_is_not() {
    let aws = LocalAws::builder().transition_time(Duration::from_millis(700));
    let aws = aws.build().await.unwrap();
    let create = aws.kinesis().create_stream().stream_name("s").shard_count(1);
    create.send().await.unwrap();
    let built = builder(&aws, unhurried()).build().await;
    built.unwrap();

    let aws = LocalAws::builder().transition_time(Duration::from_secs(60));
    let aws = aws.build().await.unwrap();
    aws.create_stream("s", 1).await.unwrap();
    let delete = aws.kinesis().delete_stream().stream_name("s");
    delete.send().await.unwrap();
    assert_eq!(
        refused(&aws.sdk_config()).await,
        "stream \"s\" is DELETING: create it again, or check the name"
    );
}

#[tokio::test]
async fn the_service_may_come_up_after_the_producer() {
    // A port that was free a moment ago.
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let aws = stream(1).await;
    let url = format!("http://127.0.0.1:{port}");
    let sdk_config = aws.sdk_config().into_builder().endpoint_url(url).build();
    let build = Producer::builder("s", &sdk_config).config(unhurried()).build();
    let mut build = Box::pin(build);
    // It has begun, and found nothing.
    let early = tokio::time::timeout(Duration::from_millis(300), &mut build).await;
    assert!(early.is_err());
    let late = LocalAws::builder().kinesis_port(port).build().await.unwrap();
    late.create_stream("s", 1).await.unwrap();
    build.await.unwrap();
}

/// The text of the whole chain, as loggers print it.
async fn refused(sdk_config: &SdkConfig) -> String {
    let config = ProducerConfig { startup_timeout: Duration::from_millis(300), ..unhurried() };
    let build = Producer::builder("s", sdk_config).config(config).build();
    let error: BuildError = build.await.map(drop).unwrap_err();
    assert!(error.source().is_none(), "its text is in {error}");
    error.to_string()
}

fn key(id: &str) -> SharedCredentialsProvider {
    SharedCredentialsProvider::new(Credentials::new(id, "secret", None, None, "test"))
}

/// A source of credentials that fails for a while.
#[derive(Debug)]
struct Away;

impl ProvideCredentials for Away {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        let away = CredentialsError::provider_error("the metadata service is away");
        future::ProvideCredentials::ready(Err(away))
    }
}

#[tokio::test]
async fn each_error_is_one_sentence_with_its_cause_and_what_to_do() {
    let no_region = SdkConfig::builder().credentials_provider(key("key")).build();
    assert_eq!(
        refused(&no_region).await,
        "no AWS region is set: set AWS_REGION, a region in the profile, or one in the `SdkConfig`"
    );

    let aws = LocalAws::builder().credentials("key", "secret").build();
    let aws = aws.await.unwrap();
    let without = SdkConfig::builder().region(Region::from_static("us-east-1"));
    let text = refused(&without.endpoint_url(aws.kinesis_url()).build()).await;
    assert!(
        text.starts_with("no AWS credentials were found (")
            && text.ends_with(
                "): configure a role, a profile or the environment, and load the `SdkConfig` with `aws_config`"
            ),
        "{text}"
    );

    let another = aws.sdk_config().into_builder().credentials_provider(key("another"));
    assert_eq!(
        refused(&another.build()).await,
        "AWS refused the credentials (UnrecognizedClientException: The security token included in the \
         request is invalid.): check that they are current and belong to the right account"
    );

    let away = SharedCredentialsProvider::new(Away);
    let away = aws.sdk_config().into_builder().credentials_provider(away);
    let text = refused(&away.build()).await;
    assert!(
        text.starts_with("Kinesis did not answer DescribeStreamSummary in ")
            && text.contains("the metadata service is away"),
        "{text}"
    );

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    let text = refused(&aws.sdk_config().into_builder().endpoint_url(url).build()).await;
    assert!(
        text.starts_with("Kinesis did not answer DescribeStreamSummary in ")
            && text.contains("Connection refused")
            && text.ends_with(
                "): check the endpoint, the region and the network, or raise `startup_timeout`"
            ),
        "{text}"
    );
}

#[tokio::test]
async fn the_call_that_failed_is_named() {
    let aws = stream(1).await;
    let throttle = Fault::refuse("LimitExceededException").service(Service::Kinesis);
    aws.faults().add(throttle.operation("ListShards"));
    let text = refused(&aws.sdk_config()).await;
    assert!(
        text.starts_with("the start was given up at ListShards of Kinesis, after ")
            && text.contains("(LimitExceededException: ")
            && text.ends_with("): start again, or raise `startup_timeout`"),
        "{text}"
    );
}
