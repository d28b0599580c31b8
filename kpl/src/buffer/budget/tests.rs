use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::task::Waker;

use futures::FutureExt;
use proptest::prelude::*;

use super::*;

const A: QueueId = QueueId(2);
const B: QueueId = QueueId(3);
const C: QueueId = QueueId(4);

fn budget(total: usize) -> Arc<Budget> {
    Budget::new(MemoryBudget::new(total), 100)
}

/// Takes ten bytes at a time until refused.
fn fill(budget: &Arc<Budget>, queue_ids: &[QueueId]) -> Vec<Charge> {
    let mut held = Vec::new();
    loop {
        let before = held.len();
        held.extend(queue_ids.iter().filter_map(|&queue_id| budget.try_charge(queue_id, 10)));
        if held.len() == before {
            return held;
        }
    }
}

#[test]
fn one_hot_shard_gets_half_and_two_a_third_each() {
    let budget = budget(900);
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
    let budget = budget(100);
    let held = budget.try_charge(A, 30).unwrap();
    let mut first = budget.charge_in_turn(A, 60);
    let mut second = budget.charge_in_turn(A, 5);
    assert!(budget.try_charge(A, 1).is_none(), "a later charge overtakes no waiter");
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
    let budget = budget(100);
    let _held = budget.try_charge(A, 50).unwrap();
    let mut waits = budget.charge_in_turn(A, 10);
    assert!(budget.try_charge(B, 10).is_some());
    assert!((&mut waits).now_or_never().is_none());
    assert_eq!(budget.take_pressure(&[]), Pressure::Queues(vec![A]));
}

#[test]
fn a_large_record_for_an_empty_shard_is_not_overtaken() {
    let budget = budget(100);
    let mut held = vec![budget.try_charge(A, 40).unwrap(), budget.try_charge(B, 20).unwrap()];
    let mut large = budget.charge_in_turn(C, 90);
    assert_eq!(budget.take_pressure(&[]), Pressure::All);
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
    let budget = budget(100);
    let _held = budget.try_charge(A, 40).unwrap();
    let large = budget.charge_in_turn(C, 90);
    let mut younger = budget.charge_in_turn(B, 10);
    assert!((&mut younger).now_or_never().is_none());
    drop(large);
    assert!((&mut younger).now_or_never().flatten().is_some());
}

#[test]
fn a_grant_that_is_not_taken_comes_back() {
    let budget = budget(100);
    let held = budget.try_charge(A, 50).unwrap();
    let waits = budget.charge_in_turn(A, 30);
    drop(held);
    assert_eq!(budget.used(), 30);
    drop(waits);
    assert_eq!(budget.used(), 0);
}

#[test]
fn closing_ends_every_wait() {
    let budget = budget(100);
    let _held = budget.try_charge(A, 50).unwrap();
    let mut waits = budget.charge_in_turn(A, 30);
    budget.close();
    assert!(matches!((&mut waits).now_or_never(), Some(None)));
    assert!(matches!(budget.charge_in_turn(B, 1).now_or_never(), Some(None)));
    assert!(budget.try_charge(B, 1).is_none());
}

