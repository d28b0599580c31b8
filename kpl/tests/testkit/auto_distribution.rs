//! A stream whose service chooses each record's shard: nothing is aggregated, and nothing looks like an aggregate. The
//! strategy may change under way.

use std::time::Duration;

use aws_sdk_kinesis::types::{RecordDistributionStrategy, StreamMode, StreamModeDetails};
use kinesis_aggregation::AggregateBuilder;
use kinesis_testkit::{LocalAws, LocalAwsBuilder, Service};
use kpl::{
    BuildError, FailureCause, InvalidRecord, Producer, ProducerConfig, Receipt, RecordOrdering,
    SendError, StopReason, UserRecord,
};

use crate::reader::{builder, read, receipts, stream, unhurried};

/// An embedded AWS with an on-demand stream `s`.
async fn on_demand(aws: LocalAwsBuilder) -> LocalAws {
    let aws = aws.build().await.unwrap();
    let mode = StreamModeDetails::builder().stream_mode(StreamMode::OnDemand);
    let create = aws.kinesis().create_stream().stream_name("s");
    let create = create.stream_mode_details(mode.build().unwrap());
    create.send().await.unwrap();
    aws
}

async fn set_strategy(aws: &LocalAws, strategy: RecordDistributionStrategy) {
    let update = aws.kinesis().update_stream_record_distribution_strategy();
    let update = update.stream_arn("arn:aws:kinesis:us-east-1:000000000000:stream/s");
    update.record_distribution_strategy(strategy).send().await.unwrap();
}

/// Reads the strategy often, and lets aggregates grow until they are flushed.
fn watchful() -> ProducerConfig {
    ProducerConfig {
        shard_map_refresh_interval: Duration::from_millis(20),
        record_max_buffered_time: Duration::from_millis(50),
        ..unhurried()
    }
}

/// Sends a wave of records, and returns their receipts.
async fn wave(producer: &Producer, name: &str) -> Vec<(String, Receipt)> {
    let mut deliveries = Vec::new();
    for id in 0..100 {
        let data = format!("{name} {id}");
        let record = UserRecord::new(data.clone(), data.clone());
        deliveries.push((data, producer.send(record).await.unwrap()));
    }
    producer.flush().await;
    receipts(deliveries).await
}

#[tokio::test]
async fn an_auto_stream_gets_single_records_and_none_that_looks_framed() {
    let aws = on_demand(LocalAws::builder()).await;
    set_strategy(&aws, RecordDistributionStrategy::Auto).await;
    let producer = builder(&aws, unhurried()).build().await.unwrap();
    let mut deliveries = Vec::new();
    for id in 0..100 {
        let record = UserRecord::new("same key", format!("v{id}"));
        deliveries.push(producer.send(record).await.unwrap());
    }
    let framed = UserRecord::new("k", vec![0xF3, 0x89, 0x9A, 0xC2, 1]);
    for error in
        [producer.send(framed.clone()).await.unwrap_err(), producer.try_send(framed).unwrap_err()]
    {
        let SendError::Invalid { reason, .. } = &error else { panic!("{error}") };
        assert_eq!(*reason, InvalidRecord::LooksAggregated);
    }
    producer.flush().await;
    for delivery in deliveries {
        assert_eq!(delivery.await.unwrap().sub_sequence_number, 0);
    }
    let shards = aws.records("s");
    let filled = shards.iter().filter(|shard| !shard.records.is_empty());
    assert!(filled.count() > 1, "the service placed them");
    let mut data: Vec<_> =
        shards.iter().flat_map(|shard| &shard.records).map(|record| record.data.to_vec()).collect();
    data.sort();
    let mut expected: Vec<_> = (0..100).map(|id| format!("v{id}").into_bytes()).collect();
    expected.sort();
    assert_eq!(data, expected);
    assert_eq!(producer.close(Duration::from_secs(10)).await.delivered, 100);
}

