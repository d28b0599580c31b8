//! A worker that keeps the rules of the Java library 3.x, with its cadences and without the fences that
//! it lacks. It is a model of coordination: its leader elects itself by a lock without a network.

mod audit;
mod consumer;
mod leader;
mod renewer;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio_util::sync::CancellationToken;

use super::network::Network;
use super::oracle::{Hold, Kind};
use super::process::Process;
use super::world::{FAILOVER, World};
use crate::clock::Clock;
use crate::lease::memory::MemoryLeaseStore;
use crate::lease::{Lease, LeaseStore, LeaseStoreError};
use consumer::Consumer;
pub(super) use leader::LeaderLock;

const ROW: Duration = Duration::from_secs(30);
const DISCOVERY: Duration = Duration::from_millis(9_975);

/// A lease as the worker holds it in memory.
#[derive(Debug)]
struct Held {
    state: Mutex<HeldState>,
    clock: Arc<dyn Clock>,
    /// Told to hand it over.
    shutdown: CancellationToken,
    /// One write at a time, as Java synchronises on the lease.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct HeldState {
    lease: Lease,
    /// When the last renewal was answered; Java's own fence counts from here.
    answered: Duration,
    /// When it was sent.
    sent: Duration,
    /// When the counter really moved, if reading back took an earlier write for this renewal.
    read_back: Option<Duration>,
    lost: bool,
}

impl Held {
    fn state(&self) -> MutexGuard<'_, HeldState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lease(&self) -> Lease {
        self.state().lease.clone()
    }

    /// By Java's local clock.
    fn is_current(&self) -> bool {
        let state = self.state();
        !state.lost && self.clock.now().saturating_sub(state.answered) <= FAILOVER
    }

    fn lose(&self) {
        self.state().lost = true;
    }

    /// A write of ours, sent at `sent`, left the lease so.
    fn learn(&self, lease: Lease, sent: Duration) {
        let mut state = self.state();
        state.lease = lease;
        state.answered = self.clock.now();
        state.sent = sent;
        state.read_back = None;
    }
}

/// For the oracle: until its counter can be found silent for the failover time, nobody else may start,
/// whatever its own, longer fence says.
struct Strict(Arc<Held>);

impl Hold for Strict {
    fn is_held(&self) -> bool {
        let state = self.0.state();
        !state.lost && self.0.clock.now() < state.sent + FAILOVER
    }

    fn overstays(&self) -> Option<&'static str> {
        let moved = self.0.state().read_back?;
        (self.0.clock.now() >= moved + FAILOVER)
            .then_some("reading back, Java takes an earlier write for a renewal just made")
    }
}

#[derive(Clone)]
struct Worker {
    world: World,
    name: String,
    process: Arc<Process>,
    store: Arc<MemoryLeaseStore>,
    held: Arc<Mutex<BTreeMap<String, Arc<Held>>>>,
    random: Arc<Mutex<Rng>>,
}

/// Runs a worker until it is told to stop: it forgets its leases, and leaves them as they are.
pub(super) async fn run(
    world: World,
    name: String,
    seed: u64,
    lock: Arc<LeaderLock>,
    process: Arc<Process>,
    network: Arc<Network>,
    stop: CancellationToken,
) {
    let worker = Worker {
        store: Arc::new(world.store(&name, &network)),
        world,
        name,
        process,
        held: Arc::default(),
        random: Arc::new(Mutex::new(Rng::with_seed(seed))),
    };
    let parts = [worker.clone(), worker.clone(), worker.clone()];
    let [row, discovery, renewal] = parts;
    let leading = worker.clone();
    let tasks = [
        worker.process.run(async move { row.report().await }),
        worker
            .process
            .run(async move { discovery.discover().await }),
        worker.process.run(async move { renewal.renew_all().await }),
        worker.process.run(async move { leading.lead(&lock).await }),
    ];
    stop.cancelled().await;
    for task in tasks {
        task.abort();
    }
    for held in worker.held().values() {
        held.lose();
    }
}

impl Worker {
    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn random<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn now(&self) -> Duration {
        self.world.clock.now()
    }

    async fn report(&self) {
        loop {
            let seconds = self.process.epoch_millis() / 1000;
            // A failure: the next row is on time.
            let _ = self.store.put_worker(&self.name, seconds).await;
            tokio::time::sleep(ROW).await;
        }
    }

    /// Finds leases that a leader gave to this worker, by the index.
    async fn discover(&self) {
        loop {
            for key in self.store.owned_by(&self.name).await.unwrap_or_default() {
                if self.held().contains_key(&key) {
                    continue;
                }
                let Ok(Some(lease)) = self.store.get(&key).await else {
                    continue;
                };
                if lease.owner.as_ref() == Some(&self.name) && !lease.is_handoff_pending() {
                    self.begin(lease);
                }
            }
            tokio::time::sleep(DISCOVERY).await;
        }
    }

    fn begin(&self, lease: Lease) {
        let (key, now) = (lease.key.clone(), self.now());
        // Java renews nothing before it starts: to others, the counter has long stood still, or it
        // has moved on since it was read.
        let moved = self.world.oracle.moved(&lease);
        let held = Arc::new(Held {
            state: Mutex::new(HeldState {
                lease,
                answered: now,
                sent: moved.unwrap_or_default(),
                read_back: None,
                lost: false,
            }),
            clock: Arc::clone(&self.world.clock),
            shutdown: CancellationToken::new(),
            writing: tokio::sync::Mutex::default(),
        });
        self.held().insert(key.clone(), Arc::clone(&held));
        let strict = Strict(Arc::clone(&held));
        let id = self
            .world
            .oracle
            .begin(&self.name, Kind::Java, &key, strict);
        let consumer = Consumer::new(self.clone(), held, id);
        self.process.run(consumer.run());
    }

    /// Creates a lease unless it is there, which is all that Java asks. `looked`: when this worker
    /// last knew that it was to be created.
    async fn create(&self, lease: &Lease, looked: Duration) -> Result<(), LeaseStoreError> {
        self.world
            .oracle
            .means_to_create(&self.name, &lease.key, looked);
        self.store.create(lease).await.map(drop)
    }

    /// No consumer works on it any more.
    fn drop_lease(&self, held: &Arc<Held>) {
        held.lose();
        let key = held.lease().key;
        let mut all = self.held();
        if all.get(&key).is_some_and(|other| Arc::ptr_eq(other, held)) {
            all.remove(&key);
        }
    }
}
