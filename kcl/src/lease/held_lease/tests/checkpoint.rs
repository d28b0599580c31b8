//! Checkpoints that are written, refused, or tried again.

use super::*;

#[tokio::test]
async fn a_checkpoint_after_a_take_over_is_refused_and_overwrites_nothing() {
    let (fixture, held_lease, _renewer) = held().await;
    held_lease.checkpoint(at("5"), Retry::Never).await.unwrap();
    let taken = fixture.taken_by("other").await;
    is_lost(held_lease.checkpoint(at("6"), Retry::Never).await);
    assert!(!held_lease.is_held() && held_lease.lost().is_cancelled());
    assert_eq!(fixture.item().await, taken);
}

#[tokio::test]
async fn a_checkpointer_of_an_earlier_ownership_is_refused() {
    let (fixture, early, renewer) = held().await;
    let clone = early.clone();
    early.end(LeaseEnd::Lost).await;
    renewer.await.unwrap();
    let (late, _renewer) = fixture.begin().await;
    is_lost(clone.checkpoint(at("5"), Retry::Never).await);
    is_lost(clone.prepare_checkpoint(at("5"), None, Retry::Never).await);
    late.checkpoint(at("7"), Retry::Never).await.unwrap();
    assert_eq!(fixture.item().await.checkpoint, at("7"));
    assert!(late.fencing_token() > early.fencing_token());
}

#[tokio::test]
async fn a_checkpoint_never_goes_back() {
    let (fixture, held_lease, _renewer) = held().await;
    held_lease.checkpoint(at("9"), Retry::Never).await.unwrap();
    let error = held_lease.checkpoint(at("8"), Retry::Never).await.unwrap_err();
    assert!(matches!(error, CheckpointError::OutOfRange { .. }), "{error:?}");
    held_lease.checkpoint(Checkpoint::ShardEnd, Retry::Never).await.unwrap();
    assert_eq!(fixture.item().await.checkpoint, Checkpoint::ShardEnd);
}

#[tokio::test]
async fn two_phases_keep_the_state_until_the_checkpoint() {
    let (fixture, held_lease, _renewer) = held().await;
    let state = Some(Bytes::from_static(b"offsets"));
    held_lease.prepare_checkpoint(at("5"), state.clone(), Retry::Never).await.unwrap();
    let item = fixture.item().await;
    assert_eq!(item.pending, Some(PendingCheckpoint { checkpoint: at("5"), state }));
    assert_eq!(item.checkpoint, Checkpoint::TrimHorizon);
    held_lease.checkpoint(at("5"), Retry::Never).await.unwrap();
    assert_eq!(fixture.item().await.pending, None);
}

#[tokio::test]
async fn parents_have_ended_when_their_leases_are_gone_or_at_the_end() {
    let fixture = Fixture::new(None, OnStop::Keep).await;
    let mut child = Lease::new("child", Checkpoint::TrimHorizon);
    child.parents = [KEY.to_owned(), "gone".to_owned()].into();
    fixture.store.write(&child, LeaseWrite::Create).await.unwrap();
    let take = LeaseWrite::Take { owner: "me".into() };
    let child = fixture.store.write(&child, take).await.unwrap().applied().unwrap();
    let (held_lease, _renewer) =
        HeldLease::begin(fixture.context.clone(), child, fixture.clock.now());
    assert!(!held_lease.parents_ended().await.unwrap());
    let (parent, renewer) = fixture.begin().await;
    parent.checkpoint(Checkpoint::ShardEnd, Retry::Never).await.unwrap();
    parent.end(LeaseEnd::ShardEnded).await;
    renewer.await.unwrap();
    assert!(held_lease.parents_ended().await.unwrap());
    let ended = fixture.item().await;
    assert!(matches!(
        fixture.store.write(&ended, LeaseWrite::Delete).await.unwrap(),
        Outcome::Applied(_)
    ));
    assert!(held_lease.parents_ended().await.unwrap());
}

