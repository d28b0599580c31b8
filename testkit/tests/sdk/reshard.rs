//! Splits, merges, and UpdateShardCount.

use std::collections::BTreeSet;

use aws_sdk_kinesis::types::ScalingType;

use super::*;

const HALF: u128 = 1 << 127;

#[tokio::test]
async fn a_split_shard_ends_with_its_children() {
    let (_aws, client) = with_stream(1).await;
    let before = put(&client, 0, "before").await;
    let reader = iterator(&client, SHARD_0, ShardIteratorType::Latest).await;
    split(&client, SHARD_0, HALF).await;
    let low = put(&client, 0, "low").await;
    let high = put(&client, HALF, "high").await;

    let shards = shards(&client).await;
    assert_eq!(shards.iter().map(Shard::shard_id).collect::<Vec<_>>(), [SHARD_0, SHARD_1, SHARD_2]);
    assert_eq!(shards.iter().map(is_open).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(range(&shards[1]), (0, HALF - 1));
    assert_eq!(range(&shards[2]), (HALF, u128::MAX));
    let ending = shards[0].sequence_number_range().unwrap().ending_sequence_number().unwrap();
    assert!(*before < *ending);
    for child in &shards[1..] {
        assert_eq!(child.parent_shard_id(), Some(SHARD_0));
        assert_eq!(child.adjacent_parent_shard_id(), None);
        assert!(child.sequence_number_range().unwrap().starting_sequence_number() > ending);
    }
    assert!(*ending < *low && *ending < *high);

    // The last records and the end come in one answer, to every kind of iterator.
    let start = iterator(&client, SHARD_0, ShardIteratorType::TrimHorizon).await;
    let whole = get(&client, start).await;
    assert_eq!(texts(whole.records()), ["before"]);
    for end in [whole, get(&client, reader).await] {
        assert_eq!(end.next_shard_iterator(), None);
        assert_eq!(end.millis_behind_latest(), Some(0));
        let children: Vec<_> = end.child_shards().iter().map(|child| child.shard_id()).collect();
        assert_eq!(children, [SHARD_1, SHARD_2]);
        assert_eq!(end.child_shards()[0].parent_shards(), [SHARD_0]);
        let range = end.child_shards()[1].hash_key_range().unwrap();
        assert_eq!(range.starting_hash_key(), HALF.to_string());
    }
    assert_eq!(read_all(&client, SHARD_1).await, ["low"]);
    assert_eq!(read_all(&client, SHARD_2).await, ["high"]);
}

#[tokio::test]
async fn the_end_is_only_told_once_every_record_has_been_read() {
    let (_aws, client) = with_stream(1).await;
    put(&client, 0, "a").await;
    put(&client, 0, "b").await;
    split(&client, SHARD_0, HALF).await;
    let start = iterator(&client, SHARD_0, ShardIteratorType::TrimHorizon).await;
    let read = client.get_records().shard_iterator(start).limit(1).send().await.unwrap();
    assert!(read.child_shards().is_empty());
    let read = get(&client, read.next_shard_iterator.unwrap()).await;
    assert_eq!(texts(read.records()), ["b"]);
    assert_eq!((read.child_shards().len(), read.next_shard_iterator), (2, None));
}

#[tokio::test]
async fn a_merged_shard_names_both_parents() {
    let (_aws, client) = with_stream(2).await;
    put(&client, 0, "low").await;
    put(&client, HALF, "high").await;
    merge(&client, SHARD_1, SHARD_0).await;
    let shards = shards(&client).await;
    assert_eq!(shards.len(), 3);
    assert_eq!(shards[2].parent_shard_id(), Some(SHARD_1));
    assert_eq!(shards[2].adjacent_parent_shard_id(), Some(SHARD_0));
    assert_eq!(range(&shards[2]), (0, u128::MAX));
    for parent in [SHARD_0, SHARD_1] {
        let start = iterator(&client, parent, ShardIteratorType::TrimHorizon).await;
        let end = get(&client, start).await;
        assert_eq!(end.records().len(), 1);
        assert_eq!(end.next_shard_iterator(), None);
        assert_eq!(end.child_shards().len(), 1);
        assert_eq!(end.child_shards()[0].shard_id(), SHARD_2);
        assert_eq!(end.child_shards()[0].parent_shards(), [SHARD_1, SHARD_0]);
    }
    assert!(put(&client, 0, "after").await > *ending(&shards[0]).max(ending(&shards[1])));
}

fn ending(shard: &Shard) -> &String {
    shard.sequence_number_range().unwrap().ending_sequence_number.as_ref().unwrap()
}

#[tokio::test]
async fn changes_that_cannot_be_are_refused() {
    let (_aws, client) = with_stream(3).await;
    let split_at = |shard: &str, at: &str| {
        let split = client.split_shard().stream_name(STREAM).shard_to_split(shard);
        split.new_starting_hash_key(at).send()
    };
    let merge_of = |shard: &str, adjacent: &str| {
        let merge = client.merge_shards().stream_name(STREAM).shard_to_merge(shard);
        merge.adjacent_shard_to_merge(adjacent).send()
    };
    let last = u128::MAX.to_string();
    for at in ["0", "1", &last] {
        assert_eq!(code(split_at(SHARD_0, at).await), "InvalidArgumentException", "{at}");
    }
    assert_eq!(code(split_at("shardId-000000000009", "7").await), "ResourceNotFoundException");
    assert_eq!(code(split_at(SHARD_0, "seven").await), "ValidationException");
    assert_eq!(code(merge_of(SHARD_0, SHARD_2).await), "InvalidArgumentException");
    assert_eq!(code(merge_of(SHARD_0, SHARD_0).await), "InvalidArgumentException");
    merge_of(SHARD_0, SHARD_1).await.unwrap();
    assert_eq!(code(merge_of(SHARD_1, SHARD_2).await), "InvalidArgumentException");
    assert_eq!(code(split_at(SHARD_0, "7").await), "InvalidArgumentException");
    let none = client.split_shard().stream_name("none").shard_to_split(SHARD_0);
    let none = none.new_starting_hash_key("7").send().await;
    assert_eq!(code(none), "ResourceNotFoundException");
}

async fn update(client: &Client, target: i32) -> Result<(i32, i32), String> {
    let update = client.update_shard_count().stream_name(STREAM).target_shard_count(target);
    let updated = update.scaling_type(ScalingType::UniformScaling).send().await;
    match updated {
        Ok(done) => Ok((done.current_shard_count.unwrap(), done.target_shard_count.unwrap())),
        refused => Err(code(refused)),
    }
}

#[tokio::test]
async fn the_shard_count_changes_evenly_and_keeps_its_lineage() {
    let (_aws, client) = with_stream(2).await;
    let mut current = 2;
    for target in [4, 3, 5, 5, 7, 4, 2, 1] {
        assert_eq!(update(&client, target).await, Ok((current, target)));
        current = target;
        let shards = shards(&client).await;
        let mut open: Vec<_> = shards.iter().filter(|shard| is_open(shard)).map(range).collect();
        open.sort_unstable();
        assert_eq!(open.len(), target as usize);
        assert_eq!((open[0].0, open[open.len() - 1].1), (0, u128::MAX));
        assert!(open.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0));
        let widths: Vec<_> = open.iter().map(|(start, end)| end - start).collect();
        assert!(widths.iter().max().unwrap() - widths.iter().min().unwrap() <= 1);
        // Every shard but the first two has parents, and they are closed.
        let closed: BTreeSet<_> =
            shards.iter().filter(|shard| !is_open(shard)).map(Shard::shard_id).collect();
        for shard in &shards[2..] {
            assert!(closed.contains(shard.parent_shard_id().unwrap()));
            assert!(shard.adjacent_parent_shard_id().is_none_or(|parent| closed.contains(parent)));
        }
    }
}

#[tokio::test]
async fn the_shard_count_at_most_doubles_or_halves() {
    let (_aws, client) = with_stream(4).await;
    assert_eq!(update(&client, 9).await.unwrap_err(), "InvalidArgumentException");
    assert_eq!(update(&client, 1).await.unwrap_err(), "InvalidArgumentException");
    assert_eq!(update(&client, 0).await.unwrap_err(), "ValidationException");
    assert_eq!(update(&client, 8).await, Ok((4, 8)));
    assert_eq!(shards(&client).await.len(), 12, "doubling splits each shard once");
    assert_eq!(update(&client, 4).await, Ok((8, 4)));
    assert_eq!(shards(&client).await.len(), 16, "halving merges each pair once");
}
