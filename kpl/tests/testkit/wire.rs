//! Requests in CBOR and in JSON, and endpoints that accept one of them only.

use std::time::Duration;

use kinesis_testkit::{CborSupport, Fault, LocalAws, Service};
use kpl::{FailureCause, Producer, ProducerConfig, Receipt, UserRecord, Wire};

use crate::reader::{builder, read, stream, unhurried};

const CALLS: [&str; 3] = ["DescribeStreamSummary", "ListShards", "PutRecords"];

async fn stream_with(support: CborSupport) -> LocalAws {
    let aws = LocalAws::builder().cbor(support).build().await.unwrap();
    aws.create_stream("s", 2).await.unwrap();
    aws
}

fn config(wire: Wire) -> ProducerConfig {
    ProducerConfig { wire, record_max_buffered_time: Duration::from_millis(10), ..unhurried() }
}

/// Sends records, awaits their receipts, and checks that the stream has each of them once, where its receipt says.
async fn send_and_find(aws: &LocalAws, producer: &Producer) {
    let mut deliveries = Vec::new();
    for id in 0..500 {
        let record = UserRecord::new(format!("key-{}", id % 7), format!("record \0 {id} ü"));
        deliveries.push((id, producer.send(record).await.unwrap()));
    }
    let mut receipts: Vec<(u32, Receipt)> = Vec::new();
    for (id, delivery) in deliveries {
        receipts.push((id, delivery.await.unwrap()));
    }
    let seen = read(aws, "s");
    for (id, receipt) in &receipts {
        let data = format!("record \0 {id} ü");
        seen.assert_holds(data.as_bytes(), receipt);
        assert_eq!(seen.places[data.as_bytes()].len(), 1, "record {id} is there once");
        assert_eq!(receipt.attempts, 1, "record {id}");
        assert!(!receipt.may_be_duplicate(), "record {id}");
    }
}

