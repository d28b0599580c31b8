//! A worker with a limit on its leases, and leases that it is assigned beyond that.

use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use kcl::{WhyNotRunning, WorkerHandle};
use tokio::time::sleep;

use crate::paused::{Paused, config};
use crate::probe::Probe;
use crate::setup::{APPLICATION, open_shards, processing, put};

const SECOND: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(20);

/// One worker without a limit and one that takes a single lease, on four shards.
struct Fleet {
    paused: Paused,
    probe: Probe,
    unlimited: WorkerHandle,
    limited: WorkerHandle,
}

impl Fleet {
    async fn start() -> Self {
        let paused = Paused::start(4).await;
        let probe = Probe::new();
        let start = async |config| {
            let built = paused.builder(&probe, config).build().await;
            built.unwrap().spawn()
        };
        let unlimited = start(config("w1")).await;
        let limited = start(config("w2").with_max_leases(1)).await;
        Self { paused, probe, unlimited, limited }
    }

    /// Waits until each has its own again; the limited one never has more than its limit.
    async fn settles(&self, what: &str) -> Duration {
        let began = self.paused.now();
        for _ in 0..1_200 {
            let shares = (processing(&self.unlimited), processing(&self.limited));
            assert!(shares.1 <= 1, "{what}: {shares:?}");
            if shares == (3, 1) {
                return self.paused.now() - began;
            }
            sleep(SECOND / 10).await;
        }
        panic!("{what}: never three and one");
    }

    /// A shard that the worker without a limit processes.
    fn shard_of_unlimited(&self) -> String {
        self.unlimited.snapshot().shards[0].shard_id.clone()
    }

