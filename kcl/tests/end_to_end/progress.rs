//! The records that come again after a crash: progress is written with the renewals that are due anyway.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use kcl::CheckpointPolicy;
use tokio::time::sleep;

use crate::paused::{Paused, config};
use crate::probe::Probe;
use crate::setup::{APPLICATION, processing, put};

const SECOND: Duration = Duration::from_secs(1);
/// The failover time is 10 s: a renewal is due each half of it.
const RENEWAL: u64 = 5;
/// Seconds until the crash, and records: one each second.
const RECORDS: u64 = 33;

/// Lets a worker crash after so many records, under a policy that would not have written a checkpoint until
/// then. The next worker processes the rest. Returns the number of records that came twice.
async fn redelivered_after_a_crash(policy: CheckpointPolicy) -> u64 {
    let paused = Paused::start(1).await;
    let probe = Probe::new().without_checkpoints();
    let settings =
        |worker| config(worker).with_idle_time_between_reads(SECOND / 5).with_checkpoint(policy);
    let worker = |settings| paused.builder(&probe, settings).build();
    let first = worker(settings("w1")).await.unwrap().spawn();
    while processing(&first) < 1 {
        sleep(SECOND / 10).await;
    }
    for id in 0..RECORDS {
        put(&paused.aws, &probe, id..id + 1).await;
        sleep(SECOND).await;
    }
    assert!(probe.is_settled(), "all were processed");
    first.abort();
    let _ = first.join().await;

    let second = worker(settings("w2")).await.unwrap().spawn();
    put(&paused.aws, &probe, RECORDS..RECORDS + 1).await;
    while !probe.is_settled() {
        assert!(paused.now() < 300 * SECOND, "{:?}", probe.verdict());
        sleep(SECOND).await;
    }
    second.shutdown(20 * SECOND).await.unwrap();
    let verdict = probe.verdict();
    assert_eq!((verdict.lost, verdict.out_of_order), (0, 0), "{verdict:?}");
    let dynamodb = Client::new(&paused.aws.in_process_config());
    let scan = dynamodb.scan().table_name(APPLICATION).consistent_read(true);
    let items = scan.send().await.unwrap().items.unwrap_or_default();
    let checkpoint = items.iter().find_map(|item| item.get("checkpoint"));
    let checkpoint = checkpoint.unwrap().as_s().unwrap();
    assert_eq!(checkpoint == "TRIM_HORIZON", policy == CheckpointPolicy::Manual, "{checkpoint}");
    verdict.redelivered
}

#[tokio::test(start_paused = true)]
async fn a_crash_repeats_no_more_than_was_processed_since_the_last_renewal() {
    let redelivered = redelivered_after_a_crash(CheckpointPolicy::Interval(60 * SECOND)).await;
    assert!((1..=RENEWAL).contains(&redelivered), "{redelivered}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_checkpointed_for_a_processor_that_does_it_by_itself() {
    let redelivered = redelivered_after_a_crash(CheckpointPolicy::Manual).await;
    assert_eq!(redelivered, RECORDS);
}
