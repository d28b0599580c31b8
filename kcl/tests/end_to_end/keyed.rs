//! Handlers of single records: order, parallel keys, the window, checkpoints, and all ways to end.

mod desk;

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use kcl::{
    CheckpointPolicy, ConsumerConfig, ProblemKind, ReplayEnd, Scheduler, ShardPosition,
    ShardShutdown, Until, WorkerHandle,
};
use kinesis_testkit::LocalAws;

pub(crate) use self::desk::{Desk, Failing};
use crate::setup::{
    APPLICATION, PATIENCE, STREAM, aws, config, open_shards, processing, put, split, until,
};

const DEADLINE: Duration = Duration::from_secs(20);

/// Starts a worker that checkpoints each time the mark moves.
async fn start(aws: &LocalAws, desk: &Desk, config: ConsumerConfig) -> WorkerHandle {
    let config = config.with_checkpoint(CheckpointPolicy::AfterBatch);
    let builder = Scheduler::builder(APPLICATION, STREAM, &aws.sdk_config());
    desk.handle_for(builder).config(config).seed(7).build().await.unwrap().spawn()
}

/// Settings with ten records of each shard at a time.
fn ten(worker: &str) -> ConsumerConfig {
    config(worker).with_concurrency_per_shard(10)
}

/// The checkpoint of a shard, as the table has it.
async fn checkpoint(aws: &LocalAws, shard_id: &str) -> String {
    let get = aws.dynamodb().get_item().table_name(APPLICATION).consistent_read(true);
    let get = get.key("leaseKey", AttributeValue::S(shard_id.into())).send();
    get.await.unwrap().item.unwrap()["checkpoint"].as_s().unwrap().clone()
}

/// Sequence number of the nth record of the first shard.
fn number(aws: &LocalAws, nth: usize) -> String {
    aws.records(STREAM)[0].records[nth].sequence_number.to_string()
}

/// Waits until the checkpoint of the first shard is its nth record.
pub(crate) async fn checkpointed(aws: &LocalAws, nth: usize) {
    let (shard, expected) = (open_shards(aws)[0].clone(), number(aws, nth));
    let wait = async {
        while checkpoint(aws, &shard).await != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "no checkpoint at record {nth}");
}

/// Waits until the worker has renewed its leases some times and read the stream again.
async fn a_while(aws: &LocalAws) {
    for call in ["UpdateItem", "GetRecords"] {
        let calls = aws.calls(call);
        until("some calls", || aws.calls(call) > calls + 2).await;
    }
}

/// A second worker processes the rest.
async fn process_the_rest(aws: &LocalAws, desk: &Desk) {
    let worker = start(aws, desk, ten("the next worker")).await;
    until("all records", || desk.probe.is_settled()).await;
    worker.shutdown(DEADLINE).await.unwrap();
}

fn set(ids: impl IntoIterator<Item = u64>) -> BTreeSet<u64> {
    ids.into_iter().collect()
}

#[tokio::test]
async fn keys_run_in_parallel_and_each_key_in_order() {
    let (aws, desk) = (aws(2).await, Desk::new());
    put(&aws, &desk.probe, 0..400).await;
    desk.keep(0..400);
    let worker = start(&aws, &desk, ten("w1")).await;
    until("ten of each shard in hand", || desk.in_hand().len() == 20).await;
    desk.release_all();
    until("all records", || desk.probe.is_settled()).await;
    put(&aws, &desk.probe, 400..1_000).await;
    until("the later records", || desk.probe.is_settled()).await;
    desk.assert_exact();
    assert_eq!(desk.most_in_hand(), 20);
    until("they are counted", || worker.snapshot().records_delivered == 1_000).await;
    until("nothing is held", || worker.snapshot().buffered_bytes == 0).await;
    worker.shutdown(DEADLINE).await.unwrap();
    process_the_rest(&aws, &desk).await;
    desk.assert_exact();
}

