//! Scripted faults, in front of both services.

use std::time::{Duration, Instant};

use aws_sdk_dynamodb::config::retry::RetryConfig as DynamoRetryConfig;
use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, PutRequest, WriteRequest};
use kinesis_testkit::{Fault, FaultKind, ManualClock, Service};

use super::dynamodb::{TABLE, create_table, item};
use super::*;

async fn put_one(client: &Client) -> Result<(), String> {
    let put = client.put_record().stream_name(STREAM).partition_key("k").data(Blob::new("x"));
    match put.send().await {
        Ok(_) => Ok(()),
        Err(error) => Err(error.code().map_or_else(
            || if matches!(error, SdkError::DispatchFailure(_)) { "cut" } else { "?" }.to_owned(),
            str::to_owned,
        )),
    }
}

fn held(aws: &LocalAws) -> usize {
    aws.records(STREAM).iter().map(|shard| shard.records.len()).sum()
}

#[tokio::test]
async fn a_request_is_throttled_failed_or_refused_and_nothing_is_done() {
    let (aws, client) = with_stream(1).await;
    aws.faults().add(Fault::throttle().operation("PutRecord").times(1));
    assert_eq!(put_one(&client).await.unwrap_err(), "ProvisionedThroughputExceededException");
    aws.faults().add(Fault::internal_failure().operation("PutRecord").times(1));
    let put = client.put_record().stream_name(STREAM).partition_key("k").data(Blob::new("x"));
    let failed = put.send().await.unwrap_err();
    assert_eq!(failed.raw_response().unwrap().status().as_u16(), 500);
    assert_eq!(failed.code(), Some("InternalFailure"));
    aws.faults().add(Fault::refuse("AccessDeniedException").operation("PutRecord").times(1));
    assert_eq!(put_one(&client).await.unwrap_err(), "AccessDeniedException");
    aws.faults().add(Fault::throttle().operation("SplitShard"));
    let split = client.split_shard().stream_name(STREAM).shard_to_split(SHARD_0);
    let split = split.new_starting_hash_key("7").send().await;
    assert_eq!(code(split), "LimitExceededException");
    assert_eq!(held(&aws), 0);
    put_one(&client).await.unwrap();
    assert_eq!(aws.calls("PutRecord"), 4);
}

#[tokio::test]
async fn a_cut_connection_does_nothing_and_a_lost_response_comes_after_the_write() {
    let (aws, client) = with_stream(1).await;
    let cut = aws.faults().add(Fault::cut_connection().operation("PutRecord").times(1));
    assert_eq!(put_one(&client).await.unwrap_err(), "cut");
    assert_eq!((held(&aws), aws.faults().count(cut)), (0, 1));
    let lost = aws.faults().add(Fault::response_lost().operation("PutRecord").times(1));
    assert_eq!(put_one(&client).await.unwrap_err(), "cut");
    assert_eq!((held(&aws), aws.faults().count(lost)), (1, 1));
    put_one(&client).await.unwrap();
    assert_eq!(held(&aws), 2);

    let injected = aws.faults().injected();
    assert_eq!(injected.len(), 2);
    assert_eq!(injected[1].kind, FaultKind::ResponseLost);
    assert_eq!((injected[1].fault, injected[1].service), (lost, Service::Kinesis));
    assert_eq!(injected[1].operation, "PutRecord");
    assert_eq!(injected[1].resource.as_deref(), Some(STREAM));
    assert_eq!(injected[1].shard.as_deref(), Some(SHARD_0));
}

#[tokio::test]
async fn a_client_that_retries_after_a_lost_response_writes_twice() {
    let (aws, _) = with_stream(1).await;
    aws.faults().add(Fault::response_lost().operation("PutRecord").times(1));
    put_one(&aws.kinesis()).await.unwrap();
    assert_eq!(held(&aws), 2);
}

