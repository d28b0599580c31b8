//! Records that retention deleted before they were read, and shards that merely had none.

use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::types::AttributeValue;
use kcl::{AggregateRangePolicy, HealthStatus, OnTrimmedGap, ProblemKind, WorkerHandle};
use kinesis_aggregation::AggregateBuilder;
use kinesis_testkit::{Clock as _, LocalAws, ManualClock};

use crate::probe::Probe;
use crate::setup::{
    APPLICATION, PATIENCE, STREAM, config, key, open_shards, payload, process_all, processing, put,
    put_raw, reason, until, worker,
};

const DEADLINE: Duration = Duration::from_secs(20);
const SHARD: &str = "shardId-000000000000";
const HOUR: Duration = Duration::from_secs(3600);

/// Services whose time a test moves on. Records are kept for 24 hours.
async fn services(shards: u32) -> (LocalAws, ManualClock) {
    let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let clock = ManualClock::new(start);
    let aws = LocalAws::builder().clock(clock.clone()).build().await;
    let aws = aws.unwrap();
    aws.create_stream(STREAM, shards).await.unwrap();
    (aws, clock)
}

fn quick(name: &str) -> kcl::ConsumerConfig {
    config(name).with_idle_time_between_reads(Duration::from_millis(200))
}

/// Runs a worker until it has processed these records, and stops it.
async fn process(aws: &LocalAws, probe: &Probe, name: &str, ids: std::ops::Range<u64>) {
    put(aws, probe, ids).await;
    process_all(aws, probe, quick(name)).await;
}

fn gap_of(worker: &WorkerHandle) -> Option<String> {
    let problems = worker.health().problems;
    let mut gaps =
        problems.into_iter().filter(|problem| problem.kind == ProblemKind::RecordsTrimmed);
    gaps.next().map(|problem| problem.cause)
}

/// Ten records are processed, and ten more deleted before a worker comes back.
async fn with_a_gap(probe: &Probe) -> LocalAws {
    let (aws, clock) = services(1).await;
    put(&aws, probe, 0..10).await;
    let first = worker(&aws, probe, quick("w1")).await;
    until("all is processed", || probe.is_settled()).await;
    until_noted(&aws, &clock, SHARD).await;
    first.shutdown(DEADLINE).await.unwrap();
    clock.advance(HOUR);
    put(&aws, &Probe::new(), 10..20).await;
    clock.advance(25 * HOUR);
    put(&aws, probe, 20..30).await;
    aws
}