proptest! {
    /// Under any run of charges, reservations, waits, cancellations, moves and releases of two producers: never above
    /// the bound, nothing leaks, no grant is lost, and no one waits while the budget is empty.
    #[test]
    fn the_bound_holds_and_nothing_leaks(
        steps in proptest::collection::vec(
            (0..5_u8, any::<bool>(), 0..5_u32, 1..400_usize, any::<prop::sample::Index>()),
            1..200,
        ),
    ) {
        let pool = MemoryBudget::new(1000);
        let budgets = [(); 2].map(|()| Budget::new(pool.clone(), 100));
        let mut held: Vec<Charge> = Vec::new();
        let mut waiting: Vec<(Turn, Arc<CountWakes>)> = Vec::new();
        for (action, producer, queue_id, bytes, pick) in steps {
            let (budget, queue_id) = (&budgets[usize::from(producer)], QueueId(queue_id));
            match action {
                0 => held.extend(budget.try_charge(queue_id, bytes)),
                1 => waiting.push((budget.charge_in_turn(queue_id, bytes), Arc::default())),
                2 if !held.is_empty() => drop(held.swap_remove(pick.index(held.len()))),
                3 if !waiting.is_empty() => drop(waiting.swap_remove(pick.index(waiting.len()))),
                4 if !held.is_empty() => {
                    let index = pick.index(held.len());
                    held[index].move_to(queue_id);
                }
                _ => {}
            }
            waiting.retain_mut(|(turn, wakes)| {
                // A waiter that left a waker is polled only when that was called.
                if Arc::strong_count(wakes) > 1 && wakes.0.swap(0, Ordering::SeqCst) == 0 {
                    return true;
                }
                let waker = Waker::from(Arc::clone(wakes));
                match Pin::new(turn).poll(&mut Context::from_waker(&waker)) {
                    Poll::Ready(charge) => {
                        held.extend(charge);
                        false
                    }
                    Poll::Pending => true,
                }
            });
            prop_assert_eq!(pool.used(), held.iter().map(Charge::bytes).sum::<usize>());
            prop_assert_eq!(pool.used(), budgets.iter().map(|budget| budget.used()).sum::<usize>());
            prop_assert!(pool.used() <= 1000 && pool.peak() <= 1000);
            prop_assert!(!held.is_empty() || waiting.is_empty());
        }
        drop(held);
        drop(waiting);
        prop_assert_eq!(pool.used(), 0);
    }
}

#[derive(Default)]
struct CountWakes(AtomicUsize);

impl std::task::Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_charge_that_moves_away_makes_room_for_who_waits() {
    let budget = budget(100);
    let mut held = budget.try_charge(A, 50).unwrap();
    let mut waits = budget.charge_in_turn(A, 10);
    assert!((&mut waits).now_or_never().is_none());
    held.move_to(B);
    let granted = (&mut waits).now_or_never().flatten().unwrap();
    assert_eq!((granted.bytes(), budget.used()), (10, 60));
}

#[test]
fn a_barrier_that_rises_when_a_waiter_leaves_is_announced() {
    let budget = budget(100);
    let _held = budget.try_charge(A, 60).unwrap();
    let granted_and_not_taken = budget.charge_in_turn(C, 30);
    let mut large = budget.charge_in_turn(C, 50);
    assert_eq!(budget.take_pressure(&[]), Pressure::Queues(vec![C]));
    assert!(budget.must_yield().now_or_never().is_none());
    drop(granted_and_not_taken);
    assert!(budget.must_yield().now_or_never().is_some());
    assert_eq!(budget.take_pressure(&[]), Pressure::All);
    assert!((&mut large).now_or_never().is_none());
}

#[test]
fn a_queue_that_holds_nothing_is_refused_for_what_others_hold() {
    let budget = budget(100);
    let _held = budget.try_charge(A, 45).unwrap();
    budget.note_refusal(A);
    assert_eq!(budget.take_pressure(&[]), Pressure::Queues(vec![A]));
    assert!(budget.try_charge(C, 60).is_none());
    budget.note_refusal(C);
    assert_eq!(budget.take_pressure(&[]), Pressure::All);
    assert_eq!(budget.take_pressure(&[]), Pressure::None);
}

#[test]
fn producers_share_a_budget_shard_by_shard() {
    let pool = MemoryBudget::new(900);
    let [one, other] = [(); 2].map(|()| Budget::new(pool.clone(), 100));
    let hot = fill(&one, &[A]);
    assert_eq!((one.used(), other.used(), pool.used()), (450, 0, 450));
    // The queue of the same number of the other producer is another queue, and finds room.
    let _held = other.try_charge(A, 200).unwrap();
    assert_eq!((one.used(), other.used(), pool.used()), (450, 200, 650));
    drop(hot);
    assert_eq!((pool.used(), pool.peak(), one.peak(), other.peak()), (200, 650, 450, 200));
}

