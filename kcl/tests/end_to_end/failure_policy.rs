//! Records that a processor cannot process, and what the failure policy does with them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kcl::{
    AfterRetries, BatchFailures, CheckpointPolicy, FailurePolicy, GiveUpReason, ProblemKind,
    ProcessorError, RecordBatch, ShardActivity, SkipError, WorkerError, WorkerHandle,
};
use kinesis_aggregation::AggregateBuilder;
use kinesis_testkit::LocalAws;

use crate::probe::{Deed, Probe};
use crate::setup::{
    PATIENCE, STREAM, aws, builder, config, id_of, key, open_shards, payload, process_all, put,
    put_raw, reason, until, worker,
};

/// Skips what fails twice, after it was halved until it stands alone.
fn bisect() -> FailurePolicy {
    FailurePolicy::default().with_max_attempts(2).with_bisect(true).with_then(AfterRetries::Skip)
}

fn ids(batch: &RecordBatch<'_>) -> Vec<u64> {
    batch.records().filter_map(|record| id_of(record.data())).collect()
}

/// Fails on each batch that has one of these records.
fn poisoned(poison: &'static [u64]) -> Probe {
    Probe::new().script(|_, batch| {
        let is_poisoned = ids(batch).iter().any(|id| poison.contains(id));
        if is_poisoned { Deed::Fail } else { Deed::Take }
    })
}

/// Puts the records in one aggregate.
async fn put_aggregate(aws: &LocalAws, ids: std::ops::Range<u64>) {
    let mut aggregate = AggregateBuilder::new(1 << 20);
    for id in ids {
        aggregate.push(&key(id), None, payload(id).as_bytes()).unwrap();
    }
    put_raw(aws, "a", aggregate.seal().into_bytes()).await;
}

/// What was skipped, as the callback was told.
type Skipped = Arc<Mutex<Vec<(u64, GiveUpReason, u32)>>>;

async fn start(
    aws: &LocalAws,
    probe: &Probe,
    policy: FailurePolicy,
    checkpoint: CheckpointPolicy,
) -> (WorkerHandle, Skipped) {
    let skipped = Skipped::default();
    let told = Arc::clone(&skipped);
    let config = config("w1").with_failure_policy(policy).with_checkpoint(checkpoint);
    let scheduler = builder(aws, probe, config).on_skipped(move |skipped| {
        for record in skipped.records() {
            let id = id_of(record.data()).unwrap();
            told.lock().unwrap().push((id, skipped.reason(), skipped.attempts()));
        }
    });
    (scheduler.build().await.unwrap().spawn(), skipped)
}

#[tokio::test]
async fn a_batch_is_halved_until_the_record_that_fails_stands_alone() {
    for checkpoint in [CheckpointPolicy::Manual, CheckpointPolicy::AfterBatch] {
        let aws = aws(1).await;
        let probe = poisoned(&[37, 60]);
        put_aggregate(&aws, 0..50).await;
        put(&aws, &Probe::new(), 50..100).await;
        probe.acknowledged((0..100).filter(|id| ![37, 60].contains(id)));
        let (worker, skipped) = start(&aws, &probe, bisect(), checkpoint).await;
        until("all other records", || probe.is_settled()).await;
        probe.assert_exact();
        worker.shutdown(PATIENCE).await.unwrap();
        let skipped = skipped.lock().unwrap().clone();
        let (skipped, attempts): (Vec<_>, Vec<_>) =
            skipped.iter().map(|(id, reason, attempts)| ((*id, *reason), *attempts)).unzip();
        let expected = [37, 60].map(|id| (id, GiveUpReason::RetriesExhausted));
        assert_eq!(skipped, expected);
        // With the deliveries of the larger parts.
        assert!(attempts.iter().all(|attempts| *attempts > 2), "{attempts:?}");
        // Nothing is left for the next worker.
        let next = Probe::new();
        put(&aws, &next, 100..110).await;
        process_all(&aws, &next, config("w2")).await;
    }
}

