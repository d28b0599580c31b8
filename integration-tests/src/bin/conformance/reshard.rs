//! SplitShard and MergeShards, and how a shard ends.

use std::collections::BTreeSet;

use aws_sdk_kinesis::operation::get_records::GetRecordsOutput;
use aws_sdk_kinesis::types::ShardIteratorType;

use crate::case::{Verdict, cases};
use crate::check::{Failure, holds, refused, same, some};
use crate::kinesis::{
    HALF, Kinesis, SHARD_0, SHARD_1, SHARD_2, Stream, ending, ids, is_open, range, rises,
};

cases! { Kinesis, "reshard":
    a_split_shard_has_two_children,
    a_merged_shard_has_two_parents,
    the_numbers_of_children_come_after_their_parents,
    records_go_to_the_children,
    a_split_shard_ends_with_its_children,
    merged_shards_end_with_their_child,
    the_end_is_told_once_all_has_been_read,
    a_reader_at_the_tip_comes_to_the_end,
    a_split_needs_a_key_inside_the_shard,
    only_neighbours_merge,
    a_closed_shard_stays_closed,
}

async fn a_split_shard_has_two_children(kinesis: Kinesis) -> Verdict {
    let shards = kinesis.stream(1).await?.split(SHARD_0, 1000).await?;
    same("shards", ids(&shards), [SHARD_0, SHARD_1, SHARD_2])?;
    let open: Vec<_> = shards.iter().map(is_open).collect();
    same("open", open, [false, true, true])?;
    let children = &shards[1..];
    let ranges = children.iter().map(range).collect::<Result<BTreeSet<_>, _>>()?;
    same("ranges", ranges, BTreeSet::from([(0, 999), (1000, u128::MAX)]))?;
    for child in children {
        same("parent", child.parent_shard_id(), Some(SHARD_0))?;
        same("adjacent parent", child.adjacent_parent_shard_id(), None)?;
    }
    Ok(())
}

async fn a_merged_shard_has_two_parents(kinesis: Kinesis) -> Verdict {
    let shards = kinesis.stream(2).await?.merge(SHARD_0, SHARD_1).await?;
    same("shards", ids(&shards), [SHARD_0, SHARD_1, SHARD_2])?;
    same("range", range(&shards[2])?, (0, u128::MAX))?;
    same("parent", shards[2].parent_shard_id(), Some(SHARD_0))?;
    same("adjacent parent", shards[2].adjacent_parent_shard_id(), Some(SHARD_1))
}

async fn the_numbers_of_children_come_after_their_parents(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let before = stream.put(0, "before").await?;
    let shards = stream.split(SHARD_0, HALF).await?;
    let after = stream.put(0, "after").await?;
    let end = some("ending number", ending(&shards[0]))?;
    let child = some("numbers of the child", shards[1].sequence_number_range())?;
    let start = child.starting_sequence_number();
    holds("the end comes after the parent's records", rises(&[&before, end]))?;
    holds("the child starts after the end", rises(&[end, start]))?;
    holds("the child's records come after its start", rises(&[start, &after]))
}

async fn records_go_to_the_children(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    stream.put(0, "before").await?;
    stream.split(SHARD_0, HALF).await?;
    stream.put(0, "low").await?;
    stream.put(HALF, "high").await?;
    same("parent", stream.texts_of(SHARD_0, 9).await?, ["before"])?;
    same("low child", stream.texts_of(SHARD_1, 1).await?, ["low"])?;
    same("high child", stream.texts_of(SHARD_2, 1).await?, ["high"])
}

/// The last page of a shard that has ended, and how many records came before its end.
async fn to_the_end(stream: &Stream, shard: &str) -> Result<(GetRecordsOutput, usize), Failure> {
    let mut iterator = stream.iterator(shard, ShardIteratorType::TrimHorizon).await?;
    let mut records = 0;
    loop {
        let page = stream.get(&iterator).await?;
        records += page.records.len();
        match page.next_shard_iterator {
            None => return Ok((page, records)),
            Some(next) => iterator = next,
        }
    }
}

async fn a_split_shard_ends_with_its_children(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    stream.put(0, "x").await?;
    stream.split(SHARD_0, HALF).await?;
    let (end, records) = to_the_end(&stream, SHARD_0).await?;
    same("records", records, 1)?;
    same("behind", end.millis_behind_latest, Some(0))?;
    let children = end.child_shards();
    let ids: BTreeSet<_> = children.iter().map(|child| child.shard_id()).collect();
    same("children", ids, BTreeSet::from([SHARD_1, SHARD_2]))?;
    for child in children {
        same("parents", child.parent_shards(), [SHARD_0])?;
        some("range", child.hash_key_range())?;
    }
    Ok(())
}

async fn merged_shards_end_with_their_child(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(2).await?;
    stream.merge(SHARD_0, SHARD_1).await?;
    for parent in [SHARD_0, SHARD_1] {
        let (end, _) = to_the_end(&stream, parent).await?;
        let children = end.child_shards();
        same("children", children.len(), 1)?;
        same("child", children[0].shard_id(), SHARD_2)?;
        let parents: BTreeSet<_> = children[0].parent_shards().iter().collect();
        same("parents", parents.len(), 2)?;
    }
    Ok(())
}

async fn the_end_is_told_once_all_has_been_read(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    stream.put(0, "a").await?;
    stream.put(0, "b").await?;
    stream.split(SHARD_0, HALF).await?;
    let start = stream.iterator(SHARD_0, ShardIteratorType::TrimHorizon).await?;
    let page = kinesis.get_records().shard_iterator(start).limit(1);
    let page = page.send().await?;
    same("children with the first page", page.child_shards().len(), 0)?;
    let next = some("next iterator", page.next_shard_iterator)?;
    same("the rest", stream.read(next, 9).await?.len(), 1)
}

async fn a_reader_at_the_tip_comes_to_the_end(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(1).await?;
    let latest = stream.iterator(SHARD_0, ShardIteratorType::Latest).await?;
    stream.split(SHARD_0, HALF).await?;
    same("records", stream.read(latest, 9).await?.len(), 0)
}

async fn a_split_needs_a_key_inside_the_shard(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(2).await?;
    let (first, last) = range(&stream.shards().await?[0])?;
    for at in [first, last + 1, u128::MAX] {
        let split = kinesis.split_shard().stream_name(&stream.name);
        let split = split.shard_to_split(SHARD_0).new_starting_hash_key(at.to_string());
        refused(&at.to_string(), split.send().await, "InvalidArgumentException")?;
    }
    Ok(())
}

async fn only_neighbours_merge(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(3).await?;
    for (what, adjacent) in [("strangers", SHARD_2), ("itself", SHARD_0)] {
        let merge = kinesis.merge_shards().stream_name(&stream.name);
        let merge = merge.shard_to_merge(SHARD_0).adjacent_shard_to_merge(adjacent);
        refused(what, merge.send().await, "InvalidArgumentException")?;
    }
    Ok(())
}

async fn a_closed_shard_stays_closed(kinesis: Kinesis) -> Verdict {
    let stream = kinesis.stream(2).await?;
    stream.merge(SHARD_0, SHARD_1).await?;
    let split = kinesis.split_shard().stream_name(&stream.name);
    let split = split.shard_to_split(SHARD_0).new_starting_hash_key("1000");
    refused("split", split.send().await, "InvalidArgumentException")?;
    let merge = kinesis.merge_shards().stream_name(&stream.name);
    let merge = merge.shard_to_merge(SHARD_0).adjacent_shard_to_merge(SHARD_2);
    refused("merge", merge.send().await, "InvalidArgumentException")
}
