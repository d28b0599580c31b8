//! Owns the tasks of coordination, from the start of a worker to its planned stop.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kinesis_common::stream_name::StreamName;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use super::assignment::{assign, look};
use super::discovery::discover;
use super::error::{StartError, WorkerFailure};
use super::fleet_view::SharedFleetView;
use super::shard_sync::maintain;
use super::shared::Shared;
use super::thread::OwnThread;
use super::{deletion_check, fleet_mode, heartbeat, start};
use crate::clock::Clock;
use crate::config::{ConsumerConfig, OnStop};
use crate::current_stream::CurrentStream;
use crate::executor::Executor;
use crate::health::ProblemLog;
use crate::lease::{Fleet as _, Lease, LeaseOutcome, Tenure};
use crate::metrics::Meter;
use crate::worker_state::StateSender;

/// Acquired leases that may wait for the scheduler.
const QUEUE: usize = 64;

/// What coordination is made of.
#[derive(Debug, Clone)]
pub(crate) struct CoordinatorParts {
    pub(crate) application: String,
    pub(crate) stream: StreamName,
    pub(crate) worker_id: String,
    /// Drawn at random: tells this process from others of the same worker id.
    pub(crate) process: u64,
    pub(crate) kinesis: aws_sdk_kinesis::Client,
    pub(crate) dynamodb: aws_sdk_dynamodb::Client,
    pub(crate) config: Arc<ConsumerConfig>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) seed: u64,
    /// Told how far the start has come.
    pub(crate) states: StateSender,
    pub(crate) meter: Meter,
    /// Where failures are noted.
    pub(crate) problems: Arc<ProblemLog>,
    /// Where to run. `None`: on a thread and runtime of its own.
    pub(crate) runtime: Option<Handle>,
}

/// Owns the tasks: writers, discovery, assignment, the worker row, shard sync.
#[derive(Debug)]
pub(crate) struct Coordinator {
    shared: Arc<Shared>,
    /// Those that end when the worker leaves.
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// What drives them, unless a runtime was given. It ends when this is dropped.
    thread: Option<OwnThread>,
}

impl Coordinator {
    /// Sets up what a worker needs: the stream is there, the lease table too, and it is this stream's;
    /// the fleet's mode is settled; every shard that needs a lease has one.
    ///
    /// # Cancel safety
    /// Call it again: every step is idempotent.
    pub(crate) async fn prepare(parts: CoordinatorParts) -> Result<Self, StartError> {
        let (runtime, thread) = match parts.runtime.clone() {
            Some(runtime) => (runtime, None),
            None => {
                let thread = OwnThread::start().await.map_err(no_runtime)?;
                (thread.runtime().clone(), Some(thread))
            }
        };
        // The clients' connections live on the runtime that made them: the first call is made there.
        let executor = Arc::new(runtime.clone());
        let prepare = runtime.spawn(Box::pin(start::prepare(parts, executor)));
        let shared = match AbortOnDropHandle::new(prepare).await {
            Ok(prepared) => prepared?,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => return Err(no_runtime(error)),
        };
        let mut prepared = Self::new(shared);
        prepared.thread = thread;
        Ok(prepared)
    }

