use std::time::SystemTime;

use proptest::prelude::*;

use super::*;
use crate::config::{ShardPosition, ShardPositions};

/// `(id, parents, open)`, in the order of their first records.
fn listed(rows: &[(u32, &[u32], bool)]) -> Vec<Shard> {
    let shards = rows.iter().map(|(id, parents, open)| Shard {
        id: name(*id),
        parents: parents.iter().copied().map(name).collect(),
        hash_key_range: HashKeyRange::FULL,
        starting_sequence: (10 * (id + 1)).to_string().parse().unwrap(),
        open: *open,
    });
    shards.collect()
}

fn name(id: u32) -> String {
    format!("shardId-{id}")
}

fn ids(ids: &[u32]) -> BTreeSet<String> {
    ids.iter().copied().map(name).collect()
}

fn at(number: u32) -> Checkpoint {
    Checkpoint::At(ExtendedSequenceNumber::new(number.to_string().parse().unwrap(), 0))
}

fn lease(id: u32, checkpoint: Checkpoint) -> Lease {
    Lease::new(name(id), checkpoint)
}

/// The lease of each shard in the plan: whether there is one, and its new checkpoint.
fn of(targets: &[Target]) -> Vec<(String, bool, Checkpoint)> {
    let text = |target: &Target| {
        let listed = target.shard.as_ref().map(|shard| shard.id.clone());
        let former = target.former.as_ref().map(|lease| lease.key.clone());
        let id = listed.or(former).unwrap();
        (id, target.former.is_some(), target.start.checkpoint.clone())
    };
    targets.iter().map(text).collect()
}

/// Shard 0 was split into 1 and 2, and these were merged into 3. Shard 9 has left the stream.
fn tree() -> (Vec<Shard>, Vec<Lease>) {
    let shards = listed(&[(0, &[], false), (1, &[0], false), (2, &[0], false), (3, &[1, 2], true)]);
    let leases = vec![
        lease(9, at(5)),
        lease(0, Checkpoint::ShardEnd),
        lease(1, Checkpoint::ShardEnd),
        lease(2, at(37)),
    ];
    (shards, leases)
}

#[test]
fn at_the_trim_horizon_all_shards_begin_again() {
    let (shards, leases) = tree();
    let plan = of_application(&leases, &shards, &ids(&[0]), &InitialPosition::TrimHorizon);
    let expected = [
        (name(0), true, Checkpoint::TrimHorizon),
        (name(1), true, Checkpoint::TrimHorizon),
        (name(2), true, Checkpoint::TrimHorizon),
        (name(9), true, Checkpoint::ShardEnd),
    ];
    assert_eq!(of(&plan), expected, "the merged shard gets its lease at the end of its parents");
    let facts = plan[0].shard.as_ref().unwrap();
    assert_eq!(facts.children, ids(&[1, 2]));
}

#[test]
fn at_latest_closed_shards_are_finished() {
    let (shards, leases) = tree();
    let plan = of_application(&leases, &shards, &ids(&[3]), &InitialPosition::Latest);
    let expected = [
        (name(2), true, Checkpoint::ShardEnd),
        (name(3), false, Checkpoint::Latest),
        (name(9), true, Checkpoint::ShardEnd),
    ];
    assert_eq!(of(&plan), expected);
}

#[test]
fn at_a_time_descendants_start_there_too() {
    let (shards, mut leases) = tree();
    leases.push(lease(3, at(50)));
    let position = InitialPosition::AtTimestamp(SystemTime::UNIX_EPOCH);
    let plan = of_application(&leases, &shards, &ids(&[1, 2]), &position);
    let expected = [
        (name(1), true, Checkpoint::AtTimestamp),
        (name(2), true, Checkpoint::AtTimestamp),
        (name(3), true, Checkpoint::AtTimestamp),
        (name(9), true, Checkpoint::ShardEnd),
    ];
    assert_eq!(of(&plan), expected);
}

