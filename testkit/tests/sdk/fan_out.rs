//! SubscribeToShard: records pushed as they come, over the event stream.

use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::operation::subscribe_to_shard::SubscribeToShardOutput;
use aws_sdk_kinesis::operation::subscribe_to_shard::builders::SubscribeToShardFluentBuilder;
use aws_sdk_kinesis::primitives::DateTime;
use aws_sdk_kinesis::types::{
    StartingPosition, SubscribeToShardEvent, SubscribeToShardEventStream,
};
use kinesis_testkit::{Clock, Fault, ManualClock, TokioClock};

use super::consumers::register;
use super::*;

fn position(kind: ShardIteratorType) -> StartingPosition {
    StartingPosition::builder().r#type(kind).build().unwrap()
}

fn numbered(kind: ShardIteratorType, number: &str) -> StartingPosition {
    let position = StartingPosition::builder().r#type(kind);
    position.sequence_number(number).build().unwrap()
}

fn request(
    client: &Client,
    consumer: &str,
    shard: &str,
    start: StartingPosition,
) -> SubscribeToShardFluentBuilder {
    client.subscribe_to_shard().consumer_arn(consumer).shard_id(shard).starting_position(start)
}

async fn subscribe(
    client: &Client,
    consumer: &str,
    start: StartingPosition,
) -> SubscribeToShardOutput {
    request(client, consumer, SHARD_0, start).send().await.unwrap()
}

/// The next event, or the code of the exception; none at the end.
async fn next(
    subscription: &mut SubscribeToShardOutput,
) -> Result<Option<SubscribeToShardEvent>, String> {
    match subscription.event_stream.recv().await {
        Ok(None) => Ok(None),
        Ok(Some(SubscribeToShardEventStream::SubscribeToShardEvent(event))) => Ok(Some(event)),
        Ok(Some(other)) => panic!("{other:?}"),
        Err(SdkError::ServiceError(error)) => Err(error.err().code().unwrap().to_owned()),
        Err(_) => Err("cut".to_owned()),
    }
}

/// The data of the next event that has records.
async fn next_texts(subscription: &mut SubscribeToShardOutput) -> Vec<String> {
    loop {
        let event = next(subscription).await.unwrap().unwrap();
        if !event.records().is_empty() {
            return texts(event.records());
        }
    }
}

/// A stream of one shard on a clock of the test's, and a consumer.
async fn on_manual_clock() -> (LocalAws, ManualClock, Client, String) {
    let clock = ManualClock::default();
    let aws = LocalAws::builder().clock(clock.clone()).build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    let client = client(&aws);
    let consumer = register(&client, "app").await;
    (aws, clock, client, consumer)
}

#[tokio::test]
async fn records_are_pushed_from_every_kind_of_starting_position() {
    let (_aws, clock, client, _) = on_manual_clock().await;
    put(&client, 0, "a").await;
    clock.advance(Duration::from_secs(1));
    let b = put(&client, 0, "b").await;
    let time = StartingPosition::builder()
        .r#type(ShardIteratorType::AtTimestamp)
        .timestamp(DateTime::from(clock.now()))
        .build()
        .unwrap();
    put(&client, 0, "c").await;
    let starts: [(StartingPosition, &[&str]); 5] = [
        (position(ShardIteratorType::TrimHorizon), &["a", "b", "c"]),
        (numbered(ShardIteratorType::AtSequenceNumber, &b), &["b", "c"]),
        (numbered(ShardIteratorType::AfterSequenceNumber, &b), &["c"]),
        (time, &["b", "c"]),
        (position(ShardIteratorType::Latest), &[]),
    ];
    let mut subscriptions = Vec::new();
    for (nth, (start, before)) in starts.into_iter().enumerate() {
        let consumer = register(&client, &format!("app-{nth}")).await;
        let mut subscription = subscribe(&client, &consumer, start).await;
        if !before.is_empty() {
            let event = next(&mut subscription).await.unwrap().unwrap();
            assert_eq!(texts(event.records()), before);
            assert_eq!(event.millis_behind_latest(), 0);
            assert!(event.child_shards.is_none());
            let last = event.records().last().unwrap().sequence_number();
            assert_eq!(event.continuation_sequence_number(), last);
        }
        subscriptions.push(subscription);
    }
    put(&client, 0, "d").await;
    for subscription in &mut subscriptions {
        assert_eq!(next_texts(subscription).await, ["d"]);
    }
}

