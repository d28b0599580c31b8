//! The truth tables of the Java library's tests, and properties.

use std::time::SystemTime;

use kinesis_aggregation::{HashKey, HashKeyRange};
use proptest::prelude::*;

use super::*;

const AT_TIMESTAMP: StreamPosition = StreamPosition::AtTimestamp(SystemTime::UNIX_EPOCH);

/// `(id, parents, open)`, in starting-sequence order.
fn graph(rows: &[(u32, &[u32], bool)]) -> Vec<Shard> {
    rows.iter()
        .enumerate()
        .map(|(order, (id, parents, open))| Shard {
            id: name(*id),
            parents: parents.iter().copied().map(name).collect(),
            hash_key_range: HashKeyRange::FULL,
            starting_sequence: (order + 1).to_string().parse().unwrap(),
            open: *open,
        })
        .collect()
}

fn name(id: u32) -> String {
    format!("shardId-{id}")
}

fn graph_a() -> Vec<Shard> {
    graph(&[
        (0, &[], false),
        (1, &[], false),
        (2, &[], false),
        (3, &[], false),
        (4, &[], true),
        (5, &[], false),
        (6, &[0, 1], false),
        (7, &[2, 3], false),
        (8, &[6, 7], true),
        (9, &[5], true),
        (10, &[5], true),
    ])
}

fn graph_b() -> Vec<Shard> {
    graph(&[
        (0, &[], false),
        (1, &[], false),
        (2, &[0, 1], false),
        (3, &[2], false),
        (4, &[2], false),
        (5, &[3, 4], false),
        (6, &[5], false),
        (7, &[5], false),
        (8, &[6, 7], false),
        (9, &[8], true),
        (10, &[8], true),
    ])
}

fn graph_c() -> Vec<Shard> {
    graph(&[
        (0, &[], false),
        (1, &[], true),
        (2, &[], false),
        (3, &[], false),
        (4, &[0], false),
        (5, &[0], false),
        (6, &[2, 3], true),
        (7, &[4], true),
        (8, &[4], true),
        (9, &[5], true),
        (10, &[5], true),
    ])
}

fn leases(ids: &[u32]) -> Vec<Lease> {
    ids.iter().map(|id| Lease::new(name(*id), Checkpoint::TrimHorizon)).collect()
}

fn created(shards: &[Shard], existing: &[u32], position: StreamPosition) -> Vec<String> {
    let new = missing_leases(shards, &leases(existing), &[], position);
    new.iter().map(|lease| lease.shard.id.clone()).collect()
}

fn expect(shards: &[Shard], position: StreamPosition, cases: &[(&[u32], &[u32])]) {
    for (existing, expected) in cases {
        let mut created = created(shards, existing, position);
        created.sort();
        let mut expected: Vec<_> = expected.iter().copied().map(name).collect();
        expected.sort();
        assert_eq!(created, expected, "{position:?}, leases {existing:?}");
    }
}

#[test]
fn latest_follows_the_truth_table() {
    let latest = StreamPosition::Latest;
    expect(
        &graph_a(),
        latest,
        &[
            (&[3, 4, 5], &[2, 6]),
            (&[4, 5, 7], &[6]),
            (&[2, 6], &[3, 4, 9, 10]),
            (&[4, 9, 10], &[8]),
            (&[0, 1, 4, 7, 9, 10], &[]),
            (&[], &[4, 8, 9, 10]),
        ],
    );
    expect(
        &graph_b(),
        latest,
        &[(&[6], &[7]), (&[5], &[]), (&[0, 1, 2, 3, 4, 5], &[]), (&[], &[9, 10])],
    );
    expect(
        &graph_c(),
        latest,
        &[(&[9, 10], &[1, 6, 7, 8]), (&[4, 5, 6, 7], &[1]), (&[0, 1, 2, 3, 4, 5, 6, 7], &[])],
    );
}

#[test]
fn trim_horizon_and_timestamp_follow_the_truth_table() {
    for position in [StreamPosition::TrimHorizon, AT_TIMESTAMP] {
        expect(
            &graph_a(),
            position,
            &[
                (&[3, 4, 5], &[0, 1, 2]),
                (&[4, 5, 7], &[0, 1]),
                (&[2, 6], &[3, 4, 5]),
                (&[4, 9, 10], &[0, 1, 2, 3]),
                (&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], &[]),
                (&[], &[0, 1, 2, 3, 4, 5]),
            ],
        );
        expect(&graph_b(), position, &[(&[5], &[]), (&[0, 1, 2, 3, 4, 5], &[]), (&[], &[0, 1])]);
    }
}

#[test]
fn checkpoints_of_new_leases_fit_the_position() {
    let shards = graph_a();
    for lease in missing_leases(&shards, &[], &[], StreamPosition::Latest) {
        assert_eq!(lease.start.checkpoint, Checkpoint::Latest);
    }
    for lease in missing_leases(&shards, &[], &[], AT_TIMESTAMP) {
        assert_eq!(lease.start.checkpoint, Checkpoint::AtTimestamp);
    }
    for lease in missing_leases(&shards, &[], &[], StreamPosition::TrimHorizon) {
        assert_eq!(lease.start.checkpoint, Checkpoint::TrimHorizon);
    }
}

