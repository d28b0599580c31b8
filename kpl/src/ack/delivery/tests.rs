use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Wake;

use futures::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::error::{Failure, FailureCause};
use crate::record::UserRecord;

fn placement() -> Placement {
    Placement {
        shard_id: "shard".into(),
        sequence_number: "1".into(),
        attempts: 2,
        may_be_duplicate: true,
    }
}

fn failure() -> DeliveryError {
    let cause = FailureCause::Fatal { code: "C".into(), message: "m".into() };
    let failure = Failure {
        cause,
        attempts: Vec::new(),
        failures: 0,
        may_have_been_written: false,
        source: None,
    };
    DeliveryError::new(None, Arc::new(failure))
}

fn slot(members: usize) -> (Settler, Vec<Delivery>, Arc<Settlement>) {
    let settlement = Arc::new(Settlement::default());
    let mut settler = Settler::new(&settlement);
    let deliveries = (0..members).map(|_| settler.add_member()).collect();
    (settler, deliveries, settlement)
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
    let (settler, deliveries, settlement) = slot(3);
    settler.settle_together(placement());
    for (index, delivery) in (0..).zip(deliveries) {
        let receipt = delivery.now_or_never().unwrap().unwrap();
        assert_eq!(receipt.sub_sequence_number, index);
        assert_eq!((&*receipt.shard_id, receipt.attempts), ("shard", 2));
        assert!(receipt.may_be_duplicate());
    }
    drop(settler);
    let stats = settlement.counters.snapshot();
    assert_eq!((stats.user_records_delivered, stats.user_records_abandoned), (3, 0));
}

