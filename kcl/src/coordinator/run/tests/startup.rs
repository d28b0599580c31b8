//! What a start waits for.

use super::start::{keyed_table, put_state};
use super::*;

async fn starts(aws: &LocalAws, what: &str) {
    let started = Coordinator::prepare(parts(aws, "w1", config())).await;
    if let Err(error) = started {
        panic!("{what}: {error}");
    }
}

/// More than the client's own attempts.
const FAILURES: u64 = 5;

#[tokio::test]
async fn every_call_of_a_start_is_tried_again_while_its_failure_may_pass() {
    for (service, operation, codes) in [
        (
            Service::Kinesis,
            "DescribeStreamSummary",
            &["LimitExceededException", "InternalFailure"][..],
        ),
        (Service::Kinesis, "ListShards", &["LimitExceededException", "ExpiredNextTokenException"]),
        (Service::DynamoDb, "DescribeTable", &["ThrottlingException", "InternalServerError"]),
        (Service::DynamoDb, "CreateTable", &["LimitExceededException"]),
        (Service::DynamoDb, "Scan", &["ProvisionedThroughputExceededException"]),
        (
            Service::DynamoDb,
            "PutItem",
            &["ProvisionedThroughputExceededException", "RequestLimitExceeded"],
        ),
    ] {
        for code in codes {
            let aws = aws(2).await;
            let fault = Fault::refuse(*code).service(service).operation(operation);
            let fault = aws.faults().add(fault.times(FAILURES));
            starts(&aws, &format!("{operation}: {code}")).await;
            assert_eq!(aws.faults().count(fault), FAILURES, "{operation}: {code}");
            assert_eq!(leases(&aws).await.len(), 2);
        }
    }
}

#[tokio::test]
async fn a_start_survives_cut_connections_and_lost_answers() {
    for fault in [Fault::cut_connection(), Fault::response_lost()] {
        let aws = aws(3).await;
        aws.faults().add(fault.probability(0.4).times(20));
        starts(&aws, "connections").await;
        assert_eq!(leases(&aws).await.len(), 3);
    }
}

#[tokio::test]
async fn half_of_the_puts_throttled_keep_no_start_from_its_leases() {
    for start in 0..10 {
        let aws = aws(40).await;
        let throttle = Fault::throttle().service(Service::DynamoDb);
        aws.faults().add(throttle.operation("PutItem").probability(0.5));
        starts(&aws, &format!("start {start}")).await;
        assert_eq!(leases(&aws).await.len(), 40);
    }
}

#[tokio::test]
async fn a_stream_that_is_being_created_is_waited_for() {
    let aws =
        LocalAws::builder().transition_time(Duration::from_millis(700)).build().await.unwrap();
    let create = aws.kinesis().create_stream().stream_name(STREAM);
    create.shard_count(1).send().await.unwrap();
    starts(&aws, "CREATING").await;
}

#[tokio::test]
async fn a_stream_that_is_being_deleted_is_not() {
    let aws = LocalAws::builder().transition_time(Duration::from_secs(60)).build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    let delete = aws.kinesis().delete_stream().stream_name(STREAM);
    delete.send().await.unwrap();
    let error = Coordinator::prepare(parts(&aws, "w1", config())).await;
    assert_eq!(
        error.map(drop).unwrap_err().to_string(),
        "stream orders is DELETING: create it again, or check its name"
    );
}

#[tokio::test]
async fn the_services_may_come_up_after_the_worker() {
    let refusing = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = refusing.local_addr().unwrap().port();
    let (other, url) = (aws(1).await, format!("http://127.0.0.1:{port}"));
    let mut parts = parts(&other, "w1", config());
    let kinesis = parts.kinesis.config().to_builder().endpoint_url(&url);
    parts.kinesis = aws_sdk_kinesis::Client::from_conf(kinesis.build());
    let dynamodb = parts.dynamodb.as_ref().unwrap().config().to_builder().endpoint_url(&url);
    parts.dynamodb = Some(aws_sdk_dynamodb::Client::from_conf(dynamodb.build()));
    let start = tokio::spawn(Coordinator::prepare(parts));
    // More connections than the client tries by itself.
    for _ in 0..FAILURES {
        drop(refusing.accept().await.unwrap());
    }
    drop(refusing);
    let late = LocalAws::builder().kinesis_port(port).build().await.unwrap();
    late.create_stream(STREAM, 1).await.unwrap();
    start.await.unwrap().unwrap();
}

#[tokio::test]
async fn what_never_passes_ends_the_start_with_its_cause() {
    let aws = aws(1).await;
    let throttle = Fault::refuse("LimitExceededException").service(Service::Kinesis);
    aws.faults().add(throttle.operation("ListShards"));
    let config = config().with_startup_timeout(Duration::from_millis(500));
    let error = Coordinator::prepare(parts(&aws, "w1", config)).await;
    let error = error.map(drop).unwrap_err();
    let StartError::TimedOut { operation, tries, elapsed, cause, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*operation, "ListShards");
    assert!(*tries > 1 && *elapsed >= Duration::from_millis(500), "{error}");
    assert!(cause.starts_with("LimitExceededException"), "{error}");
}

#[tokio::test]
async fn an_index_that_is_being_built_is_waited_for() {
    let aws = aws(1).await;
    keyed_table(&aws, APP, "leaseKey").await;
    put_state(&aws, APP, "leaseKey", "CLIENT_VERSION_3X").await;
    aws.faults().add(Fault::slow_index(Duration::from_millis(600)));
    starts(&aws, "index").await;
}
