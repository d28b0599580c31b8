//! Renewals and the fence that they move.

use super::*;
use crate::health::ProblemKind;

#[tokio::test]
async fn renews_at_half_the_failover_time_and_moves_the_fence() {
    let (fixture, tenure, _writer) = held().await;
    assert_eq!(tenure.fencing_token(), FencingToken { lease_key: KEY.into(), counter: 1 });
    tenure.record_bytes(10 * 1024);
    fixture.clock.advance(F / 2);
    let renewed = fixture.until("renewed", |lease| lease.counter == 2).await;
    assert_eq!(renewed.throughput, Some(2.0), "10 KiB in 5 s");
    answered(&tenure, 2).await;
    fixture.clock.advance(F / 2);
    answered(&tenure, 3).await;
    fixture.clock.advance(F / 2 - Duration::from_millis(1));
    assert!(tenure.is_held(), "fence counts from the renewals");
}

#[tokio::test]
async fn a_checkpoint_counts_as_a_renewal() {
    let (fixture, tenure, _writer) = held().await;
    for step in 1..=4u64 {
        fixture.clock.advance(F / 4);
        tenure.checkpoint(at(&step.to_string()), Retry::Never).await.unwrap();
        assert_eq!(fixture.item().await.counter, 1 + step, "no renewal besides the checkpoints");
    }
    fixture.clock.advance(F - Duration::from_millis(1));
    assert!(tenure.is_held());
    assert_eq!(tenure.lease().checkpoint, at("4"));
}

#[tokio::test]
async fn the_fence_falls_when_the_table_is_silent_and_every_checkpoint_is_refused() {
    let (fixture, tenure, writer) = held().await;
    fixture.aws.faults().add(Fault::cut_connection().service(Service::DynamoDb));
    fixture.clock.advance(F - Duration::from_millis(1));
    assert!(tenure.is_held());
    fixture.clock.advance(Duration::from_millis(1));
    assert!(!tenure.is_held(), "judged by the clock at once");
    tenure.lost().cancelled().await;
    fixture.aws.faults().clear();
    is_lost(tenure.checkpoint(at("5"), Retry::Never).await);
    assert!(!writer.is_finished(), "until the consumer lets go");
    tenure.end(TenureEnd::Lost).await;
    writer.await.unwrap();
    is_lost(tenure.checkpoint(at("5"), Retry::Never).await);
    assert_eq!(fixture.item().await.checkpoint, Checkpoint::TrimHorizon);
}

#[tokio::test]
async fn a_brownout_shorter_than_the_fence_loses_nothing() {
    let (fixture, tenure, _writer) = held().await;
    let fault = fixture
        .aws
        .faults()
        .add(Fault::throttle().service(Service::DynamoDb).operation("UpdateItem"));
    fixture.clock.advance(F / 2);
    let error = tenure.checkpoint(at("5"), Retry::Never).await.unwrap_err();
    assert!(matches!(error, CheckpointError::Throttled { .. }), "{error:?}");
    assert!(error.is_retryable());
    fixture.aws.faults().remove(fault);
    fixture.clock.advance(F / 4);
    fixture.until("renewed", |lease| lease.counter > 1).await;
    tenure.checkpoint(at("5"), Retry::Never).await.unwrap();
    assert!(tenure.is_held());
}

#[tokio::test]
async fn a_dropped_tenure_is_renewed_no_more() {
    let fixture = Fixture::new(None, OnStop::HandOver).await;
    let (tenure, writer) = fixture.begin().await;
    let lost = tenure.lost();
    drop(tenure);
    writer.await.unwrap();
    assert!(lost.is_cancelled());
    assert_eq!(fixture.item().await.counter, 1);
}

/// Its consumer may need long to end, and would make the whole worker unhealthy meanwhile.
#[tokio::test]
async fn a_renewal_that_failed_is_no_problem_any_more_once_the_lease_is_lost() {
    let (fixture, tenure, _writer) = held().await;
    let throttle = Fault::throttle().service(Service::DynamoDb);
    fixture.aws.faults().add(throttle.operation("UpdateItem"));
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
    tenure.lost().cancelled().await;
    wait_for(false).await;
}
