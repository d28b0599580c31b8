//! Reads that fail, and how a shard shows it.

use super::*;
use crate::health::ProblemKind;

/// The failures that the shard shows, and their cause.
fn told(status: &ShardStatus) -> (u32, String) {
    let snapshot = status.snapshot();
    let cause = snapshot.last_read_failure.unwrap_or_default();
    let problem = status.problems().find(ProblemKind::ReadsFailing, Some(SHARD));
    assert_eq!(
        problem.map(|problem| (problem.failures, problem.cause)),
        (snapshot.read_failures > 0).then(|| (snapshot.read_failures, cause.clone()))
    );
    (snapshot.read_failures, cause)
}

/// Checks that a shard whose reads fail in this way shows it, with this advice, until it is over.
async fn is_told(operation: &str, fault: Fault, advice: &str) {
    let paused = Paused::start().await;
    paused.put(0..3).await;
    let mut reader = paused.reader(Position::TrimHorizon).await;
    let status = Arc::clone(&reader.polling.status);
    let fault = paused.aws.faults().add(fault.operation(operation));
    let reading = tokio::spawn(async move { reader.read(3).await });
    while told(&status).0 < 3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (_, cause) = told(&status);
    assert!(cause.contains(operation) && cause.contains(advice), "{cause}");
    paused.aws.faults().remove(fault);
    assert_eq!(reading.await.unwrap(), numbers(0..3));
    assert_eq!(told(&status), (0, String::new()));
}

#[tokio::test(start_paused = true)]
async fn each_refusal_is_told_with_its_cause_and_what_to_do() {
    for operation in ["GetRecords", "GetShardIterator"] {
        for (code, advice) in [
            ("AccessDeniedException", operation),
            ("KMSAccessDeniedException", "kms:Decrypt"),
            ("KMSDisabledException", "enable the stream's KMS key"),
            ("KMSInvalidStateException", "pending deletion"),
            ("KMSNotFoundException", "KMS key is gone"),
            ("KMSOptInRequired", "sign the account up"),
            ("ExpiredTokenException", "credentials"),
            ("SomethingNew", "SomethingNew"),
        ] {
            is_told(operation, Fault::refuse(code), advice).await;
        }
        is_told(operation, Fault::internal_failure(), "InternalFailure").await;
        is_told(operation, Fault::cut_connection(), "cut").await;
        is_told(operation, Fault::throttle(), "Rate exceeded").await;
        is_told(operation, Fault::garbled_response(), "not in the service's format").await;
    }
    let invalid = Fault::refuse("InvalidArgumentException");
    is_told("GetShardIterator", invalid, "correct the checkpoint").await;
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_is_no_position_in_the_shard_is_told() {
    let paused = Paused::start().await;
    let mut reader = paused.reader(Position::At("42".parse().unwrap())).await;
    let status = Arc::clone(&reader.polling.status);
    let reading = tokio::spawn(async move { reader.read(1).await });
    while told(&status).0 < 2 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (_, cause) = told(&status);
    assert!(cause.contains("did not come from this shard"), "{cause}");
    assert!(cause.contains("correct the checkpoint"), "{cause}");
    reading.abort();
}

#[tokio::test(start_paused = true)]
async fn a_throttle_now_and_then_is_no_problem() {
    let paused = Paused::start().await;
    paused.put(0..3).await;
    let throttle = Fault::throttle().operation("GetRecords").times(2);
    paused.aws.faults().add(throttle);
    let mut reader = paused.reader(Position::TrimHorizon).await;
    let status = Arc::clone(&reader.polling.status);
    let watch = tokio::spawn(async move {
        loop {
            assert_eq!(told(&status).0, 0);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(reader.read(3).await, numbers(0..3));
    watch.abort();
    assert!(watch.await.unwrap_err().is_cancelled());
}

#[test]
fn an_answer_with_nothing_in_it_is_not_the_end_of_the_shard() {
    assert!(Answer::new(RecordsAnswer::default()).is_err());
    let last = RecordsAnswer { millis_behind_latest: Some(0), ..RecordsAnswer::default() };
    assert_eq!(Answer::new(last).unwrap().next, Err(Vec::new()));
}
