//! Whole workers' coordination on the embedded AWS.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use kinesis_testkit::{Fault, LocalAws, Service};
use tokio::task::JoinHandle;

use super::*;
use crate::checkpoint::Checkpoint;
use crate::clock::{Clock, SystemClock};
use crate::config::{InitialPosition, OnStop, TableConfig};
use crate::health::ProblemLog;
use crate::lease::{
    DynamoDbLeaseStore, Layout, Lease, LeaseEnd, LeaseStore, LeaseWrite, Retry, ensure_table,
};
use crate::stream::ShardSync;

mod failure;
mod ownership;
mod planned_stop;
mod scans;
mod shards;
mod start;
mod startup;
mod table_deleted;

const APP: &str = "billing";
const STREAM: &str = "orders";
/// The number of the next process.
static PROCESSES: AtomicU64 = AtomicU64::new(2);

async fn aws(shards: u32) -> LocalAws {
    let aws = LocalAws::start().await.unwrap();
    aws.create_stream(STREAM, shards).await.unwrap();
    aws
}

/// With the default failover time, so that no stall of the machine makes a lease expire.
fn config() -> ConsumerConfig {
    ConsumerConfig::default().with_initial_position(InitialPosition::TrimHorizon)
}

/// For tests that wait until a lease expires.
fn short_failover() -> ConsumerConfig {
    config().with_failover_time(Duration::from_secs(4))
}

fn parts(aws: &LocalAws, worker: &str, config: ConsumerConfig) -> CoordinatorParts {
    let clock = Arc::new(SystemClock) as Arc<dyn Clock>;
    CoordinatorParts {
        application: APP.into(),
        stream: STREAM.parse().unwrap(),
        worker_id: worker.into(),
        process: PROCESSES.fetch_add(1, Ordering::Relaxed),
        kinesis: aws.kinesis(),
        dynamodb: Some(aws.dynamodb()),
        config: Arc::new(config),
        problems: Arc::new(ProblemLog::new(Arc::clone(&clock))),
        clock,
        seed: 7,
        states: StateSender::default(),
        meter: Meter::default(),
        runtime: None,
    }
}

fn store(aws: &LocalAws) -> DynamoDbLeaseStore {
    DynamoDbLeaseStore::new(aws.dynamodb(), APP.into(), Layout::OneTable, 1)
}

async fn leases(aws: &LocalAws) -> BTreeMap<String, Lease> {
    let found = store(aws).list(true).await.unwrap().leases;
    found.into_iter().map(|lease| (lease.key.clone(), lease)).collect()
}

async fn until<T>(what: &str, mut find: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..3000 {
        if let Some(found) = find().await {
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

/// A worker whose consumers only drain when they are asked to.
struct Worker {
    coordinator: Arc<Coordinator>,
    held_leases: Arc<Mutex<Vec<HeldLease>>>,
    consumer: JoinHandle<()>,
}

impl Worker {
    async fn start(aws: &LocalAws, name: &str, config: ConsumerConfig) -> Self {
        let coordinator = Arc::new(Coordinator::prepare(parts(aws, name, config)).await.unwrap());
        let mut incoming = coordinator.start();
        let held_leases = Arc::new(Mutex::new(Vec::<HeldLease>::new()));
        let held = Arc::clone(&held_leases);
        let consumer = tokio::spawn(async move {
            while let Some(held_lease) = incoming.recv().await {
                held.lock().unwrap().push(held_lease.clone());
                let held = Arc::clone(&held);
                tokio::spawn(async move {
                    tokio::select! {
                        () = held_lease.handoff_requested().cancelled_owned() => {
                            held_lease.end(LeaseEnd::Transfer).await;
                        }
                        () = held_lease.lost().cancelled_owned() => {
                            held_lease.end(LeaseEnd::Lost).await;
                        }
                    }
                    let token = held_lease.fencing_token();
                    held.lock().unwrap().retain(|other| other.fencing_token() != token);
                });
            }
        });
        Self { coordinator, held_leases, consumer }
    }

    fn held(&self) -> Vec<String> {
        let held_leases = self.held_leases.lock().unwrap();
        let mut held: Vec<_> = held_leases
            .iter()
            .filter(|held_lease| held_lease.is_held())
            .map(|held_lease| held_lease.shard_id().to_owned())
            .collect();
        held.sort();
        held
    }

    /// Waits until the worker holds so many leases.
    async fn holds(&self, count: usize) {
        let what = format!("{count} leases");
        until(&what, async || (self.held().len() == count).then_some(())).await;
    }

    /// Waits for the lease of the only shard.
    async fn only_lease(&self) -> HeldLease {
        self.holds(1).await;
        self.held_leases.lock().unwrap()[0].clone()
    }

    async fn shutdown(self) {
        self.coordinator.withdraw().await;
        let held_leases: Vec<_> = self.held_leases.lock().unwrap().clone();
        for held_lease in &held_leases {
            held_lease.end(LeaseEnd::Relinquish).await;
        }
        drop(held_leases);
        self.held_leases.lock().unwrap().clear();
        self.coordinator.stop().await;
        self.consumer.await.unwrap();
    }

    /// Ends as in a crash: nothing is written any more.
    fn crash(&self) {
        self.coordinator.ctx.stop.leaving.cancel();
        self.coordinator.ctx.stop.stopped.cancel();
    }
}

/// A worker that scans when the test says so.
struct Manual {
    coordinator: Coordinator,
    assignment: Assignment,
    acquirer: Acquirer,
    acquired: mpsc::Receiver<HeldLease>,
}

impl Manual {
    async fn new(aws: &LocalAws, name: &str, config: ConsumerConfig) -> Self {
        let coordinator = Coordinator::prepare(parts(aws, name, config)).await.unwrap();
        let (sender, acquired) = mpsc::channel(QUEUE);
        let acquirer = Acquirer::new(Arc::clone(&coordinator.ctx), sender);
        let assignment = Assignment::new(coordinator.scanner.clone(), acquirer.clone());
        Self { coordinator, assignment, acquirer, acquired }
    }

    /// Makes one scan and acts on it. Returns a lease that was acquired.
    async fn scan(&mut self) -> Option<HeldLease> {
        self.assignment.scan_and_act().await.unwrap();
        self.acquired.try_recv().ok()
    }
}