#[tokio::test]
async fn a_change_of_strategy_under_way_loses_nothing_and_is_followed_both_ways() {
    let aws = on_demand(LocalAws::builder()).await;
    let producer = builder(&aws, watchful()).build().await.unwrap();
    let mut receipts = wave(&producer, "by key").await;
    assert!(producer.stats().aggregates > 0);

    // The open aggregates go out under the old strategy, and are placed by the new one.
    set_strategy(&aws, RecordDistributionStrategy::Auto).await;
    receipts.extend(wave(&producer, "at the change").await);
    until_single(&producer, &mut receipts).await;
    set_strategy(&aws, RecordDistributionStrategy::UserPartitionKey).await;
    // It aggregates again.
    loop {
        let before = producer.stats().aggregates;
        receipts.extend(wave(&producer, "by key again").await);
        if producer.stats().aggregates > before {
            break;
        }
    }
    let seen = read(&aws, "s");
    for (data, receipt) in &receipts {
        seen.assert_holds(data.as_bytes(), receipt);
    }
}

/// Sends waves until one goes out without an aggregate.
async fn until_single(producer: &Producer, receipts: &mut Vec<(String, Receipt)>) {
    loop {
        let before = producer.stats().aggregates;
        receipts.extend(wave(producer, "by the service").await);
        if producer.stats().aggregates == before {
            return;
        }
    }
}

#[tokio::test]
async fn where_records_lie_tells_the_strategy_before_the_timer_and_without_leave_to_describe() {
    for denied in ["DescribeStreamSummary", "DescribeLimits"] {
        let aws = on_demand(LocalAws::builder().deny(Service::Kinesis, denied)).await;
        let config = ProducerConfig {
            shard_map_refresh_interval: Duration::from_secs(100_000),
            ..watchful()
        };
        let producer = builder(&aws, config).build().await.unwrap();
        let mut receipts = wave(&producer, "by key").await;
        set_strategy(&aws, RecordDistributionStrategy::Auto).await;
        until_single(&producer, &mut receipts).await;
        let seen = read(&aws, "s");
        for (data, receipt) in &receipts {
            seen.assert_holds(data.as_bytes(), receipt);
        }
    }
}

/// The documented gap: such a producer cannot find out that keys do not count.
#[tokio::test]
async fn with_leave_to_put_alone_only_look_alikes_are_at_risk() {
    let mut aws = LocalAws::builder();
    for denied in ["DescribeStreamSummary", "DescribeLimits", "ListShards"] {
        aws = aws.deny(Service::Kinesis, denied);
    }
    let aws = on_demand(aws).await;
    set_strategy(&aws, RecordDistributionStrategy::Auto).await;
    let producer = builder(&aws, unhurried()).build().await.unwrap();
    let mut receipts = Vec::new();
    for begin in [&[0xF3, 0x89, 0x9A, 0xC2][..], b"v"] {
        for id in 0..40 {
            let data = [begin, &[id]].concat();
            let record = UserRecord::new("same key", data.clone());
            receipts.push((data, producer.send(record).await.unwrap()));
        }
    }
    producer.flush().await;
    let seen = read(&aws, "s");
    for (data, receipt) in receipts {
        let receipt = receipt.await.unwrap();
        if data[0] == b'v' || seen.places.contains_key(&data[..]) {
            seen.assert_holds(&data, &receipt);
        }
    }
    // The records in a shard to which their key does not belong.
    assert!((1..40).contains(&seen.dropped), "{}", seen.dropped);
    assert_eq!(seen.places.len(), 80 - seen.dropped);
}

