//! What is logged of a lease when a worker acquires it.

use std::time::Duration;

use kcl::{OnStop, WorkerHandle};
use tokio::time::sleep;

use crate::logs::Logs;
use crate::paused::{Paused, config};
use crate::probe::Probe;
use crate::setup::processing;

const SECOND: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(20);

async fn start(paused: &Paused, id: &str, on_stop: OnStop) -> WorkerHandle {
    let probe = Probe::new();
    let config = config(id).with_on_stop(on_stop);
    paused.builder(&probe, config).build().await.unwrap().spawn()
}

async fn processes(worker: &WorkerHandle) {
    for _ in 0..600 {
        if processing(worker) == 1 {
            return;
        }
        sleep(SECOND / 10).await;
    }
    panic!("it never processes the shard");
}

#[tokio::test(start_paused = true)]
async fn shard_owner_former_owner_and_reason_are_logged() {
    let logs = Logs::capture();
    let latest = |expected: &[&str]| {
        let lines = logs.lines("INFO");
        let mut acquired = lines.iter().filter(|line| line.contains("lease acquired"));
        let latest = acquired.next_back().unwrap();
        for part in expected.iter().chain(&["shardId-000000000000"]) {
            assert!(latest.contains(part), "{part}: {latest}");
        }
    };
    let paused = Paused::start(1).await;
    let one = start(&paused, "w1", OnStop::Keep).await;
    processes(&one).await;
    latest(&["worker_id=\"w1\"", "why=it is new"]);
    one.shutdown(DEADLINE).await.unwrap();

    let one = start(&paused, "w1", OnStop::HandOver).await;
    processes(&one).await;
    latest(&["why=a former process of this worker released it"]);
    let two = start(&paused, "w2", OnStop::HandOver).await;
    sleep(5 * SECOND).await;
    one.shutdown(DEADLINE).await.unwrap();
    processes(&two).await;
    latest(&["worker_id=\"w2\"", "former_owner=\"w1\"", "why=its owner handed it over"]);

    let three = start(&paused, "w3", OnStop::HandOver).await;
    sleep(5 * SECOND).await;
    two.abort();
    processes(&three).await;
    latest(&["former_owner=\"w2\"", "why=it expired: not renewed for 1"]);
    three.shutdown(DEADLINE).await.unwrap();
}
