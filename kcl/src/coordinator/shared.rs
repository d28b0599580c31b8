//! What the tasks of coordination share.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kinesis_common::panic_message::panic_message;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::acquired::Acquired;
use super::deletion_check::Existence;
use super::error::WorkerFailure;
use super::fleet_mode::FleetMode;
use super::fleet_view::{FleetView, SharedFleetView};
use super::heartbeat::RowWritten;
use super::held_leases::{Claim, HeldLeases};
use crate::clock::Clock;
use crate::config::OnStop;
use crate::executor::Executor;
use crate::health::{ProblemKind, ProblemLog};
use crate::lease::{
    ChildShard, Fleet, Lease, LeaseStore, LeaseStoreError, Outcome, RetryBudget, ShardFacts,
    Tenure, WriterContext,
};
use crate::metrics::Meter;
use crate::service_time::ServiceClock;
use crate::stream::{ListShardsError, ShardSync, SyncError};
use crate::task::Task;

/// A call that is not answered for this long counts as failing, though it is still waited for.
const LONGEST_SILENCE: Duration = Duration::from_secs(2);
/// Renewals that may lose their answers before a tenure begins.
const RENEWALS: u32 = 5;

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) worker_id: String,
    /// Tells this process from others of the same worker id; as that of the store.
    pub(crate) process: u64,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) sync: ShardSync,
    pub(crate) clock: Arc<dyn Clock>,
    /// For times that workers on other hosts read.
    pub(crate) service_clock: ServiceClock,
    pub(crate) failover: Duration,
    pub(crate) max_leases: usize,
    /// Read units a second for looks at rest.
    pub(crate) table_reads: f64,
    pub(crate) on_stop: OnStop,
    pub(crate) sync_interval: Duration,
    /// Pause before the first look at the table: see `COLD_PAUSE` in `start`.
    pub(crate) first_look: Duration,
    pub(crate) seed: u64,
    /// From 0 to 1, drawn once: how much longer than others this worker leaves free leases to a leader.
    pub(crate) leader_jitter: f64,
    row_written: Mutex<RowWritten>,
    /// The row of this worker is to be written anew.
    pub(crate) row_due: Notify,
    /// Leases that could not be acquired since the last scan was over.
    pub(crate) acquisitions_failed: AtomicU32,
    pub(crate) held: Arc<HeldLeases>,
    /// For renewals that failed.
    retries: Arc<RetryBudget>,
    pub(crate) fleet: SharedFleetView,
    pub(crate) meter: Meter,
    /// Where failures are noted.
    pub(crate) problems: Arc<ProblemLog>,
    /// Something changed: look again.
    pub(crate) nudge: Notify,
    /// A planned stop began: nothing is taken any more.
    pub(crate) leaving: CancellationToken,
    /// Cancelled shortly before the deadline of a planned stop. Leases that were not given away by then
    /// expire.
    pub(crate) out_of_time: CancellationToken,
    /// When `out_of_time` will be cancelled. Set as a planned stop begins.
    pub(crate) last_calls: Arc<OnceLock<Duration>>,
    /// Everything ends.
    pub(crate) stopped: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) executor: Arc<dyn Executor>,
    /// What calls did not find, and is being confirmed.
    pub(super) existence: Existence,
    /// Where to read the fleet's mode from. `None`: it never changes (in simulations).
    pub(crate) fleet_mode: Option<FleetMode>,
    /// The workers of the fleet take leases and discover none: a lease that is given up is released.
    pub(super) workers_take_leases: AtomicBool,
    failure: watch::Sender<Option<WorkerFailure>>,
}

