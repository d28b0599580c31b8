//! Positions of single shards in a stream that was split and merged.

use kinesis_aggregation::HashKeyRange;
use proptest::prelude::*;

use super::*;
use crate::config::{ShardPositions, StreamPosition};

/// `(id, parents, open)`, in starting-sequence order. The first number of shard `n` is `100 n`.
fn graph(rows: &[(u32, &[u32], bool)]) -> Vec<Shard> {
    let shards = rows.iter().map(|(id, parents, open)| Shard {
        id: name(*id),
        parents: parents.iter().copied().map(name).collect(),
        hash_key_range: HashKeyRange::FULL,
        starting_sequence: number(100 * id),
        open: *open,
    });
    shards.collect()
}

fn name(id: u32) -> String {
    format!("shardId-{id:03}")
}

fn number(number: u32) -> SequenceNumber {
    number.to_string().parse().unwrap()
}

/// 0 was split into 1 and 2; 2 and 3 were merged into 4; 4 was split into 5 and 6.
fn stream() -> Vec<Shard> {
    graph(&[
        (0, &[], false),
        (1, &[0], true),
        (2, &[0], false),
        (3, &[], false),
        (4, &[2, 3], false),
        (5, &[4], true),
        (6, &[4], true),
    ])
}

fn per_shard(others: StreamPosition, named: &[(u32, ShardPosition)]) -> InitialPosition {
    let positions = named.iter().cloned().fold(ShardPositions::new(others), |positions, named| {
        positions.with(name(named.0), named.1)
    });
    InitialPosition::PerShard(positions)
}

fn after(last: u32) -> ShardPosition {
    ShardPosition::AfterSequenceNumber(number(last))
}

fn all_of(last: u32) -> Checkpoint {
    Checkpoint::after_all_of(number(last))
}

/// The leases that are made in a table that holds these.
fn made(leases: &[Lease], position: &InitialPosition) -> Vec<(String, Checkpoint)> {
    let shards = stream();
    let new = leases_to_create(&shards, leases, &[], position);
    new.into_iter().map(|new| (new.shard.id.clone(), new.start.checkpoint)).collect()
}

fn lease(id: u32, checkpoint: Checkpoint) -> Lease {
    Lease::new(name(id), checkpoint)
}

#[test]
fn an_open_shard_starts_at_its_position_and_the_others_at_theirs() {
    let position = per_shard(StreamPosition::Latest, &[(5, after(550))]);
    let expected =
        [(name(1), Checkpoint::Latest), (name(5), all_of(550)), (name(6), Checkpoint::Latest)];
    assert_eq!(made(&[], &position), expected);
    let at = ShardPosition::AtSequenceNumber(number(150));
    let position = per_shard(StreamPosition::TrimHorizon, &[(1, at)]);
    let expected = [
        (name(0), Checkpoint::TrimHorizon),
        (name(1), Checkpoint::Before(number(150))),
        (name(3), Checkpoint::TrimHorizon),
    ];
    assert_eq!(made(&[], &position), expected, "the others are made when their parents end");
}

/// Its children are open at the tip. They start at their beginning, when it has ended.
#[test]
fn a_closed_shard_gets_its_lease_and_its_descendants_follow_it() {
    let position = per_shard(StreamPosition::Latest, &[(4, after(450))]);
    assert_eq!(made(&[], &position), [(name(1), Checkpoint::Latest), (name(4), all_of(450))]);
}

/// 4 waits for both of its parents. 3 has no record after its end, at which a shard that is closed starts at `Latest`.
#[test]
fn the_other_parent_of_a_merge_gets_a_lease_at_the_position_of_the_others() {
    let position = per_shard(StreamPosition::Latest, &[(2, after(250))]);
    let expected =
        [(name(1), Checkpoint::Latest), (name(2), all_of(250)), (name(3), Checkpoint::Latest)];
    assert_eq!(made(&[], &position), expected);
}

#[test]
fn a_named_shard_waits_for_all_shards_between_it_and_another_that_is_read() {
    let position = per_shard(StreamPosition::Latest, &[(2, after(250)), (5, after(550))]);
    let expected = [
        (name(1), Checkpoint::Latest),
        (name(2), all_of(250)),
        (name(3), Checkpoint::Latest),
        (name(4), Checkpoint::TrimHorizon),
        (name(5), all_of(550)),
    ];
    assert_eq!(made(&[], &position), expected, "6 is made when 4 ends");
}

