//! Creating, describing, listing and deleting streams, and their settings.

use std::time::Duration;

use aws_sdk_kinesis::types::{StreamMode, StreamModeDetails, StreamStatus};
use kinesis_testkit::{LocalAws, ManualClock};

use super::*;

fn mode(mode: StreamMode) -> StreamModeDetails {
    StreamModeDetails::builder().stream_mode(mode).build().unwrap()
}

#[tokio::test]
async fn a_provisioned_stream_is_described_by_name_and_by_arn() {
    let aws = LocalAws::start().await.unwrap();
    let client = client(&aws);
    client.create_stream().stream_name(STREAM).shard_count(3).send().await.unwrap();

    let by_name = client.describe_stream().stream_name(STREAM).send().await.unwrap();
    let description = by_name.stream_description().unwrap();
    let arn = "arn:aws:kinesis:us-east-1:000000000000:stream/orders";
    assert_eq!(description.stream_arn(), arn);
    assert_eq!(description.stream_status(), &StreamStatus::Active);
    assert_eq!(description.retention_period_hours(), 24);
    assert_eq!(description.shards().len(), 3);
    assert!(!description.has_more_shards());
    let by_arn = client.describe_stream().stream_arn(arn).send().await.unwrap();
    assert_eq!(by_arn.stream_description, by_name.stream_description);

    let summary = client.describe_stream_summary().stream_arn(arn).send().await.unwrap();
    let summary = summary.stream_description_summary().unwrap();
    assert_eq!(summary.open_shard_count(), 3);
    assert_eq!(summary.max_record_size_in_kib(), Some(1024));
    assert_eq!(summary.stream_mode_details().unwrap().stream_mode(), &StreamMode::Provisioned);

    let wrong = client.describe_stream().stream_name("other").stream_arn(arn).send().await;
    assert_eq!(code(wrong), "InvalidArgumentException");
    assert_eq!(code(client.describe_stream().send().await), "InvalidArgumentException");
    let foreign = arn.replace("000000000000", "111111111111");
    let foreign = client.describe_stream().stream_arn(foreign).send().await;
    assert_eq!(code(foreign), "ResourceNotFoundException");
}

#[tokio::test]
async fn an_on_demand_stream_starts_with_four_shards_that_cannot_be_changed() {
    let aws = LocalAws::start().await.unwrap();
    let client = client(&aws);
    let on_demand = mode(StreamMode::OnDemand);
    let create = client.create_stream().stream_name(STREAM);
    create.stream_mode_details(on_demand).send().await.unwrap();
    assert_eq!(shards(&client).await.len(), 4);
    let update = client.update_shard_count().stream_name(STREAM).target_shard_count(8);
    let update = update.scaling_type(aws_sdk_kinesis::types::ScalingType::UniformScaling);
    assert_eq!(code(update.send().await), "ValidationException");
    let split = client.split_shard().stream_name(STREAM).shard_to_split(SHARD_0);
    let split = split.new_starting_hash_key("1000").send().await;
    assert_eq!(code(split), "ValidationException");
}

#[tokio::test]
async fn a_stream_that_cannot_be_created_is_refused() {
    let (_aws, client) = with_stream(1).await;
    let again = client.create_stream().stream_name(STREAM).shard_count(1).send().await;
    assert_eq!(code(again), "ResourceInUseException");
    for name in ["a b", "", &"x".repeat(129)] {
        let malformed = client.create_stream().stream_name(name).shard_count(1).send().await;
        assert_eq!(code(malformed), "ValidationException", "{name}");
    }
    let none = client.create_stream().stream_name("none").shard_count(0).send().await;
    assert_eq!(code(none), "ValidationException");
    let uncounted = client.create_stream().stream_name("uncounted").send().await;
    assert_eq!(code(uncounted), "ValidationException");
    let many = client.create_stream().stream_name("many").shard_count(1_000_000).send().await;
    assert_eq!(code(many), "LimitExceededException");
}