#[tokio::test]
async fn a_slow_record_holds_up_its_key_and_the_checkpoint_alone() {
    let (aws, desk) = (aws(1).await, Desk::new());
    put(&aws, &desk.probe, 0..100).await;
    desk.keep([3]);
    let worker = start(&aws, &desk, config("w1").with_concurrency_per_shard(2)).await;
    until("the other keys", || desk.done().len() == 98).await;
    assert_eq!(desk.in_hand(), set([3]));
    checkpointed(&aws, 2).await;
    let lag = |worker: &WorkerHandle| worker.snapshot().lag().unwrap();
    until("lag", || lag(&worker) > Duration::from_secs(1)).await;
    a_while(&aws).await;
    assert_eq!(checkpoint(&aws, &open_shards(&aws)[0]).await, number(&aws, 2));
    assert!(!desk.done().contains(&53), "it has the same key");
    desk.release(3);
    until("all records", || desk.probe.is_settled()).await;
    checkpointed(&aws, 99).await;
    until("no lag", || lag(&worker) < Duration::from_secs(10)).await;
    worker.shutdown(DEADLINE).await.unwrap();
    desk.assert_exact();
}

#[tokio::test]
async fn the_window_is_bounded_in_records() {
    let (aws, desk) = (aws(1).await, Desk::new());
    put(&aws, &desk.probe, 0..60).await;
    desk.keep([4]);
    let worker = start(&aws, &desk, ten("w1").with_max_window_records(20)).await;
    until("a full window", || desk.done().len() == 23).await;
    a_while(&aws).await;
    assert_eq!(set(desk.begun()), set(0..24));
    checkpointed(&aws, 3).await;
    desk.release(4);
    until("all records", || desk.probe.is_settled()).await;
    worker.shutdown(DEADLINE).await.unwrap();
    desk.assert_exact();
}

#[tokio::test]
async fn the_window_is_bounded_in_bytes_but_takes_one_page() {
    let (aws, desk) = (aws(1).await, Desk::new());
    put(&aws, &desk.probe, 0..40).await;
    desk.keep([4]);
    let worker = start(&aws, &desk, ten("w1").with_max_window_bytes(1)).await;
    until("the first page", || desk.done().len() == 39).await;
    put(&aws, &desk.probe, 40..80).await;
    a_while(&aws).await;
    assert_eq!(set(desk.begun()), set(0..40));
    desk.release(4);
    until("all records", || desk.probe.is_settled()).await;
    worker.shutdown(DEADLINE).await.unwrap();
    desk.assert_exact();
}

#[tokio::test]
async fn all_shards_share_the_limit_of_the_worker() {
    let (aws, desk) = (aws(4).await, Desk::new());
    put(&aws, &desk.probe, 0..400).await;
    desk.keep(0..400);
    let worker = start(&aws, &desk, ten("w1").with_concurrency_per_worker(3)).await;
    until("four shards", || processing(&worker) == 4).await;
    until("three in hand", || desk.in_hand().len() == 3).await;
    a_while(&aws).await;
    desk.release_all();
    until("all records", || desk.probe.is_settled()).await;
    assert_eq!(desk.most_in_hand(), 3);
    worker.shutdown(DEADLINE).await.unwrap();
    desk.assert_exact();
}

#[tokio::test]
async fn a_crash_repeats_what_is_after_the_checkpoint_and_loses_nothing() {
    let (aws, desk) = (aws(1).await, Desk::new());
    put(&aws, &desk.probe, 0..50).await;
    desk.keep([30]);
    let worker = start(&aws, &desk, ten("w1")).await;
    until("all others", || desk.done().len() == 49).await;
    checkpointed(&aws, 29).await;
    worker.abort();
    until("its handler is dropped", || desk.dropped() == set([30])).await;
    desk.release(30);
    process_the_rest(&aws, &desk).await;
    desk.assert_order();
    let mut twice = desk.done();
    twice.sort_unstable();
    let twice: Vec<_> = twice.windows(2).filter(|ids| ids[0] == ids[1]).map(|ids| ids[0]).collect();
    assert_eq!(twice, (31..50).collect::<Vec<_>>());
}

