//! What must hold in every interleaving.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use loom::future::block_on;
use loom::thread;

use crate::budget::{Budget, Charge, MemoryBudget, Pressure};
use crate::deliveries::Deliveries;
use crate::delivery::{Completer, Delivery, Notification, Receipt};
use crate::error::{DeliveryError, Failure, FailureCause, StopReason};
use crate::failed::FailedMembers;
use crate::fair_share::QueueId;
use crate::outcomes::Outcomes;

pub(crate) const ALL: [(&str, fn()); 12] = [
    ("budget: a waiter is woken", waiter_is_woken),
    ("budget: FIFO, also if a waiter gives up", fifo_holds),
    ("budget: a grant given up goes to the next", grant_goes_on),
    ("budget: closing ends each wait", close_sends_away),
    ("budget: no refusal is forgotten", refusal_is_seen),
    ("budget: a charge that grows leaves room for a waiter", grown_charge_leaves_room),
    ("slot: each task that awaits is woken", delivery_is_woken),
    ("slot: a failure is seen exactly once", failure_is_seen_once),
    ("slot: a failure that is completed later is seen exactly once", early_failure_is_seen_once),
    ("slot: a dropped completer resolves all", abandoned_resolves),
    ("batch: a task that awaits it is woken", batch_is_woken),
    ("batch: a failure is seen exactly once when it is dropped", dropped_batch_is_told),
];

const A: QueueId = QueueId(2);
const B: QueueId = QueueId(3);

fn budget() -> (MemoryBudget, Arc<Budget>) {
    let pool = MemoryBudget::new(100);
    (pool.clone(), Budget::new(pool, 100))
}

fn granted(charge: Option<Charge>) -> Charge {
    charge.expect("it is not closed")
}

fn waiter_is_woken() {
    let (pool, budget) = budget();
    let held = budget.try_charge(A, 50).expect("it is empty");
    let waiter = thread::spawn({
        let budget = Arc::clone(&budget);
        move || drop(granted(block_on(budget.charge_in_turn(A, 30))))
    });
    let other = thread::spawn({
        let budget = Arc::clone(&budget);
        move || drop(budget.try_charge(B, 40))
    });
    drop(held);
    waiter.join().unwrap();
    other.join().unwrap();
    assert_eq!(pool.used(), 0);
}

fn fifo_holds() {
    let (pool, budget) = budget();
    let held = budget.try_charge(A, 50).expect("it is empty");
    let gives_up = budget.charge_in_turn(A, 60);
    let first = budget.charge_in_turn(A, 30);
    let quitter = thread::spawn(move || drop(gives_up));
    let waiter = thread::spawn({
        let budget = Arc::clone(&budget);
        move || {
            let _first = granted(block_on(first));
            // It came first, and no later waiter of its queue overtook it.
            assert!(budget.used() <= 60);
        }
    });
    drop(held);
    // Before the first has its room, there is none for a later one.
    if let Some(late) = budget.try_charge(A, 30) {
        assert!(pool.used() <= 60);
        drop(late);
    }
    quitter.join().unwrap();
    waiter.join().unwrap();
    assert_eq!(pool.used(), 0);
}

/// Polls once, and gives up, whatever came of it.
fn poll_once<F: Future + Unpin>(mut future: F) -> Poll<F::Output> {
    Pin::new(&mut future).poll(&mut Context::from_waker(Waker::noop()))
}

fn grant_goes_on() {
    let (pool, budget) = budget();
    let held = budget.try_charge(A, 50).expect("it is empty");
    let first = budget.charge_in_turn(A, 40);
    let second = budget.charge_in_turn(A, 40);
    let quitter = thread::spawn(move || drop(poll_once(first)));
    let waiter = thread::spawn(move || drop(granted(block_on(second))));
    drop(held);
    quitter.join().unwrap();
    waiter.join().unwrap();
    assert_eq!(pool.used(), 0);
}

fn close_sends_away() {
    let (pool, budget) = budget();
    let other = Budget::new(pool.clone(), 100);
    let held = budget.try_charge(A, 50).expect("it is empty");
    let waiter = thread::spawn({
        let budget = Arc::clone(&budget);
        // Granted or sent away: it never waits on.
        move || drop(block_on(budget.charge_in_turn(A, 90)))
    });
    let unconcerned = thread::spawn(move || drop(granted(block_on(other.charge_in_turn(A, 40)))));
    budget.close();
    waiter.join().unwrap();
    unconcerned.join().unwrap();
    drop(held);
    assert_eq!(pool.used(), 0);
}

fn refusal_is_seen() {
    let (_, budget) = budget();
    let _held = [A, B].map(|queue_id| budget.try_charge(queue_id, 20).expect("there is room"));
    budget.note_refusal(B);
    let refused = thread::spawn({
        let budget = Arc::clone(&budget);
        move || budget.note_refusal(A)
    });
    let early = budget.take_pressure(&[]);
    refused.join().unwrap();
    let late = budget.take_pressure(&[]);
    let sees_it =
        |pressure| matches!(pressure, Pressure::Queues(queue_ids) if queue_ids.contains(&A));
    assert!(sees_it(early) != sees_it(late), "once, early or late");
}

