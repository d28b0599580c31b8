//! The ends of an ownership, and the items that they leave.

use super::*;

#[tokio::test]
async fn an_aborted_processor_is_told_and_its_lease_expires() {
    for handed_over in [false, true] {
        for on_stop in [OnStop::HandOver, OnStop::Release, OnStop::Keep] {
            let fixture = Fixture::new(Some("w2"), on_stop).await;
            let (held_lease, renewer) = fixture.begin().await;
            if handed_over {
                fixture.handed_to("java").await;
            }
            let before = fixture.item().await;
            held_lease.abort();
            held_lease.end(LeaseEnd::Lost).await;
            renewer.await.unwrap();
            assert!(held_lease.lost().is_cancelled());
            assert_eq!(fixture.item().await, before, "{on_stop:?}");
        }
    }
}

#[tokio::test]
async fn a_relinquished_lease_goes_to_the_receiver_or_is_released() {
    for (receiver, on_stop, owner) in [
        (Some("w2"), OnStop::HandOver, Some("w2")),
        (None, OnStop::HandOver, None),
        (Some("w2"), OnStop::Release, None),
        (Some("w2"), OnStop::Keep, Some("me")),
    ] {
        let fixture = Fixture::new(receiver, on_stop).await;
        let (held_lease, renewer) = fixture.begin().await;
        let outcome = held_lease.end(LeaseEnd::Relinquish).await;
        renewer.await.unwrap();
        let item = fixture.item().await;
        assert_eq!(item.owner.as_deref(), owner, "{on_stop:?}");
        let expected = match owner {
            None => ShardShutdown::Released,
            Some("me") => ShardShutdown::Kept,
            Some(to) => ShardShutdown::HandedOver { to: to.to_owned() },
        };
        assert_eq!(outcome, expected);
        assert_eq!(item.was_released_to_owner(), owner.is_some(), "{on_stop:?}");
        assert_eq!(item.owner_switches, u64::from(owner == Some("w2")));
        held_lease.end(LeaseEnd::Relinquish).await;
        assert_eq!(fixture.item().await, item, "once");
    }
}

#[tokio::test]
async fn relinquishing_completes_a_handoff_that_the_worker_did_not_know() {
    for on_stop in [OnStop::HandOver, OnStop::Release, OnStop::Keep] {
        let fixture = Fixture::new(Some("w2"), on_stop).await;
        let (held_lease, _renewer) = fixture.begin().await;
        fixture.handed_to("next").await;
        held_lease.end(LeaseEnd::Relinquish).await;
        let item = fixture.item().await;
        assert_eq!((item.owner.as_deref(), &item.checkpoint_owner), (Some("next"), &None));
    }
}

#[tokio::test]
async fn relinquishing_a_lease_that_was_taken_changes_nothing() {
    let fixture = Fixture::new(Some("w2"), OnStop::HandOver).await;
    let (held_lease, _renewer) = fixture.begin().await;
    let taken = fixture.taken_by("other").await;
    let outcome = held_lease.end(LeaseEnd::Relinquish).await;
    assert_eq!(outcome, ShardShutdown::Lost);
    assert_eq!(fixture.item().await, taken);
}

/// No fence falls, because the clock stands still.
#[tokio::test]
async fn past_the_deadline_nothing_is_tried_again_while_the_table_refuses() {
    for asked_before in [false, true] {
        let fixture = Fixture::new(Some("w2"), OnStop::HandOver).await;
        let (held_lease, renewer) = fixture.begin().await;
        let throttle = fixture.throttle_updates();
        if asked_before {
            let ending = held_lease.clone();
            tokio::spawn(async move { ending.end(LeaseEnd::Relinquish).await });
            // More than the attempts of one call.
            fixture.struck(throttle, 4).await;
        }
        held_lease.abort();
        let end = held_lease.end(LeaseEnd::Lost);
        let patience = Duration::from_secs(60);
        tokio::time::timeout(patience, end).await.unwrap();
        renewer.await.unwrap();
        assert!(!held_lease.is_held());
        let item = fixture.item().await;
        assert_eq!(item.owner.as_deref(), Some("me"), "the lease expires");
    }
}

#[tokio::test]
async fn a_lease_that_cannot_be_relinquished_in_time_is_left_to_expire() {
    for fault in [Fault::throttle(), Fault::delay(Duration::from_secs(3600))] {
        let fixture = Fixture::new(Some("w2"), OnStop::HandOver).await;
        let (held_lease, _renewer) = fixture.begin().await;
        let fault = fixture.aws.faults().add(updates(fault));
        let ending = tokio::spawn(async move { held_lease.end(LeaseEnd::Relinquish).await });
        fixture.struck(fault, 1).await;
        fixture.context.stop.out_of_time.cancel();
        let outcome = ending.await.unwrap();
        assert!(matches!(outcome, ShardShutdown::LeftToExpire { .. }), "{outcome:?}");
        assert_eq!(fixture.item().await.owner.as_deref(), Some("me"));
    }
}
