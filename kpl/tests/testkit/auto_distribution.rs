//! A stream whose service chooses each record's shard: nothing is aggregated, and nothing looks like an aggregate.

use std::time::Duration;

use aws_sdk_kinesis::types::{RecordDistributionStrategy, StreamMode, StreamModeDetails};
use kinesis_testkit::LocalAws;
use kpl::{InvalidRecord, Producer, SendError, UserRecord};

use crate::reader::unhurried;

#[tokio::test]
async fn an_auto_stream_gets_single_records_and_none_that_looks_framed() {
    let aws = LocalAws::start().await.unwrap();
    let client = aws.kinesis();
    let mode = StreamModeDetails::builder().stream_mode(StreamMode::OnDemand);
    client
        .create_stream()
        .stream_name("auto")
        .stream_mode_details(mode.build().unwrap())
        .send()
        .await
        .unwrap();
    let summary = client
        .describe_stream_summary()
        .stream_name("auto")
        .send()
        .await
        .unwrap();
    let arn = summary.stream_description_summary.unwrap().stream_arn;
    client
        .update_stream_record_distribution_strategy()
        .stream_arn(arn)
        .record_distribution_strategy(RecordDistributionStrategy::Auto)
        .send()
        .await
        .unwrap();

    let producer = Producer::builder("auto", &aws.sdk_config())
        .config(unhurried())
        .build()
        .await
        .unwrap();
    let mut deliveries = Vec::new();
    for id in 0..100 {
        let record = UserRecord::new("same key", format!("v{id}"));
        deliveries.push(producer.send(record).await.unwrap());
    }
    let framed = UserRecord::new("k", vec![0xF3, 0x89, 0x9A, 0xC2, 1]);
    for error in [
        producer.send(framed.clone()).await.unwrap_err(),
        producer.try_send(framed).unwrap_err(),
    ] {
        let SendError::Invalid { reason, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(*reason, InvalidRecord::LooksAggregated);
    }
    producer.flush().await;
    for delivery in deliveries {
        assert_eq!(delivery.await.unwrap().sub_sequence_number, 0);
    }
    let shards = aws.records("auto");
    let filled = shards.iter().filter(|shard| !shard.records.is_empty());
    assert!(filled.count() > 1, "the service placed them");
    let mut data: Vec<_> = shards
        .iter()
        .flat_map(|shard| &shard.records)
        .map(|record| record.data.to_vec())
        .collect();
    data.sort();
    let mut expected: Vec<_> = (0..100).map(|id| format!("v{id}").into_bytes()).collect();
    expected.sort();
    assert_eq!(data, expected);
    assert_eq!(producer.close(Duration::from_secs(10)).await.delivered, 100);
}
