//! Streams whose service places the records, and the other things a stream is told to be: its mode,
//! encryption, monitoring.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_kinesis::operation::put_record::builders::PutRecordFluentBuilder;
use aws_sdk_kinesis::types::{
    EncryptionType, MetricsName, RecordDistributionStrategy, StreamMode, StreamModeDetails,
};
use kinesis_testkit::{Fault, ManualClock};

use super::consumers::STREAM_ARN;
use super::*;

fn mode(mode: StreamMode) -> StreamModeDetails {
    let details = StreamModeDetails::builder().stream_mode(mode);
    details.build().unwrap()
}

/// An on-demand stream: four shards.
async fn on_demand() -> (LocalAws, Client) {
    let aws = LocalAws::start().await.unwrap();
    let client = client(&aws);
    let create = client.create_stream().stream_name(STREAM);
    let create = create.stream_mode_details(mode(StreamMode::OnDemand));
    create.send().await.unwrap();
    (aws, client)
}

async fn distribute(client: &Client, strategy: RecordDistributionStrategy) {
    let update = client
        .update_stream_record_distribution_strategy()
        .stream_arn(STREAM_ARN)
        .record_distribution_strategy(strategy);
    update.send().await.unwrap();
}

async fn strategy(client: &Client) -> Option<RecordDistributionStrategy> {
    let summary = client.describe_stream_summary().stream_name(STREAM);
    let summary = summary.send().await.unwrap();
    let summary = summary.stream_description_summary.unwrap();
    summary.record_distribution_strategy
}

fn put_one(client: &Client) -> PutRecordFluentBuilder {
    let put = client.put_record().stream_name(STREAM);
    put.data(Blob::new("x"))
}

/// How many of eight records of one key each shard gets.
async fn spread_of_one_key(client: &Client) -> Vec<usize> {
    let mut spread = BTreeMap::<String, usize>::new();
    for _ in 0..2 {
        let entries = (0..4).map(|nth| entry("one key", nth.to_string())).collect();
        let put = client.put_records().stream_name(STREAM);
        let put = put.set_records(Some(entries)).send().await.unwrap();
        for record in put.records {
            *spread.entry(record.shard_id.unwrap()).or_default() += 1;
        }
    }
    spread.into_values().collect()
}

#[tokio::test]
async fn a_service_managed_stream_ignores_keys_and_can_be_switched_while_it_runs() {
    let (_aws, client) = on_demand().await;
    let user = RecordDistributionStrategy::UserPartitionKey;
    assert_eq!(strategy(&client).await, Some(user.clone()));
    assert_eq!(spread_of_one_key(&client).await, [8]);

    distribute(&client, RecordDistributionStrategy::Auto).await;
    assert_eq!(strategy(&client).await, Some(RecordDistributionStrategy::Auto));
    assert_eq!(spread_of_one_key(&client).await, [2, 2, 2, 2]);
    // No key is needed, and an explicit hash key does not count either.
    let keyless = put_one(&client).send().await.unwrap();
    let explicit = put_one(&client).explicit_hash_key("0");
    let explicit = explicit.send().await.unwrap();
    assert_ne!(keyless.shard_id(), explicit.shard_id());
    let record = read_one(&client, keyless.shard_id(), keyless.sequence_number()).await;
    assert_eq!(record.partition_key(), None);

    distribute(&client, user).await;
    assert_eq!(spread_of_one_key(&client).await, [8]);
    let keyless = put_one(&client).send().await;
    assert_eq!(code(keyless), "ValidationException");
}

async fn read_one(client: &Client, shard: &str, number: &str) -> Record {
    let start = client
        .get_shard_iterator()
        .stream_name(STREAM)
        .shard_id(shard)
        .shard_iterator_type(ShardIteratorType::AtSequenceNumber)
        .starting_sequence_number(number);
    let start = start.send().await.unwrap().shard_iterator.unwrap();
    get(client, start).await.records.remove(0)
}

#[tokio::test]
async fn only_on_demand_streams_are_service_managed() {
    let (_aws, client) = with_stream(1).await;
    let update = |arn: &str| {
        client
            .update_stream_record_distribution_strategy()
            .stream_arn(arn)
            .record_distribution_strategy(RecordDistributionStrategy::Auto)
            .send()
    };
    assert_eq!(code(update(STREAM_ARN).await), "InvalidArgumentException");
    let missing = update(&STREAM_ARN.replace(STREAM, "none")).await;
    assert_eq!(code(missing), "ResourceNotFoundException");
    let create = |details: StreamModeDetails| {
        client
            .create_stream()
            .stream_name("other")
            .stream_mode_details(details)
            .record_distribution_strategy(RecordDistributionStrategy::Auto)
    };
    let provisioned = create(mode(StreamMode::Provisioned)).shard_count(1);
    assert_eq!(code(provisioned.send().await), "InvalidArgumentException");
    let managed = create(mode(StreamMode::OnDemand));
    managed.send().await.unwrap();
    let summary = client.describe_stream_summary().stream_name("other");
    let summary = summary.send().await.unwrap();
    let summary = summary.stream_description_summary().unwrap();
    assert_eq!(summary.record_distribution_strategy(), Some(&RecordDistributionStrategy::Auto));
}

