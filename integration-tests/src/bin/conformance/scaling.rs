//! UpdateShardCount.

use std::collections::BTreeSet;

use aws_sdk_kinesis::types::{ScalingType, Shard};

use crate::case::{Verdict, cases};
use crate::check::{Failure, holds, refused, same};
use crate::kinesis::{Kinesis, Stream, cover, is_open, range};

cases! { Kinesis, "scaling":
    a_stream_doubles,
    a_stream_halves,
    a_stream_grows_by_half_and_is_even,
    a_stream_at_most_doubles,
    a_stream_at_least_halves,
}

/// All shards, once there are so many open ones.
async fn scale(stream: &Stream, target: i32) -> Result<Vec<Shard>, Failure> {
    let update = stream.client.update_shard_count().stream_name(&stream.name);
    let update = update.target_shard_count(target);
    let answer = update.scaling_type(ScalingType::UniformScaling).send().await?;
    same("target", answer.target_shard_count, Some(target))?;
    stream.settled(usize::try_from(target)?).await
}

/// Every shard that was added has parents, and they are closed.
fn descends(shards: &[Shard], first: usize) -> bool {
    let closed = shards.iter().filter(|shard| !is_open(shard));
    let closed: BTreeSet<_> = closed.map(Shard::shard_id).collect();
    let known = |parent: Option<&str>| parent.is_some_and(|parent| closed.contains(parent));
    shards[first..].iter().all(|shard| known(shard.parent_shard_id()))
}

async fn a_stream_doubles(kinesis: Kinesis) -> Verdict {
    let shards = scale(&kinesis.stream(2).await?, 4).await?;
    same("shards", shards.len(), 6)?;
    holds("open shards cover all hash keys", cover(&shards)?)?;
    holds("new shards have closed parents", descends(&shards, 2))
}

async fn a_stream_halves(kinesis: Kinesis) -> Verdict {
    let shards = scale(&kinesis.stream(4).await?, 2).await?;
    same("shards", shards.len(), 6)?;
    holds("open shards cover all hash keys", cover(&shards)?)?;
    holds("new shards have closed parents", descends(&shards, 4))?;
    let merged = shards[4..].iter().all(|shard| shard.adjacent_parent_shard_id().is_some());
    holds("new shards have two parents", merged)
}

async fn a_stream_grows_by_half_and_is_even(kinesis: Kinesis) -> Verdict {
    let shards = scale(&kinesis.stream(2).await?, 3).await?;
    holds("open shards cover all hash keys", cover(&shards)?)?;
    holds("new shards have closed parents", descends(&shards, 2))?;
    let open = shards.iter().filter(|shard| is_open(shard)).map(range);
    for range in open {
        let (first, last) = range?;
        let third = u128::MAX / 3;
        holds("a shard is a third", (last - first).abs_diff(third) < 10)?;
    }
    Ok(())
}

async fn out_of_reach(kinesis: &Kinesis, target: i32) -> Verdict {
    let stream = kinesis.stream(4).await?;
    let update = kinesis.update_shard_count().stream_name(&stream.name);
    let update = update.target_shard_count(target);
    let update = update.scaling_type(ScalingType::UniformScaling).send().await;
    refused("update", update, "InvalidArgumentException")
}

async fn a_stream_at_most_doubles(kinesis: Kinesis) -> Verdict {
    out_of_reach(&kinesis, 9).await
}

async fn a_stream_at_least_halves(kinesis: Kinesis) -> Verdict {
    out_of_reach(&kinesis, 1).await
}
