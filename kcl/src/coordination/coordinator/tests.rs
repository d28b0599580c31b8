//! Whole workers' coordination on the embedded AWS.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use kinesis_testkit::{Fault, LocalAws, Service};

use super::*;
use crate::checkpoint::Checkpoint;
use crate::clock::SystemClock;
use crate::config::{InitialPosition, TableConfig};
use crate::coordination::assignment::{Looks, look_and_act};
use crate::coordination::discovery;
use crate::lease::{DynamoDbLeaseStore, Layout, LeaseStore, TenureEnd, ensure_table};
use crate::shard_sync::ShardSync;

mod runtime;
mod start;

const APP: &str = "billing";
const STREAM: &str = "orders";

async fn aws(shards: u32) -> LocalAws {
    let aws = LocalAws::start().await.unwrap();
    aws.create_stream(STREAM, shards).await.unwrap();
    aws
}

/// With the default failover time: no stall of the machine makes a lease expire.
fn config() -> ConsumerConfig {
    ConsumerConfig::default().with_initial_position(InitialPosition::TrimHorizon)
}

/// For tests that wait for an expiry.
fn short_failover() -> ConsumerConfig {
    config().with_failover_time(Duration::from_secs(4))
}

fn parts(aws: &LocalAws, worker: &str, config: ConsumerConfig) -> CoordinatorParts {
    CoordinatorParts {
        application: APP.into(),
        stream: STREAM.into(),
        worker_id: worker.into(),
        kinesis: aws.kinesis(),
        dynamodb: aws.dynamodb(),
        config: Arc::new(config),
        clock: Arc::new(SystemClock::default()),
        seed: 7,
        states: StateSender::default(),
        meter: Meter::default(),
        runtime: None,
    }
}

fn store(aws: &LocalAws) -> DynamoDbLeaseStore {
    DynamoDbLeaseStore::new(aws.dynamodb(), APP.into(), Layout::OneTable)
}