    /// On whichever executor `shared` names.
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared: Arc::new(shared), tasks: Mutex::default(), thread: None }
    }

    /// Starts the tasks. Each lease that this worker acquires comes out as a tenure. Within a runtime.
    pub(crate) fn start(&self) -> mpsc::Receiver<Tenure> {
        let (deliveries, tenures) = mpsc::channel(QUEUE);
        let shared = || Arc::clone(&self.shared);
        let (a, b, c, d) = (shared(), shared(), shared(), shared());
        let for_discovery = deliveries.clone();
        let seed = self.shared.seed;
        let tasks = [
            self.shared.spawn("worker row", async move { heartbeat::report(&a).await }),
            self.shared.spawn("discovery", async move { discover(&b, &for_discovery).await }),
            self.shared.spawn("assignment", async move { assign(&c, &deliveries).await }),
            self.shared.spawn("shard sync", async move { maintain(&d, seed).await }),
            self.shared.spawn("confirmation of what is missing", deletion_check::confirm(shared())),
        ];
        let watch = self.shared.fleet_mode.clone().map(|fleet| {
            let watch = fleet_mode::watch(shared(), fleet, seed ^ 1);
            self.shared.spawn("fleet mode", watch)
        });
        self.tasks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(tasks.into_iter().chain(watch));
        tenures
    }

    /// The first step of a planned stop: every processor is told, nothing is taken or discovered any
    /// more, and no lease begins. It makes no call. Held leases go on being renewed.
    ///
    /// `last_calls`: after how long [`out_of_time`](Self::out_of_time) will be called. Failed writes are
    /// tried again before it.
    pub(crate) fn begin_to_leave(&self, last_calls: Duration) {
        let at = self.shared.clock.now().saturating_add(last_calls);
        // Set already: a worker stops once.
        let _ = self.shared.last_calls.set(at);
        self.shared.leaving.cancel();
    }

    /// The second step: the worker's row is gone, so that no leader gives it leases, and the receivers of
    /// its leases are known.
    ///
    /// # Cancel safety
    /// Call it again.
    pub(crate) async fn leave(&self) {
        self.shared.leaving.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            // A panic was reported by the task itself.
            let _ = task.await;
        }
        let shared = Arc::clone(&self.shared);
        let withdraw = async move {
            heartbeat::withdraw(&shared).await;
            // Receivers of the leases that will be given away.
            if let Err(error) = look(&shared, true).await {
                tracing::warn!(%error, "the fleet could not be looked at before the stop");
            }
        };
        // A panic was reported by the step itself.
        let _ = self.shared.run("planned stop", withdraw).await;
    }

    /// The planned stop is about to reach its deadline: calls to the lease table that are under way are
    /// not waited for any longer, and nothing is tried again.
    pub(crate) fn out_of_time(&self) {
        self.shared.out_of_time.cancel();
    }

    /// Takes the third step of a planned stop, after every tenure has ended: passes the leases on that
    /// name this worker and that it does not process, as the settings say. Returns the leases that were
    /// passed on, by shard.
    ///
    /// # Cancel safety
    /// Call it again.
    pub(crate) async fn give_back(&self) -> Vec<(String, LeaseOutcome)> {
        let shared = Arc::clone(&self.shared);
        let give_back = async move { give_back(&shared).await };
        // A panic was reported by the step itself.
        let given = self.shared.run("planned stop", give_back).await;
        given.unwrap_or_default()
    }

    /// The last step: all tasks end where they are, and are awaited.
    pub(crate) async fn end(&self) {
        self.shared.stopped.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    /// The last two steps.
    #[cfg(test)]
    pub(crate) async fn stop(&self) {
        self.give_back().await;
        self.end().await;
    }

    /// The stream that it reads, shared with the readers.
    pub(crate) fn stream(&self) -> Arc<CurrentStream> {
        Arc::clone(&self.shared.sync.stream)
    }

    /// Where its tasks run: user code cannot block that.
    pub(crate) fn executor(&self) -> Arc<dyn Executor> {
        Arc::clone(&self.shared.executor)
    }

    /// Resolves when its own thread, if it has one, is gone: after the coordinator itself.
    pub(crate) fn thread_ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let ended = self.thread.as_ref().map(OwnThread::ended);
        async {
            if let Some(ended) = ended {
                ended.await;
            }
        }
    }

    /// Whether nothing may be acquired for now, and the others are not to be told that this worker
    /// could. Held leases go on being renewed.
    pub(crate) fn hold_back(&self, held_back: bool) {
        self.shared.held.hold_back(held_back);
        self.shared.nudge.notify_one();
    }

    /// What the latest look at the lease table showed.
    pub(crate) fn last_look(&self) -> SharedFleetView {
        self.shared.fleet.clone()
    }

    /// Resolves when coordination cannot go on.
    pub(crate) fn failed(&self) -> impl Future<Output = WorkerFailure> + Send + 'static {
        self.shared.failed()
    }
}

/// A worker that is dropped without a stop ends as in a crash: nothing is written, its leases expire.
impl Drop for Coordinator {
    fn drop(&mut self) {
        self.shared.leaving.cancel();
        self.shared.stopped.cancel();
    }
}

async fn give_back(shared: &Arc<Shared>) -> Vec<(String, LeaseOutcome)> {
    let snapshot = match look(shared, true).await {
        Ok(snapshot) => snapshot,
        Err(error) => {
            tracing::warn!(%error, "leases given to this worker meanwhile will expire");
            return Vec::new();
        }
    };
    let mut given = Vec::new();
    for lease in &snapshot.leases {
        let named = lease.owner.as_deref() == Some(&shared.worker_id);
        // A handoff that is pending to this worker is the other's to complete: forcing it would
        // fence a processor that is about to checkpoint. So is what another process of this id has.
        let idle = !lease.is_handoff_pending() && !shared.held.contains(&lease.key);
        let idle = idle && !lease.is_anothers(shared.process);
        if named
            && idle
            && !lease.has_ended()
            && let Some(outcome) = pass_on(shared, lease).await
        {
            given.push((lease.key.clone(), outcome));
        }
    }
    given
}

/// Passes one lease on. Every write is conditional on the lease's counter, so a write that arrives late
/// cannot move the lease of a later tenure. Returns `None` if the lease stays as it is.
async fn pass_on(shared: &Arc<Shared>, lease: &Lease) -> Option<LeaseOutcome> {
    let (store, me) = (&shared.store, &shared.worker_id);
    // Nothing ran here under it, so the next owner may start when this one might have.
    let quiet = shared.fleet.lock().may_start(lease, shared.clock.now());
    let on_stop = match shared.workers_take_leases() {
        true => OnStop::Release,
        false => shared.on_stop,
    };
    let to = |to: String| LeaseOutcome::HandedOver { to };
    let (moved, outcome) = match (on_stop, quiet) {
        (OnStop::Keep, true) if lease.was_released_to_owner() => return Some(LeaseOutcome::Kept),
        (OnStop::Keep, true) => (store.assign(lease, me, true).await, LeaseOutcome::Kept),
        (OnStop::HandOver, _) => match (shared.receiver(), quiet) {
            (Some(next), true) => (store.assign(lease, &next, true).await, to(next)),
            (Some(next), false) => (store.take(lease, &next).await, to(next)),
            (None, true) => (store.evict(lease).await, LeaseOutcome::Released),
            (None, false) => return None,
        },
        (OnStop::Release, true) => (store.evict(lease).await, LeaseOutcome::Released),
        // Its last owner may still be at work: it expires by itself.
        (OnStop::Keep | OnStop::Release, false) => return None,
    };
    match moved {
        Ok(moved) => moved.applied().map(|_| outcome),
        Err(error) => {
            tracing::warn!(shard = lease.shard_id(), %error, "the lease will expire");
            None
        }
    }
}

fn no_runtime(error: impl std::error::Error) -> StartError {
    StartError::NoRuntime { cause: error.to_string() }
}

#[cfg(test)]
mod tests;
