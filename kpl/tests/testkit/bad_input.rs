//! Every bad input gives its typed error, within its time limit.

use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::SdkConfig;
use aws_types::region::Region;
use kinesis_testkit::Fault;
use kpl::{BuildError, InvalidRecord, Producer, ProducerConfig, SendError, UserRecord};

use crate::reader::{builder, stream, unhurried};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn bad_records_are_refused_with_limit_and_actual_value() {
    let aws = stream(1).await;
    let producer = builder(&aws, unhurried()).build().await.unwrap();
    for (key, actual) in [(String::new(), 0), ("k".repeat(257), 257)] {
        let record = UserRecord::new(key, "v");
        match producer.send(record.clone()).await.unwrap_err() {
            SendError::Invalid { record: back, reason } => {
                assert_eq!(*back, record);
                assert_eq!(reason, InvalidRecord::PartitionKeyLength { limit: 256, actual });
                assert!(reason.to_string().contains("1 to 256 characters"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    let too_large = UserRecord::new("k", vec![0; MIB]);
    for error in [
        producer.send(too_large.clone()).await.unwrap_err(),
        producer.try_send(too_large).unwrap_err(),
    ] {
        assert!(
            matches!(error, SendError::TooLarge { limit: MIB, actual, .. } if actual == MIB + 1),
            "{error}"
        );
        assert!(!error.is_retryable());
        assert_eq!(error.into_record().data().len(), MIB);
    }
    let record = UserRecord::new("k", "v");
    let wrong =
        record.with_explicit_hash_key_text("340282366920938463463374607431768211456").unwrap_err();
    assert!(matches!(&wrong, InvalidRecord::ExplicitHashKey { actual } if actual.ends_with("456")));
    assert!(wrong.to_string().contains("340282366920938463463374607431768211455"), "{wrong}");
    assert_eq!(producer.stats().user_records_accepted, 0);

    // The largest that fits, does.
    producer.send(UserRecord::new("k", vec![0; MIB - 1])).await.unwrap().await.unwrap();
}

#[tokio::test]
async fn names_that_no_call_can_use() {
    let aws = stream(1).await;
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/s";
    let consumer = format!("{arn}/consumer/billing:1525898737");
    for (stream, said) in [
        ("s\n", vec!["stream: is \"s\\n\"", "remove the white space"]),
        (&*consumer, vec!["registered consumer", arn]),
        ("arn:aws:kinesis:eu-west-1:000000000000:stream/s", vec!["eu-west-1", "us-east-1"]),
    ] {
        let wrong = ProducerConfig { rate_limit: 0, ..unhurried() };
        let builder = Producer::builder(stream, &aws.sdk_config()).config(wrong);
        let error = builder.build().await.unwrap_err();
        assert!(matches!(error, BuildError::InvalidConfig(_)), "{error:?}");
        for said in said.into_iter().chain(["rate_limit"]) {
            assert!(error.to_string().contains(said), "{said}: {error}");
        }
    }
    assert_eq!(aws.calls("DescribeStreamSummary"), 0);
}

#[tokio::test]
async fn a_stream_that_takes_larger_records_is_asked_for_its_limit() {
    let aws = stream(1).await;
    let arn = aws
        .kinesis()
        .describe_stream_summary()
        .stream_name("s")
        .send()
        .await
        .unwrap()
        .stream_description_summary
        .unwrap()
        .stream_arn;
    aws.kinesis()
        .update_max_record_size()
        .stream_arn(&arn)
        .max_record_size_in_kib(2048)
        .send()
        .await
        .unwrap();
    let producer =
        Producer::builder(&arn, &aws.sdk_config()).config(unhurried()).build().await.unwrap();
    producer.send(UserRecord::new("k", vec![0; 2 * MIB - 1])).await.unwrap().await.unwrap();
    let error = producer.send(UserRecord::new("k", vec![0; 2 * MIB])).await.unwrap_err();
    assert!(matches!(error, SendError::TooLarge { limit, .. } if limit == 2 * MIB), "{error}");
}

#[tokio::test]
async fn a_stream_that_does_not_exist_is_named() {
    let aws = stream(1).await;
    let error = Producer::builder("missing", &aws.sdk_config()).build().await.unwrap_err();
    assert!(
        matches!(&error, BuildError::StreamNotFound { stream, .. } if stream == "missing"),
        "{error:?}"
    );
    assert!(error.to_string().contains("does not exist: create it, or check the name"), "{error}");
    assert!(std::error::Error::source(&error).is_none() && !error.is_retryable());
}

#[tokio::test]
async fn missing_credentials_are_named() {
    let aws = stream(1).await;
    // No provider at all, and a provider that has none.
    let none = SdkConfig::builder()
        .region(Region::from_static("us-east-1"))
        .endpoint_url(aws.kinesis_url())
        .build();
    let mut empty = aws.sdk_config().into_builder();
    empty.set_credentials_provider(Some(SharedCredentialsProvider::new(NoProvider)));
    for config in [none, empty.build()] {
        let error = Producer::builder("s", &config).build().await.unwrap_err();
        assert!(matches!(error, BuildError::NoCredentials { .. }), "{error:?}");
        assert!(error.to_string().contains("configure a role"), "{error}");
    }
}

#[derive(Debug)]
struct NoProvider;

impl aws_credential_types::provider::ProvideCredentials for NoProvider {
    fn provide_credentials<'a>(
        &'a self,
    ) -> aws_credential_types::provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        use aws_credential_types::provider::error::CredentialsError;
        aws_credential_types::provider::future::ProvideCredentials::ready(Err::<Credentials, _>(
            CredentialsError::not_loaded("none here"),
        ))
    }
}

#[tokio::test]
async fn refused_credentials_are_told_from_a_missing_permission() {
    // The second is waited for while the producer runs; on start it is told.
    for refused in ["UnrecognizedClientException", "ExpiredTokenException"] {
        let aws = stream(1).await;
        aws.faults().add(Fault::refuse(refused).operation("DescribeStreamSummary"));
        let error = builder(&aws, unhurried()).build().await.unwrap_err();
        assert!(
            matches!(&error, BuildError::CredentialsRefused { code, .. } if code == refused),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_told_within_the_limit() {
    let aws = stream(1).await;
    // Accepts connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_url = format!("http://{}", silent.local_addr().unwrap());
    // Accepts nothing.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = ProducerConfig {
        request_timeout: Duration::from_millis(100),
        startup_timeout: Duration::from_millis(500),
        ..unhurried()
    };
    for url in [silent_url, format!("http://{closed}")] {
        let sdk_config = aws.sdk_config().into_builder().endpoint_url(&url).build();
        let build = Producer::builder("s", &sdk_config).config(config.clone()).build();
        let error = build.await.unwrap_err();
        assert!(matches!(error, BuildError::EndpointUnreachable { .. }), "{url}: {error:?}");
        assert!(error.is_retryable());
    }
}

#[tokio::test]
async fn a_bad_configuration_is_told_with_all_its_problems() {
    let aws = stream(1).await;
    let config = ProducerConfig { collection_max_count: 0, rate_limit: 0, ..unhurried() };
    let build = Producer::builder("not a stream", &aws.sdk_config()).config(config).build();
    let BuildError::InvalidConfig(problems) = build.await.unwrap_err() else {
        panic!("another error")
    };
    let fields: Vec<_> = problems.problems().map(|(field, _)| field).collect();
    assert_eq!(fields, ["rate_limit", "collection_max_count", "stream"]);
}

#[tokio::test]
async fn a_record_that_could_never_fit_the_buffer_does_not_wait_for_it() {
    let aws = stream(1).await;
    let config = ProducerConfig { max_buffered_bytes: 64 * 1024, ..unhurried() };
    let producer = builder(&aws, config).build().await.unwrap();
    let error = producer.send(UserRecord::new("k", vec![0; 64 * 1024])).await.unwrap_err();
    assert!(matches!(error, SendError::TooLarge { limit, .. } if limit < 64 * 1024), "{error}");
}