#[tokio::test]
async fn a_raw_record_is_sent_as_it_is_and_alone() {
    for strategy in [RecordDistributionStrategy::UserPartitionKey, RecordDistributionStrategy::Auto]
    {
        let aws = on_demand(LocalAws::builder()).await;
        set_strategy(&aws, strategy).await;
        let producer = builder(&aws, unhurried()).build().await.unwrap();
        let mut aggregate = AggregateBuilder::new(1 << 20);
        for data in ["one", "two"] {
            aggregate.push("k", None, data.as_bytes()).unwrap();
        }
        let aggregate = aggregate.seal().into_bytes();
        let mut deliveries = Vec::new();
        for record in [
            UserRecord::new("k", "before"),
            UserRecord::raw("k", aggregate.clone()),
            UserRecord::raw("k", "plain"),
            UserRecord::new("k", "after"),
        ] {
            deliveries.push(producer.send(record).await.unwrap());
        }
        producer.flush().await;
        for delivery in deliveries {
            assert_eq!(delivery.await.unwrap().sub_sequence_number, 0);
        }
        let shards = aws.records("s");
        let mut stored: Vec<_> = shards
            .iter()
            .flat_map(|shard| &shard.records)
            .map(|record| record.data.clone())
            .collect();
        let mut expected: Vec<_> =
            [&b"before"[..], &aggregate, b"plain", b"after"].map(|data| data.to_vec()).into();
        stored.sort();
        expected.sort();
        assert_eq!(stored, expected);
    }
}

#[tokio::test]
async fn a_key_may_be_missing_only_where_the_service_chooses_the_shard() {
    let aws = on_demand(LocalAws::builder()).await;
    set_strategy(&aws, RecordDistributionStrategy::Auto).await;
    let config =
        ProducerConfig { record_max_buffered_time: Duration::from_millis(1), ..watchful() };
    let producer = builder(&aws, config).build().await.unwrap();
    let keyless = || UserRecord::without_key("no key");
    producer.send(keyless()).await.unwrap().await.unwrap();
    set_strategy(&aws, RecordDistributionStrategy::UserPartitionKey).await;
    let refused = loop {
        match producer.send(keyless()).await {
            Err(refused) => break refused,
            // Until the change is seen: refused by the service, or by the producer.
            Ok(delivery) => {
                if let Err(error) = delivery.await {
                    let cause = error.cause();
                    assert!(
                        matches!(
                            cause,
                            FailureCause::StrategyChanged(_) | FailureCause::Rejected { .. }
                        ),
                        "{error}"
                    );
                }
            }
        }
    };
    let SendError::Invalid { reason, .. } = refused else { panic!("{refused}") };
    assert_eq!(reason, InvalidRecord::PartitionKeyLength { limit: 256, actual: 0 });
}

#[tokio::test]
async fn an_ordered_producer_ends_where_order_does() {
    let config = ProducerConfig { ordering: RecordOrdering::PerPartitionKey, ..watchful() };
    let aws = on_demand(LocalAws::builder()).await;
    let producer = builder(&aws, config.clone()).build().await.unwrap();
    wave(&producer, "by key").await;
    set_strategy(&aws, RecordDistributionStrategy::Auto).await;
    let error = loop {
        match producer.send(UserRecord::new("k", "v")).await {
            Ok(delivery) => drop(delivery),
            Err(error) => break error,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let SendError::Closed { reason, .. } = &error else { panic!("{error}") };
    assert_eq!(*reason, StopReason::OrderLost);
    producer.close(Duration::from_secs(10)).await;
    let error = builder(&aws, config).build().await.unwrap_err();
    assert!(matches!(error, BuildError::OrderingUnavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_stream_created_again_is_not_judged_by_its_old_shards() {
    let aws = stream(1).await;
    let config = ProducerConfig {
        // The producer learns it from the answers alone, not by the timer.
        shard_map_refresh_interval: Duration::from_secs(100_000),
        record_max_buffered_time: Duration::from_secs(1000),
        ..unhurried()
    };
    let producer = builder(&aws, config).build().await.unwrap();
    wave(&producer, "before").await;
    aws.kinesis().delete_stream().stream_name("s").send().await.unwrap();
    let lost = UserRecord::new("k", "lost").with_time_to_live(Duration::from_secs(1));
    let lost = producer.send(lost).await.unwrap();
    producer.flush().await;
    let error = lost.await.unwrap_err();
    assert_eq!(&*error.attempts()[0].code, "ResourceNotFoundException", "{error}");
    aws.create_stream("s", 2).await.unwrap();
    // The first shard has half of the keys that its namesake had.
    let receipts = wave(&producer, "after").await;
    let seen = read(&aws, "s");
    for (data, receipt) in &receipts {
        seen.assert_holds(data.as_bytes(), receipt);
    }
}
