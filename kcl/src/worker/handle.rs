//! A running worker, from outside.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::shards::View;
use super::shutdown::{STOP_MARGIN, ShutdownReport};
use crate::error::WorkerError;
use crate::health::Health;
use crate::lease_table::LeaseTableSnapshot;
use crate::snapshot::WorkerSnapshot;
use crate::task::Task;
use crate::why_not_running::WhyNotRunning;
use crate::worker_state::{StateWatch, WorkerState, worker_dropped};

/// A running worker. Clones are handles to the same one.
///
/// Dropping the handle does not stop the worker: it goes on until the runtime of its processors ends,
/// or until it can not. Then it gives its shards up.
#[derive(Clone)]
#[must_use = "without the handle the worker can not be stopped"]
pub struct WorkerHandle {
    stop: Arc<watch::Sender<Option<Duration>>>,
    outcome: Shared<BoxFuture<'static, Result<ShutdownReport, WorkerError>>>,
    abort: AbortHandle,
    /// By [`abort`](Self::abort).
    aborted: Arc<AtomicBool>,
    view: Arc<View>,
}

impl WorkerHandle {
    pub(super) fn new(
        view: Arc<View>,
        stop: watch::Sender<Option<Duration>>,
        task: Task<Result<ShutdownReport, WorkerError>>,
        aborted: Arc<AtomicBool>,
        thread_ended: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let abort = task.abort_handle();
        let (asked, task) = (Arc::clone(&aborted), task.detach());
        let outcome = async move {
            let outcome = match task.await {
                Err(WorkerError::RuntimeEnded { .. }) => {
                    Err(worker_dropped(asked.load(Ordering::Relaxed)))
                }
                outcome => outcome.flatten(),
            };
            thread_ended.await;
            outcome
        };
        Self { stop: Arc::new(stop), outcome: outcome.boxed().shared(), abort, aborted, view }
    }

    /// Most that [`shutdown`](Self::shutdown) takes beyond its deadline, whatever DynamoDB does: 5 s.
    pub const STOP_MARGIN: Duration = STOP_MARGIN;

    /// Planned stop. It returns within `deadline` and [`STOP_MARGIN`](Self::STOP_MARGIN): give it that much
    /// less than the time that the orchestrator leaves between SIGTERM and SIGKILL.
    ///
    /// 1. Every processor is told at once by [`RecordBatch::shutdown_token`](crate::RecordBatch::shutdown_token),
    ///    and no further batch is delivered. When the batch in hand is done,
    ///    [`shutdown_requested`](crate::RecordProcessor::shutdown_requested) is called, which may write the
    ///    last checkpoint.
    /// 2. Meanwhile the worker removes its row from the lease table, and reads the table once. Then the
    ///    leases are given away as [`on_stop`](crate::ConsumerConfig::on_stop) says, each after its
    ///    processor has stopped and was dropped.
    /// 3. Processors that have not returned after `deadline` are aborted, and their leases left to expire
    ///    after the [`failover_time`](crate::ConsumerConfig::failover_time): they may still be at work.
    ///    (Code that blocks its thread cannot be aborted: the worker ends without it.)
    ///
    /// While DynamoDB does not answer, or throttles, checkpoints are tried again, and so are the writes that
    /// give the leases away: until shortly before the deadline (a second, at most a quarter of it), and no
    /// longer than until the lease expires here, which is one
    /// [`failover_time`](crate::ConsumerConfig::failover_time) after its last renewal. A lease that is being
    /// given away is not renewed any more. After that, waiting checkpoints fail, and the leases are left to
    /// expire. The report says what became of each shard.
    ///
    /// A second call waits for the same stop; the first one's deadline counts. A processor must not
    /// wait for it, which would wait for the processor: spawn the call.
    ///
    /// # Errors
    /// The worker had ended already, or fails while it stops: why.
    ///
    /// # Cancel safety
    /// The stop goes on; call again to wait for it.
    pub async fn shutdown(&self, deadline: Duration) -> Result<ShutdownReport, WorkerError> {
        self.stop.send_if_modified(|requested| {
            let first = requested.is_none();
            requested.get_or_insert(deadline);
            first
        });
        self.outcome.clone().await
    }

    /// Waits until the worker has ended, its own thread included: `Ok` after a planned stop. Never
    /// from within a processor, which then keeps its shard for ever.
    ///
    /// # Errors
    /// Why it ended otherwise.
    ///
    /// # Cancel safety
    /// Waits only.
    pub async fn join(&self) -> Result<(), WorkerError> {
        self.outcome.clone().await.map(|_| ())
    }

    /// Stops the worker where it is, as a crash would: nothing is checkpointed or given away, its
    /// leases expire after the failover time. For tests and demonstrations.
    pub fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
        self.abort.abort();
    }

    /// Whether the worker has ended; [`join`](Self::join) may wait a moment longer, for its thread.
    pub fn is_finished(&self) -> bool {
        self.abort.is_finished()
    }

    /// What the worker is doing now; once it has ended, it owns no shard.
    pub fn snapshot(&self) -> WorkerSnapshot {
        self.view.snapshot()
    }

    /// Where the worker is in its life.
    pub fn state(&self) -> WorkerState {
        self.watch_state().current()
    }

    /// Whether the worker does its work, and what keeps it from that. It makes no call.
    ///
    /// A liveness probe restarts a worker that is
    /// [`Unhealthy`](crate::HealthStatus::Unhealthy) for longer than an outage of DynamoDB should cost a
    /// restart; a person is called for one that stays [`Degraded`](crate::HealthStatus::Degraded).
    pub fn health(&self) -> Health {
        self.view.health()
    }

    /// Follows [`state`](Self::state).
    pub fn watch_state(&self) -> StateWatch {
        self.view.states().watch()
    }

    /// All leases of the application, of this and of other workers, as this worker last read them; it
    /// makes no call. `None`: it has not read them yet.
    pub fn lease_table(&self) -> Option<LeaseTableSnapshot> {
        self.view.lease_table()
    }

    /// Why this worker is not processing a shard of the stream, by id; `None`: it is. It makes no
    /// call.
    pub fn why_not_running(&self, shard_id: &str) -> Option<WhyNotRunning> {
        self.view.why_not_running(shard_id)
    }
}

impl fmt::Debug for WorkerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerHandle")
            .field("worker_id", &self.view.worker_id())
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}