/// The plain settings of [`Shared`].
#[derive(Debug)]
pub(crate) struct SharedParts {
    pub(crate) worker_id: String,
    /// Tells this process from others of the same worker id; as that of the store.
    pub(crate) process: u64,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) sync: ShardSync,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) service_clock: ServiceClock,
    pub(crate) failover: Duration,
    pub(crate) max_leases: usize,
    pub(crate) table_reads: f64,
    pub(crate) on_stop: OnStop,
    pub(crate) sync_interval: Duration,
    /// Pause before the first look at the table.
    pub(crate) first_look: Duration,
    pub(crate) seed: u64,
    pub(crate) meter: Meter,
    pub(crate) problems: Arc<ProblemLog>,
    pub(crate) fleet_mode: Option<FleetMode>,
    /// Where its tasks run.
    pub(crate) executor: Arc<dyn Executor>,
}

impl Shared {
    pub(crate) fn new(parts: SharedParts) -> Self {
        let fleet = FleetView::new(parts.worker_id.clone(), parts.process, parts.failover);
        Self {
            worker_id: parts.worker_id,
            process: parts.process,
            store: parts.store,
            sync: parts.sync,
            clock: parts.clock,
            service_clock: parts.service_clock,
            failover: parts.failover,
            max_leases: parts.max_leases,
            table_reads: parts.table_reads,
            on_stop: parts.on_stop,
            sync_interval: parts.sync_interval,
            first_look: parts.first_look,
            seed: parts.seed,
            leader_jitter: fastrand::Rng::with_seed(parts.seed).f64(),
            row_written: Mutex::default(),
            row_due: Notify::new(),
            acquisitions_failed: AtomicU32::new(0),
            held: Arc::new(HeldLeases::new(parts.max_leases)),
            retries: Arc::default(),
            fleet: SharedFleetView::new(fleet),
            meter: parts.meter,
            problems: parts.problems,
            nudge: Notify::new(),
            leaving: CancellationToken::new(),
            out_of_time: CancellationToken::new(),
            last_calls: Arc::default(),
            stopped: CancellationToken::new(),
            tasks: TaskTracker::new(),
            executor: parts.executor,
            existence: Existence::default(),
            fleet_mode: parts.fleet_mode,
            workers_take_leases: AtomicBool::new(false),
            failure: watch::Sender::new(None),
        }
    }

    pub(crate) fn row_written(&self) -> MutexGuard<'_, RowWritten> {
        self.row_written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn epoch_seconds(&self) -> u64 {
        self.service_clock.epoch_seconds()
    }

