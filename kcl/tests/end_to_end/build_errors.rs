//! Errors of `build`. Each is typed, comes in time, and says what to do.

use std::time::{Duration, Instant};

use aws_sdk_kinesis::config::{BehaviorVersion, Credentials, Region};
use aws_types::SdkConfig;
use kcl::{BuildError, CheckpointPolicy, ConsumerConfig, Scheduler, StartError, TableConfig};

use crate::probe::Probe;
use crate::setup::{APPLICATION, aws, config};

async fn build(
    application: &str,
    stream: &str,
    sdk_config: &SdkConfig,
    config: ConsumerConfig,
) -> BuildError {
    Scheduler::builder(application, stream, sdk_config)
        .processor(Probe::new().factory())
        .config(config)
        .build()
        .await
        .map(|_| ())
        .unwrap_err()
}

#[tokio::test]
async fn settings_all_problems_at_once() {
    let aws = aws(1).await;
    let settings = config("")
        .with_max_records(0)
        .with_checkpoint(CheckpointPolicy::Interval(Duration::ZERO))
        .with_max_buffered_bytes(1);
    let error = build("no table!", "", &aws.sdk_config(), settings).await;
    let BuildError::Config(problems) = error else {
        panic!("{error:?}");
    };
    for name in
        ["worker_id", "max_records", "checkpoint", "max_buffered_bytes", "application", "stream"]
    {
        assert!(problems.problems().iter().any(|p| p.starts_with(name)), "{name}: {problems}");
    }
    assert_eq!(problems.problems().len(), 6);
    assert_eq!(aws.calls("CreateTable") + aws.calls("DescribeStreamSummary"), 0);
}

#[tokio::test]
async fn names_that_no_call_can_use() {
    let aws = aws(1).await;
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
    let consumer = format!("{arn}/consumer/billing:1525898737");
    let own_table = |name: &str| config("w").with_table(TableConfig::default().with_name(name));
    for (application, stream, settings, said) in [
        ("billing", "orders\n", config("w"), vec!["stream is \"orders\\n\""]),
        ("billing", &*consumer, config("w"), vec!["registered consumer", arn]),
        (
            "billing",
            "arn:aws:kinesis:eu-west-1:000000000000:stream/orders",
            config("w"),
            vec!["eu-west-1", "us-east-1"],
        ),
        ("a/b", "orders", own_table("leases"), vec!["application is \"a/b\""]),
        (&*"a".repeat(246), "orders", own_table("leases"), vec!["1 to 237"]),
        ("a/b", "", own_table("no"), vec!["application is", "stream is", "table.name is"]),
    ] {
        let error = build(application, stream, &aws.sdk_config(), settings).await;
        assert!(matches!(error, BuildError::Config(_)), "{error:?}");
        for said in said {
            assert!(error.to_string().contains(said), "{said}: {error}");
        }
    }
    for operation in ["DescribeStreamSummary", "DescribeTable", "CreateTable"] {
        assert_eq!(aws.calls(operation), 0, "{operation}");
    }
}

#[tokio::test]
async fn no_processor() {
    let aws = aws(1).await;
    let error = Scheduler::builder(APPLICATION, "orders", &aws.sdk_config()).build().await;
    assert!(matches!(error.unwrap_err(), BuildError::NoProcessor));
}

#[tokio::test]
async fn a_stream_that_does_not_exist() {
    let aws = aws(1).await;
    let error = build(APPLICATION, "nowhere", &aws.sdk_config(), config("w")).await;
    let BuildError::Start(StartError::StreamNotFound { stream }) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(stream, "nowhere");
    assert!(error.to_string().contains("create it"), "{error}");
    assert_eq!(aws.calls("CreateTable"), 0, "nothing is left behind");
}

#[tokio::test]
async fn no_credentials() {
    let aws = aws(1).await;
    let settings = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .endpoint_url(aws.kinesis_url());
    let error = build(APPLICATION, "orders", &settings.build(), config("w")).await;
    assert!(matches!(error, BuildError::Start(StartError::NoCredentials { .. })), "{error:?}");
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer() {
    // It takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let settings = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .credentials_provider(aws_sdk_kinesis::config::SharedCredentialsProvider::new(
            Credentials::new("key", "secret", None, None, "test"),
        ))
        .endpoint_url(url);
    let config = config("w")
        .with_kinesis_request_timeout(Duration::from_millis(100))
        .with_startup_timeout(Duration::from_millis(500));
    #[allow(clippy::disallowed_methods, reason = "the time limit is what is tested")]
    let started = Instant::now();
    let error = build(APPLICATION, "orders", &settings.build(), config).await;
    assert!(matches!(error, BuildError::Start(StartError::NoAnswer { .. })), "{error:?}");
    // A hundred times the attempt timeout.
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}
