//! ListShards with a filter.

use std::time::Duration;

use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::builders::ShardFilterBuilder;
use aws_sdk_kinesis::types::{ShardFilter, ShardFilterType, ShardIteratorType};

use crate::case::{Verdict, cases};
use crate::check::{Failure, holds, refused, same, some};
use crate::kinesis::{HALF, Kinesis, SHARD_0, SHARD_1, SHARD_2, Stream, ids, is_open};

cases! { Kinesis, "filters":
    at_latest_are_open_shards,
    after_a_shard_are_those_with_greater_ids,
    from_the_trim_horizon_are_all_shards,
    at_the_trim_horizon_are_the_oldest_shards,
    at_a_time_are_the_shards_open_then,
    from_a_time_are_the_shards_open_since,
    a_filter_goes_on_across_pages,
    a_filter_that_lacks_its_argument_is_refused,
}

/// A stream whose shard 0 has been split into 1 and 2.
async fn split(kinesis: &Kinesis) -> Result<Stream, Failure> {
    let stream = kinesis.stream(1).await?;
    stream.split(SHARD_0, HALF).await?;
    Ok(stream)
}

/// Such a stream, and a time before and one after the split.
async fn split_between(kinesis: &Kinesis) -> Result<(Stream, DateTime, DateTime), Failure> {
    // So that no two moments are within the same second.
    let pause = || tokio::time::sleep(Duration::from_millis(1100));
    let stream = kinesis.stream(1).await?;
    pause().await;
    let before = arrival(&stream, SHARD_0).await?;
    pause().await;
    stream.split(SHARD_0, HALF).await?;
    pause().await;
    let after = arrival(&stream, SHARD_1).await?;
    Ok((stream, before, after))
}

/// The ids of the shards that a filter shows.
async fn show(stream: &Stream, filter: ShardFilterBuilder) -> Result<Vec<String>, Failure> {
    let list = stream.client.list_shards().stream_name(&stream.name);
    let list = list.shard_filter(filter.build()?).send().await?;
    Ok(ids(list.shards()).into_iter().map(str::to_owned).collect())
}

fn filter(kind: ShardFilterType) -> ShardFilterBuilder {
    ShardFilter::builder().r#type(kind)
}

/// When a record arrives in this shard: the time of the service, not ours.
async fn arrival(stream: &Stream, shard: &str) -> Result<DateTime, Failure> {
    stream.put(0, "x").await?;
    let start = stream.iterator(shard, ShardIteratorType::TrimHorizon).await?;
    let records = stream.read(start, 1).await?;
    let record = some("record", records.first())?;
    some("arrival", record.approximate_arrival_timestamp)
}

async fn at_latest_are_open_shards(kinesis: Kinesis) -> Verdict {
    let stream = split(&kinesis).await?;
    let shown = show(&stream, filter(ShardFilterType::AtLatest)).await?;
    same("shards", shown, [SHARD_1, SHARD_2])
}

async fn after_a_shard_are_those_with_greater_ids(kinesis: Kinesis) -> Verdict {
    let stream = split(&kinesis).await?;
    let after = filter(ShardFilterType::AfterShardId).shard_id(SHARD_1);
    same("shards", show(&stream, after).await?, [SHARD_2])
}

async fn from_the_trim_horizon_are_all_shards(kinesis: Kinesis) -> Verdict {
    let stream = split(&kinesis).await?;
    let shown = show(&stream, filter(ShardFilterType::FromTrimHorizon)).await?;
    same("shards", shown, [SHARD_0, SHARD_1, SHARD_2])
}

async fn at_the_trim_horizon_are_the_oldest_shards(kinesis: Kinesis) -> Verdict {
    let stream = split(&kinesis).await?;
    let shown = show(&stream, filter(ShardFilterType::AtTrimHorizon)).await?;
    same("shards", shown, [SHARD_0])
}

async fn at_a_time_are_the_shards_open_then(kinesis: Kinesis) -> Verdict {
    let (stream, before, after) = split_between(&kinesis).await?;
    let at = |time| filter(ShardFilterType::AtTimestamp).timestamp(time);
    same("before the split", show(&stream, at(before)).await?, [SHARD_0])?;
    same("after the split", show(&stream, at(after)).await?, [SHARD_1, SHARD_2])
}

async fn from_a_time_are_the_shards_open_since(kinesis: Kinesis) -> Verdict {
    let (stream, before, after) = split_between(&kinesis).await?;
    let from = |time| filter(ShardFilterType::FromTimestamp).timestamp(time);
    let all = [SHARD_0, SHARD_1, SHARD_2];
    same("before the split", show(&stream, from(before)).await?, all)?;
    same("after the split", show(&stream, from(after)).await?, [SHARD_1, SHARD_2])
}

async fn a_filter_goes_on_across_pages(kinesis: Kinesis) -> Verdict {
    let stream = split(&kinesis).await?;
    let list = kinesis.list_shards().stream_name(&stream.name);
    let open = filter(ShardFilterType::AtLatest).build()?;
    let first = list.shard_filter(open).max_results(1).send().await?;
    let token = some("token", first.next_token.clone())?;
    let rest = kinesis.list_shards().next_token(token).send().await?;
    let all: Vec<_> = first.shards().iter().chain(rest.shards()).cloned().collect();
    same("shards", ids(&all), [SHARD_1, SHARD_2])?;
    holds("they are open", all.iter().all(is_open))
}

async fn a_filter_that_lacks_its_argument_is_refused(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    for kind in [
        ShardFilterType::AtTimestamp,
        ShardFilterType::FromTimestamp,
        ShardFilterType::AfterShardId,
    ] {
        let bare = filter(kind.clone()).build()?;
        let list = kinesis.list_shards().stream_name(&stream.name);
        let list = list.shard_filter(bare).send().await;
        refused(kind.as_str(), list, "ValidationException")?;
    }
    Ok(())
}
