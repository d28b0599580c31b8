//! Calls that do not find the lease table or the stream. A passing fault ends no worker. A table or stream
//! that is gone ends it.

use std::time::Duration;

use kcl::{WorkerError, WorkerHandle};
use kinesis_testkit::{Fault, Service};

use crate::paused::{Paused, config};
use crate::probe::Probe;
use crate::setup::{APPLICATION, STREAM, processing, put, until};

const NOT_FOUND: &str = "ResourceNotFoundException";

async fn started(paused: &Paused, probe: &Probe) -> WorkerHandle {
    let config = config("w1").with_shard_sync_interval(Duration::from_secs(2));
    let builder = paused.builder(probe, config);
    let worker = builder.build().await.unwrap().spawn();
    until("the shard runs", || processing(&worker) == 1).await;
    worker
}

/// How the worker ended, and after how long.
async fn end(paused: &Paused, worker: &WorkerHandle) -> (WorkerError, Duration) {
    let began = paused.now();
    let ended = tokio::time::timeout(Duration::from_secs(300), worker.join()).await;
    (ended.expect("it ends").unwrap_err(), paused.now() - began)
}

#[tokio::test(start_paused = true)]
async fn a_passing_not_found_of_any_call_ends_no_worker() {
    for (service, operation) in [
        (Service::DynamoDb, Some("Query")),
        (Service::DynamoDb, Some("Scan")),
        (Service::DynamoDb, Some("GetItem")),
        (Service::DynamoDb, Some("UpdateItem")),
        (Service::Kinesis, Some("ListShards")),
        // All calls of a service, the one that confirms included.
        (Service::DynamoDb, None),
    ] {
        let paused = Paused::start(1).await;
        let probe = Probe::new();
        let worker = started(&paused, &probe).await;
        let fault = Fault::refuse(NOT_FOUND).service(service);
        let fault = operation.into_iter().fold(fault, Fault::operation);
        let fault = paused.aws.faults().add(fault);
        // Shorter than the failover time, and than what the confirmation takes.
        tokio::time::sleep(Duration::from_secs(4)).await;
        paused.aws.faults().remove(fault);
        put(&paused.aws, &probe, 0..10).await;
        tokio::time::sleep(Duration::from_secs(14)).await;
        assert_eq!(processing(&worker), 1, "{operation:?}");
        assert!(probe.is_settled(), "{operation:?}");
        worker.shutdown(Duration::from_secs(10)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_finds_nothing_for_long_ends_no_worker_while_the_table_is_there() {
    let paused = Paused::start(1).await;
    let worker = started(&paused, &Probe::new()).await;
    let query = Fault::refuse(NOT_FOUND).service(Service::DynamoDb);
    paused.aws.faults().add(query.operation("Query"));
    let list = Fault::refuse(NOT_FOUND).service(Service::Kinesis);
    paused.aws.faults().add(list.operation("ListShards"));
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(processing(&worker), 1);
    let described = paused.aws.calls("DescribeTable");
    assert!(described < 50, "{described} calls");
    worker.shutdown(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_deleted_table_ends_the_worker_once_that_is_certain() {
    let paused = Paused::start(1).await;
    let worker = started(&paused, &Probe::new()).await;
    let dynamodb = aws_sdk_dynamodb::Client::new(&paused.aws.in_process_config());
    let delete = dynamodb.delete_table().table_name(APPLICATION);
    delete.send().await.unwrap();
    let (error, after) = end(&paused, &worker).await;
    assert!(matches!(error, WorkerError::TableDeleted { .. }), "{error}");
    assert!(after >= Duration::from_secs(10), "{after:?}");
    assert!(after < Duration::from_secs(40), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_stream_ends_the_worker_once_that_is_certain() {
    let paused = Paused::start(1).await;
    let worker = started(&paused, &Probe::new()).await;
    let kinesis = aws_sdk_kinesis::Client::new(&paused.aws.in_process_config());
    let delete = kinesis.delete_stream().stream_name(STREAM);
    delete.send().await.unwrap();
    let (error, after) = end(&paused, &worker).await;
    assert!(matches!(error, WorkerError::StreamDeleted { .. }), "{error}");
    assert!(after < Duration::from_secs(40), "{after:?}");
}
