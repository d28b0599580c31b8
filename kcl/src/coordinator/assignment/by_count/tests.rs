//! Examples, and convergence from any distribution of leases.

use proptest::prelude::*;

use super::super::{ActiveLease, FleetWorkers};
use super::*;

fn plan(
    me: &str,
    leases: &[ActiveLease<'_>],
    workers: FleetWorkers<'_>,
    max_leases: usize,
) -> Plan {
    super::plan(AssignmentInput { me, max_leases, leases, workers })
}

fn workers(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Workers that all take and receive leases.
fn all(workers: &BTreeSet<String>) -> FleetWorkers<'_> {
    FleetWorkers { live: workers, takers: workers, receivers: workers }
}

/// Leases by key and owner. Without an owner, a lease is free.
fn leases<'a>(rows: &[(&'a str, &'a str)]) -> Vec<ActiveLease<'a>> {
    rows.iter()
        .map(|(key, owner)| ActiveLease {
            key,
            owner: (!owner.is_empty()).then_some(*owner),
            is_handoff_pending: false,
            is_overdue: false,
        })
        .collect()
}

#[test]
fn a_lone_worker_takes_everything_at_once() {
    let table = leases(&[("a", ""), ("b", ""), ("c", "")]);
    let plan = plan("w", &table, all(&BTreeSet::new()), usize::MAX);
    assert_eq!(plan.take, ["a", "b", "c"]);
    assert!(plan.hand_over.is_empty());
}

#[test]
fn two_workers_share_free_leases_without_overlap() {
    let table = leases(&[("a", ""), ("b", ""), ("c", ""), ("d", "")]);
    let live = workers(&["v", "w"]);
    let of = |me| plan(me, &table, all(&live), usize::MAX).take;
    assert_eq!(of("v"), ["a", "b"]);
    assert_eq!(of("w"), ["c", "d"]);
}

#[test]
fn a_new_worker_gets_the_excess_from_its_owner() {
    let table = leases(&[("a", "v"), ("b", "v"), ("c", "v"), ("d", "v")]);
    let live = workers(&["v", "w"]);
    let of = |me| plan(me, &table, all(&live), usize::MAX);
    assert_eq!(of("v").hand_over, [("d".into(), "w".into()), ("c".into(), "w".into())]);
    assert_eq!(of("w"), Plan::default());
}

#[test]
fn a_pending_handoff_counts_for_the_receiver_and_does_not_move_again() {
    let mut table = leases(&[("a", "v"), ("b", "v"), ("c", "w"), ("d", "w")]);
    for lease in &mut table[2..] {
        lease.is_handoff_pending = true;
    }
    let live = workers(&["v", "w"]);
    assert_eq!(plan("v", &table, all(&live), usize::MAX), Plan::default());
    assert_eq!(plan("w", &table, all(&live), usize::MAX), Plan::default());
    let three = workers(&["v", "w", "x"]);
    table.push(ActiveLease {
        key: "e",
        owner: Some("w"),
        is_handoff_pending: true,
        is_overdue: false,
    });
    assert!(plan("w", &table, all(&three), usize::MAX).hand_over.is_empty());
}

#[test]
fn a_difference_of_one_stays() {
    let table = leases(&[("a", "v"), ("b", "v"), ("c", "w")]);
    let live = workers(&["v", "w"]);
    assert_eq!(plan("v", &table, all(&live), usize::MAX), Plan::default());
}

#[test]
fn nothing_is_handed_to_a_worker_that_may_be_gone() {
    let table = leases(&[("a", "v"), ("b", "v"), ("c", "v"), ("d", "v")]);
    let (live, alone) = (workers(&["v", "w"]), workers(&["v"]));
    let fleet = FleetWorkers { receivers: &alone, ..all(&live) };
    assert!(plan("v", &table, fleet, usize::MAX).hand_over.is_empty());
}

#[test]
fn the_limit_of_leases_is_kept_even_for_overdue_ones() {
    let mut table = leases(&[("a", "w"), ("b", ""), ("c", "")]);
    for lease in &mut table {
        lease.is_overdue = true;
    }
    let plan = plan("w", &table, all(&workers(&["w"])), 2);
    assert_eq!(plan.take, ["b"]);
}

#[test]
fn a_free_lease_is_not_left_to_a_worker_without_room() {
    let table = leases(&[("a", "full"), ("b", "w"), ("c", "w"), ("d", "")]);
    let live = workers(&["full", "w"]);
    let takers = workers(&["w"]);
    let fleet = FleetWorkers { takers: &takers, receivers: &takers, ..all(&live) };
    assert_eq!(plan("w", &table, fleet, usize::MAX).take, ["d"]);
    let full = plan("full", &table, fleet, 1);
    assert_eq!(full, Plan::default());
}

#[test]
fn an_overdue_lease_is_taken_out_of_the_share_of_another_worker() {
    let mut table = leases(&[("a", "w"), ("b", "")]);
    let live = workers(&["v", "w"]);
    assert!(plan("w", &table, all(&live), usize::MAX).take.is_empty());
    table[1].is_overdue = true;
    assert_eq!(plan("w", &table, all(&live), usize::MAX).take, ["b"]);
}

#[test]
fn only_handoffs_that_two_scans_agree_on_are_made() {
    let moves = |rows: &[(&str, &str)]| Plan {
        take: vec![],
        hand_over: rows.iter().map(|(k, w)| ((*k).into(), (*w).into())).collect(),
    };
    let previous = moves(&[("a", "w"), ("b", "w")]);
    let latest = moves(&[("b", "w"), ("a", "x")]);
    let agreed = latest.handoffs_agreed_with(&previous);
    assert_eq!(agreed, [("b".to_owned(), "w".to_owned())]);
}

/// The number of workers, and the owner of each lease. 0: the lease is free.
fn fleet() -> impl Strategy<Value = (usize, Vec<usize>)> {
    (1usize..7)
        .prop_flat_map(|workers| (Just(workers), proptest::collection::vec(0..=workers, 0..40)))
}

fn counts(workers: usize, owners: &[usize]) -> Vec<usize> {
    (1..=workers).map(|worker| owners.iter().filter(|owner| **owner == worker).count()).collect()
}

fn spread(workers: usize, owners: &[usize]) -> usize {
    let counts = counts(workers, owners);
    counts.iter().max().unwrap_or(&0) - counts.iter().min().unwrap_or(&0)
}

/// Applies one worker's plan to the table. Handoffs complete at once. Returns the number of moves.
fn act(worker: usize, workers_count: usize, seen: &[usize], table: &mut [usize]) -> usize {
    let names: Vec<String> = (0..=workers_count).map(|w| format!("w{w}")).collect();
    let keys: Vec<String> = (0..seen.len()).map(|k| format!("k{k:02}")).collect();
    let leases: Vec<_> = seen
        .iter()
        .zip(&keys)
        .map(|(owner, key)| ActiveLease {
            key,
            owner: (*owner > 0).then(|| names[*owner].as_str()),
            is_handoff_pending: false,
            is_overdue: false,
        })
        .collect();
    let live: BTreeSet<String> = names[1..].iter().cloned().collect();
    let plan = plan(&names[worker], &leases, all(&live), usize::MAX);
    let index = |key: &str| keys.iter().position(|k| k == key).unwrap();
    for key in &plan.take {
        assert_eq!(table[index(key)], 0, "took a lease that is not free any more");
        table[index(key)] = worker;
    }
    for (key, to) in &plan.hand_over {
        assert_eq!(table[index(key)], worker, "handed over a lease of another worker");
        table[index(key)] = names.iter().position(|name| name == to).unwrap();
    }
    plan.take.len() + plan.hand_over.len()
}

/// The leases that a worker plans to take, by number.
fn taken(worker: usize, workers_count: usize, seen: &[usize]) -> Vec<usize> {
    let mut table = seen.to_vec();
    act(worker, workers_count, seen, &mut table);
    let was_free = |at: &usize| seen[*at] == 0 && table[*at] == worker;
    (0..seen.len()).filter(was_free).collect()
}

proptest! {
    /// Workers that act one after the other, in any order, each on its own scan.
    #[test]
    fn any_distribution_converges_and_then_rests(
        (workers, mut table) in fleet(),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 0..100),
    ) {
        let (mut moves, bound) = (0, 2 * table.len());
        for turn in order {
            let seen = table.clone();
            let before: usize = counts(workers, &table).iter().map(|count| count * count).sum();
            let free_before = table.iter().filter(|owner| **owner == 0).count();
            let made = act(1 + turn.index(workers), workers, &seen, &mut table);
            let after: usize = counts(workers, &table).iter().map(|count| count * count).sum();
            if made > 0 && free_before == table.iter().filter(|owner| **owner == 0).count() {
                prop_assert!(after < before, "a move that does not even out");
            }
            moves += made;
        }
        // The random order may have left a worker out.
        for _ in 0..2 {
            for worker in 1..=workers {
                let seen = table.clone();
                moves += act(worker, workers, &seen, &mut table);
            }
        }
        prop_assert!(!table.contains(&0), "a lease is still free");
        prop_assert!(spread(workers, &table) <= 1, "{:?}", counts(workers, &table));
        prop_assert!(moves <= bound, "{} moves for {} leases", moves, table.len());
        for worker in 1..=workers {
            let seen = table.clone();
            prop_assert_eq!(act(worker, workers, &seen, &mut table), 0, "no rest");
        }
    }

    /// The plans of workers that act on the same scan fit together, and one round is enough.
    #[test]
    fn plans_made_from_the_same_scan_fit_together((workers, table) in fleet()) {
        let mut after = table.clone();
        for worker in 1..=workers {
            act(worker, workers, &table, &mut after);
        }
        prop_assert!(!after.contains(&0));
        prop_assert!(spread(workers, &after) <= 1, "{:?}", counts(workers, &after));
    }

    /// A worker that scans while other workers take their leases plans none of theirs.
    #[test]
    fn a_scan_that_shows_the_table_half_way_plans_no_lease_of_another(
        (workers, table) in fleet(),
        caught in proptest::collection::vec(any::<bool>(), 40),
    ) {
        let mut after = table.clone();
        for worker in 1..=workers {
            act(worker, workers, &table, &mut after);
        }
        // The scan shows some of the takes, and no handoff.
        let is_seen = |at: usize| table[at] == 0 && caught[at % 40];
        let half_way: Vec<usize> = (0..table.len())
            .map(|at| if is_seen(at) { after[at] } else { table[at] })
            .collect();
        for worker in 1..=workers {
            for key in taken(worker, workers, &half_way) {
                prop_assert_eq!(after[key], worker, "lease {} was planned twice", key);
            }
        }
    }
}
