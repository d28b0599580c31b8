//! Consumers of the shards that a running worker owns, and what its handle sees of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use kinesis_common::sync::Mutex;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{ConsumerConfig, OnTrimmedGap, ShardPosition};
use crate::coordinator::SharedFleetView;
use crate::error::WorkerError;
use crate::health::{Health, Problem, ProblemKind, STUCK_AFTER, ShardActivity, ShardHealth};
use crate::lease::{HeldLease, LeaseEnd};
use crate::lease_table::LeaseTableSnapshot;
use crate::metrics::{Metric, milliseconds};
use crate::replay::{ReplayLog, ReplayReport, Standing};
use crate::retrieval::ByteBudget;
use crate::seek::{SeekError, SkipError};
use crate::shard_consumer::{ShardConsumer, Worker};
use crate::shard_control::SeekRequest;
use crate::shard_state::{ShardShutdown, ShardState};
use crate::snapshot::{ShardStatus, Totals, WorkerSnapshot};
use crate::task::Task;
use crate::why_not_running::{Asker, WhyNotRunning, why_not_running};
use crate::worker_state::{StateSender, WorkerState};

/// Observable state of a worker.
#[derive(Debug)]
pub(crate) struct View {
    pub(super) worker_id: String,
    budget: Arc<ByteBudget>,
    fleet: SharedFleetView,
    pub(super) states: StateSender,
    clock: Arc<dyn Clock>,
    config: Arc<ConsumerConfig>,
    totals: Arc<Totals>,
    /// The work of a bounded replay. `None`: the worker has no bound.
    replay: Option<ReplayLog>,
    /// By a number instead of the shard, because the task of an earlier lease of the same shard may still be ending.
    /// Its processor has ended, since the coordinator does not acquire the lease again before that.
    shards: Mutex<BTreeMap<u64, Arc<ShardStatus>>>,
    /// Locked before `shards`.
    paused: Mutex<PausedShards>,
}

/// The shards that the application has paused.
#[derive(Debug, Default)]
struct PausedShards {
    all: bool,
    ids: BTreeSet<String>,
}

impl PausedShards {
    fn contains(&self, shard_id: &str) -> bool {
        self.all || self.ids.contains(shard_id)
    }
}

impl View {
    pub(crate) fn new(
        worker: &Worker,
        fleet: SharedFleetView,
        states: StateSender,
        totals: Totals,
    ) -> Self {
        Self {
            worker_id: worker.worker_id.clone(),
            budget: Arc::clone(&worker.budget),
            fleet,
            states,
            clock: Arc::clone(&worker.clock),
            config: Arc::clone(&worker.config),
            totals: Arc::new(totals),
            replay: worker.bounds.as_ref().map(|_| ReplayLog::default()),
            shards: Mutex::default(),
            paused: Mutex::default(),
        }
    }

    /// Pauses all shards, also those that the worker acquires later, or ends that.
    pub(super) fn pause_all(&self, pause: bool) {
        self.change_paused(|paused| paused.all = pause);
    }

    /// Pauses a shard, also if the worker acquires it later, or ends that.
    pub(super) fn pause_shard(&self, shard_id: &str, pause: bool) {
        self.change_paused(|paused| {
            if pause {
                paused.ids.insert(shard_id.to_owned());
            } else {
                paused.ids.remove(shard_id);
            }
        });
    }

    /// Moves a shard to another position: see [`WorkerHandle::seek`](super::WorkerHandle::seek).
    pub(super) async fn seek(
        &self,
        shard_id: &str,
        position: ShardPosition,
        allow_skip: bool,
    ) -> Result<(), SeekError> {
        let not_processing = || SeekError::NotProcessing { shard_id: shard_id.to_owned() };
        let own = self.processing(shard_id).ok_or_else(not_processing)?;
        let (reply, answer) = oneshot::channel();
        own.control().seek(SeekRequest { position, allow_skip, reply });
        // The worker may hold the status of a shard that it has given up meanwhile.
        drop(own);
        answer.await.unwrap_or_else(|_| Err(not_processing()))
    }

    /// Ends the pause of a shard, and lets it try records again at which it has stopped.
    pub(super) fn resume_shard(&self, shard_id: &str) {
        self.pause_shard(shard_id, false);
        if let Some(status) = self.processing(shard_id) {
            status.control().retry_failed();
        }
    }

