//! Renewals, and the fence that they move.

use super::*;
use crate::health::ProblemKind;

#[tokio::test]
async fn renews_at_half_the_failover_time_and_moves_the_fence() {
    let (fixture, held_lease, _renewer) = held().await;
    assert_eq!(held_lease.fencing_token(), FencingToken { lease_key: KEY.into(), counter: 1 });
    held_lease.record_bytes(10 * 1024);
    fixture.clock.advance(F / 2);
    let renewed = fixture.until("renewed", |lease| lease.counter == 2).await;
    assert_eq!(renewed.throughput, Some(2.0), "10 KiB in 5 s");
    answered(&held_lease, 2).await;
    fixture.clock.advance(F / 2);
    answered(&held_lease, 3).await;
    fixture.clock.advance(F / 2 - Duration::from_millis(1));
    assert!(held_lease.is_held(), "fence counts from the renewals");
}

#[tokio::test]
async fn a_checkpoint_counts_as_a_renewal() {
    let (fixture, held_lease, _renewer) = held().await;
    for step in 1..=4u64 {
        fixture.clock.advance(F / 4);
        held_lease.checkpoint(at(&step.to_string()), Retry::Never).await.unwrap();
        assert_eq!(fixture.item().await.counter, 1 + step, "no renewal besides the checkpoints");
    }
    fixture.clock.advance(F - Duration::from_millis(1));
    assert!(held_lease.is_held());
    assert_eq!(held_lease.lease().checkpoint, at("4"));
}

#[tokio::test]
async fn the_fence_falls_when_the_table_is_silent_and_every_checkpoint_is_refused() {
    let (fixture, held_lease, renewer) = held().await;
    fixture.aws.faults().add(Fault::cut_connection().service(Service::DynamoDb));
    fixture.clock.advance(F - Duration::from_millis(1));
    assert!(held_lease.is_held());
    fixture.clock.advance(Duration::from_millis(1));
    assert!(!held_lease.is_held(), "the clock decides at once");
    held_lease.lost().cancelled().await;
    fixture.aws.faults().clear();
    is_lost(held_lease.checkpoint(at("5"), Retry::Never).await);
    assert!(!renewer.is_finished(), "until the consumer ends the ownership");
    held_lease.end(LeaseEnd::Lost).await;
    renewer.await.unwrap();
    is_lost(held_lease.checkpoint(at("5"), Retry::Never).await);
    assert_eq!(fixture.item().await.checkpoint, Checkpoint::TrimHorizon);
}

#[tokio::test]
async fn a_brownout_shorter_than_the_fence_loses_nothing() {
    let (fixture, held_lease, _renewer) = held().await;
    let fault = fixture.throttle_updates();
    fixture.clock.advance(F / 2);
    let error = held_lease.checkpoint(at("5"), Retry::Never).await.unwrap_err();
    assert!(matches!(error, CheckpointError::Throttled { .. }), "{error:?}");
    assert!(error.is_retryable());
    fixture.aws.faults().remove(fault);
    fixture.clock.advance(F / 4);
    fixture.until("renewed", |lease| lease.counter > 1).await;
    held_lease.checkpoint(at("5"), Retry::Never).await.unwrap();
    assert!(held_lease.is_held());
}

#[tokio::test]
async fn a_dropped_ownership_is_renewed_no_more() {
    let fixture = Fixture::new(None, OnStop::HandOver).await;
    let (held_lease, renewer) = fixture.begin().await;
    let lost = held_lease.lost();
    drop(held_lease);
    renewer.await.unwrap();
    assert!(lost.is_cancelled());
    assert_eq!(fixture.item().await.counter, 1);
}

/// The consumer of the lost lease may need long to end. The whole worker would be unhealthy meanwhile.
#[tokio::test]
async fn a_renewal_that_failed_is_no_problem_any_more_once_the_lease_is_lost() {
    let (fixture, held_lease, _renewer) = held().await;
    fixture.throttle_updates();
    let fails = || {
        let kind = ProblemKind::LeaseRenewalFailing;
        fixture.context.problems.find(kind, Some(KEY)).is_some()
    };
    let wait_for = async |failing: bool| {
        let limit = Duration::from_secs(30);
        let change = async {
            while fails() != failing {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let changed = tokio::time::timeout(limit, change).await;
        changed.unwrap_or_else(|_| panic!("never {failing}"));
    };
    fixture.clock.advance(F / 2);
    wait_for(true).await;
    fixture.clock.advance(F);
    held_lease.lost().cancelled().await;
    wait_for(false).await;
}

#[tokio::test]
async fn a_renewer_holds_the_memory_of_a_write_only_while_it_writes() {
    let fixture = Fixture::new(None, OnStop::Keep).await;
    let lease = fixture.taken_by("me").await;
    let sent = fixture.clock.now();
    let (_held_lease, renewer) = HeldLease::begin(fixture.context.clone(), lease, sent);
    let own = size_of_val(&renewer);
    let running = size_of_val(&renewer.run());
    assert!(running < own + 1024, "{running} bytes, {own} of them the renewer");
}
