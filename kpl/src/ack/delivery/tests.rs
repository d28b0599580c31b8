use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use futures::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::error::{Failure, FailureCause};
use crate::record::UserRecord;

fn receipt() -> Receipt {
    Receipt::new("shard".into(), "1".into(), 2, true)
}

fn failure() -> DeliveryError {
    let cause = FailureCause::Fatal { code: "C".into(), message: "m".into() };
    DeliveryError::new(None, Arc::new(Failure::without_attempts(cause)))
}

fn slot(members: usize) -> (Completer, Vec<Delivery>, Arc<Outcomes>) {
    let outcomes = Arc::new(Outcomes::default());
    let mut completer = Completer::new(&outcomes);
    let deliveries = (0..members).map(|_| completer.add_member()).collect();
    (completer, deliveries, outcomes)
}

#[derive(Default)]
struct CountWakes(AtomicUsize);

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn cause_of(delivery: Delivery) -> FailureCause {
    delivery.now_or_never().unwrap().unwrap_err().cause().clone()
}

#[test]
fn members_share_a_receipt_but_for_their_index() {
    let (completer, deliveries, outcomes) = slot(3);
    completer.complete_together(receipt());
    for (index, delivery) in (0..).zip(deliveries) {
        let receipt = delivery.now_or_never().unwrap().unwrap();
        assert_eq!(receipt.sub_sequence_number, index);
        assert_eq!((&*receipt.shard_id, receipt.attempts), ("shard", 2));
        assert!(receipt.may_be_duplicate());
    }
    drop(completer);
    let stats = outcomes.counters.snapshot();
    assert_eq!((stats.user_records_delivered, stats.user_records_abandoned), (3, 0));
}