#[tokio::test]
async fn single_entries_of_a_batch_are_refused() {
    let (aws, client) = with_stream(2).await;
    let batch = || {
        let entries = [0, u128::MAX, 1, u128::MAX - 1].map(|hash_key: u128| {
            let mut entry = entry("k", hash_key.to_string());
            entry.explicit_hash_key = Some(hash_key.to_string());
            entry
        });
        client.put_records().stream_name(STREAM).set_records(Some(entries.to_vec())).send()
    };
    let fault = Fault::refuse_entry("InternalFailure").shard(SHARD_1);
    let fault = aws.faults().add(fault.skip(1).times(1));
    let response = batch().await.unwrap();
    assert_eq!(response.failed_record_count(), Some(1));
    let codes: Vec<_> = response.records().iter().map(|record| record.error_code()).collect();
    assert_eq!(codes, [None, None, None, Some("InternalFailure")]);
    assert_eq!(held(&aws), 3);
    assert_eq!(aws.faults().injected()[0].entry, Some(3));
    assert_eq!(aws.faults().injected()[0].shard.as_deref(), Some(SHARD_1));
    assert_eq!(aws.faults().count(fault), 1);
    assert_eq!(batch().await.unwrap().failed_record_count(), Some(0));
}

#[tokio::test]
async fn a_fault_can_be_kept_to_one_shard_of_the_readers() {
    let (aws, client) = with_stream(2).await;
    let low = iterator(&client, SHARD_0, ShardIteratorType::Latest).await;
    let high = iterator(&client, SHARD_1, ShardIteratorType::Latest).await;
    aws.faults().add(Fault::throttle().operation("GetRecords").shard(SHARD_1));
    get(&client, low).await;
    let throttled = client.get_records().shard_iterator(high).send().await;
    assert_eq!(code(throttled), "ProvisionedThroughputExceededException");
}

#[tokio::test]
async fn a_delayed_request_is_answered_late() {
    let (aws, client) = with_stream(1).await;
    let delay = Duration::from_millis(50);
    aws.faults().add(Fault::delay(delay).operation("PutRecord").times(1));
    #[allow(clippy::disallowed_methods, reason = "the delay is real")]
    let started = Instant::now();
    put_one(&client).await.unwrap();
    assert!(started.elapsed() >= delay);
    assert_eq!(held(&aws), 1);
}

fn table_client(aws: &LocalAws) -> aws_sdk_dynamodb::Client {
    let config = aws_sdk_dynamodb::config::Builder::from(&aws.sdk_config())
        .retry_config(DynamoRetryConfig::disabled())
        .build();
    aws_sdk_dynamodb::Client::from_conf(config)
}

#[tokio::test]
async fn dynamodb_is_struck_by_table() {
    let aws = LocalAws::start().await.unwrap();
    let client = table_client(&aws);
    create_table(&client).await;
    let put = |id: &str| client.put_item().table_name(TABLE).set_item(Some(item(id))).send();
    let count = async || client.scan().table_name(TABLE).send().await.unwrap().count();

    let faults = aws.faults();
    faults.add(Fault::throttle().service(Service::DynamoDb).resource("others"));
    put("0").await.unwrap();
    faults.add(Fault::throttle().resource(TABLE).operation("PutItem").times(1));
    assert_eq!(code(put("1").await), "ProvisionedThroughputExceededException");
    faults.add(Fault::internal_failure().resource(TABLE).operation("PutItem").times(1));
    assert_eq!(code(put("1").await), "InternalServerError");
    assert_eq!(count().await, 1);
    faults.add(Fault::cut_connection().operation("PutItem").times(1));
    assert!(matches!(put("1").await, Err(SdkError::DispatchFailure(_))));
    assert_eq!(count().await, 1);
    faults.add(Fault::response_lost().operation("PutItem").times(1));
    assert!(matches!(put("1").await, Err(SdkError::DispatchFailure(_))));
    assert_eq!(count().await, 2);
}