/// Stops a worker in another task, and waits until its handlers know.
async fn stop(
    worker: &WorkerHandle,
    desk: &Desk,
    deadline: Duration,
) -> tokio::task::JoinHandle<kcl::ShutdownReport> {
    let stopping = worker.clone();
    let stopping = tokio::spawn(async move { stopping.shutdown(deadline).await.unwrap() });
    until("the handlers know", || desk.told() == desk.in_hand()).await;
    stopping
}

#[tokio::test]
async fn a_planned_stop_finishes_ten_keys_in_flight_and_doubles_nothing() {
    let (aws, desk) = (aws(1).await, Desk::new());
    put(&aws, &desk.probe, 0..100).await;
    desk.keep(0..10);
    let worker = start(&aws, &desk, ten("w1")).await;
    until("ten in hand", || desk.in_hand().len() == 10).await;
    let stopping = stop(&worker, &desk, DEADLINE).await;
    desk.release_all();
    let report = stopping.await.unwrap();
    assert_eq!(report.drained.len(), 1, "{report}");
    assert_eq!(set(desk.begun()), set(0..10), "no later record was started");
    process_the_rest(&aws, &desk).await;
    desk.assert_exact();
}

/// Records 50 and 100 follow the slow record 0 of their key, and later records were begun or are done.
#[tokio::test]
async fn a_planned_stop_leaves_no_gap_before_a_record_that_was_begun() {
    let (aws, desk) = (aws(1).await, Desk::new());
    put(&aws, &desk.probe, 0..120).await;
    desk.keep([0, 50, 99, 100]);
    let worker = start(&aws, &desk, config("w1").with_concurrency_per_shard(3)).await;
    until("the others", || desk.done().len() == 116).await;
    assert_eq!(desk.in_hand(), set([0, 99]));
    let stopping = stop(&worker, &desk, DEADLINE).await;
    desk.release(0);
    until("the record behind it", || desk.in_hand().contains(&50)).await;
    desk.release_all();
    let report = stopping.await.unwrap();
    assert_eq!(report.drained.len(), 1, "{report}");
    process_the_rest(&aws, &desk).await;
    desk.assert_exact();
}

#[tokio::test]
async fn a_handler_that_returns_early_leaves_its_record_to_the_next_owner() {
    let (aws, desk) = (aws(1).await, Desk::new());
    put(&aws, &desk.probe, 0..50).await;
    desk.keep([5]);
    desk.fail(5, Failing::AtStop);
    let worker = start(&aws, &desk, ten("w1")).await;
    until("the others", || desk.done().len() == 49).await;
    let report = worker.shutdown(DEADLINE).await.unwrap();
    assert_eq!(report.drained.len(), 1, "{report}");
    assert!(!worker.snapshot().failures.contains_key(&ProblemKind::ProcessorFailing));
    checkpointed(&aws, 4).await;
    desk.mend(5);
    desk.release_all();
    process_the_rest(&aws, &desk).await;
    desk.assert_order();
}

#[tokio::test]
async fn a_handler_beyond_the_deadline_is_dropped_and_its_lease_expires() {
    let (aws, desk) = (aws(1).await, Desk::new());
    put(&aws, &desk.probe, 0..50).await;
    desk.keep([5]);
    let worker = start(&aws, &desk, ten("w1")).await;
    until("the others", || desk.done().len() == 49).await;
    let report = stop(&worker, &desk, Duration::from_secs(1)).await.await.unwrap();
    assert_eq!(report.shards.values().collect::<Vec<_>>(), [&ShardShutdown::Aborted]);
    until("it is dropped", || desk.dropped() == set([5])).await;
    checkpointed(&aws, 4).await;
    desk.release_all();
    process_the_rest(&aws, &desk).await;
    desk.assert_order();
}