#[test]
fn a_producer_that_lacks_room_presses_the_others() {
    let pool = MemoryBudget::new(100);
    let [one, other] = [(); 2].map(|()| Budget::new(pool.clone(), 100));
    let held = one.try_charge(A, 90).unwrap();
    assert!(other.try_charge(A, 20).is_none());
    other.note_refusal(A);
    assert!(one.must_yield().now_or_never().is_some());
    assert_eq!(one.take_pressure(&[]), Pressure::All);
    assert_eq!(one.take_pressure(&[]), Pressure::None);
    let mut waits = other.charge_in_turn(A, 20);
    assert!(one.must_yield().now_or_never().is_some());
    assert_eq!(one.take_pressure(&[]), Pressure::All, "the barrier holds for every producer");
    assert!(one.try_charge(B, 1).is_none());
    drop(held);
    assert!((&mut waits).now_or_never().flatten().is_some());
}

#[test]
fn a_producer_that_closes_or_goes_leaves_the_others_their_room() {
    let pool = MemoryBudget::new(100);
    let one = Budget::new(pool.clone(), 100);
    let other = Budget::new(pool.clone(), 100);
    let held = one.try_charge(A, 60).unwrap();
    let mut barred = one.charge_in_turn(B, 90);
    let mut waits = other.charge_in_turn(A, 10);
    assert!((&mut waits).now_or_never().is_none());
    one.close();
    assert!(matches!((&mut barred).now_or_never(), Some(None)));
    assert!((&mut waits).now_or_never().flatten().is_some());
    drop((barred, one));
    assert_eq!(pool.used(), 60, "its charge holds the account open");
    drop(held);
    // The next producer gets its number, and finds none of its state.
    let next = Budget::new(pool.clone(), 100);
    assert_eq!((next.used(), next.peak(), pool.used()), (0, 0, 0));
    assert!(next.try_charge(A, 100).is_some());
}

#[test]
fn a_droppable_charge_leaves_the_rest_to_others() {
    let budget = Budget::new(MemoryBudget::new(1000), 30);
    let _droppable = try_charge_droppable(&budget, A, 300).unwrap();
    assert!(try_charge_droppable(&budget, B, 1).is_none());
    let _critical = budget.try_charge(B, 200).unwrap();
    assert!(try_charge_droppable(&budget, C, 1).is_none());
}

#[test]
fn droppable_charges_leave_the_hottest_shard_room_for_others() {
    let budget = Budget::new(MemoryBudget::new(1000), 50);
    let take = || try_charge_droppable(&budget, A, 10);
    let droppable: Vec<_> = std::iter::from_fn(take).collect();
    assert_eq!((droppable.len(), budget.used()), (25, 250));
    let critical = fill(&budget, &[A]);
    assert_eq!((critical.len(), budget.used()), (25, 500));
    // A shard that holds nothing has no share to keep free, and the buffer is half full.
    assert!(try_charge_droppable(&budget, B, 1).is_none());
    drop(critical);
    assert!(try_charge_droppable(&budget, B, 100).is_some());
}

#[test]
fn reservations_overtake_no_waiter_of_a_shard() {
    let budget = budget(900);
    let mut held = fill(&budget, &[A]);
    let mut send = budget.charge_in_turn(A, 100);
    assert!(budget.try_charge(QueueId::PERMITS, 10).is_none());
    let mut permit = budget.charge_in_turn(QueueId::PERMITS, 10);
    let mut younger = budget.charge_in_turn(A, 10);
    for _ in 0..10 {
        assert!((&mut send).now_or_never().is_none());
        assert!((&mut permit).now_or_never().is_none());
        held.pop();
    }
    let _sent = (&mut send).now_or_never().flatten().unwrap();
    let _permit = (&mut permit).now_or_never().flatten().unwrap();
    assert!((&mut younger).now_or_never().is_none());
    held.clear();
    assert!((&mut younger).now_or_never().flatten().is_some());
}