#[tokio::test]
async fn a_deleted_stream_is_gone_and_one_of_the_same_name_is_another() {
    let (aws, client) = with_stream(1).await;
    put(&client, 0, "old").await;
    let old = iterator(&client, SHARD_0, ShardIteratorType::TrimHorizon).await;
    client.delete_stream().stream_name(STREAM).send().await.unwrap();

    let gone = client.describe_stream().stream_name(STREAM).send().await;
    assert_eq!(code(gone), "ResourceNotFoundException");
    let read = client.get_records().shard_iterator(&old).send().await;
    assert_eq!(code(read), "ResourceNotFoundException");
    let put_to_it = client.put_record().stream_name(STREAM).partition_key("k");
    let put_to_it = put_to_it.data(Blob::new("x")).send().await;
    assert_eq!(code(put_to_it), "ResourceNotFoundException");
    let again = client.delete_stream().stream_name(STREAM).send().await;
    assert_eq!(code(again), "ResourceNotFoundException");

    aws.create_stream(STREAM, 1).await.unwrap();
    assert!(read_all(&client, SHARD_0).await.is_empty());
    let read = client.get_records().shard_iterator(old).send().await;
    assert_eq!(code(read), "ResourceNotFoundException");
}

#[tokio::test]
async fn streams_are_listed_page_by_page() {
    let aws = LocalAws::start().await.unwrap();
    let client = client(&aws);
    for name in ["d", "a", "c", "b"] {
        aws.create_stream(name, 1).await.unwrap();
    }
    let first = client.list_streams().limit(3).send().await.unwrap();
    assert_eq!(first.stream_names(), ["a", "b", "c"]);
    assert!(first.has_more_streams());
    assert_eq!(first.stream_summaries().len(), 3);
    let token = first.next_token.unwrap();
    let list = || client.list_streams().next_token(&token);
    let both = list().exclusive_start_stream_name("b").send().await;
    assert_eq!(code(both), "InvalidArgumentException");
    let bogus = client.list_streams().next_token("c").send().await;
    assert_eq!(code(bogus), "InvalidArgumentException");
    let rest = client.list_streams().next_token(&token).send().await.unwrap();
    assert_eq!(rest.stream_names(), ["d"]);
    assert!(!rest.has_more_streams());
    let after = client.list_streams().exclusive_start_stream_name("b").send().await.unwrap();
    assert_eq!(after.stream_names(), ["c", "d"]);
}

