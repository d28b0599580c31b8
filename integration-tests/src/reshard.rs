//! Splits and merges, each waited for until the stream is ACTIVE again.

use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::{Shard, StreamStatus};

use crate::Error;

/// The open shards in the order of their hash keys.
pub async fn open_shards(kinesis: &Client, stream: &str) -> Result<Vec<Shard>, Error> {
    let answer = kinesis.list_shards().stream_name(stream).send().await?;
    let is_open = |shard: &Shard| {
        shard.sequence_number_range().is_some_and(|r| r.ending_sequence_number().is_none())
    };
    let mut open: Vec<Shard> = answer.shards.unwrap_or_default();
    open.retain(is_open);
    open.sort_by_key(|shard| range(shard).map(|(start, _)| start).unwrap_or_default());
    Ok(open)
}

fn range(shard: &Shard) -> Option<(u128, u128)> {
    let range = shard.hash_key_range()?;
    Some((range.starting_hash_key().parse().ok()?, range.ending_hash_key().parse().ok()?))
}

/// Splits the open shard with the lowest hash keys in the middle.
pub async fn split_first(kinesis: &Client, stream: &str) -> Result<(), Error> {
    let shards = open_shards(kinesis, stream).await?;
    split(kinesis, stream, shards.first().ok_or("no open shard")?).await
}

/// Splits a shard in the middle.
pub async fn split(kinesis: &Client, stream: &str, shard: &Shard) -> Result<(), Error> {
    let (start, end) = range(shard).ok_or("a shard without a hash key range")?;
    kinesis
        .split_shard()
        .stream_name(stream)
        .shard_to_split(shard.shard_id())
        .new_starting_hash_key((start + (end - start) / 2 + 1).to_string())
        .send()
        .await?;
    active(kinesis, stream).await
}

/// Merges the two open shards with the highest hash keys.
pub async fn merge_last_two(kinesis: &Client, stream: &str) -> Result<(), Error> {
    let shards = open_shards(kinesis, stream).await?;
    let [.., lower, upper] = shards.as_slice() else {
        return Err("fewer than two open shards".into());
    };
    kinesis
        .merge_shards()
        .stream_name(stream)
        .shard_to_merge(lower.shard_id())
        .adjacent_shard_to_merge(upper.shard_id())
        .send()
        .await?;
    active(kinesis, stream).await
}

async fn active(kinesis: &Client, stream: &str) -> Result<(), Error> {
    loop {
        let answer = kinesis.describe_stream_summary().stream_name(stream).send().await?;
        let summary = answer.stream_description_summary.ok_or("no summary")?;
        if *summary.stream_status() == StreamStatus::Active {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