#[test]
fn a_reservation_that_waits_for_a_stalled_shard_stalls_no_other() {
    let budget = budget(900);
    let mut held = fill(&budget, &[A]);
    let mut large = budget.charge_in_turn(QueueId::PERMITS, 230);
    assert!((&mut large).now_or_never().is_none());
    assert!(budget.must_yield().now_or_never().is_none());
    assert_eq!(budget.take_pressure(&[]), Pressure::Queues(vec![A]));
    // Of 450 free bytes, 230 are reserved.
    let others = fill(&budget, &[B, C]);
    assert_eq!(others.len() * 10, 140);
    assert!(budget.try_charge(A, 1).is_none());
    drop(others);
    held.truncate(44);
    assert_eq!((&mut large).now_or_never().flatten().unwrap().bytes(), 230);
}

#[test]
fn a_large_reservation_gets_through_many_busy_shards() {
    let budget = budget(1000);
    let queue_ids: Vec<_> = (2..10).map(QueueId).collect();
    let mut held: VecDeque<_> = fill(&budget, &queue_ids).into();
    let mut large = budget.charge_in_turn(QueueId::PERMITS, 300);
    let granted = (0..1000).find_map(|_| {
        held.pop_front();
        let took = queue_ids.iter().filter_map(|&queue_id| budget.try_charge(queue_id, 10));
        held.extend(took);
        (&mut large).now_or_never()
    });
    assert_eq!(granted.flatten().map(|room| room.bytes()), Some(300));
}

#[test]
fn reservations_leave_a_third_even_if_all_are_for_one_shard() {
    let budget = budget(900);
    let _other = budget.try_charge(B, 9).unwrap();
    let mut sent = Vec::new();
    while let Some(mut room) = budget.try_charge(QueueId::PERMITS, 10) {
        room.move_to(A);
        sent.push(room);
    }
    assert_eq!(sent.len(), 59);
    assert!(budget.try_charge(B, 100).is_some());
    assert!(budget.try_charge(C, 300).is_some());
    // A waiting reservation neither stalls others, nor waits for more than the fullest shard.
    let mut waits = budget.charge_in_turn(QueueId::PERMITS, 10);
    assert!((&mut waits).now_or_never().is_none());
    assert_eq!(budget.take_pressure(&[]), Pressure::Queues(vec![A]));
    assert!(budget.try_charge(C, 10).is_some());
    drop(sent);
    assert!((&mut waits).now_or_never().flatten().is_some());
}

#[test]
fn a_large_reservation_gets_its_room_in_the_end() {
    let budget = budget(900);
    let held = budget.try_charge(A, 100).unwrap();
    let mut large = budget.charge_in_turn(QueueId::PERMITS, 850);
    assert!((&mut large).now_or_never().is_none());
    assert!(budget.try_charge(A, 1).is_none(), "a later charge does not overtake it");
    drop(held);
    assert_eq!((&mut large).now_or_never().flatten().unwrap().bytes(), 850);
}

/// Takes room for a droppable record, if the buffer is not too full.
fn try_charge_droppable(budget: &Arc<Budget>, queue_id: QueueId, bytes: usize) -> Option<Charge> {
    let mut charge = budget.empty_charge(queue_id);
    charge.grow(bytes, &mut None, true).then_some(charge)
}

#[test]
fn a_charge_grows_from_room_that_is_given_before_it_takes_of_the_budget() {
    let budget = Budget::new(MemoryBudget::new(1000), 50);
    let mut charge = budget.empty_charge(A);
    let mut room = budget.try_charge(A, 100);
    assert!(charge.grow(60, &mut room, false));
    assert_eq!((charge.bytes(), budget.used()), (60, 100));
    assert!(charge.grow(60, &mut room, false));
    assert_eq!((charge.bytes(), room.as_ref().unwrap().bytes(), budget.used()), (120, 0, 120));
    // Too much, also with what is given: nothing is taken.
    room = budget.try_charge(A, 30);
    assert!(!charge.grow(900, &mut room, false) && !charge.grow(500, &mut room, true));
    assert_eq!((charge.bytes(), room.as_ref().unwrap().bytes(), budget.used()), (120, 30, 150));
    drop((charge, room));
    assert_eq!(budget.used(), 0);
}
