//! Writes of which nobody knows whether they were done.

use super::*;

#[tokio::test]
async fn lost_answers_are_no_loss_even_when_the_whole_call_failed() {
    let (fixture, held_lease, _renewer) = held().await;
    let faults = fixture.aws.faults();
    // Answers of writes and of the read that follows are lost: the call fails, the write is done.
    let lose = || {
        let lost = Fault::response_lost().service(Service::DynamoDb);
        [faults.add(lost.clone().operation("UpdateItem")), faults.add(lost.operation("GetItem"))]
    };
    let ids = lose();
    let error = held_lease.checkpoint(at("5"), Retry::Never).await.unwrap_err();
    assert!(matches!(error, CheckpointError::Store { retryable: true, .. }), "{error:?}");
    for id in ids {
        faults.remove(id);
    }
    assert_eq!(fixture.item().await.checkpoint, at("5"), "written nevertheless");
    // The next write finds the counter one further, and knows why.
    held_lease.checkpoint(at("6"), Retry::Never).await.unwrap();
    assert_eq!(fixture.item().await.checkpoint, at("6"));

    let ids = lose();
    fixture.clock.advance(F / 2);
    // The renewal was done, and nobody heard of it.
    while faults.count(ids[0]) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for id in ids {
        faults.remove(id);
    }
    held_lease.checkpoint(at("7"), Retry::Never).await.unwrap();
    assert!(held_lease.is_held());
}

#[tokio::test]
async fn a_throttled_retry_after_a_lost_answer_is_no_loss() {
    let (fixture, held_lease, _renewer) = held().await;
    let faults = fixture.aws.faults();
    let update = |fault: Fault| fault.service(Service::DynamoDb).operation("UpdateItem");
    // The first attempt is written and not answered; the retries are throttled.
    faults.add(update(Fault::response_lost()).times(1));
    let throttle = faults.add(update(Fault::throttle()).skip(1));
    let error = held_lease.checkpoint(at("5"), Retry::Never).await.unwrap_err();
    assert!(matches!(error, CheckpointError::Throttled { .. }), "{error:?}");
    faults.remove(throttle);
    assert_eq!(fixture.item().await.checkpoint, at("5"), "written");
    held_lease.checkpoint(at("6"), Retry::Never).await.unwrap();
    assert!(held_lease.is_held());
}

#[tokio::test]
async fn a_checkpoint_that_nobody_heard_of_is_not_taken_back() {
    let (fixture, held_lease, _renewer) = held().await;
    let faults = fixture.aws.faults();
    let unheard = async |checkpoint: Checkpoint| {
        let lost = Fault::response_lost().service(Service::DynamoDb);
        let ids = [
            faults.add(lost.clone().operation("UpdateItem")),
            faults.add(lost.operation("GetItem")),
        ];
        held_lease.checkpoint(checkpoint.clone(), Retry::Never).await.unwrap_err();
        for id in ids {
            faults.remove(id);
        }
        assert_eq!(fixture.item().await.checkpoint, checkpoint, "written");
    };
    unheard(at("10")).await;
    held_lease.prepare_checkpoint(at("12"), None, Retry::Never).await.unwrap();
    let item = fixture.item().await;
    assert_eq!(item.checkpoint, at("10"));
    assert_eq!(item.pending.unwrap().checkpoint, at("12"));

    unheard(at("20")).await;
    let error = held_lease.checkpoint(at("15"), Retry::Never).await.unwrap_err();
    assert!(
        matches!(&error, CheckpointError::OutOfRange { lowest, .. } if *lowest == at("20")),
        "{error:?}"
    );

    // The renewal that is due now has no part in what follows.
    held_lease.checkpoint(at("21"), Retry::Never).await.unwrap();
    unheard(Checkpoint::ShardEnd).await;
    held_lease.checkpoint(at("30"), Retry::Never).await.unwrap_err();
    held_lease.prepare_checkpoint(at("30"), None, Retry::Never).await.unwrap();
    assert_eq!(fixture.item().await.checkpoint, Checkpoint::ShardEnd);
    assert!(held_lease.is_held());
}
