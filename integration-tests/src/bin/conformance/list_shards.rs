//! ListShards without a filter.

use crate::case::{Verdict, cases};
use crate::check::{holds, refused, same, some};
use crate::kinesis::{HALF, Kinesis, SHARD_0, SHARD_1, SHARD_2, cover, ids, is_open, range};

cases! { Kinesis, "list_shards":
    new_shards_cover_all_hash_keys_and_have_no_parents,
    two_shards_halve_the_hash_keys,
    shards_are_listed_by_name_and_by_arn,
    shards_are_listed_page_by_page,
    shards_are_listed_after_one,
    a_token_stands_for_the_stream,
    a_token_that_cannot_be_is_refused,
    a_listing_keeps_closed_shards,
}

async fn new_shards_cover_all_hash_keys_and_have_no_parents(kinesis: Kinesis) -> Verdict {
    let shards = kinesis.stream(3).await?.shards().await?;
    same("shards", shards.len(), 3)?;
    holds("they are open", shards.iter().all(is_open))?;
    holds("they cover all hash keys", cover(&shards)?)?;
    let orphans = shards.iter().all(|shard| shard.parent_shard_id().is_none());
    holds("they have no parents", orphans)
}

async fn two_shards_halve_the_hash_keys(kinesis: Kinesis) -> Verdict {
    let shards = kinesis.stream(2).await?.shards().await?;
    let ranges = shards.iter().map(range).collect::<Result<Vec<_>, _>>()?;
    same("ranges", ranges, [(0, HALF - 1), (HALF, u128::MAX)])
}

async fn shards_are_listed_by_name_and_by_arn(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(2).await?;
    let by_arn = kinesis.list_shards().stream_arn(&stream.arn).send().await?;
    same("by ARN", by_arn.shards, Some(stream.shards().await?))
}

async fn shards_are_listed_page_by_page(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(5).await?;
    let list = kinesis.list_shards().stream_name(&stream.name);
    let mut page = list.max_results(2).send().await?;
    let mut seen = Vec::new();
    while let Some(token) = page.next_token {
        same("page", page.shards.as_ref().map(Vec::len), Some(2))?;
        seen.extend(page.shards.unwrap_or_default());
        let next = kinesis.list_shards().next_token(token);
        page = next.max_results(2).send().await?;
    }
    seen.extend(page.shards.unwrap_or_default());
    same("all pages", seen, stream.shards().await?)
}

async fn shards_are_listed_after_one(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(3).await?;
    let after = kinesis.list_shards().stream_name(&stream.name);
    let after = after.exclusive_start_shard_id(SHARD_0).send().await?;
    same("shards", after.shards(), &stream.shards().await?[1..])
}

async fn a_token_stands_for_the_stream(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(2).await?;
    let list = || kinesis.list_shards().stream_name(&stream.name);
    let token = some("token", list().max_results(1).send().await?.next_token)?;
    let both = list().next_token(token).send().await;
    refused("name and token", both, "InvalidArgumentException")
}

async fn a_token_that_cannot_be_is_refused(kinesis: Kinesis) -> Verdict {
    let bogus = kinesis.list_shards().next_token("bogus").send().await;
    refused("bogus", bogus, "InvalidArgumentException")
}

async fn a_listing_keeps_closed_shards(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(2).await?;
    let shards = stream.merge(SHARD_0, SHARD_1).await?;
    let open: Vec<_> = shards.iter().map(is_open).collect();
    same("open", open, [false, false, true])?;
    same("shards", ids(&shards), [SHARD_0, SHARD_1, SHARD_2])
}
