//! The in-process connector: under paused tokio time calls take no time, and time goes on only
//! where a test waits.

#![allow(clippy::unwrap_used, reason = "helpers of tests: a panic is a failure")]

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ScalarAttributeType,
};
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::error::SdkError;
use aws_sdk_kinesis::operation::put_record::{PutRecordError, PutRecordOutput};
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::ShardIteratorType;
use aws_sdk_kinesis::{Client, config::Builder};
use kinesis_testkit::{Clock, Fault, LocalAws, TokioClock};
use tokio::time::{Instant, advance, sleep};

const STREAM: &str = "orders";
const SHARD: &str = "shardId-000000000000";
const HOUR: Duration = Duration::from_secs(3600);
const TIMEOUT: Duration = Duration::from_secs(1);

/// A stream of one shard on this runtime's time, and a client with every timeout that the SDK has.
async fn start(retry: RetryConfig) -> (LocalAws, Client) {
    let builder = LocalAws::builder().clock(TokioClock::current());
    let aws = builder.build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(TIMEOUT)
        .read_timeout(2 * TIMEOUT)
        .operation_attempt_timeout(TIMEOUT)
        .operation_timeout(10 * TIMEOUT)
        .build();
    let config = Builder::from(&aws.in_process_config())
        .retry_config(retry)
        .timeout_config(timeouts)
        .build();
    (aws, Client::from_conf(config))
}

#[allow(clippy::disallowed_methods, reason = "what tokio's time does is the subject")]
fn now() -> Instant {
    Instant::now()
}

async fn put(client: &Client, data: &str) -> Result<PutRecordOutput, SdkError<PutRecordError>> {
    let put = client.put_record().stream_name(STREAM).partition_key("key");
    put.data(Blob::new(data)).send().await
}