#[tokio::test]
async fn without_halving_the_whole_batch_is_skipped_after_its_attempts() {
    let aws = aws(1).await;
    let probe = poisoned(&[3]);
    put_aggregate(&aws, 0..10).await;
    let policy = bisect().with_bisect(false);
    let (worker, skipped) = start(&aws, &probe, policy, CheckpointPolicy::Manual).await;
    until("ten skipped records", || skipped.lock().unwrap().len() == 10).await;
    assert!(skipped.lock().unwrap().iter().all(|(.., attempts)| *attempts == 2));
    assert_eq!(probe.seen(), []);
    worker.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn only_the_records_that_failed_come_again() {
    let aws = aws(1).await;
    let deliveries = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&deliveries);
    // Record 2 fails once, record 5 is poison, and record 7 always fails.
    let probe = Probe::new().script(move |_, batch| {
        let ids = ids(batch);
        let is_first = log.lock().unwrap().is_empty();
        log.lock().unwrap().push(ids);
        let mut failures = BatchFailures::new();
        for record in batch.records() {
            match id_of(record.data()).unwrap() {
                2 if is_first => failures.push(&record, "not now"),
                5 => failures.push(&record, ProcessorError::poison("it is no order")),
                7 => failures.push(&record, "never"),
                _ => {}
            }
        }
        failures.into_result().map_or_else(Deed::FailWith, |()| Deed::Take)
    });
    put_aggregate(&aws, 0..10).await;
    put(&aws, &Probe::new(), 10..20).await;
    let policy = bisect().with_max_attempts(3);
    let (worker, skipped) = start(&aws, &probe, policy, CheckpointPolicy::Manual).await;
    until("two skipped records", || skipped.lock().unwrap().len() == 2).await;
    until("the shard's tip", || worker.health().is_healthy()).await;
    worker.shutdown(PATIENCE).await.unwrap();
    let all: Vec<_> = (0..20).collect();
    assert_eq!(*deliveries.lock().unwrap(), [all, vec![2, 7], vec![7]]);
    let expected = [(5, GiveUpReason::Poison, 1), (7, GiveUpReason::RetriesExhausted, 3)];
    assert_eq!(*skipped.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_poison_batch_is_halved_and_an_error_that_passes_uses_no_attempt() {
    let aws = aws(1).await;
    let outages = AtomicUsize::new(0);
    let probe = Probe::new().script(move |_, batch| match ids(batch).contains(&4) {
        _ if outages.fetch_add(1, Ordering::Relaxed) < 6 => {
            Deed::FailWith(ProcessorError::retryable("the database is down"))
        }
        true => Deed::FailWith(ProcessorError::poison("it is no order")),
        false => Deed::Take,
    });
    put(&aws, &Probe::new(), 0..10).await;
    probe.acknowledged((0..10).filter(|id| *id != 4));
    let (worker, skipped) = start(&aws, &probe, bisect(), CheckpointPolicy::Manual).await;
    until("all other records", || probe.is_settled()).await;
    probe.assert_exact();
    let skipped = skipped.lock().unwrap().clone();
    assert_eq!(skipped.len(), 1);
    assert_eq!((skipped[0].0, skipped[0].1), (4, GiveUpReason::Poison));
    worker.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn a_fatal_error_ends_the_worker_with_its_cause() {
    let aws = aws(2).await;
    let probe = Probe::new().script(|_, batch| match ids(batch).contains(&4) {
        true => Deed::FailWith(ProcessorError::fatal("the credentials were revoked")),
        false => Deed::Take,
    });
    put(&aws, &Probe::new(), 0..10).await;
    let (worker, _) = start(&aws, &probe, bisect(), CheckpointPolicy::Manual).await;
    let error = worker.join().await.unwrap_err();
    let WorkerError::Processor { cause, .. } = &error else { panic!("{error}") };
    assert_eq!(cause, "the credentials were revoked");
}

#[tokio::test]
async fn a_shard_stops_at_a_record_and_goes_on_when_the_cause_is_fixed() {
    for checkpoint in [CheckpointPolicy::Manual, CheckpointPolicy::AfterBatch] {
        let aws = aws(2).await;
        let is_fixed = Arc::new(AtomicBool::new(false));
        let fixed = Arc::clone(&is_fixed);
        let probe = Probe::new().script(move |_, batch| {
            let fails = ids(batch).contains(&30) && !fixed.load(Ordering::Relaxed);
            if fails { Deed::Fail } else { Deed::Take }
        });
        put(&aws, &probe, 0..100).await;
        let policy = bisect().with_then(AfterRetries::StopShard);
        let (worker, _) = start(&aws, &probe, policy, checkpoint).await;
        let stopped = || {
            let problems = worker.health().problems.into_iter();
            problems.filter(|problem| problem.kind == ProblemKind::ShardStopped).collect::<Vec<_>>()
        };
        until("a shard that stops", || !stopped().is_empty()).await;
        let shard = stopped()[0].shard_id.clone().unwrap();
        let of_other = || probe.seen().iter().filter(|seen| seen.shard != shard).count();
        let mut other = aws.records(STREAM).into_iter();
        let other = other.find(|other| other.shard_id != shard).unwrap().records.len();
        until("the other shard", || of_other() == other).await;
        until("its memory", || worker.snapshot().buffered_bytes == 0).await;
        let problem = reason(&worker, &shard, ProblemKind::ShardStopped).unwrap();
        assert!(problem.cause.starts_with("1 records from "), "{}", problem.cause);
        let health = worker.health();
        let activity = health.shards.iter().find(|it| it.shard_id == shard).unwrap().activity;
        assert_eq!(activity, ShardActivity::Stuck);
        // The lease is kept for longer than the failover time, and the record is not tried meanwhile.
        let (seen, renewals) = (probe.seen().len(), aws.calls("UpdateItem"));
        until("renewals", || aws.calls("UpdateItem") > renewals + 12).await;
        assert_eq!(probe.seen().len(), seen);
        let wrong = open_shards(&aws).into_iter().find(|it| *it != shard).unwrap();
        let error = worker.skip_failed(&wrong).unwrap_err();
        assert!(matches!(error, SkipError::NotStopped { .. }), "{error}");

        is_fixed.store(true, Ordering::Relaxed);
        worker.resume_shard(&shard);
        until("all records", || probe.is_settled()).await;
        // Records before the one that failed are not delivered again.
        probe.assert_exact();
        until("good health", || worker.health().is_healthy()).await;
        worker.shutdown(PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn an_operator_skips_the_records_at_which_a_shard_stopped() {
    let aws = aws(1).await;
    let probe = poisoned(&[30]);
    put(&aws, &Probe::new(), 0..100).await;
    probe.acknowledged((0..100).filter(|id| *id != 30));
    let policy = bisect().with_then(AfterRetries::StopShard);
    let (worker, skipped) = start(&aws, &probe, policy, CheckpointPolicy::AfterBatch).await;
    let shard = open_shards(&aws)[0].clone();
    until("it stops", || reason(&worker, &shard, ProblemKind::ShardStopped).is_some()).await;
    assert_eq!(worker.skip_failed(&shard), Ok(1));
    until("all other records", || probe.is_settled()).await;
    probe.assert_exact();
    let skipped = skipped.lock().unwrap().clone();
    assert_eq!(skipped.len(), 1);
    assert_eq!((skipped[0].0, skipped[0].1), (30, GiveUpReason::Skipped));
    until("good health", || worker.health().is_healthy()).await;
    worker.shutdown(PATIENCE).await.unwrap();
    let next = Probe::new();
    put(&aws, &next, 100..110).await;
    process_all(&aws, &next, config("w2")).await;
}

#[tokio::test]
async fn a_stop_in_the_middle_of_halving_loses_and_doubles_nothing() {
    let aws = aws(1).await;
    let probe = Probe::new().script(|_, batch| match ids(batch).contains(&70) {
        true => Deed::Fail,
        false => Deed::Take,
    });
    put(&aws, &Probe::new(), 0..100).await;
    probe.acknowledged(0..100);
    let policy = FailurePolicy::default().with_bisect(true);
    let (first, _) = start(&aws, &probe, policy, CheckpointPolicy::Manual).await;
    until("the records before it", || probe.seen().len() == 70).await;
    first.shutdown(PATIENCE).await.unwrap();
    // The same ledger, and a processor that takes everything.
    let probe = probe.script(|_, _| Deed::Take);
    let second = worker(&aws, &probe, config("w2")).await;
    until("all records", || probe.is_settled()).await;
    probe.assert_exact();
    second.shutdown(PATIENCE).await.unwrap();
}

#[tokio::test]
async fn old_records_are_not_delivered() {
    let aws = aws(1).await;
    put(&aws, &Probe::new(), 0..50).await;
    let arrival = aws.records(STREAM)[0].records[49].arrival;
    let limit = Duration::from_secs(1);
    until("they are old", || arrival.elapsed().unwrap_or_default() > limit).await;
    let probe = Probe::new();
    put(&aws, &probe, 50..60).await;
    let policy = bisect().with_max_record_age(limit);
    let (worker, skipped) = start(&aws, &probe, policy, CheckpointPolicy::AfterBatch).await;
    // On a slow machine, the young ones are old by now, too.
    until("all records", || probe.seen().len() + skipped.lock().unwrap().len() == 60).await;
    let skipped = skipped.lock().unwrap().clone();
    let expected: Vec<_> = (0..50).map(|id| (id, GiveUpReason::RecordAgeExpired, 0)).collect();
    assert_eq!(skipped[..50], expected);
    worker.shutdown(PATIENCE).await.unwrap();
}
