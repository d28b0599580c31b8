//! What all tasks of the coordinator use: the worker, its view of the fleet, the leases that it
//! holds, and the signals of its stop.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use kinesis_common::sync::Mutex;
use tokio::sync::Notify;

use super::deletion_check::MissingResources;
use super::fleet_mode::FleetMode;
use super::fleet_view::{FleetView, SharedFleetView};
use super::held_leases::HeldLeases;
use super::task_group::TaskGroup;
use crate::clock::Clock;
use crate::config::OnStop;
use crate::executor::Executor;
use crate::health::{ProblemKind, ProblemLog};
use crate::lease::{Lease, LeaseStore, LeaseStoreError, WorkerStop};
use crate::metrics::Meter;
use crate::service_time::ServiceClock;
use crate::stream::ShardSync;

/// Time without an answer after which a call counts as failing. It is still awaited.
const LONGEST_SILENCE: Duration = Duration::from_secs(2);

/// A worker whose start has succeeded: its identity, its settings, and what it calls.
#[derive(Debug)]
pub(crate) struct PreparedWorker {
    pub(crate) id: String,
    /// Name or ARN of the stream, as given.
    pub(crate) stream: String,
    /// Tells this process from other processes of the same worker id; the same as that of the
    /// store.
    pub(crate) process: u64,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) sync: ShardSync,
    pub(crate) clock: Arc<dyn Clock>,
    /// The time of day for what workers on other hosts read.
    pub(crate) service_clock: ServiceClock,
    pub(crate) failover: Duration,
    pub(crate) max_leases: usize,
    /// Read units a second for scans at rest.
    pub(crate) table_reads: f64,
    pub(crate) on_stop: OnStop,
    pub(crate) sync_interval: Duration,
    /// Pause before the first scan: see [`first_scan_delay`](super::start::first_scan_delay).
    pub(crate) first_scan_delay: Duration,
    pub(crate) seed: u64,
    pub(crate) meter: Meter,
    pub(crate) problems: Arc<ProblemLog>,
    /// Where the fleet's mode is read from. `None`: the mode never changes, as in simulations.
    pub(crate) fleet_mode: Option<FleetMode>,
    /// Where the tasks run.
    pub(crate) executor: Arc<dyn Executor>,
}

impl PreparedWorker {
    /// True if `lease` names this worker as the owner, or as the next owner in a pending handoff,
    /// and its shard is not finished. A finished lease keeps its owner's name.
    pub(super) fn is_named_by(&self, lease: &Lease) -> bool {
        lease.owner.as_deref() == Some(&self.id) && !lease.has_ended()
    }
}

/// The worker and the state that its tasks share.
#[derive(Debug)]
pub(crate) struct Context {
    pub(super) worker: PreparedWorker,
    pub(super) fleet: SharedFleetView,
    pub(super) held: Arc<HeldLeases>,
    pub(super) stop: WorkerStop,
    pub(super) tasks: TaskGroup,
    /// Resources that a call did not find, to be confirmed.
    pub(super) missing: MissingResources,
    /// Wakes the task that scans the table: a lease or the room of this worker has changed.
    pub(super) scan_wanted: Notify,
    /// Set when the workers of the fleet take leases and discover none. Then this worker releases
    /// its leases when it stops, instead of handing them over.
    pub(super) workers_take_leases: AtomicBool,
}

impl Context {
    pub(super) fn new(worker: PreparedWorker) -> Self {
        let stop = WorkerStop::default();
        let fleet = FleetView::new(worker.id.clone(), worker.process, worker.failover);
        Self {
            fleet: Arc::new(Mutex::new(fleet)),
            held: Arc::new(HeldLeases::new(worker.max_leases)),
            tasks: TaskGroup::new(Arc::clone(&worker.executor), stop.stopped.clone()),
            missing: MissingResources::default(),
            scan_wanted: Notify::new(),
            workers_take_leases: AtomicBool::new(false),
            stop,
            worker,
        }
    }

    /// Notes a failed call to the lease table or a failed listing of shards. If the error says that
    /// the table or the stream is gone, that is confirmed: see
    /// [`DeletionCheck`](super::deletion_check::DeletionCheck).
    pub(super) fn store_failed(
        &self,
        kind: ProblemKind,
        what: &'static str,
        error: &LeaseStoreError,
    ) {
        self.missing.note(error);
        self.failed(kind, what, error);
    }

    /// Notes a failure that will be tried again.
    pub(super) fn failed(&self, kind: ProblemKind, what: &'static str, error: impl fmt::Display) {
        let noted = self.worker.problems.failed(kind, None, &error);
        if noted.log {
            tracing::warn!(%error, failures = noted.failures, "{what} failed, tried again");
        }
    }

    /// Awaits a call to the lease table. A call that is not answered is noted before it fails,
    /// because its attempts may wait for several seconds.
    ///
    /// # Cancel safety
    /// As that of the call.
    pub(super) async fn watched<T>(
        &self,
        kind: ProblemKind,
        what: &'static str,
        call: impl Future<Output = T>,
    ) -> T {
        let patience = (self.worker.failover / 4).min(LONGEST_SILENCE);
        let mut call = std::pin::pin!(call);
        let mut silent = Duration::ZERO;
        loop {
            tokio::select! {
                biased;
                answer = &mut call => return answer,
                () = tokio::time::sleep(patience) => {
                    silent += patience;
                    self.failed(kind, what, format_args!("no answer for {silent:.1?}"));
                }
            }
        }
    }
}