async fn leases(aws: &LocalAws) -> BTreeMap<String, Lease> {
    let found = store(aws).list(true).await.unwrap().leases;
    found
        .into_iter()
        .map(|lease| (lease.key.clone(), lease))
        .collect()
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..3000 {
        if let Some(found) = look().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

/// A clock that is ahead of another.
#[derive(Debug)]
struct Later(SystemClock, Duration);

impl Clock for Later {
    fn now(&self) -> Duration {
        self.0.now() + self.1
    }

    fn wall(&self) -> std::time::SystemTime {
        self.0.wall() + self.1
    }
}

/// A worker whose consumers do nothing but drain when they are told to.
struct Worker {
    coordinator: Arc<Coordinator>,
    tenures: Arc<Mutex<Vec<Tenure>>>,
    consumer: JoinHandle<()>,
}

impl Worker {
    async fn start(aws: &LocalAws, name: &str, config: ConsumerConfig) -> Self {
        let coordinator = Arc::new(
            Coordinator::prepare(parts(aws, name, config))
                .await
                .unwrap(),
        );
        let mut incoming = coordinator.start();
        let tenures = Arc::new(Mutex::new(Vec::<Tenure>::new()));
        let held = Arc::clone(&tenures);
        let consumer = tokio::spawn(async move {
            while let Some(tenure) = incoming.recv().await {
                held.lock().unwrap().push(tenure.clone());
                let held = Arc::clone(&held);
                tokio::spawn(async move {
                    tokio::select! {
                        () = tenure.handoff_requested().cancelled_owned() => {
                            tenure.end(TenureEnd::Transfer).await;
                        }
                        () = tenure.lost().cancelled_owned() => tenure.end(TenureEnd::Lost).await,
                    }
                    let token = tenure.fencing_token();
                    held.lock()
                        .unwrap()
                        .retain(|other| other.fencing_token() != token);
                });
            }
        });
        Self {
            coordinator,
            tenures,
            consumer,
        }
    }

    fn held(&self) -> Vec<String> {
        let tenures = self.tenures.lock().unwrap();
        let mut held: Vec<_> = tenures
            .iter()
            .filter(|tenure| tenure.is_held())
            .map(|tenure| tenure.shard_id().to_owned())
            .collect();
        held.sort();
        held
    }

    async fn shutdown(self) {
        self.coordinator.leave().await;
        let tenures: Vec<_> = self.tenures.lock().unwrap().clone();
        for tenure in &tenures {
            tenure.end(TenureEnd::GiveAway).await;
        }
        drop(tenures);
        self.tenures.lock().unwrap().clear();
        self.coordinator.stop().await;
        self.consumer.await.unwrap();
    }

    /// Stops dead: nothing is written any more.
    fn crash(&self) {
        self.coordinator.shared.leaving.cancel();
        self.coordinator.shared.stopped.cancel();
    }
}

#[tokio::test]
async fn a_lone_worker_sets_the_table_up_and_holds_every_shard() {
    let aws = aws(4).await;
    let worker = Worker::start(&aws, "w1", config()).await;
    until("4 leases", async || {
        (worker.held().len() == 4).then_some(())
    })
    .await;
    let found = leases(&aws).await;
    assert_eq!(found.len(), 4);
    let identities: BTreeSet<_> = found
        .values()
        .map(|lease| lease.stream.as_ref().unwrap().to_string())
        .collect();
    assert_eq!(identities.len(), 1);
    for lease in found.values() {
        assert_eq!(lease.owner.as_deref(), Some("w1"));
        assert_eq!(lease.checkpoint, Checkpoint::TrimHorizon);
        assert!(lease.hash_key_range.is_some() && lease.has_entity_type);
    }
    let state = aws
        .dynamodb()
        .get_item()
        .table_name(APP)
        .key("leaseKey", AttributeValue::S("Migration3.0".into()))
        .send()
        .await
        .unwrap()
        .item
        .unwrap();
    let mut names: Vec<_> = state.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        ["cv", "entityType", "h", "leaseKey", "mb", "mts"],
        "as the golden item"
    );
    assert_eq!(state["cv"], AttributeValue::S("CLIENT_VERSION_3X".into()));
    let rows = store(&aws).list(true).await.unwrap().workers;
    assert_eq!(
        rows.iter()
            .map(|row| row.worker.as_str())
            .collect::<Vec<_>>(),
        ["w1"]
    );
    worker.shutdown().await;
    let after = store(&aws).list(true).await.unwrap();
    assert!(after.workers.is_empty(), "the row is gone");
    assert!(
        after.leases.iter().all(|lease| lease.owner.is_none()),
        "nobody to hand over to"
    );
}

#[tokio::test]
async fn two_workers_share_four_leases_and_no_lease_is_held_twice() {
    let aws = aws(4).await;
    let first = Worker::start(&aws, "w1", config()).await;
    until("4 leases", async || (first.held().len() == 4).then_some(())).await;
    let second = Worker::start(&aws, "w2", config()).await;

    let done = Arc::new(AtomicBool::new(false));
    let watch = {
        let (done, first, second) = (
            Arc::clone(&done),
            Arc::clone(&first.tenures),
            Arc::clone(&second.tenures),
        );
        tokio::spawn(async move {
            let mut looks = 0u64;
            while !done.load(Ordering::SeqCst) {
                {
                    // Both locked: one moment.
                    let (first, second) = (first.lock().unwrap(), second.lock().unwrap());
                    let mut held = BTreeSet::new();
                    let tenures = first.iter().chain(second.iter());
                    for tenure in tenures.filter(|tenure| tenure.is_held()) {
                        let shard = tenure.shard_id().to_owned();
                        assert!(held.insert(shard), "held twice: {}", tenure.shard_id());
                    }
                }
                looks += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            looks
        })
    };
    until("2 and 2", async || {
        (first.held().len() == 2 && second.held().len() == 2).then_some(())
    })
    .await;
    let (of_first, of_second) = (first.held(), second.held());
    let all: BTreeSet<_> = of_first.iter().chain(&of_second).collect();
    assert_eq!(all.len(), 4);

    // A planned stop hands over directly, and nothing waits for an expiry.
    second.shutdown().await;
    let handed = leases(&aws).await;
    assert!(
        handed
            .values()
            .all(|lease| lease.owner.as_deref() == Some("w1")),
        "{handed:?}"
    );
    until("4 again", async || (first.held().len() == 4).then_some(())).await;
    done.store(true, Ordering::SeqCst);
    assert!(watch.await.unwrap() > 0);
    first.shutdown().await;
}

#[tokio::test]
async fn leases_of_a_dead_worker_expire_and_fence_its_tenures() {
    let aws = aws(2).await;
    let first = Worker::start(&aws, "w1", short_failover()).await;
    until("2 leases", async || (first.held().len() == 2).then_some(())).await;
    let old: Vec<Tenure> = first.tenures.lock().unwrap().clone();
    first.crash();
    let second = Worker::start(&aws, "w2", short_failover()).await;
    until("taken over", async || {
        (second.held().len() == 2).then_some(())
    })
    .await;
    for tenure in old {
        assert!(!tenure.is_held());
        let result = tenure.checkpoint(Checkpoint::ShardEnd).await;
        assert!(
            matches!(result, Err(crate::CheckpointError::LeaseLost { .. })),
            "{result:?}"
        );
    }
    for lease in leases(&aws).await.values() {
        assert_eq!(
            (lease.owner.as_deref(), lease.owner_switches),
            (Some("w2"), 1)
        );
    }
    second.shutdown().await;
}

#[tokio::test]
async fn several_leases_are_handed_over_evenly_and_one_pending_to_the_leaver_stays_pending() {
    let aws = aws(6).await;
    let workers = [
        Worker::start(&aws, "w1", config()).await,
        Worker::start(&aws, "w2", config()).await,
        Worker::start(&aws, "w3", config()).await,
    ];
    until("2 each", async || {
        workers
            .iter()
            .all(|worker| worker.held().len() == 2)
            .then_some(())
    })
    .await;
    // Somebody drains a lease for the worker that is about to leave.
    let mut lease = Lease::new("shardId-x", Checkpoint::TrimHorizon);
    lease.owner = Some("w3".into());
    lease.checkpoint_owner = Some("w9".into());
    store(&aws).create(&lease).await.unwrap();
    let [first, second, third] = workers;
    third.shutdown().await;
    until("3 each", async || {
        (first.held().len() == 3 && second.held().len() == 3).then_some(())
    })
    .await;
    let found = leases(&aws).await;
    let pending = &found["shardId-x"];
    if pending.counter == 0 {
        assert_eq!(
            pending.checkpoint_owner.as_deref(),
            Some("w9"),
            "not evicted"
        );
    }
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test]
async fn children_are_created_before_the_end_and_parents_are_cleaned_up() {
    let aws = aws(1).await;
    let worker = Worker::start(&aws, "w1", config()).await;
    until("the parent", async || {
        (worker.held().len() == 1).then_some(())
    })
    .await;
    let parent = worker.tenures.lock().unwrap()[0].clone();
    aws.kinesis()
        .split_shard()
        .stream_name(STREAM)
        .shard_to_split(parent.shard_id())
        .new_starting_hash_key("170141183460469231731687303715884105728")
        .send()
        .await
        .unwrap();
    // The last page named no children: they are learned from the listing.
    until("children", async || {
        parent.record_children(Vec::new()).await.ok()?;
        (leases(&aws).await.len() == 3).then_some(())
    })
    .await;
    let found = leases(&aws).await;
    assert_eq!(found[parent.shard_id()].children.len(), 2);
    parent.checkpoint(Checkpoint::ShardEnd).await.unwrap();
    parent.end(TenureEnd::ShardEnded).await;
    until("both children", async || {
        (worker.held().len() == 2).then_some(())
    })
    .await;

    let report = worker.coordinator.shared.sync.run().await.unwrap();
    assert_eq!(
        (report.created, report.deleted),
        (0, 0),
        "children are still at their start"
    );
    let children: Vec<Tenure> = worker.tenures.lock().unwrap().clone();
    for child in children.iter().filter(|tenure| tenure.is_held()) {
        assert!(child.parents_ended().await.unwrap());
        child
            .checkpoint(Checkpoint::parse("5", 0).unwrap())
            .await
            .unwrap();
    }
    drop(children);
    let sync = worker.coordinator.shared.sync.clone();
    let report = sync.run().await.unwrap();
    assert_eq!((report.created, report.deleted), (0, 0), "kept for a while");
    let clock = Arc::new(Later(SystemClock::default(), Duration::from_secs(60)));
    let report = ShardSync { clock, ..sync }.run().await.unwrap();
    assert_eq!((report.created, report.deleted), (0, 1));
    assert!(!leases(&aws).await.contains_key(parent.shard_id()));
    drop(parent);
    worker.shutdown().await;
}

#[tokio::test]
async fn the_child_of_a_merge_has_both_parents_leases() {
    let aws = aws(2).await;
    let worker = Worker::start(&aws, "w1", config()).await;
    until("both", async || (worker.held().len() == 2).then_some(())).await;
    let tenures: Vec<Tenure> = worker.tenures.lock().unwrap().clone();
    aws.kinesis()
        .merge_shards()
        .stream_name(STREAM)
        .shard_to_merge("shardId-000000000000")
        .adjacent_shard_to_merge("shardId-000000000001")
        .send()
        .await
        .unwrap();
    // Even if one of them is missing when the other ends.
    let (one, other) = (&tenures[0], &tenures[1]);
    other.end(TenureEnd::Lost).await;
    let lost = leases(&aws).await[other.shard_id()].clone();
    store(&aws).delete(&lost).await.unwrap();
    let child = until("the child", async || {
        one.record_children(Vec::new()).await.ok()?;
        leases(&aws).await.remove("shardId-000000000002")
    })
    .await;
    assert_eq!(child.parents.len(), 2);
    assert_eq!(child.checkpoint, Checkpoint::TrimHorizon);
    assert!(
        leases(&aws).await.contains_key(other.shard_id()),
        "made again, so that it is waited for"
    );
    drop(tenures);
    worker.shutdown().await;
}

#[tokio::test]
async fn a_sync_repairs_a_missing_lease_and_a_missing_hash_range() {
    let aws = aws(3).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config()))
        .await
        .unwrap();
    let mut found = leases(&aws).await.into_values();
    let (gone, bare) = (found.next().unwrap(), found.next().unwrap());
    store(&aws).delete(&gone).await.unwrap();
    store(&aws).delete(&bare).await.unwrap();
    store(&aws)
        .create(&Lease {
            hash_key_range: None,
            ..bare.clone()
        })
        .await
        .unwrap();
    let report = coordinator.shared.sync.run().await.unwrap();
    assert_eq!((report.created, report.deleted), (1, 0));
    let repaired = leases(&aws).await;
    assert_eq!(repaired[&gone.key], gone);
    assert_eq!(repaired[&bare.key], bare);
    coordinator.stop().await;
}