#[tokio::test]
async fn no_fault_of_one_shard_strikes_before_the_service_has_placed_the_record() {
    let (aws, client) = on_demand().await;
    aws.faults().add(Fault::throttle().operation("PutRecord").shard(SHARD_0));
    let low = || put_one(&client).partition_key("k").explicit_hash_key("0");
    let throttled = low().send().await;
    assert_eq!(code(throttled), "ProvisionedThroughputExceededException");
    distribute(&client, RecordDistributionStrategy::Auto).await;
    for _ in 0..4 {
        low().send().await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_changes_its_mode_twice_a_day() {
    let clock = ManualClock::default();
    let aws = LocalAws::builder().clock(clock.clone());
    let aws = aws.build().await.unwrap();
    aws.create_stream(STREAM, 2).await.unwrap();
    let client = client(&aws);
    let change = |to: StreamMode| {
        client.update_stream_mode().stream_arn(STREAM_ARN).stream_mode_details(mode(to)).send()
    };
    let split = || {
        client
            .split_shard()
            .stream_name(STREAM)
            .shard_to_split(SHARD_0)
            .new_starting_hash_key("7")
            .send()
    };
    let unchanged = change(StreamMode::Provisioned).await;
    assert_eq!(code(unchanged), "ValidationException");
    change(StreamMode::OnDemand).await.unwrap();
    assert_eq!(code(split().await), "ValidationException");
    distribute(&client, RecordDistributionStrategy::Auto).await;
    change(StreamMode::Provisioned).await.unwrap();
    assert_eq!(spread_of_one_key(&client).await, [8]);
    split().await.unwrap();
    let third = change(StreamMode::OnDemand).await;
    assert_eq!(code(third), "LimitExceededException");
    clock.advance(Duration::from_secs(24 * 3600));
    change(StreamMode::OnDemand).await.unwrap();
}

#[tokio::test]
async fn an_encrypted_stream_says_so_of_itself_and_of_what_is_put_and_read() {
    let (_aws, client) = with_stream(1).await;
    let plain = put_one(&client).partition_key("k").send().await.unwrap();
    assert_eq!(plain.encryption_type(), None);
    let key = "alias/aws/kinesis";
    let start = || client.start_stream_encryption().stream_name(STREAM);
    let none = start().encryption_type(EncryptionType::None).key_id(key);
    assert_eq!(code(none.send().await), "InvalidArgumentException");
    let kms = start().encryption_type(EncryptionType::Kms).key_id(key);
    kms.send().await.unwrap();

    let put = put_one(&client).partition_key("k").send().await.unwrap();
    assert_eq!(put.encryption_type(), Some(&EncryptionType::Kms));
    let batch = client.put_records().stream_name(STREAM);
    let batch = batch.records(entry("k", "y")).send().await.unwrap();
    assert_eq!(batch.encryption_type(), Some(&EncryptionType::Kms));
    let from = iterator(&client, SHARD_0, ShardIteratorType::TrimHorizon).await;
    let read = get(&client, from).await.records;
    let kinds: Vec<_> = read.iter().map(Record::encryption_type).collect();
    let kms = Some(&EncryptionType::Kms);
    assert_eq!(kinds, [None, kms, kms]);
    let describe = async || {
        let stream = client.describe_stream().stream_name(STREAM);
        let stream = stream.send().await.unwrap().stream_description.unwrap();
        (stream.encryption_type, stream.key_id)
    };
    let encrypted = (Some(EncryptionType::Kms), Some(key.to_owned()));
    assert_eq!(describe().await, encrypted);

    let stop = client.stop_stream_encryption().stream_name(STREAM);
    let stop = stop.encryption_type(EncryptionType::Kms).key_id(key);
    stop.send().await.unwrap();
    assert_eq!(describe().await, (Some(EncryptionType::None), None));
    let put = put_one(&client).partition_key("k").send().await.unwrap();
    assert_eq!(put.encryption_type(), None);
}

#[tokio::test]
async fn enhanced_monitoring_is_kept_and_shown() {
    let (_aws, client) = with_stream(1).await;
    let enable = client.enable_enhanced_monitoring().stream_name(STREAM);
    let enabled = enable
        .shard_level_metrics(MetricsName::OutgoingBytes)
        .shard_level_metrics(MetricsName::IncomingBytes)
        .send()
        .await
        .unwrap();
    let both = [MetricsName::IncomingBytes, MetricsName::OutgoingBytes];
    assert!(enabled.current_shard_level_metrics().is_empty());
    assert_eq!(enabled.desired_shard_level_metrics(), both);
    let disable = || client.disable_enhanced_monitoring().stream_name(STREAM);
    let disabled = disable().shard_level_metrics(MetricsName::IncomingBytes);
    let disabled = disabled.send().await.unwrap();
    assert_eq!(disabled.current_shard_level_metrics(), both);
    assert_eq!(disabled.desired_shard_level_metrics(), &both[1..]);
    let described = client.describe_stream().stream_name(STREAM).send().await;
    let described = described.unwrap().stream_description.unwrap();
    let shown = described.enhanced_monitoring[0].shard_level_metrics();
    assert_eq!(shown, &both[1..]);
    let all = client.enable_enhanced_monitoring().stream_name(STREAM);
    let all = all.shard_level_metrics(MetricsName::All);
    let all = all.send().await.unwrap();
    assert_eq!(all.desired_shard_level_metrics().len(), 7);
    let unknown = disable().shard_level_metrics(MetricsName::from("Beats"));
    assert_eq!(code(unknown.send().await), "ValidationException");
}

#[tokio::test]
async fn the_limits_count_what_there_is() {
    let (aws, client) = on_demand().await;
    aws.create_stream("provisioned", 3).await.unwrap();
    let limits = client.describe_limits().send().await.unwrap();
    assert_eq!(limits.open_shard_count(), 3);
    assert_eq!(limits.on_demand_stream_count(), 1);
    assert_eq!(limits.on_demand_stream_count_limit(), 50);
    assert_eq!(limits.shard_limit(), 20_000);
}
