//! Records that a processor cannot process, and what the failure policy does with them.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kcl::{
    AfterRetries, BatchFailures, CheckpointPolicy, DeadLetter, DeadLetterCondition, DeadLetterSink,
    FailurePolicy, GiveUpReason, ProblemKind, ProcessorError, RecordBatch, Scheduler,
    ShardActivity, SkipError, WorkerError, WorkerHandle,
};
use kinesis_aggregation::AggregateBuilder;
use kinesis_testkit::LocalAws;

use crate::probe::{Deed, Probe};
use crate::setup::{
    APPLICATION, PATIENCE, STREAM, aws, builder, config, id_of, key, open_shards, payload,
    process_all, put, put_raw, reason, until, worker,
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
async fn a_record_whose_error_passes_is_not_given_up_with_another_one() {
    let aws = aws(1).await;
    let attempts = AtomicUsize::new(0);
    let probe = Probe::new().script(move |_, batch| {
        let mut failures = BatchFailures::new();
        for record in batch.records() {
            match id_of(record.data()).unwrap() {
                3 if attempts.fetch_add(1, Ordering::Relaxed) < 9 => {
                    failures.push(&record, ProcessorError::retryable("the database is down"));
                }
                8 => failures.push(&record, "never"),
                _ => {}
            }
        }
        failures.into_result().map_or_else(Deed::FailWith, |()| Deed::Take)
    });
    put_aggregate(&aws, 0..10).await;
    let (worker, skipped) = start(&aws, &probe, bisect(), CheckpointPolicy::Manual).await;
    until("record 3", || probe.seen().len() == 1).await;
    worker.shutdown(PATIENCE).await.unwrap();
    assert_eq!(probe.seen()[0].data, payload(3).into_bytes());
    assert_eq!(*skipped.lock().unwrap(), [(8, GiveUpReason::RetriesExhausted, 2)]);
}

#[tokio::test]
async fn a_shard_that_is_resumed_has_all_its_attempts_again() {
    let aws = aws(1).await;
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let probe = Probe::new().script(move |_, batch| match ids(batch)[..] {
        [5] => {
            counted.fetch_add(1, Ordering::Relaxed);
            Deed::Fail
        }
        ref ids if ids.contains(&5) => Deed::Fail,
        _ => Deed::Take,
    });
    put(&aws, &Probe::new(), 0..20).await;
    let policy = bisect().with_max_attempts(3).with_then(AfterRetries::StopShard);
    let (worker, _) = start(&aws, &probe, policy, CheckpointPolicy::AfterBatch).await;
    let shard = open_shards(&aws)[0].clone();
    let has_stopped = || reason(&worker, &shard, ProblemKind::ShardStopped).is_some();
    until("it stops", has_stopped).await;
    assert_eq!(attempts.load(Ordering::Relaxed), 3);
    // A renewal may note the attempts.
    let renewals = aws.calls("UpdateItem");
    until("renewals", || aws.calls("UpdateItem") > renewals + 3).await;
    worker.resume_shard(&shard);
    until("three more", || attempts.load(Ordering::Relaxed) == 6).await;
    until("it stops again", has_stopped).await;
    assert_eq!(attempts.load(Ordering::Relaxed), 6);
    worker.shutdown(PATIENCE).await.unwrap();
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

/// A sink in memory. It fails while it is down.
#[derive(Clone, Default)]
struct Letters {
    written: Arc<Mutex<Vec<DeadLetter>>>,
    is_down: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

impl Letters {
    fn ids(&self) -> Vec<u64> {
        let written = self.written.lock().unwrap();
        written.iter().filter_map(|letter| id_of(letter.payload.as_ref()?)).collect()
    }
}

impl DeadLetterSink for Letters {
    type Error = &'static str;

    async fn write(&self, letters: &[DeadLetter]) -> Result<(), Self::Error> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.is_down.load(Ordering::Relaxed) {
            return Err("the sink is down");
        }
        self.written.lock().unwrap().extend_from_slice(letters);
        Ok(())
    }
}

fn dead_letters() -> FailurePolicy {
    bisect().with_then(AfterRetries::DeadLetter)
}

async fn with_sink(
    aws: &LocalAws,
    probe: &Probe,
    sink: &Letters,
    checkpoint: CheckpointPolicy,
    worker: &str,
) -> WorkerHandle {
    let config = config(worker).with_failure_policy(dead_letters()).with_checkpoint(checkpoint);
    builder(aws, probe, config).dead_letters(sink.clone()).build().await.unwrap().spawn()
}

#[tokio::test]
async fn a_dead_letter_has_all_that_is_needed_to_process_the_record_later() {
    let (aws, sink) = (aws(1).await, Letters::default());
    let probe = Probe::new().script(|_, batch| match ids(batch).contains(&7) {
        true => Deed::FailWith(std::io::Error::other("no such customer").into()),
        false => Deed::Take,
    });
    put_aggregate(&aws, 0..10).await;
    probe.acknowledged((0..10).filter(|id| *id != 7));
    let worker = with_sink(&aws, &probe, &sink, CheckpointPolicy::Manual, "w1").await;
    until("all other records", || probe.is_settled()).await;
    probe.assert_exact();
    worker.shutdown(PATIENCE).await.unwrap();
    let letters = sink.written.lock().unwrap().clone();
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    let record = &aws.records(STREAM)[0].records[0];
    assert_eq!((&*letter.application, &*letter.worker_id), (APPLICATION, "w1"));
    assert_eq!((&*letter.stream, &*letter.shard_id), (STREAM, &*open_shards(&aws)[0]));
    assert!(letter.stream_arn.as_ref().unwrap().ends_with(STREAM));
    assert_eq!(letter.position.sequence_number.as_str(), record.sequence_number);
    assert_eq!(letter.position.sub_sequence_number, 7);
    assert_eq!(letter.partition_key.as_deref(), Some(&*key(7)));
    assert_eq!(letter.payload.as_deref(), Some(payload(7).as_bytes()));
    assert!(letter.aggregated && letter.arrival.is_some());
    assert_eq!(letter.condition, DeadLetterCondition::RetriesExhausted);
    assert_eq!((&*letter.error, letter.attempts > 2), ("no such customer", true));
    assert!(letter.first_failure <= letter.last_failure);
}

#[tokio::test]
async fn the_shard_waits_for_a_sink_that_is_down_and_no_checkpoint_passes_the_record() {
    for checkpoint in [CheckpointPolicy::Manual, CheckpointPolicy::AfterBatch] {
        let (aws, sink, probe) = (aws(1).await, Letters::default(), poisoned(&[30]));
        put(&aws, &Probe::new(), 0..100).await;
        probe.acknowledged((0..100).filter(|id| *id != 30));
        sink.is_down.store(true, Ordering::Relaxed);
        let first = with_sink(&aws, &probe, &sink, checkpoint, "w1").await;
        let shard = open_shards(&aws)[0].clone();
        let waits = || reason(&first, &shard, ProblemKind::DeadLettersFailing).is_some();
        until("it waits for the sink", waits).await;
        let calls = sink.calls.load(Ordering::Relaxed);
        until("further calls", || sink.calls.load(Ordering::Relaxed) > calls + 3).await;
        assert_eq!(probe.seen().len(), 30);
        // The stop does not wait for the sink, and the next owner begins with the record.
        first.shutdown(PATIENCE).await.unwrap();
        let second = with_sink(&aws, &probe, &sink, checkpoint, "w2").await;
        let waits = || reason(&second, &shard, ProblemKind::DeadLettersFailing).is_some();
        until("it waits for the sink", waits).await;
        assert_eq!(probe.seen().len(), 30);
        sink.is_down.store(false, Ordering::Relaxed);
        until("all other records", || probe.is_settled()).await;
        probe.assert_exact();
        assert_eq!(sink.ids(), [30]);
        until("good health", || second.health().is_healthy()).await;
        second.shutdown(PATIENCE).await.unwrap();
    }
}

#[tokio::test]
async fn dead_letters_without_a_sink_are_refused() {
    let aws = aws(1).await;
    let config = config("w1").with_failure_policy(dead_letters());
    let error = builder(&aws, &Probe::new(), config).build().await.unwrap_err();
    assert!(error.to_string().contains("call dead_letters()"), "{error}");
}

#[tokio::test]
async fn the_attempts_at_a_record_survive_the_move_of_its_shard() {
    let aws = aws(1).await;
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let probe = Probe::new().script(move |_, batch| match ids(batch).contains(&5) {
        true if ids(batch).len() == 1 => {
            counted.fetch_add(1, Ordering::Relaxed);
            Deed::Fail
        }
        true => Deed::Fail,
        false => Deed::Take,
    });
    put(&aws, &Probe::new(), 0..20).await;
    probe.acknowledged((0..20).filter(|id| *id != 5));
    let policy = bisect().with_max_attempts(1_000);
    let (first, _) = start(&aws, &probe, policy, CheckpointPolicy::Manual).await;
    until("fifty attempts", || attempts.load(Ordering::Relaxed) >= 50).await;
    // A renewal notes them.
    let renewals = aws.calls("UpdateItem");
    until("renewals", || aws.calls("UpdateItem") > renewals + 2).await;
    first.shutdown(PATIENCE).await.unwrap();
    let before = attempts.load(Ordering::Relaxed);
    let policy = bisect().with_max_attempts(40);
    let config = config("w2").with_failure_policy(policy);
    let second = builder(&aws, &probe, config).build().await.unwrap().spawn();
    until("all other records", || probe.is_settled()).await;
    assert_eq!(attempts.load(Ordering::Relaxed), before + 1, "more than forty were made before");
    second.shutdown(PATIENCE).await.unwrap();
}

/// A handler that fails on some records, and counts how often.
async fn handle(
    aws: &LocalAws,
    failing: Arc<Mutex<Vec<u64>>>,
    seen: Arc<Mutex<Vec<u64>>>,
    sink: &Letters,
    policy: FailurePolicy,
) -> WorkerHandle {
    let config = config("w1").with_failure_policy(policy).with_concurrency_per_shard(8);
    Scheduler::builder(APPLICATION, STREAM, &aws.sdk_config())
        .handler(move |record| {
            let id = id_of(record.data()).unwrap();
            let fails = failing.lock().unwrap().contains(&id);
            if !fails {
                seen.lock().unwrap().push(id);
            }
            async move { if fails { Err("told to fail".into()) } else { Ok(()) } }
        })
        .dead_letters(sink.clone())
        .config(config)
        .build()
        .await
        .unwrap()
        .spawn()
}

#[tokio::test]
async fn a_record_of_a_handler_becomes_a_dead_letter_and_its_key_goes_on() {
    let (aws, sink) = (aws(1).await, Letters::default());
    put(&aws, &Probe::new(), 0..200).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let failing = Arc::new(Mutex::new(vec![3, 77]));
    let worker = handle(&aws, failing, Arc::clone(&seen), &sink, dead_letters()).await;
    until("all other records", || seen.lock().unwrap().len() == 198).await;
    until("two letters", || sink.ids().len() == 2).await;
    let report = worker.shutdown(PATIENCE).await.unwrap();
    assert_eq!(report.shards.len(), 1);
    let mut ids = sink.ids();
    ids.sort_unstable();
    assert_eq!(ids, [3, 77]);
    assert!(sink.written.lock().unwrap().iter().all(|letter| letter.attempts == 2));
    // The checkpoint has passed them.
    let next = Probe::new();
    put(&aws, &next, 200..210).await;
    process_all(&aws, &next, config("w2")).await;
}

#[tokio::test]
async fn a_shard_of_a_handler_stops_at_records_and_goes_on_or_skips_them() {
    let (aws, sink) = (aws(1).await, Letters::default());
    put(&aws, &Probe::new(), 0..200).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let failing = Arc::new(Mutex::new(vec![60]));
    let policy = bisect().with_then(AfterRetries::StopShard);
    let worker = handle(&aws, Arc::clone(&failing), Arc::clone(&seen), &sink, policy).await;
    let shard = open_shards(&aws)[0].clone();
    let has_stopped = || reason(&worker, &shard, ProblemKind::ShardStopped).is_some();
    until("it stops", has_stopped).await;
    until("its memory", || worker.snapshot().buffered_bytes == 0).await;
    // It is tried again, and fails again.
    worker.resume_shard(&shard);
    let recovered = || reason(&worker, &shard, ProblemKind::ShardStopped).is_none();
    until("it is tried again", recovered).await;
    until("it stops again", has_stopped).await;
    assert_eq!(worker.skip_failed(&shard), Ok(1));
    until("all other records", || seen.lock().unwrap().len() == 199).await;
    until("good health", || worker.health().is_healthy()).await;
    *failing.lock().unwrap() = vec![205];
    put(&aws, &Probe::new(), 200..210).await;
    until("it stops", has_stopped).await;
    failing.lock().unwrap().clear();
    worker.resume_shard(&shard);
    until("all records", || seen.lock().unwrap().len() == 209).await;
    until("good health", || worker.health().is_healthy()).await;
    worker.shutdown(PATIENCE).await.unwrap();
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_unstable();
    let expected: Vec<_> = (0..210).filter(|id| *id != 60).collect();
    assert_eq!(seen, expected, "each once");
}