#[tokio::test]
async fn what_cannot_be_subscribed_to_is_refused() {
    let clock = ManualClock::default();
    let transition = Duration::from_secs(5);
    let aws =
        LocalAws::builder().clock(clock.clone()).transition_time(transition).build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    clock.advance(transition);
    let client = client(&aws);
    let consumer = register(&client, "app").await;
    let refused = async |consumer: &str, shard: &str, start: StartingPosition| {
        code(request(&client, consumer, shard, start).send().await)
    };
    let latest = || position(ShardIteratorType::Latest);
    let creating = refused(&consumer, SHARD_0, latest()).await;
    assert_eq!(creating, "ResourceInUseException");
    clock.advance(transition);
    let unknown = format!("{consumer}0");
    let unknown = refused(&unknown, SHARD_0, latest()).await;
    assert_eq!(unknown, "ResourceNotFoundException");
    let no_shard = refused(&consumer, SHARD_1, latest()).await;
    assert_eq!(no_shard, "ResourceNotFoundException");
    let foreign = numbered(ShardIteratorType::AtSequenceNumber, "123");
    let foreign = refused(&consumer, SHARD_0, foreign).await;
    assert_eq!(foreign, "InvalidArgumentException");
    let numberless = position(ShardIteratorType::AfterSequenceNumber);
    let numberless = refused(&consumer, SHARD_0, numberless).await;
    assert_eq!(numberless, "InvalidArgumentException");
    subscribe(&client, &consumer, latest()).await;
}

#[tokio::test]
async fn the_end_of_a_shard_names_its_children_and_ends_the_subscription() {
    let (aws, client) = with_stream(1).await;
    let consumer = register(&client, "app").await;
    let latest = position(ShardIteratorType::Latest);
    let mut parent = subscribe(&client, &consumer, latest).await;
    put(&client, 0, "last").await;
    split(&client, SHARD_0, 1 << 127).await;
    put(&client, 0, "in the child").await;

    let mut seen = Vec::new();
    let end = loop {
        let event = next(&mut parent).await.unwrap().unwrap();
        seen.extend(texts(event.records()));
        if event.child_shards.is_some() {
            break event;
        }
    };
    assert_eq!(seen, ["last"]);
    assert_eq!(end.millis_behind_latest(), 0);
    let children = end.child_shards();
    let ids: Vec<_> = children.iter().map(|child| child.shard_id()).collect();
    assert_eq!(ids, [SHARD_1, SHARD_2]);
    assert_eq!(children[0].parent_shards(), [SHARD_0]);
    let upper = children[1].hash_key_range().unwrap();
    assert_eq!(upper.starting_hash_key(), (1u128 << 127).to_string());
    assert_eq!(next(&mut parent).await, Ok(None));
    assert_eq!(aws.subscriptions(), 0);

    // Another subscription to what has ended is served at once, and ends at once.
    let start = || position(ShardIteratorType::TrimHorizon);
    let mut again = subscribe(&client, &consumer, start()).await;
    let all = next(&mut again).await.unwrap().unwrap();
    assert_eq!(texts(all.records()), ["last"]);
    assert_eq!(all.child_shards().len(), 2);
    assert_eq!(next(&mut again).await, Ok(None));

    let child = request(&client, &consumer, SHARD_1, start());
    let mut child = child.send().await.unwrap();
    assert_eq!(next_texts(&mut child).await, ["in the child"]);
}

#[tokio::test]
async fn a_subscription_is_taken_over_after_five_seconds_and_not_before() {
    let (aws, clock, client, consumer) = on_manual_clock().await;
    let start = || position(ShardIteratorType::Latest);
    let mut first = subscribe(&client, &consumer, start()).await;
    // Another consumer is not in the way.
    let other = register(&client, "other").await;
    subscribe(&client, &other, start()).await;

    clock.advance(Duration::from_millis(4_999));
    let second = request(&client, &consumer, SHARD_0, start());
    assert_eq!(code(second.send().await), "ResourceInUseException");
    clock.advance(Duration::from_millis(1));
    let mut second = subscribe(&client, &consumer, start()).await;
    put(&client, 0, "a").await;
    assert_eq!(next_texts(&mut second).await, ["a"]);
    let ousted = loop {
        match next(&mut first).await {
            Ok(event) => assert!(event.unwrap().records().is_empty()),
            Err(code) => break code,
        }
    };
    assert_eq!(ousted, "ResourceInUseException");
    assert_eq!(next(&mut first).await, Ok(None));
    drop(aws);
}