    /// Skips the records at which a shard has stopped. Returns their number.
    pub(super) fn skip_failed(&self, shard_id: &str) -> Result<usize, SkipError> {
        let of_shard = || shard_id.to_owned();
        let own = self.processing(shard_id);
        let own = own.ok_or_else(|| SkipError::NotProcessing { shard_id: of_shard() })?;
        own.control().skip_failed().ok_or_else(|| SkipError::NotStopped { shard_id: of_shard() })
    }

    /// The state of a shard that this worker processes.
    fn processing(&self, shard_id: &str) -> Option<Arc<ShardStatus>> {
        let shards = self.shards.lock();
        let mut latest_first = shards.values().rev();
        let own = latest_first.find(|status| status.shard_id() == shard_id).cloned();
        own.filter(|status| status.state() == ShardState::Processing)
    }

    fn change_paused(&self, change: impl FnOnce(&mut PausedShards)) {
        let mut paused = self.paused.lock();
        change(&mut paused);
        for status in self.shards.lock().values() {
            status.control().set_paused(paused.contains(status.shard_id()));
        }
    }

    /// Notes whether code blocks all threads of the processors' runtime.
    pub(super) fn runtime_is_blocked(&self, blocked: bool) {
        let (problems, kind) = (&self.totals.problems, ProblemKind::RuntimeBlocked);
        if blocked {
            problems.failed(kind, None, "blocking code has all of its threads");
        } else {
            problems.recovered(kind, None);
        }
    }

    pub(super) fn lease_table(&self) -> Option<LeaseTableSnapshot> {
        self.fleet.lock().lease_table(self.clock.now())
    }

    pub(super) fn why_not_running(&self, shard_id: &str) -> Option<WhyNotRunning> {
        let (own, leases) = {
            let shards = self.shards.lock();
            let mut latest_first = shards.values().rev();
            let own = latest_first.find(|status| status.shard_id() == shard_id);
            (own.map(Arc::clone), shards.len())
        };
        let config = &self.config;
        let asker = Asker {
            worker_id: &self.worker_id,
            failover: config.failover_time,
            has_stopped: self.states.watch().current().is_last(),
            at_limit: leases >= config.max_leases,
            stops_at_gaps: config.on_trimmed_gap == OnTrimmedGap::StopShard,
            problems: &self.totals.problems,
            own: own.as_ref().map(|status| status.state()),
            is_paused: own.as_ref().is_some_and(|status| status.is_paused()),
            starts_at: own.and_then(|status| status.starts_at()),
        };
        why_not_running(shard_id, &asker, self.lease_table().as_ref())
    }

    /// Warns of slow processor calls, and reports the progress of each shard.
    pub(super) fn watch_over_shards(&self) {
        let limit = self.config.log_warning_for_task_after;
        let shards: Vec<_> = self.shards.lock().values().cloned().collect();
        for status in &shards {
            status.watch_over(limit);
        }
        if self.totals.meter.is_on() {
            self.measure(&shards);
        }
    }

    /// Measures what the worker's shards have in common.
    fn measure(&self, shards: &[Arc<ShardStatus>]) {
        let meter = &self.totals.meter;
        let behind = shards.iter().filter_map(|status| status.progress().lock().lag.behind()).max();
        if let Some(behind) = behind {
            meter.put(Metric::ApplicationMillisBehindLatest, None, milliseconds(behind));
        }
        let health: Vec<_> = shards.iter().map(|status| self.health_of(status)).collect();
        for (metric, activity) in [
            (Metric::IdleShards, ShardActivity::Idle),
            (Metric::WorkingShards, ShardActivity::Working),
            (Metric::SlowShards, ShardActivity::Slow),
            (Metric::StuckShards, ShardActivity::Stuck),
            (Metric::PausedShards, ShardActivity::Paused),
        ] {
            let count = health.iter().filter(|shard| shard.activity == activity).count();
            meter.put(metric, None, count as f64);
        }
    }

    fn health_of(&self, status: &ShardStatus) -> ShardHealth {
        let longest_call = self.config.log_warning_for_task_after.unwrap_or(STUCK_AFTER);
        let stops_at_gaps = self.config.on_trimmed_gap == OnTrimmedGap::StopShard;
        status.health(longest_call, stops_at_gaps)
    }

