//! Answers in CBOR and in JSON, and endpoints that accept one of them only.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use kcl::{
    ConsumerConfig, InitialPosition, ProcessorError, RecordBatch, RecordProcessor, Scheduler,
    ShardContext, ShardEnd, Shutdown, Wire,
};
use kinesis_testkit::{CborSupport, Fault, LocalAws, ManualClock};

use crate::probe::Probe;
use crate::setup::{APPLICATION, STREAM, aws, config, put, until, worker};

const DEADLINE: Duration = Duration::from_secs(20);
const CALLS: [&str; 4] = ["DescribeStreamSummary", "ListShards", "GetShardIterator", "GetRecords"];

fn with(wire: Wire) -> ConsumerConfig {
    config("w1").with_wire(wire)
}

#[tokio::test]
async fn records_are_read_in_the_encoding_of_the_setting() {
    for (wire, is_cbor) in [(Wire::Auto, true), (Wire::Cbor, true), (Wire::Json, false)] {
        let aws = aws(2).await;
        let probe = Probe::new();
        put(&aws, &probe, 0..300).await;
        let worker = worker(&aws, &probe, with(wire)).await;
        until("all records", || probe.is_settled()).await;
        worker.shutdown(DEADLINE).await.unwrap();
        probe.assert_exact();
        for operation in CALLS {
            let expected = if is_cbor { aws.calls(operation) } else { 0 };
            assert!(aws.calls(operation) > 0);
            assert_eq!(aws.calls_in_cbor(operation), expected, "{wire:?} {operation}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_does_not_accept_cbor_is_read_in_json() {
    let refused = |code: &str| CborSupport::Refused { code: code.to_owned() };
    for support in [
        CborSupport::UnsupportedMediaType,
        refused("SerializationException"),
        refused("UnknownOperationException"),
        CborSupport::AnsweredInJson,
        CborSupport::Failed,
    ] {
        let aws = LocalAws::builder().cbor(support.clone()).build().await.unwrap();
        aws.create_stream(STREAM, 2).await.unwrap();
        let probe = Probe::new();
        put(&aws, &probe, 0..300).await;
        let worker = worker(&aws, &probe, with(Wire::Auto)).await;
        until("all records", || probe.is_settled()).await;
        assert!(worker.health().is_healthy(), "{support:?}");
        worker.shutdown(DEADLINE).await.unwrap();
        probe.assert_exact();
        // The first call finds it out.
        assert!(aws.calls_in_cbor("DescribeStreamSummary") > 0, "{support:?}");
        for operation in &CALLS[1..] {
            assert_eq!(aws.calls_in_cbor(operation), 0, "{support:?} {operation}");
        }
    }
}

#[tokio::test]
async fn no_fault_loses_a_record_in_cbor() {
    let aws = aws(1).await;
    let probe = Probe::new();
    let worker = worker(&aws, &probe, with(Wire::Cbor)).await;
    let mut put_so_far = 0;
    for fault in [
        Fault::throttle(),
        Fault::internal_failure(),
        Fault::garbled_response(),
        Fault::cut_response(),
        Fault::refuse("ExpiredIteratorException"),
    ] {
        let fault = aws.faults().add(fault.operation("GetRecords").times(2));
        put(&aws, &probe, put_so_far..put_so_far + 50).await;
        put_so_far += 50;
        until("the fault struck", || aws.faults().count(fault) == 2).await;
        until("all records", || probe.is_settled()).await;
    }
    worker.shutdown(DEADLINE).await.unwrap();
    probe.assert_exact();
    assert_eq!(aws.calls_in_cbor("GetRecords"), aws.calls("GetRecords"));
}

/// Notes when each record arrived.
struct Arrivals(Arc<Mutex<Vec<SystemTime>>>);

impl RecordProcessor for Arrivals {
    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        let times = batch.records().map(|record| record.approximate_arrival());
        self.0.lock().unwrap().extend(times.flatten());
        Ok(())
    }

    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(end.checkpoint().await?)
    }

    async fn shutdown_requested(&mut self, _: Shutdown<'_>) -> Result<(), ProcessorError> {
        Ok(())
    }
}

#[tokio::test]
async fn arrival_times_and_positions_in_time_are_the_same_in_both_encodings() {
    let aws = aws(1).await;
    let probe = Probe::new();
    for id in 0..3 {
        put(&aws, &probe, id..id + 1).await;
        // Records at different times of the service.
        let arrived = aws.records(STREAM)[0].records.last().unwrap().arrival;
        until("a later millisecond", || arrived.elapsed().unwrap() > Duration::from_millis(2))
            .await;
    }
    let stored: Vec<_> = aws.records(STREAM)[0].records.iter().map(|it| it.arrival).collect();
    for (number, wire) in [Wire::Cbor, Wire::Json].into_iter().enumerate() {
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let arrivals = Arc::clone(&seen);
        let position = InitialPosition::AtTimestamp(stored[1]);
        let scheduler =
            Scheduler::builder(format!("{APPLICATION}-{number}"), STREAM, &aws.sdk_config())
                .processor(move |_: &ShardContext| Arrivals(Arc::clone(&arrivals)))
                .config(with(wire).with_initial_position(position));
        let worker = scheduler.build().await.unwrap().spawn();
        until("the records since then", || seen.lock().unwrap().len() >= 2).await;
        worker.shutdown(DEADLINE).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), stored[1..], "{wire:?}");
    }
}

#[tokio::test]
async fn workers_of_both_encodings_share_a_lease_table() {
    // As a float of seconds this time is a little earlier. Leases hold the time at which their stream was created.
    let created = SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_600_123);
    let aws = LocalAws::builder().clock(ManualClock::new(created)).build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    for wire in [Wire::Json, Wire::Cbor, Wire::Json] {
        let _ = crate::setup::builder(&aws, &Probe::new(), with(wire)).build().await.unwrap();
    }
}

#[tokio::test]
async fn a_client_of_the_caller_is_used_with_the_setting() {
    let aws = aws(1).await;
    let probe = Probe::new();
    put(&aws, &probe, 0..10).await;
    let client = aws_sdk_kinesis::Client::new(&aws.sdk_config());
    let builder = crate::setup::builder(&aws, &probe, with(Wire::Auto)).kinesis_client(client);
    let worker = builder.build().await.unwrap().spawn();
    until("all records", || probe.is_settled()).await;
    worker.shutdown(DEADLINE).await.unwrap();
    assert_eq!(aws.calls_in_cbor("GetRecords"), aws.calls("GetRecords"));
}