    /// Ends the worker: it cannot go on. The first failure counts.
    pub(crate) fn fail(&self, failure: WorkerFailure) {
        self.failure.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                tracing::error!(error = %failure, "coordination cannot go on");
                *known = Some(failure);
            }
            first
        });
    }

    /// Resolves when coordination cannot go on; never, when it stops as asked.
    pub(crate) fn failed(&self) -> impl Future<Output = WorkerFailure> + Send + 'static {
        let mut failure = self.failure.subscribe();
        async move {
            let found =
                failure.wait_for(Option::is_some).await.ok().and_then(|found| found.clone());
            match found {
                Some(failure) => failure,
                None => std::future::pending().await,
            }
        }
    }

    /// Runs a task of coordination; its panic ends the worker, with a word, and so does a runtime that
    /// drops it.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        task: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let unfinished = Unfinished { shared: Arc::clone(self), task, done: false };
        let work = self.caught(task, work);
        let work = async move {
            work.await;
            unfinished.finish();
        };
        self.executor.spawn(self.tasks.track_future(work).boxed())
    }

    /// Runs a step of coordination that its caller waits for, where the tasks run: a connection that
    /// was made on another runtime stands still when that one is blocked. `None`: it panicked or its
    /// runtime ended, and so does the worker.
    ///
    /// # Cancel safety
    /// As that of the step: it is dropped too.
    pub(crate) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        step: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let work = self.tasks.track_future(self.caught(step, work));
        Task::spawn(&*self.executor, step, work).await.ok()?
    }

    /// `None`: it panicked, or was dropped where it was since everything ends.
    fn caught<T>(
        self: &Arc<Self>,
        task: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = Option<T>> + Send + 'static {
        let shared = Arc::clone(self);
        async move {
            let stopped = shared.stopped.clone();
            let work = stopped.run_until_cancelled(work);
            match AssertUnwindSafe(work).catch_unwind().await {
                Ok(result) => result,
                Err(panic) => {
                    let message = panic_message(&*panic);
                    shared.fail(WorkerFailure::Panicked { task, message });
                    None
                }
            }
        }
    }

    /// Begins the tenure of a lease that this worker has just acquired, by a write sent at `sent`, and
    /// hands it out.
    pub(crate) async fn begin(
        self: &Arc<Self>,
        claim: Claim,
        lease: Lease,
        (sent, acquired): (Duration, Acquired),
        deliveries: &mpsc::Sender<Tenure>,
    ) {
        let context = WriterContext {
            worker_id: self.worker_id.clone(),
            process: self.process,
            store: Arc::clone(&self.store),
            fleet: Arc::new(Arc::clone(self)),
            clock: Arc::clone(&self.clock),
            failover: self.failover,
            on_stop: self.on_stop,
            seed: self.seed,
            leaving: self.leaving.clone(),
            out_of_time: self.out_of_time.clone(),
            last_calls: Arc::clone(&self.last_calls),
            retries: Arc::clone(&self.retries),
            problems: Arc::clone(&self.problems),
            stopped: self.stopped.clone(),
        };
        let (tenure, writer) = Tenure::begin(context, lease, sent);
        claim.fulfil(&tenure);
        tracing::info!(
            shard_id = tenure.shard_id(),
            worker_id = self.worker_id,
            former_owner = acquired.former_owner,
            why = %acquired.why,
            counter = tenure.fencing_token().counter,
            "lease acquired"
        );
        let shared = Arc::clone(self);
        let (last, key) = (tenure.downgrade(), tenure.shard_id().to_owned());
        self.spawn("lease writer", async move {
            // Removed in any case: a panic must not block the lease for ever.
            let panic = AssertUnwindSafe(writer.run()).catch_unwind().await.err();
            // An aborted processor may still be at work: nothing here takes its lease or gives it back.
            if !last.was_aborted() {
                shared.fleet.lock().lease_ended(&key, last.counter());
                shared.held.remove(&key);
            }
            shared.nudge.notify_one();
            if let Some(panic) = panic {
                std::panic::resume_unwind(panic);
            }
        });
        // If nobody listens any more, the tenure is dropped and its writer ends. A planned stop gives
        // such leases away at its end.
        let _ = self.leaving.run_until_cancelled(deliveries.send(tenure)).await;
    }

    /// Renews a lease that names this worker as its owner, and begins its tenure. `acquired`: how it came
    /// to that, if this worker took it.
    pub(crate) async fn start_on(
        self: &Arc<Self>,
        lease: &Lease,
        acquired: Option<Acquired>,
        deliveries: &mpsc::Sender<Tenure>,
    ) -> Result<(), LeaseStoreError> {
        let Some(claim) = self.held.claim(&lease.key) else {
            return Ok(());
        };
        let acquired = acquired
            .unwrap_or_else(|| Acquired::by_name(lease, &self.fleet.lock(), &self.worker_id));
        let mut lease = lease.clone();
        for _ in 0..RENEWALS {
            let sent = self.clock.now();
            match self.store.renew(&lease, &self.worker_id, None).await? {
                Outcome::Applied(lease) => {
                    self.begin(claim, lease, (sent, acquired), deliveries).await;
                    break;
                }
                // When it was renewed, and by whom, is not known: one more renewal sets the fence.
                Outcome::AppliedBefore(found) if !found.is_handoff_pending() => lease = found,
                // Somebody was faster; the next look tells.
                Outcome::AppliedBefore(_) | Outcome::ConditionFailed(_) => break,
            }
        }
        Ok(())
    }

    /// Notes an error of the lease table or the shard list. If it says that one of them is gone, that
    /// is confirmed; without them, there is nothing to go on with.
    pub(crate) fn store_failed(
        &self,
        kind: ProblemKind,
        what: &'static str,
        error: &LeaseStoreError,
    ) {
        self.existence.doubt(error);
        self.noted(kind, what, error);
    }

    /// Notes that a lease could not be acquired.
    pub(crate) fn acquisition_failed(&self, what: &'static str, error: &LeaseStoreError) {
        self.acquisitions_failed.fetch_add(1, Ordering::Relaxed);
        self.store_failed(ProblemKind::LeaseAcquisitionFailing, what, error);
    }

    pub(crate) fn noted(
        &self,
        kind: ProblemKind,
        what: &'static str,
        error: impl std::fmt::Display,
    ) {
        let noted = self.problems.failed(kind, None, &error);
        if noted.log {
            tracing::warn!(%error, failures = noted.failures, "{what} failed, tried again");
        }
    }

    /// Waits for a call to the lease table. That it is not answered is noted before it fails: its attempts
    /// may wait for several seconds.
    ///
    /// # Cancel safety
    /// As that of the call.
    pub(crate) async fn watched<T>(
        &self,
        kind: ProblemKind,
        what: &'static str,
        call: impl Future<Output = T>,
    ) -> T {
        let patience = (self.failover / 4).min(LONGEST_SILENCE);
        let mut call = std::pin::pin!(call);
        let mut silent = Duration::ZERO;
        loop {
            tokio::select! {
                biased;
                answer = &mut call => return answer,
                () = tokio::time::sleep(patience) => {
                    silent += patience;
                    self.noted(kind, what, format_args!("no answer for {silent:.1?}"));
                }
            }
        }
    }
}

