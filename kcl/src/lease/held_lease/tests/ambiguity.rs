//! Writes that got no answer: the worker does not know whether they were done.

use super::*;

#[tokio::test]
async fn lost_answers_are_no_loss_even_when_the_whole_call_failed() {
    let (fixture, held_lease, _renewer) = held().await;
    let checkpoint = async |_| held_lease.checkpoint(at("5"), Retry::Never).await;
    let error = fixture.unanswered(checkpoint).await.unwrap_err();
    assert!(matches!(error, CheckpointError::Store { retryable: true, .. }), "{error:?}");
    assert_eq!(fixture.item().await.checkpoint, at("5"), "written nevertheless");
    // The next write finds the counter grown by one, and adopts the lease.
    held_lease.checkpoint(at("6"), Retry::Never).await.unwrap();
    assert_eq!(fixture.item().await.checkpoint, at("6"));

    // A renewal that is done, and not answered.
    let renewal = async |write| {
        fixture.clock.advance(F / 2);
        fixture.struck(write, 1).await;
    };
    fixture.unanswered(renewal).await;
    held_lease.checkpoint(at("7"), Retry::Never).await.unwrap();
    assert!(held_lease.is_held());
}

#[tokio::test]
async fn a_throttled_retry_after_a_lost_answer_is_no_loss() {
    let (fixture, held_lease, _renewer) = held().await;
    let faults = fixture.aws.faults();
    // The first attempt is written and not answered; the retries are throttled.
    faults.add(updates(Fault::response_lost()).times(1));
    let throttle = faults.add(updates(Fault::throttle()).skip(1));
    let error = held_lease.checkpoint(at("5"), Retry::Never).await.unwrap_err();
    assert!(matches!(error, CheckpointError::Throttled { .. }), "{error:?}");
    faults.remove(throttle);
    assert_eq!(fixture.item().await.checkpoint, at("5"), "written");
    held_lease.checkpoint(at("6"), Retry::Never).await.unwrap();
    assert!(held_lease.is_held());
}

#[tokio::test]
async fn a_checkpoint_without_an_answer_is_not_taken_back() {
    let (fixture, held_lease, _renewer) = held().await;
    let unanswered = async |checkpoint: Checkpoint| {
        let write = async |_| held_lease.checkpoint(checkpoint.clone(), Retry::Never).await;
        fixture.unanswered(write).await.unwrap_err();
        assert_eq!(fixture.item().await.checkpoint, checkpoint, "written");
    };
    unanswered(at("10")).await;
    held_lease.prepare_checkpoint(at("12"), None, Retry::Never).await.unwrap();
    let item = fixture.item().await;
    assert_eq!(item.checkpoint, at("10"));
    assert_eq!(item.pending.unwrap().checkpoint, at("12"));

    unanswered(at("20")).await;
    let error = held_lease.checkpoint(at("15"), Retry::Never).await.unwrap_err();
    assert!(
        matches!(&error, CheckpointError::OutOfRange { lowest, .. } if **lowest == at("20")),
        "{error:?}"
    );

    // The renewal that is due now does not matter for the rest.
    held_lease.checkpoint(at("21"), Retry::Never).await.unwrap();
    unanswered(Checkpoint::ShardEnd).await;
    held_lease.checkpoint(at("30"), Retry::Never).await.unwrap_err();
    held_lease.prepare_checkpoint(at("30"), None, Retry::Never).await.unwrap();
    assert_eq!(fixture.item().await.checkpoint, Checkpoint::ShardEnd);
    assert!(held_lease.is_held());
}
