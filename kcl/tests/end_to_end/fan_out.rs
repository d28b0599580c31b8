//! Workers that read by enhanced fan-out.

use std::time::Duration;

use aws_sdk_kinesis::types::ConsumerStatus;
use kcl::{
    BuildError, ConsumerConfig, FanOutConfig, FanOutConsumer, ProblemKind, RetrievalMode,
    StartError,
};
use kinesis_testkit::{Fault, LocalAws};

use crate::probe::{Call, Deed, Probe};
use crate::setup::{
    APPLICATION, PATIENCE, STREAM, aws, builder, config, open_shards, process_all, processing, put,
    scheduler, split, until, worker,
};

fn fan_out(worker: &str) -> ConsumerConfig {
    config(worker).with_retrieval(RetrievalMode::FanOut(FanOutConfig::default()))
}

async fn consumers(aws: &LocalAws) -> Vec<String> {
    let summary = aws.kinesis().describe_stream_summary().stream_name(STREAM).send().await.unwrap();
    let arn = summary.stream_description_summary.unwrap().stream_arn;
    let listed = aws.kinesis().list_stream_consumers().stream_arn(arn).send().await.unwrap();
    listed.consumers.unwrap_or_default().into_iter().map(|found| found.consumer_name).collect()
}

/// Registers a consumer, and waits until it is active.
async fn register(aws: &LocalAws, name: &str) -> String {
    let summary = aws.kinesis().describe_stream_summary().stream_name(STREAM).send().await.unwrap();
    let arn = summary.stream_description_summary.unwrap().stream_arn;
    let register = aws.kinesis().register_stream_consumer().stream_arn(arn).consumer_name(name);
    let arn = register.send().await.unwrap().consumer.unwrap().consumer_arn;
    loop {
        let found =
            aws.kinesis().describe_stream_consumer().consumer_arn(&arn).send().await.unwrap();
        if found.consumer_description.unwrap().consumer_status == ConsumerStatus::Active {
            return arn;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn every_record_is_processed_once_in_order_and_none_is_polled() {
    let (aws, probe) = (aws(4).await, Probe::new());
    put(&aws, &probe, 0..2_000).await;
    let worker = worker(&aws, &probe, fan_out("w1")).await;
    until("the first records", || probe.is_settled()).await;
    put(&aws, &probe, 2_000..4_000).await;
    until("all records", || probe.is_settled()).await;
    probe.assert_exact();
    worker.shutdown(PATIENCE).await.unwrap();
    assert_eq!(aws.calls("GetRecords"), 0);
    assert_eq!(consumers(&aws).await, [APPLICATION], "it stays registered");
    until("no subscription", || aws.subscriptions() == 0).await;
}

#[tokio::test]
async fn a_worker_continues_after_the_checkpoints_of_one_that_polled() {
    let (aws, probe) = (aws(2).await, Probe::new());
    put(&aws, &probe, 0..500).await;
    process_all(&aws, &probe, config("polls")).await;
    put(&aws, &probe, 500..1_000).await;
    process_all(&aws, &probe, fan_out("subscribes")).await;
    put(&aws, &probe, 1_000..1_500).await;
    process_all(&aws, &probe, config("polls")).await;
}

#[tokio::test]
async fn a_shard_that_is_split_while_it_is_subscribed() {
    let (aws, probe) = (aws(1).await, Probe::new());
    let worker = worker(&aws, &probe, fan_out("w1")).await;
    put(&aws, &probe, 0..500).await;
    until("a subscription", || aws.subscriptions() == 1).await;
    split(&aws, &open_shards(&aws)[0]).await;
    put(&aws, &probe, 500..1_000).await;
    split(&aws, &open_shards(&aws)[0]).await;
    put(&aws, &probe, 1_000..1_500).await;
    until("all records", || probe.is_settled()).await;
    probe.assert_exact();
    until("three shards", || processing(&worker) == 3).await;
    worker.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn leases_move_to_a_second_worker_while_they_are_subscribed() {
    let (aws, probe) = (aws(4).await, Probe::new());
    let first = worker(&aws, &probe, fan_out("w1")).await;
    until("four shards", || processing(&first) == 4).await;
    put(&aws, &probe, 0..1_000).await;
    let second = worker(&aws, &probe, fan_out("w2")).await;
    until("two each", || processing(&first) == 2 && processing(&second) == 2).await;
    put(&aws, &probe, 1_000..2_000).await;
    until("all records", || probe.is_settled()).await;
    first.shutdown(PATIENCE).await.unwrap();
    put(&aws, &probe, 2_000..3_000).await;
    until("all records", || probe.is_settled()).await;
    probe.assert_exact();
    second.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn another_worker_takes_over_from_one_that_was_killed() {
    let (aws, probe) = (aws(2).await, Probe::new());
    let first = worker(&aws, &probe, fan_out("w1")).await;
    put(&aws, &probe, 0..500).await;
    until("the first records", || probe.is_settled()).await;
    first.abort();
    put(&aws, &probe, 500..1_000).await;
    let second = worker(&aws, &probe, fan_out("w2")).await;
    until("all records", || probe.is_settled()).await;
    let verdict = probe.verdict();
    assert_eq!((verdict.lost, verdict.out_of_order), (0, 0), "{verdict:?}");
    second.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_slow_shard_holds_up_no_other() {
    let aws = aws(4).await;
    let slow = open_shards(&aws)[0].clone();
    let probe = Probe::new().script(move |shard, _| match shard == slow {
        true => Deed::Hang,
        false => Deed::Take,
    });
    let worker = worker(&aws, &probe, fan_out("w1")).await;
    put(&aws, &probe, 0..400).await;
    until("the slow shard hangs", || probe.calls(Call::Waiting).len() == 1).await;
    // More than fits into the windows of a connection.
    for round in 0..20 {
        put(&aws, &probe, 400 * (1 + round)..400 * (2 + round)).await;
    }
    let of_slow = aws.records(STREAM)[0].records.len();
    let all: usize = aws.records(STREAM).iter().map(|shard| shard.records.len()).sum();
    until("the others", || probe.seen().len() == all - of_slow).await;
    worker.abort();
}

#[tokio::test]
async fn the_consumer_is_that_of_the_settings() {
    let (aws, probe) = (aws(1).await, Probe::new());
    let with = |consumer| {
        let fan_out = FanOutConfig::default().with_consumer(consumer);
        config("w1").with_retrieval(RetrievalMode::FanOut(fan_out))
    };
    put(&aws, &probe, 0..100).await;
    let arn = register(&aws, "given").await;
    process_all(&aws, &probe, with(FanOutConsumer::Arn(arn.clone()))).await;
    put(&aws, &probe, 100..200).await;
    process_all(&aws, &probe, with(FanOutConsumer::Discover { name: Some("given".into()) })).await;
    assert_eq!(consumers(&aws).await, ["given"]);

    let missing = with(FanOutConsumer::Discover { name: None });
    let refused = builder(&aws, &probe, missing).build().await.unwrap_err();
    let BuildError::Start(StartError::ConsumerNotFound { consumer, .. }) = &refused else {
        panic!("{refused}");
    };
    assert_eq!(consumer, APPLICATION);
    let of_other = with(FanOutConsumer::Arn(arn.replace(STREAM, "other")));
    let refused = builder(&aws, &probe, of_other).build().await.unwrap_err();
    let BuildError::Start(StartError::ConsumerOfAnotherStream { .. }) = refused else {
        panic!("{refused}");
    };
}

#[tokio::test]
async fn polling_takes_its_place_only_if_the_settings_allow_it_and_the_stream_is_full() {
    let (aws, probe) = (aws(1).await, Probe::new());
    for number in 0..20 {
        register(&aws, &format!("other-{number}")).await;
    }
    put(&aws, &probe, 0..100).await;
    let short = fan_out("w1").with_startup_timeout(Duration::from_secs(3));
    let refused = builder(&aws, &probe, short).build().await.unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("the stream has 20 consumers"), "{text}");

    let fan_out = FanOutConfig::default().with_fall_back_to_polling(true);
    let falls_back = config("w1").with_retrieval(RetrievalMode::FanOut(fan_out));
    let scheduler = scheduler(&aws, &probe, falls_back).await;
    let worker = scheduler.spawn();
    until("all records", || probe.is_settled()).await;
    let problems = worker.health().problems;
    assert!(problems.iter().any(|problem| problem.kind == ProblemKind::FanOutUnavailable));
    worker.shutdown(PATIENCE).await.unwrap();
    assert_eq!(aws.calls("SubscribeToShard"), 0);
}

#[tokio::test]
async fn a_job_can_deregister_its_consumer() {
    let (aws, probe) = (aws(1).await, Probe::new());
    put(&aws, &probe, 0..100).await;
    let fan_out = FanOutConfig::default().with_deregister_on_stop(true);
    let job = config("w1").with_retrieval(RetrievalMode::FanOut(fan_out));
    process_all(&aws, &probe, job).await;
    assert_eq!(consumers(&aws).await, [""; 0]);
}

#[tokio::test]
async fn two_hundred_shards_on_one_worker() {
    let (aws, probe) = (aws(200).await, Probe::new());
    // So that no lease is lost while a slow machine starts two hundred shards.
    let config = fan_out("w1")
        .with_failover_time(Duration::from_secs(20))
        .with_dynamodb_request_timeout(Duration::from_secs(5));
    let worker = worker(&aws, &probe, config).await;
    put(&aws, &probe, 0..2_000).await;
    until("all shards are subscribed to", || aws.subscriptions() == 200).await;
    for fault in [Fault::throttle(), Fault::cut_connection()] {
        aws.faults().add(fault.operation("SubscribeToShard").times(50));
    }
    aws.faults().add(Fault::cut_connection().operation("SubscribeToShardEvent").times(50));
    put(&aws, &probe, 2_000..6_000).await;
    until("all records", || probe.is_settled()).await;
    probe.assert_exact();
    worker.shutdown(PATIENCE).await.unwrap();
}

/// The oldest worker stops, another one joins, shards are split, and each second all subscriptions break, under load.
#[tokio::test]
async fn leases_move_and_shards_are_split_while_subscriptions_break_each_second() {
    let (aws, probe) = (aws(4).await, Probe::new());
    let first = worker(&aws, &probe, fan_out("w1")).await;
    until("four shards", || processing(&first) == 4).await;
    let breaking = async {
        loop {
            aws.cut_subscriptions();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let load = async {
        let mut ids = (0..).step_by(100);
        loop {
            let begin = ids.next().unwrap();
            put(&aws, &probe, begin..begin + 100).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let changes = async {
        let second = worker(&aws, &probe, fan_out("w2")).await;
        for shard in open_shards(&aws).iter().take(2) {
            split(&aws, shard).await;
        }
        let both = || (processing(&first), processing(&second));
        until("three each", || both() == (3, 3)).await;
        // The shards of the first worker move while others are split.
        let (stopped, ()) = tokio::join!(first.shutdown(PATIENCE), async {
            for shard in open_shards(&aws).iter().take(2) {
                split(&aws, shard).await;
            }
        });
        stopped.unwrap();
        until("eight shards", || processing(&second) == 8).await;
        second
    };
    let second = tokio::select! {
        second = changes => second,
        () = breaking => unreachable!("it never ends"),
        () = load => unreachable!("it never ends"),
    };
    until("all records", || probe.is_settled()).await;
    probe.assert_exact();
    second.shutdown(PATIENCE).await.unwrap();
}
