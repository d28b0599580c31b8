//! Hosts whose time of day is wrong: by seconds and by hours, in both directions.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::types::AttributeValue;
use kcl::{Clock, InitialPosition, WorkerHandle};

use crate::paused::{Paused, config};
use crate::probe::Probe;
use crate::setup::{APPLICATION, processing, put, until};

const DEADLINE: Duration = Duration::from_secs(20);
/// Seconds that a host's clock is ahead of the services'.
const SKEWS: [i64; 4] = [-7200, -20, 20, 7200];

#[tokio::test(start_paused = true)]
async fn latest_starts_by_the_services_time() {
    for skew in SKEWS {
        let paused = Paused::start(2).await;
        put(&paused.aws, &Probe::new(), 0..20).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let probe = Probe::new();
        let config = config("w1").with_initial_position(InitialPosition::Latest);
        let builder = paused.builder(&probe, config);
        let built = builder.clock(Arc::new(paused.clock.skewed(skew))).build().await.unwrap();
        put(&paused.aws, &probe, 20..60).await;
        let began = paused.now();
        let worker = built.spawn();
        until("what was put after the build", || probe.is_settled()).await;
        let took = paused.now() - began;
        assert!(took < Duration::from_secs(10), "{skew} s: {took:?}");
        assert_eq!(probe.seen().len(), 40, "{skew} s: nothing from before");
        worker.shutdown(DEADLINE).await.unwrap();
    }
}

/// When each worker's row says that it was written, in seconds since 1970.
async fn rows(paused: &Paused) -> Vec<u64> {
    let dynamodb = aws_sdk_dynamodb::Client::new(&paused.aws.in_process_config());
    let scan = dynamodb.scan().table_name(APPLICATION).send().await.unwrap();
    let times = scan.items.unwrap().into_iter();
    let times =
        times.filter_map(|item| item.get("lut").map(AttributeValue::as_n)?.ok()?.parse().ok());
    times.collect()
}

#[tokio::test(start_paused = true)]
async fn workers_whose_clocks_are_hours_apart_share_a_stream_and_tell_one_time() {
    let paused = Paused::start(8).await;
    let probe = Probe::new();
    let mut workers: Vec<WorkerHandle> = Vec::new();
    for (nth, skew) in SKEWS.into_iter().enumerate() {
        let builder = paused.builder(&probe, config(&format!("w{nth}")));
        let built = builder.clock(Arc::new(paused.clock.skewed(skew))).build().await;
        workers.push(built.unwrap().spawn());
    }
    until("two shards each", || workers.iter().all(|worker| processing(worker) == 2)).await;
    // Java workers and their leader judge by this time.
    let now = paused.clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let rows = rows(&paused).await;
    assert_eq!(rows.len(), 4);
    for row in rows {
        let age = now.as_secs().abs_diff(row);
        assert!(age <= 35, "{age} s");
    }
    put(&paused.aws, &probe, 0..50).await;
    until("all records", || probe.is_settled()).await;
    for worker in workers {
        worker.shutdown(DEADLINE).await.unwrap();
    }
}
