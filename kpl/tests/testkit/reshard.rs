//! Splits and merges under way: a consumer with the KCL's dropping rule sees every acknowledged record.

use std::time::Duration;

use aws_sdk_kinesis::types::ScalingType;
use kinesis_testkit::{Fault, LocalAws};
use kpl::{HashKey, Producer, ProducerConfig, Receipt, UserRecord};

use crate::reader::{builder, merge, read, receipts, reshard, split, stream, unhurried, until};

fn config() -> ProducerConfig {
    ProducerConfig { record_max_buffered_time: Duration::from_millis(10), ..unhurried() }
}

fn spread(id: u128, count: u128) -> HashKey {
    HashKey::new(u128::MAX / count * id)
}

/// Sends records all over the hash space, and resharding half-way; returns the receipts.
async fn send_through(
    producer: &Producer,
    count: u128,
    reshard: impl AsyncFnOnce(),
) -> Vec<(String, Receipt)> {
    let mut deliveries = Vec::new();
    let mut reshard = Some(reshard);
    for id in 0..count {
        let hash_key = spread(id * 7919 % count, count);
        let record = UserRecord::new("k", format!("record {id}")).with_explicit_hash_key(hash_key);
        deliveries.push((format!("record {id}"), producer.send(record).await.unwrap()));
        if id == count / 2
            && let Some(reshard) = reshard.take()
        {
            reshard().await;
        }
    }
    receipts(deliveries).await
}

fn assert_all_seen(aws: &LocalAws, receipts: &[(String, Receipt)]) -> usize {
    let seen = read(aws, "s");
    for (data, receipt) in receipts {
        seen.assert_holds(data.as_bytes(), receipt);
        let twice = seen.places[data.as_bytes()].len() > 1;
        assert!(!twice || receipt.may_be_duplicate(), "{data} is a duplicate and does not say so");
    }
    seen.dropped
}

#[tokio::test]
async fn an_aggregate_that_straddles_a_split_is_sent_again() {
    let aws = stream(1).await;
    let producer = builder(&aws, config()).build().await.unwrap();
    let receipts = send_through(&producer, 2000, async || {
        split(&aws, "shardId-000000000000", u128::MAX / 2).await;
    })
    .await;
    let dropped = assert_all_seen(&aws, &receipts);
    assert!(dropped > 0, "the split came while an aggregate was open");
    let stats = producer.stats();
    assert!(stats.resent_for_wrong_shard > 0);
    let shards: std::collections::HashSet<_> = receipts.iter().map(|(_, r)| &*r.shard_id).collect();
    assert!(shards.contains("shardId-000000000001") && shards.contains("shardId-000000000002"));
    assert!(receipts.iter().any(|(_, receipt)| receipt.may_be_duplicate()));
}

#[tokio::test]
async fn a_single_record_is_never_in_the_wrong_shard() {
    let aws = stream(1).await;
    let config = ProducerConfig { aggregation_enabled: false, ..config() };
    let producer = builder(&aws, config).build().await.unwrap();
    let receipts = send_through(&producer, 200, async || {
        split(&aws, "shardId-000000000000", u128::MAX / 2).await;
    })
    .await;
    assert_all_seen(&aws, &receipts);
    assert!(receipts.iter().all(|(_, receipt)| !receipt.may_be_duplicate()));
    assert_eq!(producer.stats().resent_for_wrong_shard, 0);
}

#[tokio::test]
async fn a_merge_resends_nothing() {
    let aws = stream(2).await;
    let producer = builder(&aws, config()).build().await.unwrap();
    let receipts = send_through(&producer, 2000, async || {
        merge(&aws, "shardId-000000000000", "shardId-000000000001").await;
    })
    .await;
    assert_eq!(assert_all_seen(&aws, &receipts), 0);
    assert_eq!(producer.stats().resent_for_wrong_shard, 0);
    assert!(receipts.iter().any(|(_, receipt)| &*receipt.shard_id == "shardId-000000000002"));
}

#[tokio::test]
async fn a_change_of_the_shard_count_loses_nothing() {
    for (before, after) in [(2, 4), (4, 2), (3, 4)] {
        let aws = stream(before).await;
        let producer = builder(&aws, config()).build().await.unwrap();
        let receipts = send_through(&producer, 3000, async || {
            let update = aws.kinesis().update_shard_count().stream_name("s");
            let update = update.target_shard_count(after);
            update.scaling_type(ScalingType::UniformScaling).send().await.unwrap();
        })
        .await;
        assert_all_seen(&aws, &receipts);
        let last = &receipts.last().unwrap().1;
        let (_, number) = last.shard_id.split_once('-').unwrap();
        assert!(number.parse::<u32>().unwrap() >= before, "{last:?}");
    }
}

#[tokio::test]
async fn a_shard_check_waits_while_the_shard_map_cannot_be_read() {
    let aws = stream(1).await;
    // All records go in one aggregate, whatever the pace.
    let config = ProducerConfig {
        record_max_buffered_time: Duration::from_secs(300),
        aggregation_max_count: 20,
        ..config()
    };
    let producer = builder(&aws, config).build().await.unwrap();
    let blind = aws.faults().add(Fault::internal_failure().operation("ListShards"));
    split(&aws, "shardId-000000000000", u128::MAX / 2).await;
    let mut deliveries = Vec::new();
    for id in 0..20 {
        let record =
            UserRecord::new("k", format!("record {id}")).with_explicit_hash_key(spread(id, 20));
        deliveries.push((format!("record {id}"), producer.send(record).await.unwrap()));
    }
    until(|| aws.faults().count(blind) > 1 && producer.stats().kinesis_records > 0).await;
    assert_eq!(producer.stats().user_records_delivered, 0, "no receipt before the shard check");
    aws.faults().remove(blind);
    let receipts = receipts(deliveries).await;
    assert!(assert_all_seen(&aws, &receipts) > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn splits_and_merges_under_faults_lose_nothing() {
    let aws = stream(2).await;
    aws.faults()
        .add(Fault::refuse_entry("ProvisionedThroughputExceededException").probability(0.2));
    aws.faults().add(Fault::response_lost().operation("PutRecords").probability(0.1));
    let config =
        ProducerConfig { aggregation_max_size: 1024, max_buffered_bytes: 256 * 1024, ..config() };
    let producer = builder(&aws, config).build().await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..4_u128 {
        let producer = producer.clone();
        tasks.spawn(async move {
            let mut deliveries = Vec::new();
            for id in 0..1500_u128 {
                let data = format!("{task}/{id}");
                let record = UserRecord::new(data.clone(), data.clone());
                deliveries.push((data, producer.send(record).await.unwrap()));
                if id % 50 == 0 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            receipts(deliveries).await
        });
    }
    reshard(&aws, &producer, [300, 1500, 3000]).await;

    let mut receipts = Vec::new();
    while let Some(done) = tasks.join_next().await {
        receipts.extend(done.unwrap());
    }
    assert_eq!(receipts.len(), 4 * 1500);
    assert_all_seen(&aws, &receipts);
    assert_eq!(producer.buffered_bytes(), 0);
}
