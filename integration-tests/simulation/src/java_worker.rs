//! A worker by the rules and intervals of the Java library 3.x, without the fences that it lacks. It is a model
//! of coordination: its leader elects itself by a lock without a network.

mod audit;
mod consumer;
mod leader;
mod renewer;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use consumer::Consumer;
use fastrand::Rng;
use kcl::Clock;
use kcl::internals::{Lease, LeaseStore, LeaseStoreError, LeaseWrite};
use tokio_util::sync::CancellationToken;

use super::network::Network;
use super::oracle::{Hold, JavaRule, Kind, Overstay};
use super::process::Process;
use super::world::{FAILOVER, World};
use crate::memory::MemoryLeaseStore;
pub(super) use leader::LeaderLock;

const ROW: Duration = Duration::from_secs(30);
const DISCOVERY: Duration = Duration::from_millis(9_975);

/// A lease as the worker holds it in memory.
#[derive(Debug)]
struct Held {
    state: Mutex<HeldState>,
    clock: Arc<dyn Clock>,
    /// The worker was told to hand the lease over.
    shutdown: CancellationToken,
    /// Held by one write at a time, because Java synchronises on the lease.
    writing: tokio::sync::Mutex<()>,
}

/// The write that the worker takes for its last sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heartbeat {
    /// None yet: Java starts on a lease that it is assigned, and renews it later.
    Given,
    /// None since the worker lost the lease. The lease still names it, so it starts again.
    Found,
    /// A renewal or a checkpoint.
    Written,
    /// An earlier write, read back.
    ReadBack,
}

#[derive(Debug, Clone)]
struct HeldState {
    lease: Lease,
    /// The time of the answer to the last renewal, from which Java's own fence counts.
    answered: Duration,
    /// When the counter took the value that this worker knows, as other workers can see.
    moved: Duration,
    heartbeat: Heartbeat,
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

    /// Notes the lease as a write of this worker left it, and when the counter moved.
    fn learn(&self, lease: Lease, moved: Duration, heartbeat: Heartbeat) {
        let mut state = self.state();
        state.lease = lease;
        state.answered = self.clock.now();
        state.moved = moved;
        state.heartbeat = heartbeat;
    }
}

/// Shortest time that other workers leave a Java worker until its first renewal. It discovers a lease that it is
/// assigned within the failover time, later if the index lags, and renews it a third of that time later.
const FIRST_HEARTBEAT: Duration = Duration::from_millis(25_000);

/// What the oracle knows of a lease that a Java worker holds. The worker is at work by its own fence. No
/// other worker may start before the counter can be found silent for the failover time.
struct ByJava(Arc<Held>);

impl Hold for ByJava {
    fn is_held(&self) -> bool {
        self.0.is_current()
    }

    fn overstay(&self) -> Option<Overstay> {
        let state = self.0.state();
        let (wait, rule) = match state.heartbeat {
            Heartbeat::Given => (FIRST_HEARTBEAT, JavaRule::LateStart),
            Heartbeat::Found => (FAILOVER, JavaRule::LateStart),
            Heartbeat::Written => (FAILOVER, JavaRule::FenceFromAnswer),
            Heartbeat::ReadBack => (FAILOVER, JavaRule::ReadBack),
        };
        let until = state.moved + wait;
        Some(Overstay { until, rule })
    }
}

#[derive(Clone)]
struct Worker {
    world: World,
    name: String,
    process: Arc<Process>,
    store: Arc<MemoryLeaseStore>,
    lock: Arc<LeaderLock>,
    held: Arc<Mutex<BTreeMap<String, Arc<Held>>>>,
    random: Arc<Mutex<Rng>>,
}

/// Runs a worker until it is told to stop. It then leaves its leases as they are.
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
        lock,
        held: Arc::default(),
        random: Arc::new(Mutex::new(Rng::with_seed(seed))),
    };
    let parts = [worker.clone(), worker.clone(), worker.clone()];
    let [row, discovery, renewal] = parts;
    let leading = worker.clone();
    let tasks = [
        worker.process.run(async move { row.report().await }),
        worker.process.run(async move { discovery.discover().await }),
        worker.process.run(async move { renewal.renew_all().await }),
        worker.process.run(async move { leading.lead().await }),
    ];
    stop.cancelled().await;
    for task in tasks {
        task.abort();
    }
    for held in worker.held().values() {
        held.lose();
    }
    worker.resign();
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

    /// Queries the index for leases that a leader assigned to this worker.
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
        let moved = self.world.oracle.moved(&lease);
        let held = Arc::new(Held {
            state: Mutex::new(HeldState {
                lease,
                answered: now,
                moved: moved.map_or(Duration::ZERO, |moved| moved.at),
                heartbeat: if moved.is_some_and(|moved| moved.gives) {
                    Heartbeat::Given
                } else {
                    Heartbeat::Found
                },
                lost: false,
            }),
            clock: Arc::clone(&self.world.clock),
            shutdown: CancellationToken::new(),
            writing: tokio::sync::Mutex::default(),
        });
        self.held().insert(key.clone(), Arc::clone(&held));
        let hold = ByJava(Arc::clone(&held));
        let id = self.world.oracle.begin(&self.name, Kind::Java, &key, hold);
        let consumer = Consumer::new(self.clone(), held, id);
        self.process.run(consumer.run());
    }

    /// Creates a lease on Java's only condition, that there is none. `looked`: when this worker last read that
    /// the lease was missing.
    async fn create(&self, lease: &Lease, looked: Duration) -> Result<(), LeaseStoreError> {
        self.world.oracle.means_to_create(&self.name, &lease.key, looked);
        self.store.write(lease, LeaseWrite::Create).await.map(drop)
    }

    /// Notes that no consumer works on the lease any more.
    fn drop_lease(&self, held: &Arc<Held>) {
        held.lose();
        let key = held.lease().key;
        let mut all = self.held();
        if all.get(&key).is_some_and(|other| Arc::ptr_eq(other, held)) {
            all.remove(&key);
        }
    }
}