/// Shard 1 is closed. Shard 3 waits for it and for shard 2, which has no record at the tip.
#[test]
fn named_shards_start_at_their_positions_and_their_descendants_follow() {
    let (shards, mut leases) = tree();
    let after = |number: &str| ShardPosition::AfterSequenceNumber(number.parse().unwrap());
    let named = |named: &[(u32, &str)]| {
        let named = named.iter().map(|(id, number)| (name(*id), after(number)));
        InitialPosition::PerShard(ShardPositions { shards: named.collect(), ..Default::default() })
    };
    let all_of = |number: &str| Checkpoint::after_all_of(number.parse().unwrap());
    let plan = of_application(&leases, &shards, &ids(&[3]), &named(&[(1, "25")]));
    let expected = [
        (name(1), true, all_of("25")),
        (name(2), true, Checkpoint::ShardEnd),
        (name(9), true, Checkpoint::ShardEnd),
    ];
    assert_eq!(of(&plan), expected, "3 gets its lease when 1 ends");
    leases.retain(|lease| lease.key != name(2));
    leases.push(lease(3, at(50)));
    let plan = of_application(&leases, &shards, &ids(&[3]), &named(&[(1, "25")]));
    let expected = [
        (name(1), true, all_of("25")),
        (name(2), false, Checkpoint::ShardEnd),
        (name(3), true, Checkpoint::TrimHorizon),
        (name(9), true, Checkpoint::ShardEnd),
    ];
    assert_eq!(of(&plan), expected, "2 would be read from its beginning without a lease");
    let plan = of_application(&leases, &shards, &ids(&[3]), &named(&[(0, "15"), (3, "55")]));
    let expected = [
        (name(0), true, all_of("15")),
        (name(1), true, Checkpoint::TrimHorizon),
        (name(2), false, Checkpoint::TrimHorizon),
        (name(3), true, all_of("55")),
        (name(9), true, Checkpoint::ShardEnd),
    ];
    assert_eq!(of(&plan), expected, "3 waits for those in between");
}

#[test]
fn one_shard_is_reset_unless_it_is_finished_or_unknown() {
    let (shards, leases) = tree();
    let plan = |id, checkpoint: Checkpoint| {
        of_shard(&leases, &shards, &name(id), |_| LeaseStart::new(checkpoint.clone()))
    };
    assert_eq!(of(&plan(2, at(31)).unwrap()), [(name(2), true, at(31))]);
    let refused = |id, checkpoint| plan(id, checkpoint).unwrap_err();
    let early = Checkpoint::Before("29".parse().unwrap());
    assert!(matches!(refused(2, early), LeaseAdminError::NotInShard { .. }));
    assert!(matches!(refused(2, at(29)), LeaseAdminError::NotInShard { .. }));
    let ended = refused(1, Checkpoint::TrimHorizon);
    assert!(matches!(ended, LeaseAdminError::ShardEnded { .. }));
    for id in [3, 9, 77] {
        let unknown = refused(id, Checkpoint::TrimHorizon);
        assert!(matches!(unknown, LeaseAdminError::UnknownShard { .. }), "{id}");
    }
}

#[test]
fn a_lease_that_a_worker_writes_is_not_as_planned() {
    let former = Lease { owner: Some("w1".into()), counter: 7, ..lease(0, at(5)) };
    let check = |planned: Option<&Lease>, found: Option<&Lease>| {
        check_unchanged(former.shard_id(), planned, found)
    };
    check(Some(&former), Some(&former)).unwrap();
    let renewed = Lease { counter: 8, ..former.clone() };
    let error = check(Some(&former), Some(&renewed)).unwrap_err();
    assert!(matches!(error, LeaseAdminError::OwnerAlive { owner, .. } if owner == "w1"));
    let released = Lease { owner: None, counter: 8, ..former.clone() };
    let error = check(Some(&former), Some(&released)).unwrap_err();
    assert!(matches!(error, LeaseAdminError::Changed { .. }));
    let error = check(Some(&former), None).unwrap_err();
    assert!(matches!(error, LeaseAdminError::Changed { .. }));
    check(None, None).unwrap();
    assert!(check(None, Some(&former)).is_err());
}

