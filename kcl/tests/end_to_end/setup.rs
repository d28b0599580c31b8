//! A stream, workers on it, and waits for conditions.

use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use aws_types::SdkConfig;
use bytes::Bytes;
use kcl::{
    ConsumerConfig, InitialPosition, Problem, ProblemKind, Scheduler, SchedulerBuilder,
    WhyNotRunning, WorkerHandle,
};
use kinesis_testkit::LocalAws;

use crate::probe::Probe;

pub(crate) const STREAM: &str = "orders";
pub(crate) const APPLICATION: &str = "billing";
/// Far more than a planned stop takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn aws(shards: u32) -> LocalAws {
    let aws = LocalAws::start().await.unwrap();
    aws.create_stream(STREAM, shards).await.unwrap();
    aws
}

/// Quick settings: failover after 2 s.
pub(crate) fn config(worker: &str) -> ConsumerConfig {
    ConsumerConfig::default()
        .with_worker_id(worker)
        .with_initial_position(InitialPosition::TrimHorizon)
        .with_failover_time(Duration::from_secs(2))
        .with_dynamodb_request_timeout(Duration::from_millis(500))
        .with_kinesis_request_timeout(Duration::from_secs(2))
        .with_parent_poll_interval(Duration::from_millis(100))
        .with_retry_initial_delay(Duration::from_millis(10))
        .with_retry_max_delay(Duration::from_millis(200))
}

/// Builds and starts a worker whose processors report to `probe`.
pub(crate) async fn worker(aws: &LocalAws, probe: &Probe, config: ConsumerConfig) -> WorkerHandle {
    scheduler(aws, probe, config).await.spawn()
}

pub(crate) async fn scheduler(aws: &LocalAws, probe: &Probe, config: ConsumerConfig) -> Scheduler {
    builder(aws, probe, config).build().await.unwrap()
}

pub(crate) fn builder(aws: &LocalAws, probe: &Probe, config: ConsumerConfig) -> SchedulerBuilder {
    builder_on(&aws.sdk_config(), probe, config)
}

pub(crate) fn builder_on(
    sdk_config: &SdkConfig,
    probe: &Probe,
    config: ConsumerConfig,
) -> SchedulerBuilder {
    Scheduler::builder(APPLICATION, STREAM, sdk_config)
        .processor(probe.factory())
        .config(config)
        .seed(7)
}

/// Puts records with these ids and the keys `id % 50`, and waits until they are acknowledged.
pub(crate) async fn put(aws: &LocalAws, probe: &Probe, ids: std::ops::Range<u64>) {
    // Without a socket, which paused time does not wait for.
    let client = aws_sdk_kinesis::Client::new(&aws.in_process_config());
    let ids: Vec<_> = ids.collect();
    for chunk in ids.chunks(100) {
        let entries = chunk.iter().map(|id| {
            PutRecordsRequestEntry::builder()
                .partition_key(key(*id))
                .data(Blob::new(payload(*id)))
                .build()
                .unwrap()
        });
        let request = client.put_records().stream_name(STREAM);
        let output = request.set_records(Some(entries.collect())).send().await.unwrap();
        assert_eq!(output.failed_record_count.unwrap_or(0), 0);
        probe.acknowledged(chunk.iter().copied());
    }
}

/// Puts one Kinesis record with this data. Returns its sequence number.
pub(crate) async fn put_raw(aws: &LocalAws, partition_key: &str, data: Bytes) -> String {
    let request = aws.kinesis().put_record().stream_name(STREAM).partition_key(partition_key);
    let output = request.data(Blob::from_maybe_shared(data)).send().await.unwrap();
    output.sequence_number
}

pub(crate) fn key(id: u64) -> String {
    format!("key-{}", id % 50)
}

pub(crate) fn payload(id: u64) -> String {
    format!("id={id}")
}

pub(crate) fn id_of(data: &[u8]) -> Option<u64> {
    std::str::from_utf8(data).ok()?.strip_prefix("id=")?.parse().ok()
}

/// Waits for a condition. Panics with `what` if it does not come true.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "waited in vain: {what}");
}

/// Runs a worker until every acknowledged record was processed, and stops it. The probe has then seen
/// each of them once, in order.
pub(crate) async fn process_all(aws: &LocalAws, probe: &Probe, config: ConsumerConfig) {
    let worker = worker(aws, probe, config).await;
    until("all records", || probe.is_settled()).await;
    probe.assert_exact();
    worker.shutdown(PATIENCE).await.unwrap();
}

/// How many shards a worker is processing.
pub(crate) fn processing(worker: &WorkerHandle) -> usize {
    let shards = worker.snapshot().shards;
    shards.iter().filter(|shard| shard.state == kcl::ShardState::Processing).count()
}

/// The ids of the shards of the stream that are open.
/// The problem of this kind, if it is the reason for which the worker does not process the shard.
pub(crate) fn reason(worker: &WorkerHandle, shard: &str, kind: ProblemKind) -> Option<Problem> {
    match worker.why_not_running(shard) {
        Some(WhyNotRunning::Problem(problem)) if problem.kind == kind => Some(problem),
        _ => None,
    }
}

pub(crate) fn open_shards(aws: &LocalAws) -> Vec<String> {
    let shards = aws.records(STREAM);
    shards.into_iter().filter(|shard| shard.is_open).map(|shard| shard.shard_id).collect()
}

/// Splits a shard in the middle.
pub(crate) async fn split(aws: &LocalAws, shard_id: &str) {
    let shards = aws.records(STREAM);
    let shard = shards.iter().find(|shard| shard.shard_id == shard_id).unwrap();
    let middle = shard.starting_hash_key.midpoint(shard.ending_hash_key) + 1;
    let request = aws.kinesis().split_shard().stream_name(STREAM).shard_to_split(shard_id);
    request.new_starting_hash_key(middle.to_string()).send().await.unwrap();
}
