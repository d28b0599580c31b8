//! Answers that get lost, calls that are throttled or cut, failures that say nothing.

use kcl::Checkpoint;
use kcl::internals::{Lease, Outcome};

use super::{Subject, Trouble, applied, applied_before, owned, progress, refused};

pub(super) async fn a_lost_answer_is_read_back_and_is_no_loss(subject: &impl Subject) {
    let store = subject.store();
    let mine = owned(store, "k", "me").await;
    let lose = |times| {
        subject.heal();
        subject.trouble(Trouble::AnswersLost, times);
    };

    // One answer lost: the client's retry finds the counter moved, by this very write.
    lose(1);
    let renewed = applied_before(store.renew(&mine, "me", None).await.unwrap());
    assert_eq!(renewed.counter, mine.counter + 1);
    assert_eq!(subject.heal(), 1);

    lose(1);
    let outcome = store.checkpoint(&renewed, "me", &progress("5")).await;
    let done = applied_before(outcome.unwrap());
    assert_eq!(done.checkpoint, progress("5").checkpoint);
    assert_eq!(done.counter, renewed.counter + 1);

    // Every answer of the call lost.
    lose(u64::MAX);
    let renewed = applied_before(store.renew(&done, "me", None).await.unwrap());
    assert_eq!(subject.heal(), 3, "attempts");

    for released in [true, false] {
        let free = Lease::new(format!("give-{released}"), Checkpoint::TrimHorizon);
        store.create(&free).await.unwrap();
        lose(1);
        let taken = applied_before(store.take(&free, "me").await.unwrap());
        lose(1);
        applied_before(store.assign(&taken, "other", released).await.unwrap());
    }
    lose(1);
    let pending = applied_before(store.start_handoff(&renewed, "next").await.unwrap());
    lose(1);
    applied_before(store.evict(&pending).await.unwrap());
}

pub(super) async fn a_lost_answer_and_another_taker_is_a_loss(subject: &impl Subject) {
    let store = subject.store();
    let seen = owned(store, "k", "old").await;
    let taken = applied(store.take(&seen, "new").await.unwrap());
    subject.trouble(Trouble::Cut, 1);
    let renewal = store.renew(&seen, "old", None).await.unwrap();
    assert_eq!(refused(renewal), taken);
    // The counter is what the write would have left; the checkpoint is not.
    let outcome = store.checkpoint(&seen, "new", &progress("5")).await;
    assert_eq!(refused(outcome.unwrap()), taken);
}

pub(super) async fn a_throttled_table_is_retried_then_reported(subject: &impl Subject) {
    let store = subject.store();
    let mine = owned(store, "k", "me").await;
    subject.trouble(Trouble::Throttled, 2);
    let renewed = applied(store.renew(&mine, "me", None).await.unwrap());
    assert_eq!(subject.heal(), 2);

    subject.trouble(Trouble::Throttled, u64::MAX);
    let error = store.renew(&renewed, "me", None).await.unwrap_err();
    assert!(error.is_throttled() && error.is_retryable(), "{error:?}");
    assert!(!error.is_ambiguous(), "{error:?}");
    subject.heal();

    subject.trouble(Trouble::Cut, u64::MAX);
    let error = store.renew(&renewed, "me", None).await.unwrap_err();
    assert!(error.is_ambiguous() && error.is_retryable(), "{error:?}");
    subject.heal();
    applied(store.renew(&renewed, "me", None).await.unwrap());
}

pub(super) async fn a_failed_condition_without_the_item_is_read(subject: &impl Subject) {
    let store = subject.store();
    let mine = owned(store, "k", "me").await;
    subject.trouble(Trouble::OldItemHidden, u64::MAX);
    let other = Lease::new("k", Checkpoint::Latest);
    assert_eq!(refused(store.create(&other).await.unwrap()), mine);
    let old = Lease { counter: 7, ..mine.clone() };
    assert_eq!(refused(store.renew(&old, "me", None).await.unwrap()), mine);
    assert_eq!(refused(store.delete(&other).await.unwrap()), mine);
    let gone = Lease::new("gone", Checkpoint::Latest);
    let outcome = store.take(&gone, "me").await.unwrap();
    assert_eq!(outcome, Outcome::ConditionFailed(None));
    assert!(subject.heal() > 0, "the item was hidden");
}