#[tokio::test]
async fn a_gap_is_told_and_the_shard_goes_on_behind_it() {
    let probe = Probe::new();
    let aws = with_a_gap(&probe).await;
    let worker = worker(&aws, &probe, quick("w2")).await;
    until("the gap is told", || gap_of(&worker).is_some()).await;
    let gap = gap_of(&worker).unwrap();
    let oldest = &aws.records(STREAM)[0].records[0].sequence_number;
    // The first worker read the shard at 8 o'clock, less two seconds for differences between the service's hosts.
    let span = "from 2027-01-15T07:59:58Z to 2027-01-15T10:00:00Z (7202 s)";
    for part in ["before they were read", span, oldest] {
        assert!(gap.contains(part), "{part:?} is not in {gap}");
    }
    assert_eq!(worker.health().status, HealthStatus::Degraded);
    until("what is left is processed", || probe.is_settled()).await;
    assert_eq!(worker.why_not_running(SHARD), None, "it goes on");
    let shard = worker.snapshot().shards.remove(0);
    assert_eq!(shard.records_trimmed, Some(gap));
    worker.shutdown(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_gap_stops_the_shard_if_the_settings_say_so() {
    let probe = Probe::new();
    let aws = with_a_gap(&probe).await;
    let config = quick("w2").with_on_trimmed_gap(OnTrimmedGap::StopShard);
    let worker = worker(&aws, &probe, config).await;
    until("it stands still and says so", || {
        let problem = reason(&worker, SHARD, ProblemKind::RecordsTrimmed);
        problem.is_some_and(|problem| problem.cause.contains("retention deleted"))
    })
    .await;
    let text = worker.why_not_running(SHARD).unwrap().to_string();
    assert!(text.contains("on_trimmed_gap"), "{text}");
    // The worker is at work meanwhile.
    let counter = || worker.lease_table().unwrap().leases[0].counter;
    let before = counter();
    until("renewals of the lease", || counter() >= before + 2).await;
    assert_eq!(probe.seen().len(), 10, "nothing behind the gap is delivered");
    worker.shutdown(DEADLINE).await.unwrap();
}

async fn read_to(aws: &LocalAws, shard: &str) -> Option<u64> {
    let get = aws.dynamodb().get_item().table_name(APPLICATION);
    let key = AttributeValue::S(shard.into());
    let item = get.key("leaseKey", key).send().await.unwrap().item.unwrap();
    item.get("rustReadTo")?.as_n().ok()?.parse().ok()
}

/// Waits until the lease notes that the shard was read up to now.
async fn until_noted(aws: &LocalAws, clock: &ManualClock, shard: &str) {
    let now = clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let fresh = now.as_millis() as u64 - 10_000;
    let noted = async {
        while read_to(aws, shard).await.is_none_or(|time| time < fresh) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let noted = tokio::time::timeout(PATIENCE, noted).await;
    noted.unwrap_or_else(|_| panic!("{shard} is not noted as read"));
}

/// What a worker of the Java KCL leaves of a lease that it has owned for a day: it renews the lease, and
/// leaves attributes alone that it does not know.
async fn own_by_java(aws: &LocalAws) {
    let update = aws.dynamodb().update_item().table_name(APPLICATION);
    update
        .key("leaseKey", AttributeValue::S(SHARD.into()))
        .update_expression("SET leaseOwner = :java ADD leaseCounter :renewals")
        .expression_attribute_values(":java", AttributeValue::S("java".into()))
        .expression_attribute_values(":renewals", AttributeValue::N("26000".into()))
        .send()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_quiet_shard_that_a_java_worker_read_raises_no_alarm() {
    let (aws, clock) = services(1).await;
    let probe = Probe::new();
    process(&aws, &probe, "w1", 0..10).await;
    own_by_java(&aws).await;
    clock.advance(26 * HOUR);
    // Two workers, one after the other: the stamp of the first one must not make the old note valid.
    for (name, ids) in [("w2", 10..20), ("w3", 20..30)] {
        let config = quick(name).with_on_trimmed_gap(OnTrimmedGap::StopShard);
        let worker = worker(&aws, &probe, config).await;
        until("it is at the tip", || processing(&worker) == 1).await;
        put(&aws, &probe, ids).await;
        until("the new records are processed", || probe.is_settled()).await;
        assert_eq!(gap_of(&worker), None, "{name}");
        worker.shutdown(DEADLINE).await.unwrap();
    }
}

#[tokio::test]
async fn a_quiet_shard_whose_last_records_were_dropped_raises_no_alarm() {
    let (aws, clock) = services(2).await;
    let probe = Probe::new();
    put(&aws, &probe, 0..50).await;
    // Its members belong to both shards, so the policy drops all of them where it lands.
    let mut aggregate = AggregateBuilder::new(1 << 20);
    for id in 0..50 {
        let data = payload(id);
        aggregate.push(&key(id), None, data.as_bytes()).unwrap();
    }
    put_raw(&aws, "a", aggregate.seal().into_bytes()).await;
    let strict = |name| quick(name).with_aggregate_range(AggregateRangePolicy::Strict);
    let first = worker(&aws, &probe, strict("w1")).await;
    until("the plain records are processed", || probe.is_settled()).await;
    until("the aggregate is dropped", || first.snapshot().records_out_of_range_dropped == 50).await;
    clock.advance(25 * HOUR);
    for shard in open_shards(&aws) {
        until_noted(&aws, &clock, &shard).await;
    }
    first.shutdown(DEADLINE).await.unwrap();
    clock.advance(HOUR);
    let second = worker(&aws, &probe, strict("w2")).await;
    until("it is at the tip", || processing(&second) == 2).await;
    put(&aws, &probe, 50..100).await;
    until("the new records are processed", || probe.is_settled()).await;
    assert_eq!(gap_of(&second), None);
    second.shutdown(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_shard_that_merely_had_no_records_raises_no_alarm() {
    let (aws, clock) = services(1).await;
    let probe = Probe::new();
    put(&aws, &probe, 0..10).await;
    let first = worker(&aws, &probe, quick("w1")).await;
    until("all is processed", || probe.is_settled()).await;
    // Days without a record, while the worker runs: the record of its checkpoint is deleted.
    for _ in 0..3 {
        clock.advance(25 * HOUR);
        until_noted(&aws, &clock, SHARD).await;
    }
    assert_eq!(gap_of(&first), None);
    first.shutdown(DEADLINE).await.unwrap();
    // A restart, and then records again.
    clock.advance(HOUR);
    let second = worker(&aws, &probe, quick("w2")).await;
    until("it is at the tip", || processing(&second) == 1).await;
    put(&aws, &probe, 10..20).await;
    until("the new records are processed", || probe.is_settled()).await;
    assert_eq!(gap_of(&second), None);
    assert!(second.health().is_healthy(), "{}", second.health());
    second.shutdown(DEADLINE).await.unwrap();
}