    pub(super) fn health(&self) -> Health {
        let mut problems = self.totals.problems.problems();
        let end = match self.states.watch().current() {
            WorkerState::Stopping(Some(error)) | WorkerState::Stopped(Some(error)) => {
                Some((ProblemKind::WorkerFailed, error.to_string()))
            }
            WorkerState::Stopped(None) => {
                Some((ProblemKind::WorkerStopped, "as it was asked to".to_owned()))
            }
            _ => None,
        };
        problems.extend(end.map(|(kind, cause)| Problem {
            kind,
            shard_id: None,
            cause,
            since: Duration::ZERO,
            failures: 1,
        }));
        let shards: Vec<_> = self.shards.lock().values().cloned().collect();
        let shards = shards.iter().map(|status| self.health_of(status)).collect();
        Health::new(problems, shards, self.config.failover_time)
    }

    /// Whether a bounded replay has work for this worker.
    pub(super) fn replay_standing(&self) -> Standing {
        let own = {
            let shards = self.shards.lock();
            let finished =
                |status: &Arc<ShardStatus>| (status.shard_id().to_owned(), status.is_finished());
            shards.values().map(finished).collect()
        };
        self.fleet.lock().replay_standing(&own, self.clock.now())
    }

    /// The report of a bounded replay. `None`: the worker has no bound.
    pub(super) fn replay_report(&self, is_complete: bool) -> Option<ReplayReport> {
        self.replay.as_ref().map(|replay| replay.report(is_complete))
    }

    pub(super) fn snapshot(&self) -> WorkerSnapshot {
        let shards = self.shards.lock().values().map(|status| status.snapshot()).collect();
        self.totals.snapshot(&self.worker_id, shards, self.budget.held())
    }
}

/// Number of a consumer that ended, and the state of its lease.
type Ended = (u64, Result<ShardShutdown, WorkerError>);

/// A running consumer.
struct Owned {
    held_lease: HeldLease,
    /// `None`: the lease is only relinquished.
    abort: Option<AbortHandle>,
    status: Arc<ShardStatus>,
}

/// Running consumers of a worker. They are aborted when it is dropped.
pub(super) struct Shards {
    worker: Arc<Worker>,
    view: Arc<View>,
    /// Cancelled by a planned stop when the leases of drained shards may be transferred.
    pub(super) may_relinquish: CancellationToken,
    tasks: FuturesUnordered<BoxFuture<'static, Ended>>,
    /// By the number of the ownership.
    owned: BTreeMap<u64, Owned>,
    held_leases: u64,
    random: fastrand::Rng,
}