#[test]
fn a_dropped_settler_publishes_abandoned_and_wakes_who_waits() {
    let (settler, mut deliveries, settlement) = slot(3);
    let wakes = Arc::new(CountWakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    for delivery in &mut deliveries[..2] {
        assert!(delivery.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    }
    settlement.stop(StopReason::Dropped);
    drop(settler);
    assert_eq!(wakes.0.load(Ordering::SeqCst), 2);
    for delivery in deliveries {
        assert_eq!(cause_of(delivery), FailureCause::Abandoned(StopReason::Dropped));
    }
    assert_eq!(settlement.counters.snapshot().user_records_abandoned, 3);
}

#[test]
fn a_panic_in_the_owner_publishes_abandoned() {
    let (settler, deliveries, _) = slot(1);
    let owner = std::thread::spawn(move || {
        let _settler = settler;
        panic!("on purpose");
    });
    assert!(owner.join().is_err());
    for delivery in deliveries {
        assert!(matches!(cause_of(delivery), FailureCause::Abandoned(_)));
    }
}

#[test]
fn a_delivery_is_woken_by_its_own_settlement() {
    let (settler, mut deliveries, _) = slot(2);
    let wakes = Arc::new(CountWakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    assert!(deliveries[1].poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    settler.settle_one(0, Ok(placement().receipt(0)));
    assert_eq!(wakes.0.load(Ordering::SeqCst), 0);
    settler.settle_one(1, Ok(placement().receipt(0)));
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
}

#[test]
fn an_epoch_is_settled_when_its_last_slot_is_gone() {
    let (settler, _deliveries, settlement) = slot(1);
    let epoch = settlement.epochs.end_current();
    let later = Settler::new(&settlement);
    assert!(settlement.epochs.settled(epoch).now_or_never().is_none());
    settler.settle_together(placement());
    drop(settler);
    assert!(settlement.epochs.settled(epoch).now_or_never().is_some());
    assert!(settlement.epochs.settled(epoch + 1).now_or_never().is_none());
    drop(later);
}

#[test]
fn settled_members_hold_no_memory_of_the_slot() {
    let (settler, mut deliveries, _) = slot(1000);
    for delivery in &mut deliveries {
        let mut context = Context::from_waker(Waker::noop());
        assert!(delivery.poll_unpin(&mut context).is_pending());
    }
    for index in 0..999 {
        settler.settle_one(index, Err(failure()));
    }
    let last = deliveries.pop().unwrap();
    for delivery in deliveries {
        assert!(delivery.now_or_never().unwrap().is_err());
    }
    assert_eq!(lock(&last.slot.state).members_held(), 1);
    settler.settle_one(999, Ok(placement().receipt(0)));
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
fn a_failure_is_seen_before_it_is_settled_and_once() {
    let (settler, mut deliveries, settlement) = slot(5);
    let wakes = Arc::new(CountWakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    for delivery in &mut deliveries {
        assert!(delivery.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
    }
    settler.fail(failed_members(&[0, 2, 4]));
    settler.fail(failed_members(&[1]));
    assert_eq!(settlement.counters.snapshot().user_records_failed, 4);
    assert_eq!(wakes.0.load(Ordering::SeqCst), 0, "nobody is woken yet");
    let mut seen = |index: usize| {
        let error = (&mut deliveries[index]).now_or_never().map(|outcome| outcome.unwrap_err());
        error.map(|error| error.into_record().unwrap().data().to_vec())
    };
    assert_eq!(seen(2), Some(b"2".to_vec()));
    assert_eq!(seen(3), None);
    for news in [settler.settle_failed(0), settler.settle_failed(1)] {
        news.into_iter().for_each(News::tell);
    }
    assert_eq!(wakes.0.load(Ordering::SeqCst), 3, "the one that was seen is not woken");
    for index in [0, 1, 4] {
        assert_eq!(seen(index), Some(index.to_string().into_bytes()));
    }
    settler.settle_one(3, Ok(placement().receipt(0)));
    drop(settler);
    let stats = settlement.counters.snapshot();
    let counted = (stats.user_records_failed, stats.user_records_delivered);
    assert_eq!((counted, stats.user_records_abandoned), ((4, 1), 0));
}

#[test]
fn members_that_failed_are_settled_when_their_owner_goes() {
    let (settler, mut deliveries, settlement) = slot(3);
    let unobserved = deliveries.remove(1);
    drop(unobserved);
    settler.fail(failed_members(&[0, 1]));
    drop(settler);
    let [failed, abandoned] = [deliveries.remove(0), deliveries.remove(0)].map(cause_of);
    assert_eq!(failed, FailureCause::Dropped);
    assert!(matches!(abandoned, FailureCause::Abandoned(_)));
    let stats = settlement.counters.snapshot();
    assert_eq!((stats.user_records_failed, stats.user_records_abandoned), (2, 1));
    assert_eq!(stats.failures_unobserved, 1);
}

/// What happens to one member, and when its `Delivery` goes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Delivered,
    Failed,
    /// It fails, and is settled after all others.
    FailedEarly,
    Abandoned,
}

proptest! {
    /// Whatever the order of settling and dropping: each delivery sees its own outcome, each unseen failure reaches
    /// the hook once, and every member is counted once.
    #[test]
    fn every_member_is_settled_exactly_once(
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
        let settlement = Arc::new(Settlement::new(Some(Arc::new(move |_: &DeliveryError| {
            hook.fetch_add(1, Ordering::SeqCst);
        }))));
        let mut settler = Settler::new(&settlement);
        let mut deliveries: Vec<_> = fates.iter().map(|_| Some(settler.add_member())).collect();
        // Dropped 0: before it is settled, 1: after, 3: after, but before the settler goes. 2: awaited.
        for (delivery, (_, keep)) in deliveries.iter_mut().zip(&fates) {
            if *keep == 0 {
                delivery.take();
            }
        }
        let is_early = |index: &u32| fates[*index as usize].0 == Fate::FailedEarly;
        let early: Vec<_> = (0..fates.len() as u32).filter(is_early).collect();
        if !early.is_empty() {
            settler.fail(failed_members(&early));
        }
        let mut indexes: Vec<_> = (0..fates.len()).collect();
        fastrand::Rng::with_seed(order).shuffle(&mut indexes);
        for index in indexes {
            match fates[index].0 {
                Fate::Delivered => settler.settle_one(index as u32, Ok(placement().receipt(9))),
                Fate::Failed => settler.settle_one(index as u32, Err(failure())),
                Fate::FailedEarly | Fate::Abandoned => {}
            }
        }
        for (delivery, (_, keep)) in deliveries.iter_mut().zip(&fates) {
            if *keep == 3 {
                delivery.take();
            }
        }
        if let Some(first) = early.first() {
            settler.settle_failed(*first).into_iter().for_each(News::tell);
        }
        drop(settler);
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
        let stats = settlement.counters.snapshot();
        prop_assert_eq!(stats.failures_unobserved as usize, unseen);
        let count = |wanted| fates.iter().filter(|(fate, _)| *fate == wanted).count() as u64;
        prop_assert_eq!(stats.user_records_delivered, count(Fate::Delivered));
        let failed = count(Fate::Failed) + count(Fate::FailedEarly);
        prop_assert_eq!(stats.user_records_failed, failed);
        prop_assert_eq!(stats.user_records_abandoned, count(Fate::Abandoned));
    }
}