/// Tells the worker of a task that its runtime dropped.
struct Unfinished {
    shared: Arc<Shared>,
    task: &'static str,
    done: bool,
}

impl Unfinished {
    fn finish(mut self) {
        self.done = true;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.done && !self.shared.stopped.is_cancelled() {
            self.shared.fail(WorkerFailure::RuntimeEnded { task: self.task });
        }
    }
}

impl Fleet for Arc<Shared> {
    fn receiver(&self) -> Option<String> {
        self.fleet.lock().next_receiver()
    }

    fn workers_take_leases(&self) -> bool {
        self.workers_take_leases.load(Ordering::Relaxed)
    }

    fn create_children<'a>(
        &'a self,
        parent: &'a Lease,
        children: Vec<ChildShard>,
    ) -> BoxFuture<'a, Result<Vec<String>, LeaseStoreError>> {
        let (sync, parent) = (self.sync.clone(), parent.clone());
        let create = async move { sync.create_children(&parent, children).await };
        self.run("child leases", create)
            .map(|result| {
                let created =
                    result.map_or(Err(LeaseStoreError::Lost), |r| r.map_err(into_store_error));
                created.inspect_err(|error| self.existence.doubt(error))
            })
            .boxed()
    }

    fn lease<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Lease>, LeaseStoreError>> {
        let (store, key) = (Arc::clone(&self.store), key.to_owned());
        self.run("parent leases", async move { store.get(&key).await })
            .map(|result| {
                let found = result.unwrap_or(Err(LeaseStoreError::Lost));
                found.inspect_err(|error| self.existence.doubt(error))
            })
            .boxed()
    }

    fn note_read_to<'a>(
        &'a self,
        key: &'a str,
        time: SystemTime,
    ) -> BoxFuture<'a, Result<(), LeaseStoreError>> {
        let (store, key) = (Arc::clone(&self.store), key.to_owned());
        let facts = ShardFacts::ReadTo(time);
        let note = async move { store.set_shard_facts(&key, facts).await.map(drop) };
        self.run("read-to note", note)
            .map(|result| result.unwrap_or(Err(LeaseStoreError::Lost)))
            .boxed()
    }

    fn changed(&self) {
        self.nudge.notify_one();
    }
}

fn into_store_error(error: SyncError) -> LeaseStoreError {
    match error {
        SyncError::Store(error) => error,
        SyncError::List(ListShardsError::Call(error)) => error.into(),
        other => LeaseStoreError::Shards(other.to_string()),
    }
}
