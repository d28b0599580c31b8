//! A stream that is deleted and created again under a running worker, or between two.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use kcl::{BuildError, InitialPosition, OnRecreatedStream, StartError, WorkerError, WorkerHandle};
use kinesis_testkit::Fault;

use crate::paused::{Paused, config};
use crate::probe::Probe;
use crate::setup::{APPLICATION, PATIENCE, STREAM, put, until};

const DEADLINE: Duration = Duration::from_secs(20);

async fn recreate(paused: &Paused, shards: u32) {
    let client = aws_sdk_kinesis::Client::new(&paused.aws.in_process_config());
    let delete = client.delete_stream().stream_name(STREAM);
    delete.send().await.unwrap();
    // Streams are told apart by the millisecond of their creation.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let create = client.create_stream().stream_name(STREAM);
    let shards = i32::try_from(shards).unwrap();
    create.shard_count(shards).send().await.unwrap();
}

fn dynamodb(paused: &Paused) -> aws_sdk_dynamodb::Client {
    aws_sdk_dynamodb::Client::new(&paused.aws.in_process_config())
}

async fn worker(paused: &Paused, probe: &Probe, config: kcl::ConsumerConfig) -> WorkerHandle {
    paused.builder(probe, config).build().await.unwrap().spawn()
}

fn quick(worker: &str) -> kcl::ConsumerConfig {
    config(worker).with_shard_sync_interval(Duration::from_secs(5))
}

fn start_over(worker: &str) -> kcl::ConsumerConfig {
    quick(worker).with_on_recreated_stream(OnRecreatedStream::StartOver)
}

async fn ends_with(worker: &WorkerHandle) -> WorkerError {
    let ended = tokio::time::timeout(PATIENCE, worker.join()).await;
    ended.expect("it ends").unwrap_err()
}