#[tokio::test]
async fn latest_keeps_the_time_to_resume_from() {
    let aws = aws(2).await;
    let clock = SystemClock::default();
    // Whole seconds, and a margin between hosts of the service.
    let before = clock.wall() - Duration::from_secs(4);
    let config = config().with_initial_position(InitialPosition::Latest);
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config))
        .await
        .unwrap();
    let found = leases(&aws).await;
    assert_eq!(found.len(), 2);
    for lease in found.values() {
        assert_eq!(lease.checkpoint, Checkpoint::Latest);
        let resume = lease.resume_from.unwrap();
        assert!(before < resume && resume <= clock.wall(), "{resume:?}");
    }
    coordinator.stop().await;
}

#[tokio::test]
async fn a_lost_lease_comes_back_after_a_brownout() {
    let aws = aws(1).await;
    let worker = Worker::start(&aws, "w1", short_failover()).await;
    until("the lease", async || {
        (worker.held().len() == 1).then_some(())
    })
    .await;
    let old = worker.tenures.lock().unwrap()[0].clone();
    let fault = aws
        .faults()
        .add(Fault::throttle().service(Service::DynamoDb));
    old.lost().cancelled().await;
    assert!(!old.is_held());
    aws.faults().remove(fault);
    let new = until("the lease again", async || {
        let tenures = worker.tenures.lock().unwrap();
        tenures.iter().find(|tenure| tenure.is_held()).cloned()
    })
    .await;
    assert!(new.fencing_token() > old.fencing_token());
    drop((new, old));
    worker.shutdown().await;
}