#[tokio::test]
async fn records_arrive_in_the_encoding_of_the_setting() {
    for (wire, is_cbor) in [(Wire::Auto, true), (Wire::Cbor, true), (Wire::Json, false)] {
        let aws = stream(2).await;
        let producer = builder(&aws, config(wire)).build().await.unwrap();
        send_and_find(&aws, &producer).await;
        for operation in CALLS {
            let expected = if is_cbor { aws.calls(operation) } else { 0 };
            assert!(aws.calls(operation) > 0);
            assert_eq!(aws.calls_in_cbor(operation), expected, "{wire:?} {operation}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_does_not_accept_cbor_gets_json_and_each_record_once() {
    let refused = |code: &str| CborSupport::Refused { code: code.to_owned() };
    for support in [
        CborSupport::UnsupportedMediaType,
        refused("SerializationException"),
        refused("UnknownOperationException"),
        CborSupport::AnsweredInJson,
        CborSupport::Failed,
    ] {
        let aws = stream_with(support.clone()).await;
        let producer = builder(&aws, config(Wire::Auto)).build().await.unwrap();
        send_and_find(&aws, &producer).await;
        // The first call finds it out, before any record is sent.
        assert!(aws.calls_in_cbor("DescribeStreamSummary") > 0, "{support:?}");
        assert_eq!(aws.calls_in_cbor("ListShards"), 0, "{support:?}");
        assert_eq!(aws.calls_in_cbor("PutRecords"), 0, "{support:?}");
    }
}

#[tokio::test]
async fn a_role_for_put_records_alone_finds_out_with_its_records() {
    // No other call succeeds in any encoding.
    let aws = LocalAws::builder()
        .cbor(CborSupport::Refused { code: "SerializationException".to_owned() })
        .deny(Service::Kinesis, "DescribeStreamSummary")
        .deny(Service::Kinesis, "ListShards");
    let aws = aws.build().await.unwrap();
    aws.create_stream("s", 2).await.unwrap();
    let producer = builder(&aws, config(Wire::Auto)).build().await.unwrap();
    send_and_find(&aws, &producer).await;
    assert!(aws.calls_in_cbor("PutRecords") > 0);
    // Each request that was in CBOR was sent once more.
    let calls = producer.stats().put_records_calls;
    assert_eq!(aws.calls("PutRecords"), calls + aws.calls_in_cbor("PutRecords"));
}

#[tokio::test]
async fn an_emulator_that_reads_cbor_without_bytes_gets_json() {
    let aws = stream(2).await;
    let producer = builder(&aws, config(Wire::Auto)).build().await.unwrap();
    assert_eq!(aws.calls_in_cbor("DescribeStreamSummary"), 1);
    aws.faults().add(Fault::refuse("SerializationException").operation("PutRecords").times(1));
    producer.send(UserRecord::new("k", "first")).await.unwrap().await.unwrap();
    send_and_find(&aws, &producer).await;
    assert_eq!(aws.calls_in_cbor("PutRecords"), 1);
}

#[tokio::test]
async fn after_a_success_in_cbor_a_refusal_is_for_the_records_and_the_bad_one_fails_alone() {
    let aws = stream(1).await;
    let config = ProducerConfig { aggregation_enabled: false, ..config(Wire::Auto) };
    let producer = builder(&aws, config).build().await.unwrap();
    producer.send(UserRecord::new("k", "first")).await.unwrap().await.unwrap();
    // Until it is alone in its request.
    let fault = Fault::refuse("SerializationException").operation("PutRecords").times(1);
    aws.faults().add(fault);
    let error = producer.send(UserRecord::new("k", "bad")).await.unwrap().await.unwrap_err();
    let FailureCause::Rejected { code, .. } = error.cause() else { panic!("{error:?}") };
    assert_eq!(&**code, "SerializationException");
    assert!(!error.may_have_been_written());
    producer.send(UserRecord::new("k", "last")).await.unwrap().await.unwrap();
    assert_eq!(aws.calls_in_cbor("PutRecords"), aws.calls("PutRecords"));
    let stored = &aws.records("s")[0].records;
    assert_eq!(
        stored.iter().map(|record| &record.data[..]).collect::<Vec<_>>(),
        [b"first", &b"last"[..]]
    );
}

#[tokio::test]
async fn no_fault_loses_a_record_in_cbor() {
    let aws = stream(2).await;
    let producer = builder(&aws, config(Wire::Cbor)).build().await.unwrap();
    let throttled = "ProvisionedThroughputExceededException";
    for fault in [
        Fault::refuse(throttled),
        Fault::refuse_entry(throttled).probability(0.5),
        Fault::refuse_entry("InternalFailure").probability(0.5),
        Fault::internal_failure(),
        Fault::garbled_response(),
        Fault::cut_response(),
        Fault::response_lost(),
    ] {
        aws.faults().add(fault.operation("PutRecords").skip(1).times(3));
        let mut deliveries = Vec::new();
        for id in 0..300 {
            let record = UserRecord::new(format!("key-{id}"), format!("record {id}"));
            deliveries.push((format!("record {id}"), producer.send(record).await.unwrap()));
            if id % 50 == 0 {
                producer.flush().await;
            }
        }
        let mut receipts = Vec::new();
        for (data, delivery) in deliveries {
            receipts.push((data, delivery.await.unwrap()));
        }
        let seen = read(&aws, "s");
        for (data, receipt) in receipts {
            seen.assert_holds(data.as_bytes(), &receipt);
        }
    }
    assert_eq!(aws.calls_in_cbor("PutRecords"), aws.calls("PutRecords"));
}

#[tokio::test]
async fn a_client_of_the_caller_is_used_with_the_setting_and_stays_as_it_is() {
    let aws = stream(1).await;
    let client = aws_sdk_kinesis::Client::new(&aws.sdk_config());
    let producer = Producer::builder_with_client("s", &client).config(config(Wire::Auto));
    let producer = producer.build().await.unwrap();
    producer.send(UserRecord::new("k", "v")).await.unwrap().await.unwrap();
    assert_eq!(aws.calls_in_cbor("PutRecords"), 1);
    client.list_shards().stream_name("s").send().await.unwrap();
    assert_eq!(aws.calls("ListShards"), aws.calls_in_cbor("ListShards") + 1);
}