#[tokio::test]
async fn a_session_ends_and_another_goes_on_where_it_was() {
    let (_aws, clock, client, consumer) = on_manual_clock().await;
    put(&client, 0, "a").await;
    let start = position(ShardIteratorType::TrimHorizon);
    let mut first = subscribe(&client, &consumer, start).await;
    let event = next(&mut first).await.unwrap().unwrap();
    assert_eq!(texts(event.records()), ["a"]);
    clock.advance(Duration::from_secs(299));
    let beat = next(&mut first).await.unwrap().unwrap();
    assert!(beat.records().is_empty());
    let here = beat.continuation_sequence_number();
    assert_eq!(here, event.continuation_sequence_number());
    clock.advance(Duration::from_secs(1));
    assert_eq!(next(&mut first).await, Ok(None));

    put(&client, 0, "b").await;
    let after = numbered(ShardIteratorType::AfterSequenceNumber, here);
    let mut second = subscribe(&client, &consumer, after).await;
    assert_eq!(next_texts(&mut second).await, ["b"]);
}

#[tokio::test]
async fn an_idle_shard_sends_events_without_records() {
    let (_aws, clock, client, consumer) = on_manual_clock().await;
    let latest = position(ShardIteratorType::Latest);
    let mut idle = subscribe(&client, &consumer, latest).await;
    for nth in 0..3 {
        clock.advance(Duration::from_secs(5));
        let beat = next(&mut idle).await.unwrap().unwrap();
        assert!(beat.records().is_empty());
        assert_eq!(beat.millis_behind_latest(), 0);
        // One can go on from an idle shard too.
        let after =
            numbered(ShardIteratorType::AfterSequenceNumber, beat.continuation_sequence_number());
        let other = register(&client, &format!("other-{nth}")).await;
        subscribe(&client, &other, after).await;
    }
}

#[tokio::test]
async fn a_deregistered_consumer_is_sent_away() {
    let (aws, client) = with_stream(1).await;
    let consumer = register(&client, "app").await;
    let latest = position(ShardIteratorType::Latest);
    let mut subscription = subscribe(&client, &consumer, latest).await;
    let deregister = client.deregister_stream_consumer().consumer_arn(&consumer);
    deregister.send().await.unwrap();
    let end = next(&mut subscription).await;
    assert_eq!(end, Err("ResourceNotFoundException".to_owned()));
    assert_eq!(aws.subscriptions(), 0);
}

#[tokio::test]
async fn a_client_that_goes_away_is_noticed() {
    let (aws, client) = with_stream(1).await;
    let consumer = register(&client, "app").await;
    let latest = position(ShardIteratorType::Latest);
    let subscription = subscribe(&client, &consumer, latest).await;
    assert_eq!(aws.subscriptions(), 1);
    drop(subscription);
    let gone = async {
        while aws.subscriptions() > 0 {
            tokio::task::yield_now().await;
        }
    };
    // The time is for a failure not to hang.
    let gone = tokio::time::timeout(Duration::from_secs(60), gone);
    gone.await.unwrap();
}

#[tokio::test]
async fn subscriptions_that_are_served_can_be_cut() {
    let (aws, client) = with_stream(2).await;
    assert_eq!(aws.cut_subscriptions(), 0);
    let consumer = register(&client, "app").await;
    let latest = || position(ShardIteratorType::Latest);
    let ended = subscribe(&client, &consumer, latest()).await;
    drop(ended);
    while aws.subscriptions() > 0 {
        tokio::task::yield_now().await;
    }
    let consumer = register(&client, "another").await;
    let mut cut = Vec::new();
    for shard in [SHARD_0, SHARD_1] {
        cut.push(request(&client, &consumer, shard, latest()).send().await.unwrap());
    }
    assert_eq!(aws.cut_subscriptions(), 2);
    for mut subscription in cut {
        assert_eq!(next(&mut subscription).await, Err("cut".to_owned()));
    }
    let consumer = register(&client, "later").await;
    let mut later = subscribe(&client, &consumer, latest()).await;
    put(&client, 0, "a").await;
    assert_eq!(next_texts(&mut later).await, ["a"]);
}