#[test]
fn a_reset_keeps_what_it_does_not_know() {
    let mut former = lease(9, at(5));
    former.other.insert("note".into(), crate::lease::text("mine"));
    former.hash_key_range = Some(HashKeyRange::FULL);
    former.parents = ids(&[7]);
    former.has_entity_type = false;
    let new = keeping_facts(lease(9, Checkpoint::ShardEnd), &former);
    let kept = (&new.other, new.hash_key_range, &new.parents, new.has_entity_type);
    assert_eq!(kept, (&former.other, former.hash_key_range, &former.parents, false));
    assert_eq!(new.checkpoint, Checkpoint::ShardEnd);
}

/// A tree of shards that grew by splits and merges, with a lease for some of them.
fn trees() -> impl Strategy<Value = (Vec<Shard>, Vec<Lease>)> {
    let steps = prop::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 0..12);
    (steps, prop::collection::vec(0..4_u8, 40)).prop_map(|(steps, checkpoints)| {
        let mut rows: Vec<(u32, Vec<u32>, bool)> = vec![(0, vec![], true), (1, vec![], true)];
        for (which, is_split) in steps {
            let open: Vec<u32> = rows.iter().filter(|row| row.2).map(|row| row.0).collect();
            let next = rows.len() as u32;
            let first = which.index(open.len());
            let parents = match (is_split, open.get(first + 1)) {
                (false, Some(second)) => vec![open[first], *second],
                _ => vec![open[first]],
            };
            for parent in &parents {
                rows[*parent as usize].2 = false;
            }
            rows.push((next, parents.clone(), true));
            if parents.len() == 1 {
                rows.push((next + 1, parents, true));
            }
        }
        let leases = rows.iter().zip(checkpoints).filter_map(|((id, ..), kind)| {
            let checkpoint = match kind {
                0 => return None,
                1 => Checkpoint::ShardEnd,
                2 => Checkpoint::TrimHorizon,
                _ => at(10 * (id + 1)),
            };
            Some(lease(*id, checkpoint))
        });
        let leases = leases.collect();
        let rows: Vec<(u32, &[u32], bool)> =
            rows.iter().map(|(id, parents, open)| (*id, &parents[..], *open)).collect();
        (listed(&rows), leases)
    })
}

proptest! {
    /// After a reset to the trim horizon, no shard is finished or begun, and each will be processed: it has a lease, or one
    /// of its ancestors has.
    #[test]
    fn at_the_trim_horizon_nothing_is_left_out((shards, leases) in trees()) {
        let roots = shards.iter().filter(|shard| shard.parents.is_empty());
        let first: BTreeSet<String> = roots.map(|shard| shard.id.clone()).collect();
        let plan = of_application(&leases, &shards, &first, &InitialPosition::TrimHorizon);
        let mut after: BTreeMap<String, Checkpoint> =
            leases.into_iter().map(|lease| (lease.key.clone(), lease.checkpoint)).collect();
        after.extend(of(&plan).into_iter().map(|(id, _, checkpoint)| (id, checkpoint)));
        prop_assert!(after.values().all(|checkpoint| *checkpoint == Checkpoint::TrimHorizon));
        let mut reached = BTreeSet::new();
        // Parents are listed before their children.
        for shard in &shards {
            let by_parent = shard.parents.iter().any(|parent| reached.contains(parent));
            prop_assert!(by_parent || after.contains_key(&shard.id), "{}", shard.id);
            reached.insert(shard.id.clone());
        }
    }

    /// After a reset to the tip, no record that was put before is processed: closed shards are finished.
    #[test]
    fn at_the_tip_only_open_shards_are_left((shards, leases) in trees()) {
        let open = shards.iter().filter(|shard| shard.open);
        let first: BTreeSet<String> = open.map(|shard| shard.id.clone()).collect();
        let plan = of_application(&leases, &shards, &first, &InitialPosition::Latest);
        let mut after: BTreeMap<String, Checkpoint> =
            leases.into_iter().map(|lease| (lease.key.clone(), lease.checkpoint)).collect();
        after.extend(of(&plan).into_iter().map(|(id, _, checkpoint)| (id, checkpoint)));
        for shard in &shards {
            match after.get(&shard.id) {
                Some(checkpoint) if shard.open => prop_assert_eq!(checkpoint, &Checkpoint::Latest),
                Some(checkpoint) => prop_assert_eq!(checkpoint, &Checkpoint::ShardEnd),
                None => prop_assert!(!shard.open, "{} has no lease", shard.id),
            }
        }
    }
}