#[tokio::test]
async fn a_restart_under_the_same_id_goes_on_at_once_with_what_it_kept() {
    let aws = aws(2).await;
    // Far longer than the test: nothing expires.
    let config = config().with_failover_time(Duration::from_secs(3600));
    let config = config.with_on_stop(OnStop::Keep).with_worker_id("w1");
    let first = Worker::start(&aws, "w1", config.clone()).await;
    until("2 leases", async || (first.held().len() == 2).then_some(())).await;
    first.shutdown().await;
    assert!(
        leases(&aws)
            .await
            .values()
            .all(|lease| lease.owner.as_deref() == Some("w1"))
    );
    let again = Worker::start(&aws, "w1", config).await;
    until("2 leases again", async || {
        (again.held().len() == 2).then_some(())
    })
    .await;
    again.shutdown().await;
}

#[tokio::test]
async fn only_the_first_look_of_a_configured_id_resumes_without_a_wait() {
    for (configured, first_look_fails, resumes) in [
        (true, false, true),
        (true, true, false),
        (false, false, false),
    ] {
        let aws = aws(1).await;
        // Far longer than the test: nothing expires.
        let mut config = config().with_failover_time(Duration::from_secs(3600));
        config.worker_id = configured.then(|| "w1".to_owned());
        let coordinator = Coordinator::prepare(parts(&aws, "w1", config))
            .await
            .unwrap();
        let shared = &coordinator.shared;
        let free = leases(&aws).await.into_values().next().unwrap();
        let assigned = shared.store.assign(&free, "w1", false).await.unwrap();
        assert_eq!(assigned.applied().unwrap().counter, 1);

        let (deliveries, mut tenures) = mpsc::channel(QUEUE);
        let mut looks = Looks::new(shared);
        if first_look_fails {
            let cut = Fault::cut_connection().service(Service::DynamoDb);
            let fault = aws.faults().add(cut.operation("Scan"));
            look_and_act(shared, &mut looks, &deliveries)
                .await
                .unwrap_err();
            aws.faults().remove(fault);
        }
        look_and_act(shared, &mut looks, &deliveries).await.unwrap();
        assert_eq!(
            tenures.try_recv().is_ok(),
            resumes,
            "{configured} {first_look_fails}"
        );
        let counter = leases(&aws).await[&free.key].counter;
        assert_eq!(counter, if resumes { 2 } else { 1 });
    }
}