#[tokio::test]
async fn faults_strike_between_events_as_well() {
    let (aws, client) = with_stream(1).await;
    let faults = [
        (Fault::cut_connection(), "cut"),
        (Fault::response_lost(), "cut"),
        (Fault::internal_failure(), "InternalFailureException"),
    ];
    for (nth, (fault, seen)) in faults.into_iter().enumerate() {
        let consumer = register(&client, &format!("app-{nth}")).await;
        let latest = position(ShardIteratorType::Latest);
        let mut subscription = subscribe(&client, &consumer, latest).await;
        put(&client, 0, "a").await;
        assert_eq!(next_texts(&mut subscription).await, ["a"]);
        let fault = fault.operation("SubscribeToShardEvent").resource(STREAM);
        let fault = aws.faults().add(fault.shard(SHARD_0).times(1));
        put(&client, 0, "b").await;
        assert_eq!(next(&mut subscription).await, Err(seen.to_owned()));
        assert_eq!(aws.faults().count(fault), 1);
    }
    let consumer = register(&client, "refused").await;
    let start = position(ShardIteratorType::TrimHorizon);
    let refuse = Fault::throttle().operation("SubscribeToShard");
    aws.faults().add(refuse.shard(SHARD_0).times(1));
    let refused = request(&client, &consumer, SHARD_0, start).send().await;
    assert_eq!(code(refused), "LimitExceededException");
}

#[tokio::test]
async fn a_subscriber_gets_what_many_writers_write_in_order_and_once() {
    let (aws, client) = with_stream(1).await;
    let consumer = register(&client, "app").await;
    let start = position(ShardIteratorType::TrimHorizon);
    let mut subscription = subscribe(&client, &consumer, start).await;
    let (writers, each) = (8, 50);
    let mut writing = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let client = client.clone();
        writing.spawn(async move {
            for nth in 0..each {
                put(&client, 0, &format!("{writer}/{nth}")).await;
            }
        });
    }
    let mut seen = Vec::new();
    while seen.len() < writers * each {
        let event = next(&mut subscription).await.unwrap().unwrap();
        let numbers = event.records().iter();
        seen.extend(numbers.map(|record| record.sequence_number().to_owned()));
    }
    while let Some(written) = writing.join_next().await {
        written.unwrap();
    }
    let held = aws.records(STREAM).remove(0).records.into_iter();
    let held: Vec<_> = held.map(|record| record.sequence_number).collect();
    assert_eq!(seen, held);
}

/// Under paused time only what takes time takes time.
async fn in_paused_time(limits: bool) -> (LocalAws, TokioClock, Client, String) {
    let clock = TokioClock::current();
    let aws = LocalAws::builder().clock(clock.clone());
    let aws = aws.shard_limits(limits).build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    let client = Client::new(&aws.in_process_config());
    let consumer = register(&client, "app").await;
    (aws, clock, client, consumer)
}

fn since(clock: &TokioClock, before: SystemTime) -> Duration {
    clock.now().duration_since(before).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_put_wakes_its_subscribers_at_once() {
    let (_aws, clock, client, consumer) = in_paused_time(false).await;
    let latest = position(ShardIteratorType::Latest);
    let mut subscription = subscribe(&client, &consumer, latest).await;
    let received = tokio::spawn({
        let clock = clock.clone();
        async move {
            let texts = next_texts(&mut subscription).await;
            (texts, clock.now())
        }
    });
    // In between two looks at the clock, and long before the next heartbeat.
    tokio::time::sleep(Duration::from_millis(1_130)).await;
    let put_at = clock.now();
    put(&client, 0, "a").await;
    let (texts, received_at) = received.await.unwrap();
    assert_eq!(texts, ["a"]);
    assert_eq!(received_at, put_at);
}

#[tokio::test(start_paused = true)]
async fn with_limits_a_subscriber_gets_two_mebibytes_a_second() {
    let (_aws, clock, client, consumer) = in_paused_time(true).await;
    let mebibyte = "x".repeat((1 << 20) - 3);
    for _ in 0..8 {
        put(&client, 0, &mebibyte).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let before = clock.now();
    let start = position(ShardIteratorType::TrimHorizon);
    let mut subscription = subscribe(&client, &consumer, start).await;
    let mut seen = 0;
    while seen < 8 {
        seen += next_texts(&mut subscription).await.len();
    }
    // Two of them at once, two more on credit, and each next two once these are paid for.
    assert_eq!(since(&clock, before), Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_lasts_as_long_as_it_is_set_to() {
    let clock = TokioClock::current();
    let aws = LocalAws::builder().clock(clock.clone()).subscription_time(Duration::from_secs(7));
    let aws = aws.build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    let client = Client::new(&aws.in_process_config());
    let consumer = register(&client, "app").await;
    let latest = || position(ShardIteratorType::Latest);
    let before = clock.now();
    for round in 1..4 {
        let mut subscription = subscribe(&client, &consumer, latest()).await;
        while next(&mut subscription).await.unwrap().is_some() {}
        assert_eq!(since(&clock, before), Duration::from_secs(7 * round));
    }
}
