//! Progress that is written with the renewals that are due anyway.

use super::*;
use crate::sequence::ExtendedSequenceNumber;

fn position(sequence: &str, sub_sequence: u64) -> ExtendedSequenceNumber {
    ExtendedSequenceNumber::new(sequence.parse().unwrap(), sub_sequence)
}

/// The processor has taken all records up to here, and the library writes its checkpoints.
fn processed(held_lease: &HeldLease, position: ExtendedSequenceNumber) {
    let mut progress = held_lease.progress().lock();
    progress.delivered(Some(position));
    progress.offer_to_renewal();
}

#[tokio::test]
async fn a_due_renewal_writes_what_was_processed_for_the_price_of_one_write() {
    let (fixture, held_lease, _renewer) = held().await;
    processed(&held_lease, position("7", 2));
    assert_eq!(fixture.item().await.checkpoint, Checkpoint::TrimHorizon);
    held_lease.record_bytes(10 * 1024);
    fixture.clock.advance(F / 2);
    let renewed = fixture.until("renewed", |lease| lease.counter > 1).await;
    assert_eq!(renewed.counter, 2);
    assert_eq!(renewed.checkpoint, Checkpoint::At(position("7", 2)));
    assert_eq!(renewed.throughput, Some(2.0), "10 KiB in 5 s");
    answered(&held_lease, 2).await;
    assert_eq!(held_lease.progress().lock().carried_at, Some(fixture.clock.now()));

    // Nothing new was processed: a plain renewal, which counts as no checkpoint.
    fixture.clock.advance(F / 2);
    answered(&held_lease, 3).await;
    assert_eq!(fixture.item().await.counter, 3);
    assert_eq!(held_lease.progress().lock().carried_at, Some(fixture.clock.now() - F / 2));
    fixture.clock.advance(F - Duration::from_millis(1));
    assert!(held_lease.is_held(), "it moved the fence");
}

#[tokio::test]
async fn what_the_processor_checkpointed_further_stays() {
    let (fixture, held_lease, _renewer) = held().await;
    processed(&held_lease, position("7", 2));
    held_lease.checkpoint(at("9"), Retry::Never).await.unwrap();
    fixture.clock.advance(F / 2);
    let renewed = fixture.until("renewed", |lease| lease.counter == 3).await;
    assert_eq!(renewed.checkpoint, at("9"));
    assert_eq!(held_lease.progress().lock().carried_at, None);
}

#[tokio::test]
async fn a_pending_checkpoint_stays_even_if_its_write_was_not_answered() {
    let (fixture, held_lease, _renewer) = held().await;
    processed(&held_lease, position("7", 2));
    let prepare = async |_| held_lease.prepare_checkpoint(at("5"), None, Retry::Never).await;
    fixture.unanswered(prepare).await.unwrap_err();
    fixture.clock.advance(F / 2);
    let renewed = fixture.until("renewed", |lease| lease.counter == 3).await;
    assert_eq!(renewed.checkpoint, Checkpoint::TrimHorizon);
    assert_eq!(renewed.pending.map(|p| p.checkpoint), Some(at("5")));
    // After the commit, renewals write progress again.
    answered(&held_lease, 3).await;
    held_lease.checkpoint(at("5"), Retry::Never).await.unwrap();
    fixture.clock.advance(F / 2);
    let renewed = fixture.until("renewed", |lease| lease.counter == 5).await;
    assert_eq!(renewed.checkpoint, Checkpoint::At(position("7", 2)));
}

#[tokio::test]
async fn a_renewal_that_failed_or_was_not_answered_is_made_up_for() {
    let (fixture, held_lease, _renewer) = held().await;
    let faults = fixture.aws.faults();
    let throttle = fixture.throttle_updates();
    processed(&held_lease, position("7", 2));
    fixture.clock.advance(F / 2);
    fixture.struck(throttle, 1).await;
    faults.remove(throttle);
    assert_eq!(held_lease.progress().lock().carried_at, None);
    // The next one is written and not answered: it is read back.
    faults.add(updates(Fault::response_lost()).times(1));
    processed(&held_lease, position("8", 0));
    fixture.clock.advance(F / 20);
    let carried = Checkpoint::At(position("8", 0));
    fixture.until("carried", |lease| lease.checkpoint == carried).await;
    while held_lease.lease().checkpoint != carried {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(held_lease.is_held());
    held_lease.checkpoint(at("9"), Retry::Never).await.unwrap();
}

#[tokio::test]
async fn after_the_fence_no_progress_is_written() {
    let (fixture, held_lease, _renewer) = held().await;
    let taken = fixture.taken_by("other").await;
    processed(&held_lease, position("7", 2));
    fixture.clock.advance(F / 2);
    held_lease.lost().cancelled().await;
    assert_eq!(fixture.item().await, taken);

    let (fixture, held_lease, _renewer) = held().await;
    processed(&held_lease, position("7", 2));
    fixture.clock.advance(F);
    held_lease.lost().cancelled().await;
    assert_eq!(fixture.item().await.checkpoint, Checkpoint::TrimHorizon);
}