/// Moves the clock while the checkpoint is tried.
async fn finished(
    fixture: &Fixture,
    checkpoint: JoinHandle<Result<(), CheckpointError>>,
) -> Result<(), CheckpointError> {
    let tick = Duration::from_millis(10);
    while !checkpoint.is_finished() {
        tokio::time::sleep(tick).await;
        fixture.clock.advance(tick);
    }
    checkpoint.await.unwrap()
}

fn checkpointing(
    held_lease: &HeldLease,
    checkpoint: Checkpoint,
) -> JoinHandle<Result<(), CheckpointError>> {
    let held_lease = held_lease.clone();
    tokio::spawn(async move { held_lease.checkpoint(checkpoint, Retry::UntilDeadline).await })
}

#[tokio::test]
async fn a_checkpoint_that_fails_for_a_passing_reason_is_tried_again() {
    for fault in [Fault::throttle(), Fault::internal_failure(), Fault::cut_connection()] {
        let (fixture, held_lease, _renewer) = held().await;
        let faults = fixture.aws.faults();
        // Two calls with three attempts each, and one attempt of the next call.
        let fault = faults.add(updates(fault).times(7));
        let written = finished(&fixture, checkpointing(&held_lease, at("5"))).await;
        written.unwrap();
        assert_eq!(faults.count(fault), 7);
        assert_eq!(fixture.item().await.checkpoint, at("5"));
        assert!(held_lease.is_held());
    }
}

#[tokio::test]
async fn a_checkpoint_is_tried_until_the_lease_is_lost_and_no_longer() {
    let (fixture, held_lease, _renewer) = held().await;
    fixture.throttle_updates();
    let checkpoint = checkpointing(&held_lease, at("5"));
    fixture.clock.advance(F - Duration::from_millis(500));
    is_lost(finished(&fixture, checkpoint).await);
    assert!(!held_lease.is_held());
}

#[tokio::test]
async fn a_checkpoint_that_fails_for_good_is_reported_at_once() {
    let (fixture, held_lease, _renewer) = held().await;
    let refused = Fault::refuse("AccessDeniedException");
    fixture.aws.faults().add(updates(refused));
    let checkpoint = held_lease.checkpoint(at("5"), Retry::UntilDeadline);
    let error = checkpoint.await.unwrap_err();
    assert!(!error.is_retryable(), "{error:?}");
}

/// A checkpoint whose first attempts were throttled, and that is tried again.
async fn throttled_checkpoint() -> (Fixture, HeldLease, JoinHandle<Result<(), CheckpointError>>) {
    let (fixture, held_lease, _renewer) = held().await;
    let throttle = fixture.throttle_updates();
    let waiting = checkpointing(&held_lease, at("5"));
    fixture.struck(throttle, 3).await;
    (fixture, held_lease, waiting)
}

#[tokio::test]
async fn a_planned_stop_that_runs_out_of_time_ends_the_attempts_with_their_error() {
    let (fixture, held_lease, waiting) = throttled_checkpoint().await;
    fixture.context.stop.out_of_time.cancel();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(error.is_retryable(), "{error:?}");
    // Later checkpoints, and the end of the ownership, still get one attempt each.
    fixture.aws.faults().clear();
    let last = held_lease.checkpoint(at("6"), Retry::UntilDeadline).await;
    last.unwrap();
    let outcome = held_lease.end(LeaseEnd::Relinquish).await;
    assert_eq!(outcome, ShardShutdown::Kept);
}

#[tokio::test]
async fn a_checkpoint_whose_caller_has_gone_is_not_tried_again() {
    let (fixture, held_lease, waiting) = throttled_checkpoint().await;
    waiting.abort();
    let _ = waiting.await;
    fixture.aws.faults().clear();
    fixture.clock.advance(F / 2);
    fixture.until("renewed", |lease| lease.counter > 1).await;
    assert_eq!(fixture.item().await.checkpoint, Checkpoint::TrimHorizon);
    // A later checkpoint covers it.
    held_lease.checkpoint(at("6"), Retry::Never).await.unwrap();
    assert_eq!(fixture.item().await.checkpoint, at("6"));
}