#[tokio::test]
async fn a_shard_with_ten_keys_in_flight_moves_and_nothing_is_doubled() {
    let (aws, desk) = (aws(2).await, Desk::new());
    put(&aws, &desk.probe, 0..200).await;
    let first = start(&aws, &desk, ten("w1")).await;
    until("both shards", || processing(&first) == 2).await;
    until("all records", || desk.probe.is_settled()).await;
    desk.keep(200..400);
    put(&aws, &desk.probe, 200..400).await;
    until("ten of each shard", || desk.in_hand().len() == 20).await;
    let second = start(&aws, &desk, ten("w2")).await;
    until("a shard is to move", || desk.told().len() == 10).await;
    desk.release_all();
    until("one each", || processing(&first) == 1 && processing(&second) == 1).await;
    put(&aws, &desk.probe, 400..600).await;
    until("all records", || desk.probe.is_settled()).await;
    assert_eq!(desk.probe.workers(), ["w1", "w2"]);
    let (one, two) = tokio::join!(first.shutdown(DEADLINE), second.shutdown(DEADLINE));
    one.unwrap();
    two.unwrap();
    desk.assert_exact();
}

#[tokio::test]
async fn children_of_a_split_wait_for_the_last_record_of_their_parent() {
    let (aws, desk) = (aws(1).await, Desk::new());
    put(&aws, &desk.probe, 0..100).await;
    desk.keep([7]);
    let worker = start(&aws, &desk, ten("w1")).await;
    until("the other keys", || desk.done().len() == 98).await;
    split(&aws, "shardId-000000000000").await;
    put(&aws, &desk.probe, 100..300).await;
    a_while_renewed(&aws).await;
    assert!(desk.begun().iter().all(|id| *id < 100));
    desk.release(7);
    until("all records", || desk.probe.is_settled()).await;
    until("both children", || processing(&worker) == 2).await;
    worker.shutdown(DEADLINE).await.unwrap();
    desk.assert_exact();
}

/// As [`a_while`], of a worker that reads nothing.
async fn a_while_renewed(aws: &LocalAws) {
    let calls = aws.calls("UpdateItem");
    until("some renewals", || aws.calls("UpdateItem") > calls + 3).await;
}

#[tokio::test]
async fn a_seek_waits_for_handlers_at_work_and_no_older_record_is_checkpointed_after_it() {
    let (aws, desk) = (aws(1).await, Desk::new());
    put(&aws, &desk.probe, 0..50).await;
    desk.keep([10]);
    let worker = start(&aws, &desk, ten("w1")).await;
    until("the others", || desk.done().len() == 49).await;
    checkpointed(&aws, 9).await;
    let shard = open_shards(&aws)[0].clone();
    let position = ShardPosition::AtSequenceNumber(number(&aws, 5).parse().unwrap());
    let (seeking, shard_id) = (worker.clone(), shard.clone());
    let seek = tokio::spawn(async move { seeking.seek(&shard_id, position, false).await });
    put(&aws, &desk.probe, 50..60).await;
    a_while_renewed(&aws).await;
    assert!(!seek.is_finished() && desk.done().len() == 49);
    // On the way again. 57 waits for it.
    desk.keep([7]);
    desk.release(10);
    seek.await.unwrap().unwrap();
    until("all again", || desk.done().len() == 50 + 53).await;
    checkpointed(&aws, 6).await;
    a_while(&aws).await;
    assert_eq!(checkpoint(&aws, &shard).await, number(&aws, 6));
    desk.release(7);
    checkpointed(&aws, 59).await;
    worker.shutdown(DEADLINE).await.unwrap();
    let mut done = desk.done();
    done.sort_unstable();
    let mut expected: Vec<_> = (0..60).chain(5..50).collect();
    expected.sort_unstable();
    assert_eq!(done, expected);
}

#[tokio::test]
async fn a_shard_gets_past_a_record_that_can_never_be_processed() {
    let (aws, desk) = (aws(1).await, Desk::new());
    put(&aws, &desk.probe, 0..50).await;
    desk.fail(20, Failing::Error);
    let worker = start(&aws, &desk, ten("w1").with_max_window_records(10)).await;
    until("a full window", || desk.done().len() == 29).await;
    let failures = || worker.snapshot().shards.first().map_or(0, |shard| shard.failures);
    until("failures", || failures() > 2).await;
    let shard = open_shards(&aws)[0].clone();
    let position = ShardPosition::AfterSequenceNumber(number(&aws, 20).parse().unwrap());
    worker.seek(&shard, position.clone(), false).await.unwrap_err();
    worker.seek(&shard, position, true).await.unwrap();
    checkpointed(&aws, 49).await;
    until("health", || worker.health().is_healthy()).await;
    worker.shutdown(DEADLINE).await.unwrap();
    assert_eq!(desk.probe.verdict().lost, 1);
}

