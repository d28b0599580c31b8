//! Lost answers, throttled and cut calls, and refusals without the item.

use kcl::Checkpoint;
use kcl::internals::{Lease, LeaseWrite, Outcome};

use super::{
    Subject, Trouble, applied, applied_before, assign, at, checkpoint, owned, refused, renew,
    start_handoff, take,
};

pub(super) async fn a_lost_answer_is_read_back_and_is_no_loss(subject: &impl Subject) {
    let store = subject.store();
    let mine = owned(store, "k", "me").await;
    let lose = |times| {
        subject.heal();
        subject.trouble(Trouble::AnswersLost, times);
    };

    // One answer lost: the client's retry finds the counter moved, by this very write.
    lose(1);
    let renewed = applied_before(store.write(&mine, renew("me")).await.unwrap());
    assert_eq!(renewed.counter, mine.counter + 1);
    assert_eq!(subject.heal(), 1);

    lose(1);
    let outcome = store.write(&renewed, checkpoint("me", at("5", 2))).await;
    let done = applied_before(outcome.unwrap());
    assert_eq!(done.checkpoint, at("5", 2));
    assert_eq!(done.counter, renewed.counter + 1);

    // Every answer of the call lost.
    lose(u64::MAX);
    let renewed = applied_before(store.write(&done, renew("me")).await.unwrap());
    assert_eq!(subject.heal(), 3, "attempts");

    for released in [true, false] {
        let free = Lease::new(format!("give-{released}"), Checkpoint::TrimHorizon);
        store.write(&free, LeaseWrite::Create).await.unwrap();
        lose(1);
        let taken = applied_before(store.write(&free, take("me")).await.unwrap());
        lose(1);
        applied_before(store.write(&taken, assign("other", released)).await.unwrap());
    }
    lose(1);
    let pending = applied_before(store.write(&renewed, start_handoff("next")).await.unwrap());
    lose(1);
    applied_before(store.write(&pending, LeaseWrite::Evict).await.unwrap());
}

pub(super) async fn a_lost_answer_and_another_taker_is_a_loss(subject: &impl Subject) {
    let store = subject.store();
    let seen = owned(store, "k", "old").await;
    let taken = applied(store.write(&seen, take("new")).await.unwrap());
    subject.trouble(Trouble::Cut, 1);
    let renewal = store.write(&seen, renew("old")).await.unwrap();
    assert_eq!(refused(renewal), taken);
    // The counter is what the write would have left; the checkpoint is not.
    let outcome = store.write(&seen, checkpoint("new", at("5", 2))).await;
    assert_eq!(refused(outcome.unwrap()), taken);
}

pub(super) async fn a_throttled_table_is_retried_then_reported(subject: &impl Subject) {
    let store = subject.store();
    let mine = owned(store, "k", "me").await;
    subject.trouble(Trouble::Throttled, 2);
    let renewed = applied(store.write(&mine, renew("me")).await.unwrap());
    assert_eq!(subject.heal(), 2);

    subject.trouble(Trouble::Throttled, u64::MAX);
    let error = store.write(&renewed, renew("me")).await.unwrap_err();
    assert!(error.is_throttled() && error.is_retryable(), "{error:?}");
    assert!(!error.is_ambiguous(), "{error:?}");
    subject.heal();

    subject.trouble(Trouble::Cut, u64::MAX);
    let error = store.write(&renewed, renew("me")).await.unwrap_err();
    assert!(error.is_ambiguous() && error.is_retryable(), "{error:?}");
    subject.heal();
    applied(store.write(&renewed, renew("me")).await.unwrap());
}

pub(super) async fn a_failed_condition_without_the_item_is_read(subject: &impl Subject) {
    let store = subject.store();
    let mine = owned(store, "k", "me").await;
    subject.trouble(Trouble::OldItemHidden, u64::MAX);
    let other = Lease::new("k", Checkpoint::Latest);
    assert_eq!(refused(store.write(&other, LeaseWrite::Create).await.unwrap()), mine);
    let old = Lease { counter: 7, ..mine.clone() };
    assert_eq!(refused(store.write(&old, renew("me")).await.unwrap()), mine);
    assert_eq!(refused(store.write(&other, LeaseWrite::Delete).await.unwrap()), mine);
    let gone = Lease::new("gone", Checkpoint::Latest);
    let outcome = store.write(&gone, take("me")).await.unwrap();
    assert_eq!(outcome, Outcome::ConditionFailed(None));
    assert!(subject.heal() > 0, "the item was hidden");
}