async fn read_all(client: &Client) -> Vec<String> {
    let start = client.get_shard_iterator().stream_name(STREAM);
    let start = start.shard_id(SHARD).shard_iterator_type(ShardIteratorType::TrimHorizon);
    let start = start.send().await.unwrap().shard_iterator;
    let read = client.get_records().set_shard_iterator(start).send().await;
    let text = |data: &Blob| String::from_utf8(data.as_ref().to_vec()).unwrap();
    let read = read.unwrap();
    read.records().iter().map(|record| text(record.data())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_day_of_retention_passes_and_no_timeout_fires() {
    let (aws, client) = start(RetryConfig::disabled()).await;
    let begin = now();
    for hour in 0..30 {
        put(&client, &hour.to_string()).await.unwrap();
        // Retention is 24 hours: the record of the hour 24 hours ago is the oldest to be seen.
        let oldest = (hour - 24).max(0);
        let expected: Vec<_> = (oldest..=hour).map(|hour| hour.to_string()).collect();
        assert_eq!(read_all(&client).await, expected);
        sleep(HOUR).await;
    }
    assert_eq!(now() - begin, 30 * HOUR, "only the test's own waits took time");
    assert_eq!(aws.calls("PutRecord"), 30, "no attempt was made twice");
    let last = aws.records(STREAM)[0].records.last().unwrap().arrival;
    let first_of_2026 = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    assert_eq!(last.duration_since(first_of_2026).unwrap(), 29 * HOUR);
}

#[tokio::test(start_paused = true)]
async fn calls_of_many_tasks_take_no_time() {
    let (aws, client) = start(RetryConfig::disabled()).await;
    let begin = now();
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let client = client.clone();
            tokio::spawn(async move {
                for nth in 0..50 {
                    put(&client, &format!("{task}/{nth}")).await.unwrap();
                    read_all(&client).await;
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(now(), begin);
    assert_eq!(aws.records(STREAM)[0].records.len(), 400);
}

#[tokio::test(start_paused = true)]
async fn dynamodb_answers_in_no_time_too() {
    let (aws, _) = start(RetryConfig::disabled()).await;
    let client = aws_sdk_dynamodb::Client::new(&aws.in_process_config());
    let begin = now();
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash);
    let attribute =
        AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S);
    let table = client.create_table().table_name("leases").key_schema(key.build().unwrap());
    let table = table.attribute_definitions(attribute.build().unwrap());
    table.billing_mode(BillingMode::PayPerRequest).send().await.unwrap();
    let item = HashMap::from([("id".to_owned(), AttributeValue::S("one".to_owned()))]);
    let put = client.put_item().table_name("leases");
    put.set_item(Some(item.clone())).send().await.unwrap();
    let got = client.get_item().table_name("leases").set_key(Some(item.clone()));
    assert_eq!(got.send().await.unwrap().item, Some(item));
    assert_eq!(now(), begin);
}

#[tokio::test(start_paused = true)]
async fn a_delay_takes_its_time_and_a_timeout_fires_on_time() {
    let (aws, client) = start(RetryConfig::disabled()).await;
    let put_after = |delay| {
        aws.faults().add(Fault::delay(delay).times(1));
        put(&client, "late")
    };
    let begin = now();
    put_after(Duration::from_millis(300)).await.unwrap();
    assert_eq!(now() - begin, Duration::from_millis(300));

    let begin = now();
    let error = put_after(Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(error, SdkError::TimeoutError(_)), "{error:?}");
    assert_eq!(now() - begin, TIMEOUT);
    advance(HOUR).await;
    assert_eq!(aws.records(STREAM)[0].records.len(), 1, "the caller went away before the write");
}

#[tokio::test(start_paused = true)]
async fn the_read_timeout_fires_without_the_others() {
    let (aws, _) = start(RetryConfig::disabled()).await;
    let timeouts = TimeoutConfig::builder().read_timeout(TIMEOUT).build();
    let config = Builder::from(&aws.in_process_config())
        .retry_config(RetryConfig::disabled())
        .timeout_config(timeouts)
        .build();
    aws.faults().add(Fault::delay(HOUR).times(1));
    let begin = now();
    let error = put(&Client::from_conf(config), "late").await.unwrap_err();
    assert!(
        matches!(&error, SdkError::DispatchFailure(failure) if failure.is_timeout()),
        "{error:?}"
    );
    assert_eq!(now() - begin, TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_cut_is_an_io_error_and_a_lost_response_was_written() {
    let (aws, client) = start(RetryConfig::disabled()).await;
    let is_io = |error: &SdkError<PutRecordError>| matches!(error, SdkError::DispatchFailure(failure) if failure.is_io());
    aws.faults().add(Fault::cut_connection().times(1));
    let error = put(&client, "cut").await.unwrap_err();
    assert!(is_io(&error), "{error:?}");
    assert!(aws.records(STREAM)[0].records.is_empty());

    aws.faults().add(Fault::response_lost().times(1));
    let error = put(&client, "lost").await.unwrap_err();
    assert!(is_io(&error), "{error:?}");
    assert_eq!(read_all(&client).await, ["lost"]);
}

#[tokio::test(start_paused = true)]
async fn the_sdk_retries_as_over_a_socket() {
    let (aws, client) = start(RetryConfig::standard()).await;
    aws.faults().add(Fault::cut_connection().times(1));
    aws.faults().add(Fault::throttle().times(1));
    put(&client, "at last").await.unwrap();
    assert_eq!(aws.calls("PutRecord"), 3);
    assert_eq!(read_all(&client).await, ["at last"]);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_calls_in_a_loop_starves_no_other() {
    let (aws, client) = start(RetryConfig::disabled()).await;
    let other = tokio::spawn(async {});
    // Ends only if the other task gets its turn.
    while !other.is_finished() {
        put(&client, "again").await.unwrap();
        assert!(aws.calls("PutRecord") < 100, "the other task was starved");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_outlives_its_services_with_an_error() {
    let (aws, client) = start(RetryConfig::disabled()).await;
    drop(aws);
    let error = put(&client, "too late").await.unwrap_err();
    assert!(matches!(&error, SdkError::DispatchFailure(failure) if failure.is_io()), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn tokio_time_is_one_on_every_thread() {
    let clock = TokioClock::current();
    let begin = clock.now();
    sleep(24 * HOUR).await;
    assert_eq!(clock.now().duration_since(begin).unwrap(), 24 * HOUR);
    let elsewhere = clock.clone();
    let seen = std::thread::spawn(move || elsewhere.now()).join().unwrap();
    assert_eq!(seen, clock.now());
}