#[test]
fn leases_come_in_the_order_of_starting_sequence_numbers() {
    let mut shards = graph_a();
    shards.reverse();
    assert_eq!(created(&shards, &[], StreamPosition::TrimHorizon), [0, 1, 2, 3, 4, 5].map(name));
}

#[test]
fn an_empty_stream_needs_nothing() {
    assert!(missing_leases(&[], &leases(&[1]), &[], StreamPosition::Latest).is_empty());
}

#[test]
fn children_of_an_ended_shard_are_made_from_the_start_whatever_the_position() {
    let shards = graph(&[(0, &[], false), (1, &[0], true), (2, &[0], true)]);
    let existing =
        [Lease::new(name(0), Checkpoint::ShardEnd), Lease::new(name(2), Checkpoint::TrimHorizon)];
    let new = missing_leases(&shards, &existing, &[], StreamPosition::Latest);
    assert_eq!(new.len(), 1);
    assert_eq!(
        (new[0].shard.id.as_str(), &new[0].start.checkpoint),
        ("shardId-1", &Checkpoint::TrimHorizon)
    );
}

/// Java deletes the lease of a finished shard although one of its parents' is left.
#[test]
fn a_finished_shard_whose_lease_went_before_its_parents_is_not_made_again() {
    // 0 -> 1 + 2; 2 -> 3 + 4; 4 -> 5.
    let shards = graph(&[
        (0, &[], false),
        (1, &[0], true),
        (2, &[0], false),
        (3, &[2], true),
        (4, &[2], false),
        (5, &[4], true),
    ]);
    for left in [vec![3, 4, 5], vec![3], vec![5]] {
        let mut existing = leases(&left);
        existing.push(Lease::new(name(0), Checkpoint::ShardEnd));
        existing.extend(leases(&[1]));
        let new = missing_leases(&shards, &existing, &[], StreamPosition::TrimHorizon);
        assert!(new.iter().all(|new| new.shard.id != name(2)), "{left:?}: {new:?}");
    }
}

/// Leases with a checkpoint each; what is made, and where it starts.
fn made(
    shards: &[Shard],
    existing: &[(u32, Checkpoint)],
    unreadable: &[&str],
    position: StreamPosition,
) -> Vec<(String, Checkpoint)> {
    let existing: Vec<Lease> = existing
        .iter()
        .map(|(id, checkpoint)| Lease {
            hash_key_range: Some(HashKeyRange::FULL),
            ..Lease::new(name(*id), checkpoint.clone())
        })
        .collect();
    missing_leases(shards, &existing, unreadable, position)
        .into_iter()
        .map(|new| (new.shard.id.clone(), new.start.checkpoint))
        .collect()
}

fn at(number: &str) -> Checkpoint {
    Checkpoint::parse(number, 0).unwrap()
}

#[test]
fn the_child_of_a_merge_waits_until_each_listed_parent_has_a_lease() {
    let shards = graph(&[
        (0, &[], false),
        (1, &[], false),
        (2, &[], false),
        (3, &[], false),
        (4, &[0, 1], false),
        (5, &[2, 3], false),
        (6, &[4, 5], true),
    ]);
    let reading = [(2, at("5")), (3, Checkpoint::TrimHorizon), (4, Checkpoint::ShardEnd)];
    for position in [StreamPosition::Latest, StreamPosition::TrimHorizon, AT_TIMESTAMP] {
        assert_eq!(made(&shards, &reading, &[], position), []);
        let mut both = reading.to_vec();
        both.push((5, Checkpoint::TrimHorizon));
        let child = [(name(6), Checkpoint::TrimHorizon)];
        assert_eq!(made(&shards, &both, &[], position), child);
        // A parent that the stream has forgotten was read, or is lost.
        assert_eq!(made(&shards[6..], &reading[2..], &[], position), child);
    }
}

#[test]
fn latest_leaves_the_children_of_a_leased_shard_that_left_the_stream_to_its_end() {
    let shards = graph(&[(1, &[0], true), (2, &[0], true)]);
    let made = |checkpoint, unreadable: &[&str]| {
        let existing: Vec<_> = Option::into_iter(checkpoint).map(|at| (0, at)).collect();
        made(&shards, &existing, unreadable, StreamPosition::Latest)
    };
    assert_eq!(made(Some(at("7")), &[]), []);
    let both = [1, 2].map(|id| (name(id), Checkpoint::TrimHorizon));
    assert_eq!(made(Some(Checkpoint::ShardEnd), &[]), both);
    assert_eq!(made(None, &["shardId-0"]), [], "an item that is corrupt");
}