fn grown_charge_leaves_room() {
    let (pool, budget) = budget();
    let mut charge = budget.empty_charge(A);
    let mut room = budget.try_charge(A, 30);
    let waiter = thread::spawn({
        let budget = Arc::clone(&budget);
        move || drop(granted(block_on(budget.charge_in_turn(B, 50))))
    });
    // Out of the room that is there, and out of the budget if the waiter left so much.
    assert!(charge.grow(20, &mut room, false));
    let has_grown = charge.grow(30, &mut room, false);
    assert_eq!(charge.bytes(), if has_grown { 50 } else { 20 });
    drop((room, charge));
    waiter.join().unwrap();
    assert_eq!(pool.used(), 0);
}

fn slot() -> (Completer, [Delivery; 2], Arc<Outcomes>) {
    let outcomes = Arc::new(Outcomes::default());
    let mut completer = Completer::new(&outcomes);
    let deliveries = [(); 2].map(|()| completer.add_member());
    (completer, deliveries, outcomes)
}

fn delivery_is_woken() {
    let (completer, [first, second], _) = slot();
    let waiters = [(first, 0), (second, 1)].map(|(delivery, index)| {
        thread::spawn(move || {
            let receipt = block_on(delivery).expect("it is delivered");
            assert_eq!(receipt.sub_sequence_number, index);
        })
    });
    completer.complete_together(Receipt::new("shard".into(), "1".into(), 1, false));
    drop(completer);
    for waiter in waiters {
        waiter.join().unwrap();
    }
}

fn failure_is_seen_once() {
    let (completer, [awaited, dropped], outcomes) = slot();
    let waiter = thread::spawn(move || block_on(awaited).expect_err("it failed"));
    let dropper = thread::spawn(move || {
        let mut dropped = dropped;
        // Looks once, so that a waker is left behind.
        let seen = Pin::new(&mut dropped).poll(&mut Context::from_waker(Waker::noop()));
        usize::from(seen.is_ready())
    });
    completer.complete_one(1, Err(DeliveryError::dropped(crate::record::UserRecord)));
    completer.complete_one(0, Err(DeliveryError::dropped(crate::record::UserRecord)));
    drop(completer);
    let error = waiter.join().unwrap();
    assert_eq!(*error.cause(), FailureCause::Dropped);
    let seen = dropper.join().unwrap();
    let stats = outcomes.counters.snapshot();
    assert_eq!(stats.failures_unobserved as usize + seen, 1);
    assert_eq!(stats.user_records_failed, 2);
}

fn early_failure_is_seen_once() {
    let (completer, [awaited, dropped], outcomes) = slot();
    let waiter = thread::spawn(move || block_on(awaited).expect_err("it failed"));
    let dropper = thread::spawn(move || drop(dropped));
    let failure = Failure::without_attempts(FailureCause::Dropped);
    let records = || vec![crate::record::UserRecord; 2];
    completer.fail(FailedMembers::new(failure.into(), vec![0, 1], Box::new(records), None));
    completer.complete_failed(0).into_iter().for_each(Notification::send);
    drop(completer);
    assert_eq!(*waiter.join().unwrap().cause(), FailureCause::Dropped);
    dropper.join().unwrap();
    let stats = outcomes.counters.snapshot();
    assert_eq!((stats.user_records_failed, stats.user_records_abandoned), (2, 0));
    assert_eq!(stats.failures_unobserved, 1);
}

fn abandoned_resolves() {
    let (completer, [awaited, dropped], outcomes) = slot();
    let waiter = thread::spawn(move || block_on(awaited).expect_err("it is abandoned"));
    let dropper = thread::spawn(move || drop(dropped));
    outcomes.stop(StopReason::Dropped);
    drop(completer);
    let error = waiter.join().unwrap();
    assert_eq!(*error.cause(), FailureCause::Abandoned(StopReason::Dropped));
    dropper.join().unwrap();
    let stats = outcomes.counters.snapshot();
    assert_eq!((stats.user_records_abandoned, stats.failures_unobserved), (2, 1));
}

/// A batch of two members of one slot.
fn batch() -> (Completer, Deliveries, Arc<Outcomes>) {
    let outcomes = Arc::new(Outcomes::default());
    let mut completer = Completer::new(&outcomes);
    let mut deliveries = Deliveries::default();
    let mut part = None;
    (0..2).for_each(|_| deliveries.add(&mut part, &mut completer));
    (completer, deliveries, outcomes)
}

fn batch_is_woken() {
    let (completer, mut deliveries, _) = batch();
    let waiter = thread::spawn(move || {
        assert!(block_on(deliveries.next_outcome()).is_some_and(|outcome| outcome.is_ok()));
        assert!(block_on(deliveries.next_failure()).is_none());
    });
    completer.complete_together(Receipt::new("shard".into(), "1".into(), 1, false));
    drop(completer);
    waiter.join().unwrap();
}

fn dropped_batch_is_told() {
    let (completer, mut deliveries, outcomes) = batch();
    let dropper = thread::spawn(move || {
        // Looks once, so that an outcome may be collected and a waker is left behind.
        usize::from(poll_once(&mut deliveries).is_ready())
    });
    completer.complete_one(0, Ok(Receipt::new("shard".into(), "1".into(), 1, false)));
    completer.complete_one(1, Err(DeliveryError::dropped(crate::record::UserRecord)));
    drop(completer);
    let seen = dropper.join().unwrap();
    assert_eq!(outcomes.counters.snapshot().failures_unobserved as usize + seen, 1);
}