#[tokio::test]
async fn a_lease_found_assigned_is_renewed_before_it_counts_as_acquired() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config()))
        .await
        .unwrap();
    let shared = &coordinator.shared;
    let (deliveries, mut tenures) = mpsc::channel(QUEUE);
    // The answer of the take is lost: it may have been a leader's.
    let lost = Fault::response_lost().service(Service::DynamoDb);
    aws.faults().add(lost.operation("UpdateItem").times(1));
    look_and_act(shared, &mut Looks::new(shared), &deliveries)
        .await
        .unwrap();
    assert_eq!(tenures.try_recv().unwrap().lease().counter, 2);
}

#[tokio::test]
async fn a_leaving_worker_awaits_the_row_that_it_writes_and_spares_a_later_one() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config()))
        .await
        .unwrap();
    let shared = Arc::clone(&coordinator.shared);
    let delay = Fault::delay(Duration::from_millis(200)).service(Service::DynamoDb);
    let delay = aws.faults().add(delay.operation("UpdateItem").times(1));
    let report = {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move { worker_metrics::report(&shared).await })
    };
    until("the row is being written", async || {
        (aws.faults().count(delay) == 1).then_some(())
    })
    .await;
    shared.leaving.cancel();
    report.await.unwrap();
    let rows = async || store(&aws).list(true).await.unwrap().workers;
    let [row] = &rows().await[..] else {
        panic!("the write was dropped")
    };
    // The next process under this id.
    let later = row.last_update + 1;
    store(&aws).put_worker("w1", later).await.unwrap();
    worker_metrics::withdraw(&shared).await;
    assert_eq!(rows().await.len(), 1);

    store(&aws).put_worker("w1", row.last_update).await.unwrap();
    worker_metrics::withdraw(&shared).await;
    assert!(rows().await.is_empty());
}