#[test]
fn latest_skips_nothing_below_a_leased_shard_whose_children_left_the_stream_too() {
    // 0 -> 1 -> 2 -> 3; 0 is leased, and 1 left the stream with it.
    let shards = graph(&[(2, &[1], false), (3, &[2], true)]);
    let latest = StreamPosition::Latest;
    let from_two = [(name(2), Checkpoint::TrimHorizon)];
    assert_eq!(made(&shards, &[(0, at("7"))], &[], latest), from_two);
    assert_eq!(
        made(&shards, &[], &["shardId-0"], latest),
        from_two,
        "which keys a corrupt item stands for is not known"
    );
    let initial = [(name(3), Checkpoint::Latest)];
    assert_eq!(made(&shards, &[], &[], latest), initial);
    assert_eq!(
        made(&shards, &[(0, Checkpoint::ShardEnd)], &[], latest),
        from_two,
        "its children were not: their leases would still be there"
    );

    // Other keys are another line; so is a lease below, which must not see its past again.
    let mut other = Lease::new(name(0), at("7"));
    other.hash_key_range = Some(HashKeyRange::new(HashKey::MIN, HashKey::new(9)).unwrap());
    let mut upper = shards.clone();
    for shard in &mut upper {
        shard.hash_key_range = HashKeyRange::new(HashKey::new(10), HashKey::MAX).unwrap();
    }
    let new = missing_leases(&upper, std::slice::from_ref(&other), &[], latest);
    assert_eq!((new.len(), &new[0].start.checkpoint), (1, &Checkpoint::Latest));
    let below = graph(&[(2, &[1], false), (3, &[2], true), (4, &[2], true)]);
    assert_eq!(made(&below, &[(3, at("7"))], &[], latest), [(name(4), Checkpoint::Latest)]);
}

#[test]
fn a_long_lineage_does_not_overflow_the_stack() {
    let rows: Vec<Vec<u32>> =
        (0..50_000u32).map(|id| id.checked_sub(1).into_iter().collect()).collect();
    let rows: Vec<(u32, &[u32], bool)> = rows
        .iter()
        .enumerate()
        .map(|(id, parents)| (id as u32, parents.as_slice(), id == 49_999))
        .collect();
    let shards = graph(&rows);
    assert_eq!(created(&shards, &[], StreamPosition::TrimHorizon), [name(0)]);
}

/// A stream after random splits and merges of neighbours.
fn random_graph() -> impl Strategy<Value = Vec<Shard>> {
    (1usize..5, proptest::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..12))
        .prop_map(|(roots, reshards)| {
            let mut rows: Vec<(u32, Vec<u32>, bool)> =
                (0..roots as u32).map(|id| (id, vec![], true)).collect();
            let mut open: Vec<u32> = (0..roots as u32).collect();
            for (split, index) in reshards {
                let at = index.index(open.len());
                let next = rows.len() as u32;
                let (closed, born) = if split || open.len() == 1 {
                    (vec![open[at]], vec![next, next + 1])
                } else {
                    let at = at.min(open.len() - 2);
                    (vec![open[at], open[at + 1]], vec![next])
                };
                let at = open.iter().position(|id| *id == closed[0]).unwrap();
                open.splice(at..at + closed.len(), born.clone());
                for id in &closed {
                    rows[*id as usize].2 = false;
                }
                rows.extend(born.into_iter().map(|id| (id, closed.clone(), true)));
            }
            let rows: Vec<_> =
                rows.iter().map(|(id, p, open)| (*id, p.as_slice(), *open)).collect();
            graph(&rows)
        })
}

proptest! {
    /// Whatever leases exist, afterwards every open shard has a lease or an ancestor that has one,
    /// and a second pass finds nothing to do.
    #[test]
    fn every_open_shard_is_reached_and_a_second_pass_adds_nothing(
        shards in random_graph(),
        existing in proptest::collection::btree_set(0u32..16, 0..6),
        position in prop_oneof![
            Just(StreamPosition::Latest), Just(StreamPosition::TrimHorizon), Just(AT_TIMESTAMP)
        ],
    ) {
        let existing: Vec<u32> =
            existing.into_iter().filter(|id| (*id as usize) < shards.len()).collect();
        let mut table = leases(&existing);
        let new = missing_leases(&shards, &table, &[], position);
        for lease in &new {
            prop_assert!(table.iter().all(|known| known.key != lease.shard.id));
        }
        table.extend(new.iter().map(|new| Lease::new(new.shard.id.clone(), new.start.checkpoint.clone())));

        let by_id: BTreeMap<_, _> = shards.iter().map(|shard| (&shard.id, shard)).collect();
        for shard in shards.iter().filter(|shard| shard.open) {
            let mut ancestry = vec![&shard.id];
            let mut reached = false;
            while let Some(id) = ancestry.pop() {
                reached |= table.iter().any(|lease| &lease.key == id);
                ancestry.extend(by_id[id].parents.iter());
            }
            prop_assert!(reached, "{} has no lease above it", shard.id);
        }
        let again = missing_leases(&shards, &table, &[], position);
        prop_assert!(again.is_empty(), "second pass: {:?}", again);
    }
}
