//! An ownership and its renewer on the embedded DynamoDB, under a clock that the test moves.

use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime};

use kinesis_testkit::{Fault, FaultId, LocalAws, Service};
use tokio::task::JoinHandle;

use super::*;
use crate::config::{ConsumerConfig, OnStop, TableConfig};
use crate::health::ProblemLog;
use crate::lease::client::for_leases;
use crate::lease::dynamodb::DynamoDbLeaseStore;
use crate::lease::renewer::{RenewerContext, WorkerStop};
use crate::lease::store::{LeaseStore, LeaseWrite, Outcome};
use crate::lease::table::{Layout, ensure};

mod ambiguity;
mod checkpoint;
mod handoff;
mod progress;
mod relinquish;
mod renewal;

const F: Duration = Duration::from_secs(10);
const KEY: &str = "shardId-0";

/// Stands still until the test moves it.
#[derive(Debug, Default)]
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.now()
    }
}

#[derive(Debug, Default)]
struct TestServices {
    receiver: Option<String>,
    changes: AtomicUsize,
    store: Option<Arc<DynamoDbLeaseStore>>,
}

impl RenewerServices for TestServices {
    fn receiver(&self) -> Option<String> {
        self.receiver.clone()
    }

    fn create_children<'a>(
        &'a self,
        _: &'a Lease,
        _: Vec<ChildShard>,
    ) -> BoxFuture<'a, Result<(), LeaseStoreError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn lease<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Lease>, LeaseStoreError>> {
        Box::pin(async move {
            match &self.store {
                Some(store) => store.get(key).await,
                None => Ok(None),
            }
        })
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }
}

struct Fixture {
    aws: LocalAws,
    store: Arc<DynamoDbLeaseStore>,
    clock: Arc<ManualClock>,
    context: RenewerContext,
}

impl Fixture {
    async fn new(receiver: Option<&str>, on_stop: OnStop) -> Self {
        let aws = LocalAws::start().await.unwrap();
        let client = for_leases(&aws.dynamodb(), &ConsumerConfig::default());
        ensure(&client, "app", &TableConfig::default()).await.unwrap();
        let store = Arc::new(DynamoDbLeaseStore::new(client, "app".into(), Layout::OneTable, 1));
        let clock = Arc::new(ManualClock::default());
        clock.advance(Duration::from_secs(100));
        let services = TestServices {
            receiver: receiver.map(str::to_owned),
            store: Some(Arc::clone(&store)),
            ..TestServices::default()
        };
        let context = RenewerContext {
            worker_id: "me".into(),
            process: 1,
            store: Arc::clone(&store) as Arc<dyn LeaseStore>,
            services: Arc::new(services),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            failover: F,
            on_stop,
            seed: 7,
            stop: WorkerStop::default(),
            retries: Arc::default(),
            problems: Arc::new(ProblemLog::new(Arc::clone(&clock) as Arc<dyn Clock>)),
        };
        store.write(&Lease::new(KEY, Checkpoint::TrimHorizon), LeaseWrite::Create).await.unwrap();
        Self { aws, store, clock, context }
    }

    async fn item(&self) -> Lease {
        self.store.get(KEY).await.unwrap().unwrap()
    }

    async fn begin(&self) -> (HeldLease, JoinHandle<()>) {
        let sent = self.clock.now();
        let lease = self.taken_by("me").await;
        let (held_lease, renewer) = HeldLease::begin(self.context.clone(), lease, sent);
        (held_lease, tokio::spawn(renewer.run()))
    }

    /// Waits until the item is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&Lease) -> bool) -> Lease {
        for _ in 0..2000 {
            let item = self.item().await;
            if wanted(&item) {
                return item;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what}: {:?}", self.item().await);
    }

    /// Throttles all writes of the item.
    fn throttle_updates(&self) -> FaultId {
        self.aws.faults().add(updates(Fault::throttle()))
    }

    /// Waits until a fault has struck so often.
    async fn struck(&self, fault: FaultId, times: u64) {
        while self.aws.faults().count(fault) < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Makes calls whose writes are done, and not answered. Nor is a read answered that would tell.
    async fn unanswered<T>(&self, calls: impl AsyncFnOnce(FaultId) -> T) -> T {
        let faults = self.aws.faults();
        let write = faults.add(updates(Fault::response_lost()));
        let read = Fault::response_lost().service(Service::DynamoDb).operation("GetItem");
        let read = faults.add(read);
        let result = calls(write).await;
        faults.remove(write);
        faults.remove(read);
        result
    }

    /// A leader elsewhere starts a handoff.
    async fn handed_to(&self, worker: &str) {
        let start = LeaseWrite::StartHandoff { to: worker.into() };
        self.store.write(&self.item().await, start).await.unwrap().applied().unwrap();
    }

    async fn taken_by(&self, worker: &str) -> Lease {
        let take = LeaseWrite::Take { owner: worker.into() };
        self.store.write(&self.item().await, take).await.unwrap().applied().unwrap()
    }
}

/// A lease that this worker has just taken, and its running renewer.
async fn held() -> (Fixture, HeldLease, JoinHandle<()>) {
    let fixture = Fixture::new(None, OnStop::Keep).await;
    let (held_lease, renewer) = fixture.begin().await;
    (fixture, held_lease, renewer)
}

/// Waits until the renewer has taken in the answer: were the clock moved before, it would come too
/// late for the fence.
async fn answered(held_lease: &HeldLease, counter: u64) {
    while held_lease.lease().counter < counter {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Limits a fault to the calls that write the item.
fn updates(fault: Fault) -> Fault {
    fault.service(Service::DynamoDb).operation("UpdateItem")
}

fn at(sequence: &str) -> Checkpoint {
    Checkpoint::parse(sequence, 0).unwrap()
}

#[track_caller]
fn is_lost(result: Result<(), CheckpointError>) {
    assert!(matches!(result, Err(CheckpointError::LeaseLost { .. })), "{result:?}");
}
