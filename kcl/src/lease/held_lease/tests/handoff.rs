//! Handoffs, as the owner sees them.

use super::*;

/// Lets the owner start a handoff to the worker `next`.
async fn start_handoff(held_lease: &HeldLease) {
    held_lease.start_handoff("next");
    held_lease.handoff_requested().cancelled().await;
}

#[tokio::test]
async fn a_handoff_taken_back_renews_nothing_until_a_renewal_does() {
    let (fixture, held_lease, _renewer) = held().await;
    start_handoff(&held_lease).await;
    // A leader assigns it back: one more on the counter, as a renewal would leave it.
    let pending = fixture.item().await;
    let back = fixture
        .store
        .write(&pending, LeaseWrite::Assign { to: "me".into(), released: false })
        .await
        .unwrap();
    assert_eq!(back.applied().unwrap().counter, 2);
    fixture.aws.faults().add(updates(Fault::throttle()).skip(1));
    fixture.clock.advance(F / 2);
    // The first write finds the counter moved, and the next ones fail. No write showed that this worker is alive.
    answered(&held_lease, 2).await;
    assert!(held_lease.is_held());
    fixture.clock.advance(F / 2);
    assert!(!held_lease.is_held(), "the fence did not move");
}

#[tokio::test]
async fn a_handoff_taken_back_is_renewed_at_once() {
    let (fixture, held_lease, _renewer) = held().await;
    start_handoff(&held_lease).await;
    let pending = fixture.item().await;
    fixture
        .store
        .write(&pending, LeaseWrite::Assign { to: "me".into(), released: false })
        .await
        .unwrap();
    fixture.clock.advance(F / 2);
    // The clock stands still.
    answered(&held_lease, 3).await;
    fixture.clock.advance(F - Duration::from_millis(1));
    assert!(held_lease.is_held());
}

#[tokio::test]
async fn a_handoff_is_seen_at_the_next_write_and_transferred() {
    let (fixture, held_lease, renewer) = held().await;
    fixture.handed_to("next").await;
    assert!(!held_lease.handoff_requested().is_cancelled());
    held_lease.checkpoint(at("5"), Retry::Never).await.unwrap();
    assert!(held_lease.handoff_requested().is_cancelled());
    // Renewals and checkpoints go on while the consumer drains the shard.
    fixture.clock.advance(F / 2);
    fixture.until("renewed", |lease| lease.counter == 3).await;
    held_lease.checkpoint(at("6"), Retry::Never).await.unwrap();
    held_lease.end(LeaseEnd::Transfer).await;
    renewer.await.unwrap();
    let item = fixture.item().await;
    assert_eq!((item.owner.as_deref(), &item.checkpoint_owner), (Some("next"), &None));
    assert!(item.was_released_to_owner() && item.checkpoint == at("6"));
    is_lost(held_lease.checkpoint(at("7"), Retry::Never).await);
}

#[tokio::test]
async fn a_renewal_sees_the_handoff_too_and_the_owner_can_start_one() {
    let (fixture, held_lease, _renewer) = held().await;
    fixture.handed_to("next").await;
    fixture.clock.advance(F / 2);
    held_lease.handoff_requested().cancelled().await;
    assert!(held_lease.is_held());

    let (fixture, held_lease, _renewer) = held().await;
    start_handoff(&held_lease).await;
    let item = fixture.item().await;
    assert_eq!(
        (item.owner.as_deref(), item.checkpoint_owner.as_deref()),
        (Some("next"), Some("me"))
    );
}

#[tokio::test]
async fn a_handoff_that_drags_on_is_forced_before_a_java_leader_would() {
    let (fixture, held_lease, _renewer) = held().await;
    start_handoff(&held_lease).await;
    let mut counter = fixture.item().await.counter;
    for _ in 0..4 {
        fixture.clock.advance(Duration::from_secs(6));
        counter = fixture.until("renewed", |lease| lease.counter > counter).await.counter;
        answered(&held_lease, counter).await;
        assert!(!held_lease.lost().is_cancelled());
    }
    fixture.clock.advance(Duration::from_secs(1));
    held_lease.lost().cancelled().await;
    let item = fixture.until("transferred", |lease| !lease.is_handoff_pending()).await;
    assert_eq!(item.owner.as_deref(), Some("next"));
    assert!(!item.was_released_to_owner(), "the processor may still be at work");
    is_lost(held_lease.checkpoint(at("9"), Retry::Never).await);
}

#[tokio::test]
async fn a_forced_handoff_does_not_complete_a_later_one() {
    let (fixture, held_lease, renewer) = held().await;
    start_handoff(&held_lease).await;
    let mut lease = fixture.item().await;
    for _ in 0..4 {
        fixture.clock.advance(Duration::from_secs(6));
        let counter = lease.counter;
        lease = fixture.until("renewed", |lease| lease.counter > counter).await;
        answered(&held_lease, lease.counter).await;
    }
    // A leader assigns the lease back, and starts another handoff to the same worker.
    let back = LeaseWrite::Assign { to: "me".into(), released: false };
    let back = fixture.store.write(&lease, back).await.unwrap().applied().unwrap();
    let again = LeaseWrite::StartHandoff { to: "next".into() };
    let again = fixture.store.write(&back, again).await.unwrap();
    fixture.clock.advance(Duration::from_secs(1));
    held_lease.lost().cancelled().await;
    held_lease.end(LeaseEnd::Lost).await;
    renewer.await.unwrap();
    assert_eq!(fixture.item().await, again.applied().unwrap());
}

#[tokio::test]
async fn the_processor_is_told_of_a_handoff_and_of_a_planned_stop_alike() {
    let (fixture, held_lease, _renewer) = held().await;
    let shutdown = held_lease.shutdown_requested();
    assert!(!shutdown.is_cancelled());
    held_lease.start_handoff("next");
    shutdown.cancelled().await;
    assert!(!fixture.context.stop.leaving.is_cancelled(), "the worker goes on");

    let (fixture, held_lease, _renewer) = held().await;
    fixture.context.stop.leaving.cancel();
    held_lease.shutdown_requested().cancelled().await;
    assert!(!held_lease.handoff_requested().is_cancelled());
    assert!(held_lease.is_held());
}