#[tokio::test]
async fn entries_of_a_dynamodb_batch_come_back_unprocessed() {
    let aws = LocalAws::start().await.unwrap();
    let client = table_client(&aws);
    create_table(&client).await;
    let write = |id: &str| {
        let put = PutRequest::builder().set_item(Some(item(id))).build().unwrap();
        WriteRequest::builder().put_request(put).build()
    };
    let writes = vec![write("a"), write("b"), write("c")];
    aws.faults().add(Fault::refuse_entry("any").operation("BatchWriteItem").skip(1).times(1));
    let batch = client.batch_write_item().request_items(TABLE, writes.clone());
    let response = batch.send().await.unwrap();
    assert_eq!(response.unprocessed_items().unwrap()[TABLE], [writes[1].clone()]);
    assert_eq!(client.scan().table_name(TABLE).send().await.unwrap().count(), 2);

    aws.faults().add(Fault::refuse_entry("any").operation("BatchGetItem").times(2));
    let keys = ["a", "c"].map(|id| [("id".to_owned(), AttributeValue::S(id.to_owned()))].into());
    let keys = KeysAndAttributes::builder().set_keys(Some(keys.to_vec())).build().unwrap();
    let get = || client.batch_get_item().request_items(TABLE, keys.clone()).send();
    let none = get().await.unwrap();
    assert_eq!(none.unprocessed_keys().unwrap()[TABLE].keys(), keys.keys());
    assert!(none.responses().unwrap().is_empty());
    let all = get().await.unwrap();
    assert_eq!(all.responses().unwrap()[TABLE].len(), 2);
}

#[tokio::test]
async fn a_brownout_fails_everything_of_a_service_for_its_time() {
    let clock = ManualClock::default();
    let aws = LocalAws::builder().clock(clock.clone());
    let aws = aws.build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    let (client, tables) = (client(&aws), table_client(&aws));
    let brownout = Fault::brownout(Duration::from_secs(10)).after(Duration::from_secs(5));
    let brownout = aws.faults().add(brownout.service(Service::Kinesis));
    put_one(&client).await.unwrap();
    clock.advance(Duration::from_secs(5));
    assert_eq!(put_one(&client).await.unwrap_err(), "ServiceUnavailable");
    let list = client.list_shards().stream_name(STREAM).send().await;
    let list = list.unwrap_err();
    assert_eq!(list.raw_response().unwrap().status().as_u16(), 503);
    tables.list_tables().send().await.unwrap();
    clock.advance(Duration::from_secs(10));
    put_one(&client).await.unwrap();
    assert_eq!((held(&aws), aws.faults().count(brownout)), (2, 2));
}

#[tokio::test]
async fn a_script_of_faults_strikes_as_it_says() {
    let (aws, client) = with_stream(1).await;
    let script = r#"[
        {"kind": "throttle", "operation": "PutRecord", "resource": "orders", "times": 1},
        {"kind": "refuse", "code": "AccessDeniedException", "operation": "PutRecord", "skip": 1}
    ]"#;
    let faults = aws.faults().load(script).unwrap();
    let throttled = put_one(&client).await.unwrap_err();
    assert_eq!(throttled, "ProvisionedThroughputExceededException");
    put_one(&client).await.unwrap();
    assert_eq!(put_one(&client).await.unwrap_err(), "AccessDeniedException");
    assert_eq!(aws.faults().count(faults[0]), 1);
    assert_eq!(aws.faults().count(faults[1]), 1);
    assert_eq!(held(&aws), 1);
}

#[tokio::test]
async fn answers_break_off_or_are_garbage_after_the_request_was_carried_out() {
    let (aws, client) = with_stream(1).await;
    for fault in [Fault::cut_response(), Fault::garbled_response()] {
        let before = held(&aws);
        aws.faults().add(fault.operation("PutRecord").times(1));
        assert!(put_one(&client).await.is_err());
        assert_eq!(held(&aws), before + 1);
    }
    put_one(&client).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_takes_the_longer_the_larger_it_is() {
    let aws = LocalAws::start().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    let client = Client::new(&aws.in_process_config());
    aws.faults().add(Fault::slow_response(10).operation("ListShards"));
    let list = || client.list_shards().stream_name(STREAM).send();
    // About 300 bytes.
    let patience = Duration::from_secs(10);
    assert!(tokio::time::timeout(patience, list()).await.is_err());
    list().await.unwrap();
}