/// The stream that each lease names.
async fn lease_streams(paused: &Paused) -> Vec<String> {
    let items = dynamodb(paused).scan().table_name(APPLICATION);
    let items = items.send().await.unwrap().items.unwrap();
    let leases = items.iter().filter(|item| item.contains_key("checkpoint"));
    leases.map(|item| item["rustStream"].as_s().unwrap().clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn by_default_a_running_worker_ends_with_an_error_that_says_what_to_do() {
    for shards in [1, 4] {
        let paused = Paused::start(1).await;
        let probe = Probe::new();
        put(&paused.aws, &probe, 0..30).await;
        let worker = worker(&paused, &probe, quick("w1")).await;
        until("the first stream is read", || probe.is_settled()).await;
        let before = lease_streams(&paused).await;
        recreate(&paused, shards).await;
        put(&paused.aws, &probe, 30..60).await;
        let error = ends_with(&worker).await;
        assert!(matches!(error, WorkerError::StreamRecreated { .. }), "{error:?}");
        assert!(error.to_string().contains("on_recreated_stream"), "{error}");
        assert_eq!(lease_streams(&paused).await, before, "no lease was changed");
        assert_eq!(probe.seen().len(), 30, "nothing of the new stream was read");
        let again = paused.builder(&probe, quick("w1")).build().await.unwrap_err();
        assert!(
            matches!(again, BuildError::Start(StartError::StreamRecreated { .. })),
            "{again:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_running_worker_that_starts_over_reads_the_whole_new_stream() {
    for (shards, position) in [
        (1, InitialPosition::TrimHorizon),
        (4, InitialPosition::TrimHorizon),
        (1, InitialPosition::Latest),
        (4, InitialPosition::Latest),
    ] {
        let paused = Paused::start(1).await;
        let probe = Probe::new();
        let config = start_over("w1").with_initial_position(position);
        let worker = worker(&paused, &probe, config).await;
        put(&paused.aws, &probe, 0..30).await;
        until("the first stream is read", || probe.is_settled()).await;
        recreate(&paused, shards).await;
        put(&paused.aws, &probe, 30..60).await;
        until("the new stream is read", || probe.is_settled()).await;
        let streams = lease_streams(&paused).await;
        assert_eq!(streams.len(), shards as usize);
        assert!(streams.iter().all(|stream| *stream == streams[0]));
        let verdict = probe.verdict();
        assert_eq!((verdict.lost, verdict.redelivered), (0, 0), "{verdict:?}");
        worker.shutdown(DEADLINE).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_starts_over_does_it_once() {
    let paused = Paused::start(3).await;
    let probe = Probe::new();
    let mut workers = Vec::new();
    for name in ["w1", "w2", "w3"] {
        workers.push(worker(&paused, &probe, start_over(name)).await);
    }
    put(&paused.aws, &probe, 0..30).await;
    until("the first stream is read", || probe.is_settled()).await;
    recreate(&paused, 2).await;
    put(&paused.aws, &probe, 30..90).await;
    until("the new stream is read", || probe.is_settled()).await;
    // A shard that had just changed hands may be read under its former lease for a moment, and again.
    assert_eq!(probe.verdict().lost, 0);
    let streams = lease_streams(&paused).await;
    assert_eq!(streams.len(), 2);
    assert_eq!(streams[0], streams[1]);
    for worker in workers {
        worker.shutdown(DEADLINE).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn leases_that_do_not_name_their_stream_start_over_with_the_others() {
    let (paused, probe) = with_unnamed_lease().await;
    // The next worker notes in a sync which stream it is of, while that stream is there.
    let second = worker(&paused, &probe, start_over("w2")).await;
    until_named(&paused, 2).await;
    recreate(&paused, 2).await;
    put(&paused.aws, &probe, 30..60).await;
    until("the new stream is read", || probe.is_settled()).await;
    second.shutdown(DEADLINE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_starts_on_a_recreated_stream_trusts_no_lease_that_does_not_name_its_stream()
{
    let (paused, probe) = with_unnamed_lease().await;
    recreate(&paused, 2).await;
    put(&paused.aws, &probe, 30..60).await;
    let second = worker(&paused, &probe, start_over("w2")).await;
    until("the new stream is read", || probe.is_settled()).await;
    second.shutdown(DEADLINE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pass_that_fails_half_way_is_taken_up_again() {
    let paused = Paused::start(2).await;
    let probe = Probe::new();
    let worker = worker(&paused, &probe, start_over("w1")).await;
    put(&paused.aws, &probe, 0..30).await;
    until("the first stream is read", || probe.is_settled()).await;
    // No lease names the former stream, so none shows the next pass that the replacement is not complete.
    for shard_id in ["shardId-000000000000", "shardId-000000000001"] {
        let update = dynamodb(&paused).update_item().table_name(APPLICATION);
        update
            .key("leaseKey", AttributeValue::S(shard_id.into()))
            .update_expression("REMOVE rustStream")
            .send()
            .await
            .unwrap();
    }
    let fails = Fault::refuse("ValidationException").operation("PutItem").times(3);
    paused.aws.faults().add(fails);
    recreate(&paused, 2).await;
    put(&paused.aws, &probe, 30..60).await;
    until("the new stream is read", || probe.is_settled()).await;
    assert_eq!(probe.verdict().lost, 0);
    worker.shutdown(DEADLINE).await.unwrap();
}

/// A stream of two shards that was read, and whose first lease is as a Java worker leaves it that found the shard gone, and
/// took that for the end of the shard.
async fn with_unnamed_lease() -> (Paused, Probe) {
    let paused = Paused::start(2).await;
    let probe = Probe::new();
    let first = worker(&paused, &probe, start_over("w1")).await;
    put(&paused.aws, &probe, 0..30).await;
    until("the first stream is read", || probe.is_settled()).await;
    first.shutdown(DEADLINE).await.unwrap();
    let update = dynamodb(&paused).update_item().table_name(APPLICATION);
    update
        .key("leaseKey", AttributeValue::S("shardId-000000000000".into()))
        .update_expression("SET checkpoint = :end REMOVE rustStream")
        .expression_attribute_values(":end", AttributeValue::S("SHARD_END".into()))
        .send()
        .await
        .unwrap();
    (paused, probe)
}

async fn until_named(paused: &Paused, leases: usize) {
    let named = async {
        loop {
            let items = dynamodb(paused).scan().table_name(APPLICATION);
            let items = items.send().await.unwrap().items.unwrap();
            let named = items.iter().filter(|item| item.contains_key("rustStream"));
            if named.count() == leases {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, named).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_starts_on_a_recreated_stream_starts_over_if_it_may() {
    let paused = Paused::start(4).await;
    let probe = Probe::new();
    put(&paused.aws, &probe, 0..30).await;
    let first = worker(&paused, &probe, start_over("w1")).await;
    until("the first stream is read", || probe.is_settled()).await;
    first.shutdown(DEADLINE).await.unwrap();
    recreate(&paused, 1).await;
    put(&paused.aws, &probe, 30..60).await;
    let config = start_over("w2").with_initial_position(InitialPosition::Latest);
    let second = worker(&paused, &probe, config).await;
    until("the new stream is read", || probe.is_settled()).await;
    assert_eq!(lease_streams(&paused).await.len(), 1);
    second.shutdown(DEADLINE).await.unwrap();
}