#[tokio::test]
async fn describe_stream_pages_through_shards() {
    let (_aws, client) = with_stream(5).await;
    let page = |after: Option<String>| {
        let describe = client.describe_stream().stream_name(STREAM).limit(2);
        describe.set_exclusive_start_shard_id(after).send()
    };
    let mut seen = Vec::new();
    loop {
        let described = page(seen.last().cloned()).await.unwrap().stream_description.unwrap();
        seen.extend(described.shards.iter().map(|shard| shard.shard_id.clone()));
        if !described.has_more_shards {
            break;
        }
        assert_eq!(described.shards.len(), 2);
    }
    let expected: Vec<_> = (0..5).map(|index| format!("shardId-{index:012}")).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn retention_can_be_raised_and_lowered_within_bounds_and_is_applied() {
    const HOUR: Duration = Duration::from_secs(3600);
    let clock = ManualClock::default();
    let aws = LocalAws::builder().clock(clock.clone()).build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    let client = client(&aws);
    let raise = |hours| {
        let raise = client.increase_stream_retention_period().stream_name(STREAM);
        raise.retention_period_hours(hours).send()
    };
    let lower = |hours| {
        let lower = client.decrease_stream_retention_period().stream_name(STREAM);
        lower.retention_period_hours(hours).send()
    };
    put(&client, 0, "first").await;
    clock.advance(23 * HOUR);
    put(&client, 0, "second").await;
    assert_eq!(read_all(&client, SHARD_0).await, ["first", "second"]);
    clock.advance(2 * HOUR);
    raise(48).await.unwrap();
    assert_eq!(read_all(&client, SHARD_0).await, ["second"], "what was past retention stays lost");
    clock.advance(30 * HOUR);
    assert_eq!(read_all(&client, SHARD_0).await, ["second"]);
    lower(24).await.unwrap();
    assert!(read_all(&client, SHARD_0).await.is_empty());

    assert_eq!(code(lower(48).await), "InvalidArgumentException");
    raise(72).await.unwrap();
    assert_eq!(code(raise(48).await), "InvalidArgumentException");
    assert_eq!(code(raise(8761).await), "ValidationException");
    assert_eq!(code(lower(23).await), "ValidationException");
}

#[tokio::test]
async fn expired_records_stay_in_the_oracle_only_if_asked() {
    for keep in [false, true] {
        let clock = ManualClock::default();
        let builder = LocalAws::builder().clock(clock.clone()).keep_expired_records(keep);
        let aws = builder.build().await.unwrap();
        aws.create_stream(STREAM, 1).await.unwrap();
        let client = client(&aws);
        put(&client, 0, "old").await;
        clock.advance(Duration::from_secs(25 * 3600));
        put(&client, 0, "new").await;
        assert_eq!(read_all(&client, SHARD_0).await, ["new"]);
        let records = &aws.records(STREAM)[0].records;
        let held: Vec<_> = records.iter().map(|record| text(&record.data)).collect();
        assert_eq!(held, if keep { vec!["old", "new"] } else { vec!["new"] });
    }
}

#[tokio::test]
async fn a_transition_takes_its_time_and_forbids_a_second_one() {
    let clock = ManualClock::default();
    let time = Duration::from_secs(30);
    let builder = LocalAws::builder().clock(clock.clone()).transition_time(time);
    let aws = builder.build().await.unwrap();
    let client = client(&aws);
    let status = async || {
        let summary = client.describe_stream_summary().stream_name(STREAM).send().await.unwrap();
        summary.stream_description_summary.unwrap().stream_status
    };
    client.create_stream().stream_name(STREAM).shard_count(1).send().await.unwrap();
    assert_eq!(status().await, StreamStatus::Creating);
    let early = client.put_record().stream_name(STREAM).partition_key("k");
    let early = early.data(Blob::new("x")).send().await;
    assert_eq!(code(early), "ResourceNotFoundException");
    clock.advance(time);
    assert_eq!(status().await, StreamStatus::Active);

    split(&client, SHARD_0, 1 << 127).await;
    assert_eq!(status().await, StreamStatus::Updating);
    put(&client, 0, "still to the parent").await;
    let second = client.split_shard().stream_name(STREAM).shard_to_split(SHARD_0);
    let second = second.new_starting_hash_key("1000").send().await;
    assert_eq!(code(second), "ResourceInUseException");
    assert_eq!(shards(&client).await.len(), 1);
    clock.advance(time);
    assert_eq!(shards(&client).await.len(), 3);
    assert_eq!(status().await, StreamStatus::Active);
    assert_eq!(read_all(&client, SHARD_0).await, ["still to the parent"]);
    assert!(read_all(&client, SHARD_1).await.is_empty());

    client.delete_stream().stream_name(STREAM).send().await.unwrap();
    assert_eq!(status().await, StreamStatus::Deleting);
    let again = client.delete_stream().stream_name(STREAM).send().await;
    assert_eq!(code(again), "ResourceInUseException");
    clock.advance(time);
    let gone = client.describe_stream_summary().stream_name(STREAM).send().await;
    assert_eq!(code(gone), "ResourceNotFoundException");
}

#[tokio::test]
async fn an_operation_that_is_not_there_says_so() {
    let (aws, client) = with_stream(1).await;
    let limits = client.describe_account_settings().send().await;
    assert_eq!(code(limits), "UnknownOperationException");
    assert_eq!(aws.calls("DescribeAccountSettings"), 1);
    assert_eq!(aws.calls("PutRecords"), 0);
}
