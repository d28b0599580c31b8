//! Two live processes under one worker id, and one after the other.

use std::time::Duration;

use kcl::{OnStop, ProblemKind, WorkerHandle};
use tokio::time::sleep;

use crate::logs::Logs;
use crate::paused::{Paused, config};
use crate::probe::Probe;
use crate::setup::{processing, reason};

const SECOND: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(20);

/// A process of worker `w`.
async fn process(paused: &Paused, probe: &Probe, seed: u64, on_stop: OnStop) -> WorkerHandle {
    let config = config("w").with_on_stop(on_stop);
    // The fewest reads: none of the records counts here.
    let config = config.with_idle_time_between_reads(10 * SECOND);
    let builder = paused.builder(probe, config);
    builder.seed(seed).build().await.unwrap().spawn()
}

fn is_warned(worker: &WorkerHandle) -> bool {
    let problems = worker.health().problems;
    let kind = ProblemKind::DuplicateWorkerId;
    problems.iter().any(|problem| problem.kind == kind)
}

async fn until(what: &str, seconds: u32, condition: impl Fn() -> bool) {
    for _ in 0..10 * seconds {
        if condition() {
            return;
        }
        sleep(SECOND / 10).await;
    }
    panic!("not in {seconds} s: {what}");
}

#[tokio::test(start_paused = true)]
async fn two_live_processes_of_one_id_are_told_in_both() {
    for shards in [1, 3] {
        let logs = Logs::capture();
        let paused = Paused::start(shards).await;
        let probe = Probe::new();
        let one = process(&paused, &probe, 1, OnStop::HandOver).await;
        until("it has all", 30, || processing(&one) == shards as usize).await;
        sleep(30 * SECOND).await;
        assert!(one.health().is_healthy(), "{}", one.health());
        let two = process(&paused, &probe, 2, OnStop::HandOver).await;
        until("both say so", 40, || is_warned(&one) && is_warned(&two)).await;
        let why = reason(&two, "shardId-000000000000", ProblemKind::DuplicateWorkerId);
        assert!(why.is_some(), "{:?}", two.why_not_running("shardId-000000000000"));
        let warnings = logs.lines("WARN");
        let warned = warnings.iter().filter(|line| line.contains("this worker id"));
        assert!((2..6).contains(&warned.count()), "{warnings:#?}");
        // The warning is repeated while both live.
        for _ in 0..25 {
            sleep(3 * SECOND).await;
            assert!(is_warned(&one) && is_warned(&two));
        }
        two.shutdown(DEADLINE).await.unwrap();
        until("the other one has ended", 200, || one.health().is_healthy()).await;
        one.shutdown(DEADLINE).await.unwrap();
    }
}

/// Rolling restarts: the next process begins when the last one has ended, by a planned stop or a crash.
#[tokio::test(start_paused = true)]
async fn a_restart_under_the_same_id_is_no_duplicate() {
    for (on_stop, crashes) in
        [(OnStop::Keep, false), (OnStop::HandOver, false), (OnStop::Keep, true)]
    {
        let paused = Paused::start(2).await;
        let probe = Probe::new();
        let mut last = None::<WorkerHandle>;
        for seed in 1..4 {
            if let Some(last) = last.take() {
                if crashes {
                    last.abort();
                } else {
                    last.shutdown(DEADLINE).await.unwrap();
                }
            }
            let next = process(&paused, &probe, seed, on_stop).await;
            for _ in 0..15 {
                sleep(2 * SECOND).await;
                assert!(!is_warned(&next), "{on_stop:?} {crashes}: {}", next.health());
            }
            assert_eq!(processing(&next), 2);
            last = Some(next);
        }
        last.unwrap().shutdown(DEADLINE).await.unwrap();
    }
}