    /// Without a socket, which paused time does not wait for.
    fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::new(&self.paused.aws.in_process_config())
    }

    /// Writes to a lease as a Java leader does.
    async fn lead(&self, shard: &str, update: &str) {
        let owner = |name: &str| AttributeValue::S(name.to_owned());
        let write = self.dynamodb().update_item();
        let write = write
            .table_name(APPLICATION)
            .key("leaseKey", owner(shard))
            .update_expression(update)
            .condition_expression("leaseOwner = :old AND attribute_not_exists(checkpointOwner)")
            .expression_attribute_values(":old", owner("w1"))
            .expression_attribute_values(":new", owner("w2"));
        let write = if update.contains(":one") {
            write.expression_attribute_values(":one", AttributeValue::N("1".into()))
        } else {
            write
        };
        write.send().await.unwrap();
    }

    /// Waits until the worker without a limit has the lease again and processes it. Returns the time until
    /// then.
    async fn comes_back(&self, shard: &str) -> Duration {
        let began = self.paused.now();
        for _ in 0..600 {
            let get = self.dynamodb().get_item().table_name(APPLICATION);
            let get = get.key("leaseKey", AttributeValue::S(shard.to_owned()));
            let item = get.consistent_read(true).send().await.unwrap();
            let item = item.item.unwrap();
            let owner = item.get("leaseOwner").and_then(|owner| owner.as_s().ok());
            if owner.is_some_and(|owner| owner == "w1") && !item.contains_key("checkpointOwner") {
                self.settles(shard).await;
                return self.paused.now() - began;
            }
            assert!(processing(&self.limited) <= 1);
            sleep(SECOND / 10).await;
        }
        panic!("{shard} was not passed on");
    }

    /// The workers that have a row.
    async fn rows(&self) -> Vec<String> {
        let scan = self.dynamodb().scan().table_name(APPLICATION);
        let items = scan.consistent_read(true).send().await.unwrap();
        let mut rows: Vec<String> = items
            .items()
            .iter()
            .filter(|item| item.contains_key("lut"))
            .map(|item| item["leaseKey"].as_s().unwrap().clone())
            .collect();
        rows.sort();
        rows
    }

    async fn stop(self) {
        for worker in [self.unlimited, self.limited] {
            worker.shutdown(DEADLINE).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_at_its_limit_is_handed_nothing_and_passes_on_what_it_is_given() {
    let fleet = Fleet::start().await;
    fleet.settles("the start").await;
    put(&fleet.paused.aws, &fleet.probe, 0..200).await;
    // Balancing would move leases to the second worker if it had room.
    for _ in 0..100 {
        sleep(SECOND / 10).await;
        fleet.settles("without a change").await;
    }
    assert_eq!(fleet.rows().await, ["w1"], "a worker that is full shows no row");

    // A leader whose scan still showed the row hands a shard over, and assigns one by force.
    let shard = fleet.shard_of_unlimited();
    let handoff = "SET leaseOwner = :new, checkpointOwner = :old";
    fleet.lead(&shard, handoff).await;
    let took = fleet.comes_back(&shard).await;
    // It sees the handoff with its next renewal.
    assert!(took <= 8 * SECOND, "by handoff: {took:?}");

    let shard = fleet.shard_of_unlimited();
    let force = "SET leaseOwner = :new ADD leaseCounter :one";
    fleet.lead(&shard, force).await;
    sleep(SECOND).await;
    let took = fleet.settles("by force").await;
    assert!(took <= 15 * SECOND, "the failover time, and a scan: {took:?}");

    put(&fleet.paused.aws, &fleet.probe, 200..400).await;
    for _ in 0..600 {
        if fleet.probe.is_settled() {
            break;
        }
        sleep(SECOND / 10).await;
    }
    let verdict = fleet.probe.verdict();
    assert_eq!((verdict.lost, verdict.out_of_order), (0, 0), "{verdict:?}");
    fleet.stop().await;
}

#[tokio::test(start_paused = true)]
async fn where_no_worker_has_room_a_shard_waits_and_the_reason_is_told() {
    let fleet = Fleet::start().await;
    fleet.settles("the start").await;
    let shard = fleet.shard_of_unlimited();
    fleet.unlimited.shutdown(DEADLINE).await.unwrap();
    let mut waited = 0;
    while !matches!(
        fleet.limited.why_not_running(&shard),
        Some(WhyNotRunning::Unassigned { at_limit: true, .. })
    ) {
        let why = fleet.limited.why_not_running(&shard);
        assert!(waited < 300, "{why:?}");
        assert!(processing(&fleet.limited) <= 1);
        waited += 1;
        sleep(SECOND / 10).await;
    }
    // The other worker has room: all shards are processed again.
    let more = fleet.paused.builder(&fleet.probe, config("w3"));
    let more = more.build().await.unwrap().spawn();
    for _ in 0..300 {
        if (processing(&more), processing(&fleet.limited)) == (3, 1) {
            break;
        }
        sleep(SECOND / 10).await;
    }
    assert_eq!((processing(&more), processing(&fleet.limited)), (3, 1));
    more.shutdown(DEADLINE).await.unwrap();
    fleet.limited.shutdown(DEADLINE).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_worker_goes_on_without_its_handle() {
    let paused = Paused::start(2).await;
    let probe = Probe::new();
    let built = paused.builder(&probe, config("w1")).build().await;
    let handle = built.unwrap().spawn();
    let mut states = handle.watch_state();
    drop(handle);
    put(&paused.aws, &probe, 0..50).await;
    for _ in 0..600 {
        if probe.is_settled() {
            break;
        }
        sleep(SECOND / 10).await;
    }
    assert!(probe.is_settled());
    // After the failover time, the leases are renewed and records come in as before.
    sleep(30 * SECOND).await;
    put(&paused.aws, &probe, 50..100).await;
    for _ in 0..600 {
        if probe.is_settled() {
            break;
        }
        sleep(SECOND / 10).await;
    }
    probe.assert_exact();
    assert_eq!(open_shards(&paused.aws).len(), 2);
    let running = |state: &kcl::WorkerState| matches!(state, kcl::WorkerState::Running);
    assert!(states.until(running).await.is_some());
}