impl Shards {
    pub(super) fn new(worker: Arc<Worker>, view: Arc<View>, seed: u64) -> Self {
        Self {
            worker,
            view,
            may_relinquish: CancellationToken::new(),
            tasks: FuturesUnordered::new(),
            owned: BTreeMap::new(),
            held_leases: 0,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.owned.is_empty()
    }

    /// Counts a lease that was just acquired. Returns the number and the status of the ownership.
    fn begin(&mut self, held_lease: &HeldLease) -> (u64, Arc<ShardStatus>) {
        // The task of an earlier lease of this shard may still be ending. Its problems are over.
        if self.owns(held_lease.shard_id()) {
            self.view.totals.problems.forget_shard(held_lease.shard_id());
        }
        let status = Arc::new(ShardStatus::new(
            held_lease.shard_id(),
            Arc::clone(held_lease.progress()),
            Arc::clone(&self.view.totals),
        ));
        let number = self.held_leases;
        self.held_leases += 1;
        let paused = self.view.paused.lock();
        status.control().set_paused(paused.contains(held_lease.shard_id()));
        self.view.shards.lock().insert(number, Arc::clone(&status));
        drop(paused);
        (number, status)
    }

    /// Relinquishes a lease that was acquired while a planned stop began. No processor is created, so the runtime of the
    /// processors is not needed.
    pub(super) fn relinquish(&mut self, held_lease: HeldLease) {
        let (number, status) = self.begin(&held_lease);
        status.processor_stopped();
        let may_relinquish = self.may_relinquish.clone();
        self.owned.insert(number, Owned { held_lease: held_lease.clone(), abort: None, status });
        let ended = async move {
            may_relinquish.cancelled().await;
            (number, Ok(held_lease.end(LeaseEnd::Relinquish).await))
        };
        self.tasks.push(ended.boxed());
        self.count(self.owned.len());
    }

    /// Starts the consumer of a lease that was just acquired.
    pub(super) fn start(&mut self, held_lease: HeldLease) {
        let (number, status) = self.begin(&held_lease);
        let consumer = ShardConsumer::new(
            Arc::clone(&self.worker),
            held_lease.clone(),
            Arc::clone(&status),
            self.may_relinquish.clone(),
            self.random.u64(..),
        );
        let executor = &*self.worker.executor;
        // Set by the consumer when it starts, or by `ended` below when it gives up waiting for that. Only the first one
        // acts.
        let begun = Arc::new(AtomicBool::new(false));
        let begins = Arc::clone(&begun);
        let run = async move {
            match begins.swap(true, Ordering::Relaxed) {
                // Boxed, because this block would take the size of the consumer twice.
                false => Box::pin(consumer.run()).await,
                true => Ok(ShardShutdown::Lost),
            }
        };
        let mut task = Task::spawn(executor, "the consumer of a shard", run);
        let patience = self.worker.config.failover_time;
        let abort = Some(task.abort_handle());
        let held = held_lease.clone();
        let owned = Owned { held_lease, abort, status };
        self.owned.insert(number, owned);
        let ended = async move {
            let in_time = tokio::time::timeout(patience, &mut task).await;
            let result = match in_time {
                Ok(result) => result,
                Err(_) if begun.swap(true, Ordering::Relaxed) => task.await,
                Err(_) => {
                    // The runtime is blocked, and this worker has processed nothing of the shard. Another worker may
                    // start on it at once.
                    tracing::warn!(
                        shard_id = held.shard_id(),
                        "the runtime of the processors is blocked: the shard did not start and is given back"
                    );
                    drop(task);
                    let outcome = held.end(LeaseEnd::Relinquish).await;
                    return (number, Ok(outcome));
                }
            };
            if result.is_err() {
                // The processor may have started threads that are still at work.
                held.abort();
                held.end(LeaseEnd::Lost).await;
            }
            (number, result.flatten())
        };
        self.tasks.push(ended.boxed());
        self.count(self.owned.len());
    }

    fn count(&self, leases: usize) {
        let meter = &self.view.totals.meter;
        meter.put(Metric::CurrentLeases, None, leases as f64);
    }

    /// Waits for a consumer to end, and returns its shard and the state of the lease. Never returns if there is no
    /// consumer.
    ///
    /// # Cancel safety
    /// Dropping the future loses no outcome.
    pub(super) async fn ended(&mut self) -> (String, Result<ShardShutdown, WorkerError>) {
        let Some((number, result)) = self.tasks.next().await else {
            return std::future::pending().await;
        };
        let owned = self.owned.remove(&number);
        self.view.shards.lock().remove(&number);
        if let (Some(replay), Some(owned)) = (&self.view.replay, &owned) {
            let has_ended = matches!(result, Ok(ShardShutdown::Ended));
            replay.note(owned.held_lease.shard_id().to_owned(), owned.status.replayed(has_ended));
        }
        self.count(self.owned.len());
        let shard_id = owned.map(|owned| owned.held_lease.shard_id().to_owned());
        let shard_id = shard_id.unwrap_or_default();
        // If this worker holds the lease again, the problems in the log belong to the new consumer.
        if !self.owns(&shard_id) {
            self.view.totals.problems.forget_shard(&shard_id);
        }
        (shard_id, result)
    }

    /// Whether a consumer of the shard runs, or is ending.
    fn owns(&self, shard_id: &str) -> bool {
        let mut owned = self.owned.values();
        owned.any(|owned| owned.held_lease.shard_id() == shard_id)
    }

    /// Aborts all consumers. Returns their leases, and whether the processor had stopped.
    pub(super) fn abort(&mut self) -> Vec<(HeldLease, bool)> {
        for owned in self.owned.values() {
            owned.abort.iter().for_each(AbortHandle::abort);
        }
        let owned = self.owned.values();
        owned.map(|owned| (owned.held_lease.clone(), owned.status.has_stopped())).collect()
    }
}

/// A worker that has ended, for any reason, owns no shard.
impl Drop for Shards {
    fn drop(&mut self) {
        self.view.shards.lock().clear();
        // If a panic of the metrics recorder ended the worker, a second one would abort the process.
        if !std::thread::panicking() {
            self.count(0);
        }
    }
}

#[cfg(test)]
mod tests;
