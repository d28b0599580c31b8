//! Subscriptions that end, fail, or are not read: nothing is lost, and nothing comes twice.

use super::*;
use crate::health::ProblemKind;

const SECOND: Duration = Duration::from_secs(1);

/// Puts a record every 100 ms, and reads them all.
async fn read_all(aws: &Paused, subscriber: &mut Subscriber, records: u32) {
    let put = async {
        for number in 0..records {
            aws.put(number..number + 1).await;
            tokio::time::sleep(SECOND / 10).await;
        }
    };
    let ((), read) = tokio::join!(put, subscriber.read(records as usize));
    assert_eq!(read, numbers(0..records));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_the_service_ends_is_followed_by_another() {
    let aws = Paused::with(|aws| aws.subscription_time(3 * SECOND)).await;
    let mut subscriber = aws.subscriber(Position::TrimHorizon).await;
    read_all(&aws, &mut subscriber, 600).await;
    assert!(aws.aws.calls("SubscribeToShard") >= 20);
}

#[tokio::test(start_paused = true)]
async fn a_subscription_is_renewed_before_the_service_ends_it() {
    let aws = Paused::start().await;
    let mut subscriber = aws.subscriber(Position::TrimHorizon).await;
    let ended = aws.aws.faults().add(
        Fault::cut_connection().operation("SubscribeToShardEvent").after(Duration::from_secs(299)),
    );
    read_all(&aws, &mut subscriber, 2_950).await;
    assert_eq!(aws.aws.faults().count(ended), 0);
    assert_eq!(aws.aws.calls("SubscribeToShard"), 2);
}

#[tokio::test(start_paused = true)]
async fn the_next_subscription_starts_after_events_without_records() {
    let aws = Paused::with(|aws| aws.subscription_time(20 * SECOND)).await;
    let mut subscriber = aws.subscriber(Position::Latest).await;
    while aws.aws.calls("SubscribeToShard") < 10 {
        tokio::time::sleep(SECOND).await;
    }
    aws.put(0..3).await;
    assert_eq!(subscriber.read(3).await, numbers(0..3));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_cut_each_second_for_a_minute() {
    let aws = Paused::start().await;
    let mut subscriber = aws.subscriber(Position::TrimHorizon).await;
    for second in 0..60 {
        let cut = Fault::cut_connection().operation("SubscribeToShardEvent").times(1);
        aws.aws.faults().add(cut.after(second * SECOND));
    }
    read_all(&aws, &mut subscriber, 900).await;
    // After each cut it tries once, and then when the service accepts it.
    let calls = aws.aws.calls("SubscribeToShard");
    assert!(calls <= 2 * 60 + 1, "{calls} calls");
}

#[tokio::test(start_paused = true)]
async fn every_fault_of_the_call_is_survived() {
    for fault in [
        Fault::throttle(),
        Fault::refuse("LimitExceededException"),
        Fault::internal_failure(),
        Fault::cut_connection(),
        Fault::response_lost(),
        Fault::delay(60 * SECOND).times(1),
        Fault::refuse("ResourceInUseException"),
        // A false answer: none of stream, shard and consumer is gone.
        Fault::refuse("ResourceNotFoundException"),
        Fault::refuse("InvalidArgumentException"),
        Fault::refuse("AccessDeniedException"),
    ] {
        let aws = Paused::start().await;
        aws.put(0..10).await;
        let label = format!("{fault:?}");
        let times = if label.contains("Delay") { 1 } else { 3 };
        let injected = aws.aws.faults().add(fault.operation("SubscribeToShard").times(times));
        let mut subscriber = aws.subscriber(Position::TrimHorizon).await;
        assert_eq!(subscriber.read(10).await, numbers(0..10), "{label}");
        assert_eq!(aws.aws.faults().count(injected), times, "{label}");
        let problems = subscriber.status.problems();
        let open = problems.find(ProblemKind::ReadsFailing, Some(SHARD));
        assert!(open.is_none(), "{label}: {open:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_fault_of_an_event_is_survived() {
    for fault in [
        Fault::internal_failure(),
        Fault::cut_connection(),
        Fault::refuse("ResourceInUseException"),
        Fault::refuse("ResourceNotFoundException"),
        Fault::refuse("KMSThrottlingException"),
        Fault::refuse("InternalFailureException"),
    ] {
        let aws = Paused::start().await;
        let label = format!("{fault:?}");
        let fault = fault.operation("SubscribeToShardEvent").skip(3).times(3);
        let injected = aws.aws.faults().add(fault);
        let mut subscriber = aws.subscriber(Position::TrimHorizon).await;
        read_all(&aws, &mut subscriber, 100).await;
        assert_eq!(aws.aws.faults().count(injected), 3, "{label}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_subscription_is_renewed() {
    let aws = Paused::start().await;
    aws.put(0..3).await;
    let mut subscriber = aws.subscriber(Position::TrimHorizon).await;
    assert_eq!(subscriber.read(3).await, numbers(0..3));
    let silent = Fault::delay(Duration::from_secs(36_000)).operation("SubscribeToShardEvent");
    aws.aws.faults().add(silent.times(1));
    aws.put(3..6).await;
    let before = aws.clock.now();
    assert_eq!(subscriber.read(3).await, numbers(3..6));
    assert!(aws.clock.now() - before < 40 * SECOND);
    assert_eq!(aws.aws.calls("SubscribeToShard"), 2);
}

#[tokio::test(start_paused = true)]
async fn records_put_after_a_subscription_at_the_tip_that_breaks_at_once_are_not_missed() {
    let aws = Paused::start().await;
    aws.put(0..3).await;
    tokio::time::sleep(10 * SECOND).await;
    let mut subscriber = aws.subscriber(Position::Latest).await;
    let cut = Fault::cut_connection().operation("SubscribeToShardEvent");
    aws.aws.faults().add(cut.times(1));
    while aws.aws.calls("SubscribeToShard") == 0 {
        tokio::time::sleep(SECOND / 100).await;
    }
    aws.put(3..6).await;
    assert_eq!(subscriber.read(3).await, numbers(3..6));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_that_is_not_read_is_ended_and_resumed_where_it_stopped() {
    let aws = Paused::start().await;
    let mut subscriber = aws.subscriber(Position::TrimHorizon).await;
    for number in 0..20 {
        aws.put(number..number + 1).await;
        tokio::time::sleep(SECOND / 10).await;
    }
    while aws.aws.subscriptions() > 0 {
        tokio::time::sleep(SECOND).await;
    }
    let calls = aws.aws.calls("SubscribeToShard");
    // Nothing is subscribed to while the page waits.
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(aws.aws.calls("SubscribeToShard"), calls);
    assert_eq!(subscriber.read(20).await, numbers(0..20));
}

#[tokio::test(start_paused = true)]
async fn the_memory_of_a_page_is_given_back_and_little_is_held_at_the_tip() {
    let aws = Paused::start().await;
    put_by(&aws.client(), 0..100, 10_000).await;
    let mut subscriber = aws.subscriber(Position::TrimHorizon).await;
    let page = subscriber.page().await;
    assert!(subscriber.budget.held() > 1_000_000);
    drop(page);
    tokio::time::sleep(120 * SECOND).await;
    let held = subscriber.budget.held();
    assert!(held <= 16 << 10, "{held} bytes");
    drop(subscriber.pages);
    tokio::time::sleep(SECOND).await;
    assert_eq!(subscriber.budget.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_owner_takes_over_while_the_service_still_refuses_it() {
    let aws = Paused::start().await;
    let retrieval = aws.retrieval().await;
    aws.put(0..3).await;
    let mut old = aws.subscriber_of(&retrieval, SHARD, Position::TrimHorizon);
    assert_eq!(old.read(3).await, numbers(0..3));
    drop(old);
    aws.put(3..6).await;
    let before = aws.clock.now();
    let mut new = aws.subscriber_of(&retrieval, SHARD, Position::TrimHorizon);
    assert_eq!(new.read(6).await, numbers(0..6));
    assert!(aws.clock.now() - before < 6 * SECOND);
    let problems = new.status.problems();
    let failed = problems.totals().get(&ProblemKind::ReadsFailing).copied();
    assert_eq!(failed.unwrap_or_default(), 0, "it is no failure");
}

#[tokio::test(start_paused = true)]
async fn a_record_of_which_a_part_is_checkpointed_is_received_again_after_a_break() {
    let aws = Paused::start().await;
    let put = aws.put(0..3).await;
    // The first event has no record. Its number is not after the record that is to be received.
    let position = Position::At(put[1].clone());
    assert_eq!(position.after_event(put[0].clone(), false), position);
    assert_eq!(position.after_event(put[1].clone(), false), position);
    let after = |number: usize| Position::After(put[number].clone());
    assert_eq!(position.after_event(put[1].clone(), true), after(1));
    assert_eq!(position.after_event(put[2].clone(), false), after(2));
    assert_eq!(Position::TrimHorizon.after_event(put[0].clone(), false), after(0));
    assert_eq!(after(1).after_event(put[0].clone(), false), after(1), "it never goes back");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_was_behind_for_longer_than_records_are_kept_tells_of_the_gap() {
    let aws = Paused::with(|aws| aws.shard_limits(true)).await;
    put_by(&aws.client(), 0..100, 100_000).await;
    let mut subscriber = aws.subscriber(Position::TrimHorizon).await;
    subscriber.page().await;
    // The processor does not return for so long.
    tokio::time::sleep(Duration::from_secs(86_400 + 60)).await;
    aws.put(100..101).await;
    while !subscriber.read(1).await.contains(&"100".to_owned()) {}
    let problems = subscriber.status.problems();
    let gap = problems.find(ProblemKind::RecordsTrimmed, Some(SHARD)).unwrap();
    assert!(gap.cause.contains("before they were read"), "{}", gap.cause);
}

#[tokio::test(start_paused = true)]
async fn another_application_with_the_same_consumer_is_told() {
    let aws = Paused::start().await;
    let retrieval = aws.retrieval().await;
    let mut mine = aws.subscriber_of(&retrieval, SHARD, Position::TrimHorizon);
    let other = aws.subscriber_of(&retrieval, SHARD, Position::TrimHorizon);
    let problem = || {
        let problems = mine.status.problems();
        let mine = problems.find(ProblemKind::ReadsFailing, Some(SHARD));
        mine.or_else(|| other.status.problems().find(ProblemKind::ReadsFailing, Some(SHARD)))
    };
    let cause = loop {
        if let Some(problem) = problem() {
            break problem.cause;
        }
        tokio::time::sleep(SECOND / 10).await;
    };
    assert!(cause.contains("needs one of its own"), "{cause}");
    drop(other);
    aws.put(0..3).await;
    assert_eq!(mine.read(3).await, numbers(0..3));
}

#[tokio::test(start_paused = true)]
async fn a_shard_is_subscribed_to_once_a_second_at_most() {
    let aws = Paused::with(|aws| aws.shard_limits(true)).await;
    for fault in [Fault::internal_failure(), Fault::cut_connection()] {
        aws.aws.faults().add(fault.operation("SubscribeToShard").times(5));
    }
    aws.aws.faults().add(Fault::cut_connection().operation("SubscribeToShardEvent").times(5));
    let mut subscriber = aws.subscriber(Position::TrimHorizon).await;
    let before = aws.clock.now();
    aws.put(0..3).await;
    assert_eq!(subscriber.read(3).await, numbers(0..3));
    let (calls, took) = (aws.aws.calls("SubscribeToShard"), aws.clock.now() - before);
    assert!(calls > 10 && calls <= took.as_secs() + 1, "{calls} calls in {took:?}");
}