#[tokio::test]
async fn a_pause_drops_what_is_not_done_and_repeats_nothing_that_is() {
    let (aws, desk) = (aws(1).await, Desk::new());
    put(&aws, &desk.probe, 0..100).await;
    desk.keep([20]);
    desk.fail(10, Failing::Error);
    let worker = start(&aws, &desk, ten("w1")).await;
    // 60 and 70 wait for 10 and 20.
    until("the other keys", || desk.done().len() == 96).await;
    let shard = open_shards(&aws)[0].clone();
    worker.pause_shard(&shard);
    let is_paused = || worker.snapshot().shards.iter().any(|shard| shard.is_paused);
    a_while_renewed(&aws).await;
    assert!(!is_paused(), "a record is in hand");
    desk.release(20);
    until("a pause", is_paused).await;
    assert_eq!(worker.snapshot().buffered_bytes, 0);
    assert_eq!(desk.done().len(), 97);
    desk.mend(10);
    put(&aws, &desk.probe, 100..150).await;
    worker.resume_shard(&shard);
    until("all records", || desk.probe.is_settled()).await;
    checkpointed(&aws, 149).await;
    worker.shutdown(DEADLINE).await.unwrap();
    desk.assert_exact();
}

#[tokio::test]
async fn errors_and_panics_are_reported_and_the_record_comes_again() {
    let (aws, desk) = (aws(1).await, Desk::new());
    put(&aws, &desk.probe, 0..100).await;
    desk.fail(5, Failing::Panic);
    desk.fail(6, Failing::Error);
    let worker = start(&aws, &desk, config("w1")).await;
    until("the other keys", || desk.done().len() == 96).await;
    let cause = || {
        let problems = worker.health().problems;
        problems.into_iter().find(|it| it.kind == ProblemKind::ProcessorFailing).map(|it| it.cause)
    };
    until("a panic", || cause().is_some_and(|cause| cause.contains("told to panic"))).await;
    desk.mend(6);
    until("one key", || desk.done().len() == 98).await;
    until("a panic", || cause().is_some_and(|cause| cause.contains("told to panic"))).await;
    desk.mend(5);
    until("all records", || desk.probe.is_settled()).await;
    until("health", || worker.health().is_healthy()).await;
    assert!(desk.attempts(5) > Some(1));
    worker.shutdown(DEADLINE).await.unwrap();
    desk.assert_exact();
}

#[tokio::test]
async fn a_bounded_replay_ends_when_all_records_are_done() {
    let (aws, desk) = (aws(1).await, Desk::new());
    put(&aws, &desk.probe, 0..50).await;
    desk.keep([5]);
    let last = number(&aws, 39).parse().unwrap();
    let bound = Until::SequenceNumbers([("shardId-000000000000".to_owned(), last)].into());
    let worker = start(&aws, &desk, ten("w1").with_until(bound)).await;
    until("the others", || desk.done().len() == 39).await;
    a_while_renewed(&aws).await;
    assert!(!worker.is_finished() && processing(&worker) == 1);
    desk.release(5);
    let report = worker.join().await.unwrap().replay.unwrap();
    assert!(report.is_complete, "{report}");
    let shard = report.shards.values().next().unwrap();
    assert_eq!((shard.records, shard.end), (40, ReplayEnd::Finished));
    checkpointed(&aws, 39).await;
    assert_eq!(set(desk.done()), set(0..40));
}

#[tokio::test]
async fn without_a_policy_the_library_checkpoints_too() {
    let (aws, desk) = (aws(1).await, Desk::new());
    put(&aws, &desk.probe, 0..50).await;
    let builder = Scheduler::builder(APPLICATION, STREAM, &aws.sdk_config());
    let builder = desk.handle_for(builder).config(ten("w1"));
    let worker = builder.build().await.unwrap().spawn();
    until("all records", || desk.probe.is_settled()).await;
    checkpointed(&aws, 49).await;
    worker.shutdown(DEADLINE).await.unwrap();
}
