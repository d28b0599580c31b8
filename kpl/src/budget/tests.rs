use futures::FutureExt;
use proptest::prelude::*;

use super::*;

const A: LaneId = LaneId(0);
const B: LaneId = LaneId(1);
const C: LaneId = LaneId(2);

/// Takes ten bytes at a time until refused.
fn fill(budget: &Arc<Budget>, lanes: &[LaneId]) -> Vec<Charge> {
    let mut held = Vec::new();
    loop {
        let before = held.len();
        held.extend(lanes.iter().filter_map(|&lane| budget.try_charge(lane, 10)));
        if held.len() == before {
            return held;
        }
    }
}

#[test]
fn one_hot_shard_gets_half_and_two_a_third_each() {
    let budget = Budget::new(900);
    let one = fill(&budget, &[A]);
    assert_eq!(budget.used(), 450);
    drop(one);
    let _two = fill(&budget, &[A, B]);
    assert_eq!(budget.used(), 600);
    assert!(budget.try_charge(C, 10).is_some());
    assert_eq!(budget.peak(), 610);
}

#[test]
fn waiters_of_a_shard_are_served_in_order() {
    let budget = Budget::new(100);
    let held = budget.try_charge(A, 30).unwrap();
    let mut first = budget.charge_in_turn(A, 60);
    let mut second = budget.charge_in_turn(A, 5);
    assert!(
        budget.try_charge(A, 1).is_none(),
        "nobody overtakes who waits"
    );
    assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
    drop(held);
    let first = (&mut first).now_or_never().flatten().unwrap();
    assert!((&mut second).now_or_never().is_none());
    assert_eq!((first.bytes(), budget.used()), (60, 60));
    drop(first);
    let second = (&mut second).now_or_never().flatten().unwrap();
    assert_eq!((second.bytes(), budget.used()), (5, 5));
}

#[test]
fn a_waiter_blocks_only_its_own_shard() {
    let budget = Budget::new(100);
    let _held = budget.try_charge(A, 50).unwrap();
    let mut waits = budget.charge_in_turn(A, 10);
    assert!(budget.try_charge(B, 10).is_some());
    assert!((&mut waits).now_or_never().is_none());
    assert_eq!(budget.take_pressure(), Pressure::Lanes(vec![A]));
}

#[test]
fn a_large_record_for_an_empty_shard_is_not_overtaken() {
    let budget = Budget::new(100);
    let mut held = vec![
        budget.try_charge(A, 40).unwrap(),
        budget.try_charge(B, 20).unwrap(),
    ];
    let mut large = budget.charge_in_turn(C, 90);
    assert_eq!(budget.take_pressure(), Pressure::All);
    assert!(budget.try_charge(B, 1).is_none(), "the barrier holds");
    let mut younger = budget.charge_in_turn(B, 1);
    held.pop();
    assert!((&mut large).now_or_never().is_none());
    assert!((&mut younger).now_or_never().is_none());
    held.pop();
    let large = (&mut large).now_or_never().flatten().unwrap();
    assert_eq!(large.bytes(), 90);
    assert!((&mut younger).now_or_never().flatten().is_some());
}

#[test]
fn who_gives_up_lets_the_others_go() {
    let budget = Budget::new(100);
    let _held = budget.try_charge(A, 40).unwrap();
    let large = budget.charge_in_turn(C, 90);
    let mut younger = budget.charge_in_turn(B, 10);
    assert!((&mut younger).now_or_never().is_none());
    drop(large);
    assert!((&mut younger).now_or_never().flatten().is_some());
}

#[test]
fn a_grant_that_nobody_takes_comes_back() {
    let budget = Budget::new(100);
    let held = budget.try_charge(A, 50).unwrap();
    let waits = budget.charge_in_turn(A, 30);
    drop(held);
    assert_eq!(budget.used(), 30);
    drop(waits);
    assert_eq!(budget.used(), 0);
}

#[test]
fn closing_sends_everybody_away() {
    let budget = Budget::new(100);
    let _held = budget.try_charge(A, 50).unwrap();
    let mut waits = budget.charge_in_turn(A, 30);
    budget.close();
    assert!(matches!((&mut waits).now_or_never(), Some(None)));
    assert!(matches!(
        budget.charge_in_turn(B, 1).now_or_never(),
        Some(None)
    ));
    assert!(budget.try_charge(B, 1).is_none());
}

proptest! {
    /// Under any run of charges, waits, cancellations and releases: never above the bound, nothing leaks, and no one
    /// waits while the budget is empty.
    #[test]
    fn the_bound_holds_and_nothing_leaks(
        steps in proptest::collection::vec((0..4_u8, 0..5_u32, 1..400_usize, any::<prop::sample::Index>()), 1..200),
    ) {
        let budget = Budget::new(1000);
        let mut held: Vec<Charge> = Vec::new();
        let mut waiting: Vec<Turn> = Vec::new();
        for (action, lane, bytes, pick) in steps {
            match action {
                0 => held.extend(budget.try_charge(LaneId(lane), bytes)),
                1 => waiting.push(budget.charge_in_turn(LaneId(lane), bytes)),
                2 if !held.is_empty() => drop(held.swap_remove(pick.index(held.len()))),
                3 if !waiting.is_empty() => drop(waiting.swap_remove(pick.index(waiting.len()))),
                _ => {}
            }
            waiting.retain_mut(|turn| match turn.now_or_never() {
                Some(charge) => {
                    held.extend(charge);
                    false
                }
                None => true,
            });
            prop_assert_eq!(budget.used(), held.iter().map(Charge::bytes).sum::<usize>());
            prop_assert!(budget.used() <= 1000 && budget.peak() <= 1000);
            prop_assert!(!held.is_empty() || waiting.is_empty());
        }
        drop(held);
        drop(waiting);
        prop_assert_eq!(budget.used(), 0);
    }
}

#[test]
fn a_charge_that_moves_away_makes_room_for_who_waits() {
    let budget = Budget::new(100);
    let mut held = budget.try_charge(A, 50).unwrap();
    let mut waits = budget.charge_in_turn(A, 10);
    assert!((&mut waits).now_or_never().is_none());
    held.move_to(B);
    let granted = (&mut waits).now_or_never().flatten().unwrap();
    assert_eq!((granted.bytes(), budget.used()), (10, 60));
}

#[test]
fn a_barrier_that_rises_when_somebody_leaves_is_told() {
    let budget = Budget::new(100);
    let _held = budget.try_charge(A, 60).unwrap();
    let granted_and_not_taken = budget.charge_in_turn(C, 30);
    let mut large = budget.charge_in_turn(C, 50);
    assert_eq!(budget.take_pressure(), Pressure::Lanes(vec![C]));
    assert!(budget.barrier_rose.notified().now_or_never().is_none());
    drop(granted_and_not_taken);
    assert!(budget.barrier_rose.notified().now_or_never().is_some());
    assert_eq!(budget.take_pressure(), Pressure::All);
    assert!((&mut large).now_or_never().is_none());
}

#[test]
fn a_lane_that_holds_nothing_is_refused_for_what_others_hold() {
    let budget = Budget::new(100);
    let _held = budget.try_charge(A, 45).unwrap();
    budget.note_refusal(A);
    assert_eq!(budget.take_pressure(), Pressure::Lanes(vec![A]));
    assert!(budget.try_charge(C, 60).is_none());
    budget.note_refusal(C);
    assert_eq!(budget.take_pressure(), Pressure::All);
    assert_eq!(budget.take_pressure(), Pressure::None);
}
