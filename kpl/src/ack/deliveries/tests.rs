use std::sync::atomic::{AtomicUsize, Ordering};

use futures::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::ack::Outcomes;
use crate::record::UserRecord;

fn receipt() -> Receipt {
    Receipt::new("shard".into(), "1".into(), 1, false)
}

fn failure() -> DeliveryError {
    DeliveryError::dropped(UserRecord::new("k", "v"))
}

/// Two slots whose members alternate in one batch of six, and the number of failures that no caller saw.
fn batch() -> ([Completer; 2], Deliveries, Arc<AtomicUsize>) {
    let reported = Arc::new(AtomicUsize::new(0));
    let hook = Arc::clone(&reported);
    let outcomes = Arc::new(Outcomes::new(Some(Arc::new(move |_: &DeliveryError| {
        hook.fetch_add(1, Ordering::SeqCst);
    }))));
    let mut completers = [(); 2].map(|()| Completer::new(&outcomes));
    let mut deliveries = Deliveries::default();
    let mut parts = [None; 2];
    for place in 0..6 {
        deliveries.add(&mut parts[place % 2], &mut completers[place % 2]);
    }
    (completers, deliveries, reported)
}

#[test]
fn outcomes_come_in_the_order_of_the_records() {
    let ([first, second], mut deliveries, _) = batch();
    assert_eq!((deliveries.len(), deliveries.parts.len()), (6, 2));
    second.complete_together(receipt());
    assert!(deliveries.next_outcome().now_or_never().is_none(), "the first record is open");
    first.complete_together(receipt());
    for index in [0, 0, 1, 1, 2, 2] {
        let outcome = deliveries.next_outcome().now_or_never().unwrap().unwrap();
        assert_eq!(outcome.unwrap().sub_sequence_number, index);
    }
    assert!(deliveries.next_outcome().now_or_never().unwrap().is_none());
    assert_eq!(deliveries.len(), 6);
}

#[test]
fn failures_are_named_by_position_and_a_dropped_wait_loses_none() {
    let ([first, second], mut deliveries, reported) = batch();
    first.complete_one(1, Err(failure()));
    for index in [0, 2] {
        first.complete_one(index, Ok(receipt()));
    }
    assert!(deliveries.next_failure().now_or_never().is_none(), "the second record is open");
    // The future of the whole batch has collected the first outcome, and is dropped.
    assert!((&mut deliveries).now_or_never().is_none());
    second.complete_one(0, Err(failure()));
    assert!((&mut deliveries).now_or_never().is_none());
    second.complete_one(1, Ok(receipt()));
    second.complete_one(2, Ok(receipt()));
    let mut failed = Vec::new();
    while let Some((position, _)) = deliveries.next_failure().now_or_never().unwrap() {
        failed.push(position);
    }
    assert_eq!(failed, [1, 2]);
    drop(deliveries);
    assert_eq!(reported.load(Ordering::SeqCst), 0, "all were returned");
}

#[test]
fn single_deliveries_are_taken_out() {
    let ([first, second], mut deliveries, reported) = batch();
    let [a, b] = [(); 2].map(|()| deliveries.next().unwrap());
    assert_eq!(deliveries.size_hint(), (4, Some(4)));
    first.complete_together(receipt());
    second.complete_one(0, Err(failure()));
    assert_eq!(a.now_or_never().unwrap().unwrap().sub_sequence_number, 0);
    drop(b);
    assert_eq!(reported.load(Ordering::SeqCst), 1);
    second.complete_one(1, Ok(receipt()));
    second.complete_one(2, Ok(receipt()));
    let left: Vec<_> = deliveries.now_or_never().unwrap();
    assert_eq!(left.len(), 4);
    assert!(left.iter().all(Result::is_ok));
}

#[test]
fn a_slot_that_another_task_joined_is_a_new_part() {
    let outcomes = Arc::default();
    let mut completer = Completer::new(&outcomes);
    let mut deliveries = Deliveries::default();
    for _ in 0..2 {
        let mut part = None;
        deliveries.add(&mut part, &mut completer);
        deliveries.add(&mut part, &mut completer);
        drop(completer.add_member());
    }
    completer.complete_together(receipt());
    let all = deliveries.now_or_never().unwrap().into_iter();
    let indexes: Vec<_> = all.map(|outcome| outcome.unwrap().sub_sequence_number).collect();
    assert_eq!(indexes, [0, 1, 3, 4]);
}

proptest! {
    /// Whatever is completed before the batch is dropped, and however far its outcomes were taken: each failure is seen
    /// once, by the caller or by the hook.
    #[test]
    fn each_failure_is_seen_once(
        fates in proptest::collection::vec(any::<bool>(), 6),
        completed_before in 0..7_usize,
        taken in 0..7_usize,
        collects in any::<bool>(),
    ) {
        let (completers, mut deliveries, reported) = batch();
        let complete = |place: usize| {
            let outcome = if fates[place] { Ok(receipt()) } else { Err(failure()) };
            completers[place % 2].complete_one(place as u32 / 2, outcome);
        };
        (0..completed_before).for_each(complete);
        let mut seen = 0;
        for _ in 0..taken {
            if let Some(Some(outcome)) = deliveries.next_outcome().now_or_never() {
                seen += usize::from(outcome.is_err());
            }
        }
        if collects && let Some(all) = (&mut deliveries).now_or_never() {
            seen += all.iter().filter(|outcome| outcome.is_err()).count();
        }
        drop(deliveries);
        (completed_before..6).for_each(complete);
        drop(completers);
        let failed = fates.iter().filter(|is_delivered| !**is_delivered).count();
        prop_assert_eq!(reported.load(Ordering::SeqCst) + seen, failed);
    }
}