#[test]
fn a_shard_that_was_finished_or_has_a_checkpoint_does_not_start_again() {
    let position = per_shard(StreamPosition::TrimHorizon, &[(2, after(250)), (5, after(550))]);
    let table = [1, 5, 6].map(|id| lease(id, all_of(100 * id + 90)));
    assert_eq!(made(&table, &position), [], "2 was finished, and its lease deleted");
    // The first leases were made in part.
    let table = [lease(0, Checkpoint::TrimHorizon), lease(2, all_of(250))];
    let made = made(&table, &position);
    let expected = [
        (name(3), Checkpoint::TrimHorizon),
        (name(4), Checkpoint::TrimHorizon),
        (name(5), all_of(550)),
    ];
    assert_eq!(made, expected);
}

#[test]
fn a_shard_that_begins_at_the_number_has_no_record_with_it() {
    for position in [
        ShardPosition::AtSequenceNumber(number(500)),
        ShardPosition::AfterSequenceNumber(number(500)),
    ] {
        let position = per_shard(StreamPosition::Latest, &[(5, position)]);
        let made = made(&[], &position);
        assert!(made.contains(&(name(5), Checkpoint::TrimHorizon)), "{made:?}");
    }
}

#[test]
fn shards_and_numbers_that_do_not_fit_are_named() {
    let check = |named: &[(u32, ShardPosition)]| {
        check_named(&per_shard(StreamPosition::Latest, named), &stream())
    };
    let unknown = check(&[(7, ShardPosition::Latest), (1, after(100)), (9, after(1))]);
    let error = NamedShardsError::Unknown { shard_ids: vec![name(7), name(9)] };
    assert_eq!(unknown, Err(error));
    let early = check(&[(5, after(499))]).unwrap_err();
    assert!(matches!(early, NamedShardsError::NotInShard { shard_id, .. } if shard_id == name(5)));
    assert_eq!(check(&[(5, after(500)), (6, ShardPosition::TrimHorizon)]), Ok(()));
    assert_eq!(check_named(&InitialPosition::TrimHorizon, &[]), Ok(()));
}

proptest! {
    /// Whatever is named: each named shard has its lease, every open shard has a lease or follows one, no shard has a
    /// lease while a parent is missing that another lease leads to, and a second pass finds nothing to do.
    #[test]
    fn nothing_is_skipped_and_nothing_starts_before_its_parents(
        ids in proptest::collection::btree_set(0u32..7, 0..5),
        others in prop_oneof![Just(StreamPosition::Latest), Just(StreamPosition::TrimHorizon)],
    ) {
        let named: Vec<_> = ids.iter().map(|id| (*id, after(100 * id + 50))).collect();
        let position = per_shard(others, &named);
        let table: BTreeMap<String, Checkpoint> = made(&[], &position).into_iter().collect();
        for id in &ids {
            prop_assert_eq!(table.get(&name(*id)), Some(&all_of(100 * id + 50)));
        }
        let shards = stream();
        let lineage = Lineage::new(&shards);
        let read = lineage.descendants(table.keys().map(String::as_str));
        for shard in &shards {
            let id = shard.id.as_str();
            if shard.open {
                prop_assert!(read.contains(id) || table.contains_key(id), "{} is skipped", id);
            }
            if table.contains_key(id) {
                for parent in &shard.parents {
                    let waits = table.contains_key(parent) || !read.contains(parent.as_str());
                    prop_assert!(waits, "{} starts before {}", id, parent);
                }
            }
            // The end of one parent of a merge creates the lease of the child.
            if read.contains(id) && !table.contains_key(id) {
                for parent in &shard.parents {
                    let waits = table.contains_key(parent) || read.contains(parent.as_str());
                    prop_assert!(waits, "{} does not wait for {}", id, parent);
                }
            }
        }
        let table: Vec<Lease> =
            table.into_iter().map(|(id, checkpoint)| Lease::new(id, checkpoint)).collect();
        prop_assert_eq!(made(&table, &position), vec![]);
    }
}