#[tokio::test]
async fn a_leaving_worker_removes_its_row_though_the_last_write_was_not_done() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config()))
        .await
        .unwrap();
    let shared = Arc::clone(&coordinator.shared);
    let rows = async || store(&aws).list(true).await.unwrap().workers;
    let last_attempt = shared.epoch_seconds();
    *shared.row_written() =
        worker_metrics::RowWritten::new(Some(last_attempt), Some(last_attempt - 30));
    store(&aws)
        .put_worker("w1", last_attempt - 30)
        .await
        .unwrap();
    worker_metrics::withdraw(&shared).await;
    assert!(rows().await.is_empty(), "the row of the write before");
}

#[tokio::test]
async fn an_aborted_processors_lease_is_not_given_back_at_the_stop() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config()))
        .await
        .unwrap();
    let mut incoming = coordinator.start();
    let tenure = incoming.recv().await.unwrap();
    coordinator.leave().await;
    tenure.end(TenureEnd::Aborted).await;
    // Answered when its writer is gone.
    tenure.end(TenureEnd::Lost).await;
    coordinator.stop().await;
    let lease = &leases(&aws).await[tenure.shard_id()];
    assert_eq!(lease.owner.as_deref(), Some("w1"), "it expires");
}

#[tokio::test]
async fn discovery_does_not_read_finished_leases_again() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config()))
        .await
        .unwrap();
    let shared = &coordinator.shared;
    let ended = Lease {
        owner: Some("w1".into()),
        ..Lease::new("finished", Checkpoint::ShardEnd)
    };
    shared.store.create(&ended).await.unwrap();
    let (deliveries, _tenures) = mpsc::channel(QUEUE);
    let reads = Fault::delay(Duration::from_millis(1)).service(Service::DynamoDb);
    let reads = aws.faults().add(reads.operation("GetItem"));
    discovery::look(shared, &deliveries).await.unwrap();
    assert_eq!(aws.faults().count(reads), 1, "not seen yet");
    look(shared, true).await.unwrap();
    discovery::look(shared, &deliveries).await.unwrap();
    assert_eq!(aws.faults().count(reads), 1);
}

#[tokio::test]
async fn workers_that_start_together_set_up_one_table() {
    let aws = aws(8).await;
    let (a, b, c) = tokio::join!(
        Worker::start(&aws, "w1", config()),
        Worker::start(&aws, "w2", config()),
        Worker::start(&aws, "w3", config()),
    );
    let workers = [a, b, c];
    until("8 leases on 3 workers", async || {
        let held: Vec<usize> = workers.iter().map(|worker| worker.held().len()).collect();
        (held.iter().sum::<usize>() == 8 && held.iter().all(|held| *held >= 2)).then_some(())
    })
    .await;
    assert_eq!(leases(&aws).await.len(), 8);
    for worker in workers {
        worker.shutdown().await;
    }
}

#[tokio::test]
async fn a_deleted_table_ends_the_worker_with_a_reason() {
    let aws = aws(1).await;
    let worker = Worker::start(&aws, "w1", config()).await;
    until("the lease", async || {
        (worker.held().len() == 1).then_some(())
    })
    .await;
    let failed = worker.coordinator.failed();
    aws.dynamodb()
        .delete_table()
        .table_name(APP)
        .send()
        .await
        .unwrap();
    let failure = failed.await;
    assert!(
        matches!(failure, WorkerFailure::TableDeleted { .. }),
        "{failure:?}"
    );
    worker.crash();
}

#[tokio::test]
async fn a_panicking_task_is_reported() {
    let aws = aws(1).await;
    let coordinator = Coordinator::prepare(parts(&aws, "w1", config()))
        .await
        .unwrap();
    coordinator
        .shared
        .spawn("test task", async { panic!("on purpose") });
    let failure = coordinator.failed().await;
    assert!(
        matches!(&failure, WorkerFailure::Panicked { task: "test task", message } if message == "on purpose"),
        "{failure:?}"
    );
    coordinator.stop().await;
}