#[test]
fn a_dropped_completer_publishes_abandoned_and_wakes_who_waits() {
    let (completer, mut deliveries, outcomes) = slot(3);
    let wakes = Arc::new(CountWakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    for delivery in &mut deliveries[..2] {
        assert!(delivery.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    }
    outcomes.stop(StopReason::Dropped);
    drop(completer);
    assert_eq!(wakes.0.load(Ordering::SeqCst), 2);
    for delivery in deliveries {
        assert_eq!(cause_of(delivery), FailureCause::Abandoned(StopReason::Dropped));
    }
    assert_eq!(outcomes.counters.snapshot().user_records_abandoned, 3);
}

#[test]
fn a_panic_in_the_owner_publishes_abandoned() {
    let (completer, deliveries, _) = slot(1);
    let owner = std::thread::spawn(move || {
        let _completer = completer;
        panic!("on purpose");
    });
    assert!(owner.join().is_err());
    for delivery in deliveries {
        assert!(matches!(cause_of(delivery), FailureCause::Abandoned(_)));
    }
}

#[test]
fn a_delivery_is_woken_by_its_own_completion() {
    let (completer, mut deliveries, _) = slot(2);
    let wakes = Arc::new(CountWakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    assert!(deliveries[1].poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    completer.complete_one(0, Ok(receipt()));
    assert_eq!(wakes.0.load(Ordering::SeqCst), 0);
    completer.complete_one(1, Ok(receipt()));
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
}

#[test]
fn an_epoch_is_completed_when_its_last_slot_is_gone() {
    let (completer, _deliveries, outcomes) = slot(1);
    let epoch = outcomes.epochs.end_current();
    let later = Completer::new(&outcomes);
    assert!(outcomes.epochs.completed(epoch).now_or_never().is_none());
    completer.complete_together(receipt());
    drop(completer);
    assert!(outcomes.epochs.completed(epoch).now_or_never().is_some());
    assert!(outcomes.epochs.completed(epoch + 1).now_or_never().is_none());
    drop(later);
}

#[test]
fn settled_members_hold_no_memory_of_the_slot() {
    let (completer, mut deliveries, _) = slot(1000);
    for delivery in &mut deliveries {
        let mut context = Context::from_waker(Waker::noop());
        assert!(delivery.poll_unpin(&mut context).is_pending());
    }
    for index in 0..999 {
        completer.complete_one(index, Err(failure()));
    }
    let last = deliveries.pop().unwrap();
    for delivery in deliveries {
        assert!(delivery.now_or_never().unwrap().is_err());
    }
    assert_eq!(lock(&last.slot.state).members_held(), 1);
    completer.complete_one(999, Ok(receipt()));
    assert!(last.now_or_never().unwrap().is_ok());
}

/// Members that fail for one cause, each with its index as data.
fn failed_members(indexes: &[u32]) -> FailedMembers {
    let records = indexes.iter().map(|index| UserRecord::new("k", index.to_string()));
    let records: Vec<_> = records.collect();
    let failure = Failure {
        cause: FailureCause::Dropped,
        attempts: Vec::new(),
        failures: 0,
        may_have_been_written: false,
        source: None,
    };
    FailedMembers::new(Arc::new(failure), indexes.to_vec(), Box::new(|| records), None)
}

#[test]
fn a_failure_is_seen_before_it_is_completed_and_once() {
    let (completer, mut deliveries, outcomes) = slot(5);
    let wakes = Arc::new(CountWakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    for delivery in &mut deliveries {
        assert!(delivery.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    }
    completer.fail(failed_members(&[0, 2, 4]));
    completer.fail(failed_members(&[1]));
    assert_eq!(outcomes.counters.snapshot().user_records_failed, 4);
    assert_eq!(wakes.0.load(Ordering::SeqCst), 0, "no task is woken yet");
    let mut seen = |index: usize| {
        let error = (&mut deliveries[index]).now_or_never().map(|outcome| outcome.unwrap_err());
        error.map(|error| error.into_record().unwrap().data().to_vec())
    };
    assert_eq!(seen(2), Some(b"2".to_vec()));
    assert_eq!(seen(3), None);
    for notifications in [completer.complete_failed(0), completer.complete_failed(1)] {
        notifications.into_iter().for_each(Notification::send);
    }
    assert_eq!(wakes.0.load(Ordering::SeqCst), 3, "the one that was seen is not woken");
    for index in [0, 1, 4] {
        assert_eq!(seen(index), Some(index.to_string().into_bytes()));
    }
    completer.complete_one(3, Ok(receipt()));
    drop(completer);
    let stats = outcomes.counters.snapshot();
    let counted = (stats.user_records_failed, stats.user_records_delivered);
    assert_eq!((counted, stats.user_records_abandoned), ((4, 1), 0));
}

#[test]
fn members_that_failed_are_completed_when_their_owner_goes() {
    let (completer, mut deliveries, outcomes) = slot(3);
    let unobserved = deliveries.remove(1);
    drop(unobserved);
    completer.fail(failed_members(&[0, 1]));
    drop(completer);
    let [failed, abandoned] = [deliveries.remove(0), deliveries.remove(0)].map(cause_of);
    assert_eq!(failed, FailureCause::Dropped);
    assert!(matches!(abandoned, FailureCause::Abandoned(_)));
    let stats = outcomes.counters.snapshot();
    assert_eq!((stats.user_records_failed, stats.user_records_abandoned), (2, 1));
    assert_eq!(stats.failures_unobserved, 1);
}

/// The outcome of one member, and the moment at which its `Delivery` is dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Delivered,
    Failed,
    /// It fails, and is completed after all others.
    FailedEarly,
    Abandoned,
}

proptest! {
    /// Whatever the order of completing and dropping: each delivery sees its own outcome, each unseen failure reaches
    /// the hook once, and every member is counted once.
    #[test]
    fn every_member_is_completed_exactly_once(
        fates in proptest::collection::vec(
            (
                prop_oneof![
                    Just(Fate::Delivered),
                    Just(Fate::Failed),
                    Just(Fate::FailedEarly),
                    Just(Fate::Abandoned),
                ],
                0..4_u8,
            ),
            1..100,
        ),
        order in any::<u64>(),
    ) {
        let reported = Arc::new(AtomicUsize::new(0));
        let hook = Arc::clone(&reported);
        let outcomes = Arc::new(Outcomes::new(Some(Arc::new(move |_: &DeliveryError| {
            hook.fetch_add(1, Ordering::SeqCst);
        }))));
        let mut completer = Completer::new(&outcomes);
        let mut deliveries: Vec<_> = fates.iter().map(|_| Some(completer.add_member())).collect();
        // Dropped 0: before it is completed, 1: after, 3: after, but before the settler goes. 2: awaited.
        for (delivery, (_, keep)) in deliveries.iter_mut().zip(&fates) {
            if *keep == 0 {
                delivery.take();
            }
        }
        let is_early = |index: &u32| fates[*index as usize].0 == Fate::FailedEarly;
        let early: Vec<_> = (0..fates.len() as u32).filter(is_early).collect();
        if !early.is_empty() {
            completer.fail(failed_members(&early));
        }
        let mut indexes: Vec<_> = (0..fates.len()).collect();
        fastrand::Rng::with_seed(order).shuffle(&mut indexes);
        for index in indexes {
            match fates[index].0 {
                Fate::Delivered => completer.complete_one(index as u32, Ok(receipt().of_member(9))),
                Fate::Failed => completer.complete_one(index as u32, Err(failure())),
                Fate::FailedEarly | Fate::Abandoned => {}
            }
        }
        for (delivery, (_, keep)) in deliveries.iter_mut().zip(&fates) {
            if *keep == 3 {
                delivery.take();
            }
        }
        if let Some(first) = early.first() {
            completer.complete_failed(*first).into_iter().for_each(Notification::send);
        }
        drop(completer);
        for (delivery, (fate, keep)) in deliveries.into_iter().zip(&fates) {
            if let (Some(delivery), 2) = (delivery, *keep) {
                let seen = match delivery.now_or_never().unwrap() {
                    Ok(_) => Fate::Delivered,
                    Err(error) if matches!(error.cause(), FailureCause::Abandoned(_)) => Fate::Abandoned,
                    Err(_) => Fate::Failed,
                };
                let fate = if *fate == Fate::FailedEarly { Fate::Failed } else { *fate };
                prop_assert_eq!(seen, fate);
            }
        }
        let unseen = fates.iter().filter(|(fate, keep)| *fate != Fate::Delivered && *keep != 2).count();
        prop_assert_eq!(reported.load(Ordering::SeqCst), unseen);
        let stats = outcomes.counters.snapshot();
        prop_assert_eq!(stats.failures_unobserved as usize, unseen);
        let count = |wanted| fates.iter().filter(|(fate, _)| *fate == wanted).count() as u64;
        prop_assert_eq!(stats.user_records_delivered, count(Fate::Delivered));
        let failed = count(Fate::Failed) + count(Fate::FailedEarly);
        prop_assert_eq!(stats.user_records_failed, failed);
        prop_assert_eq!(stats.user_records_abandoned, count(Fate::Abandoned));
    }
}
