//! Handle of a running worker.

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
use crate::config::ShardPosition;
use crate::error::WorkerError;
use crate::health::Health;
use crate::lease_table::LeaseTableSnapshot;
use crate::seek::{SeekError, SkipError};
use crate::snapshot::WorkerSnapshot;
use crate::task::Task;
use crate::why_not_running::WhyNotRunning;
use crate::worker_state::{StateWatch, WorkerState};

/// Handle of a running worker. Clones are handles of the same worker.
///
/// Dropping the handle does not stop the worker. It runs until the runtime of its processors ends, it fails, or a
/// [bounded replay](crate::ConsumerConfig::until) is complete, and then gives its shards up.
#[derive(Clone)]
#[must_use = "without the handle the worker cannot be stopped"]
pub struct WorkerHandle {
    stop: Arc<watch::Sender<Option<Duration>>>,
    outcome: Shared<BoxFuture<'static, Result<ShutdownReport, WorkerError>>>,
    abort: AbortHandle,
    /// Whether [`abort`](Self::abort) was called.
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
                Err(WorkerError::RuntimeEnded { .. }) if asked.load(Ordering::Relaxed) => {
                    Err(WorkerError::Aborted)
                }
                outcome => outcome.flatten(),
            };
            thread_ended.await;
            outcome
        };
        Self { stop: Arc::new(stop), outcome: outcome.boxed().shared(), abort, aborted, view }
    }

    /// Longest time that [`shutdown`](Self::shutdown) takes after its deadline, whatever DynamoDB does: 5 s.
    pub const STOP_MARGIN: Duration = STOP_MARGIN;

    /// Stops the worker as planned. Returns within `deadline` plus [`STOP_MARGIN`](Self::STOP_MARGIN).
    ///
    /// Set `deadline` to the time between SIGTERM and SIGKILL that the orchestrator allows, minus that margin.
    ///
    /// 1. The worker cancels the [`shutdown_token`](crate::RecordBatch::shutdown_token) of every processor and delivers
    ///    no further batch. When the current batch is done, it calls
    ///    [`shutdown_requested`](crate::RecordProcessor::shutdown_requested), which can write the last checkpoint. A
    ///    [`BatchStream`](crate::BatchStream) yields no further batch, and those that it has yielded can be acknowledged.
    /// 2. Meanwhile the worker removes its row from the lease table and reads the table once. Each lease is then
    ///    transferred, released or kept, as [`on_stop`](crate::ConsumerConfig::on_stop) says, after its processor has
    ///    stopped and was dropped.
    /// 3. At the deadline, the worker aborts processors that have not returned. Their leases expire after the
    ///    [`failover_time`](crate::ConsumerConfig::failover_time), because the processors may still be at work: code
    ///    that blocks its thread cannot be aborted.
    ///
    /// If DynamoDB throttles or does not answer, checkpoints and transfers are retried until shortly before the
    /// deadline (one second, or a quarter of the deadline if that is less), but not after the lease has expired: one
    /// [`failover_time`](crate::ConsumerConfig::failover_time) after its last renewal. A lease is not renewed while it
    /// is transferred. After that, waiting checkpoints fail and the leases expire. The report tells the outcome for
    /// each shard.
    ///
    /// A second call waits for the same stop, with the deadline of the first. A processor must not await this call,
    /// because the call waits for the processor: spawn it.
    ///
    /// # Errors
    /// Reason for which the worker had ended already, or failed while it stopped.
    ///
    /// # Cancel safety
    /// If the future is dropped, the stop goes on. Call `shutdown` again to wait for it.
    pub async fn shutdown(&self, deadline: Duration) -> Result<ShutdownReport, WorkerError> {
        self.request_stop(deadline);
        self.outcome.clone().await
    }

    /// Requests a planned stop, and does not wait for it. A second request changes nothing.
    pub(super) fn request_stop(&self, deadline: Duration) {
        self.stop.send_if_modified(|requested| {
            let first = requested.is_none();
            requested.get_or_insert(deadline);
            first
        });
    }

    /// Waits until the worker and its own thread have ended. Returns the report of the planned stop, or of the end of a
    /// [bounded replay](crate::ConsumerConfig::until).
    ///
    /// A processor must not await this call: neither would ever end.
    ///
    /// # Errors
    /// Reason for which the worker ended without a planned stop.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect on the worker.
    pub async fn join(&self) -> Result<ShutdownReport, WorkerError> {
        self.outcome.clone().await
    }

    /// Pauses all shards of this worker, also those that it acquires later, until [`resume`](Self::resume).
    ///
    /// A shard pauses after its present batch, or after the present attempt if the batch fails. The worker then reads
    /// nothing of it and gives its memory back. It keeps the lease, and writes checkpoints that are due. After the pause, it
    /// continues after the last record that was processed.
    ///
    /// With a [handler](crate::SchedulerBuilder::handler), the shard pauses when the handlers at work have returned. Records that are not
    /// done are read again after the pause.
    ///
    /// Other workers of the application are not told. If a lease moves to another worker, that one processes the shard.
    /// While a shard is paused, its records may expire: the pause must be shorter than the stream's retention.
    pub fn pause(&self) {
        self.view.pause_all(true);
    }

    /// Ends [`pause`](Self::pause). Shards that were paused [by their id](Self::pause_shard) stay paused.
    pub fn resume(&self) {
        self.view.pause_all(false);
    }

    /// Pauses one shard as [`pause`](Self::pause) does, also if this worker acquires it later.
    /// [`snapshot`](Self::snapshot) shows whether it [is paused](crate::ShardSnapshot::is_paused).
    pub fn pause_shard(&self, shard_id: &str) {
        self.view.pause_shard(shard_id, true);
    }

    /// Ends [`pause_shard`](Self::pause_shard). While all shards are paused, the shard stays paused.
    ///
    /// A shard that has [stopped](crate::AfterRetries::StopShard) at records that cannot be processed tries them again, with
    /// as many attempts as the first time.
    pub fn resume_shard(&self, shard_id: &str) {
        self.view.resume_shard(shard_id);
    }

    /// Skips the records at which a shard of this worker has [stopped](crate::AfterRetries::StopShard). **They are lost to
    /// the application.** Returns their number.
    ///
    /// They are logged, counted, and reported to [`on_skipped`](crate::SchedulerBuilder::on_skipped), when the worker has
    /// read them again, perhaps more than once. If the shard moves to another worker before that, it stops there at the same records.
    ///
    /// # Errors
    /// This worker does not process the shard, or the shard has not stopped.
    pub fn skip_failed(&self, shard_id: &str) -> Result<usize, SkipError> {
        self.view.skip_failed(shard_id)
    }

    /// Moves a shard that this worker processes to another position, and waits until that is written to its lease.
    ///
    /// It takes effect after the present batch, or after the present attempt if the batch fails. So it also gets a shard
    /// past a record that can never be processed. With a [handler](crate::SchedulerBuilder::handler), it takes effect when the handlers at
    /// work have returned. The next batch begins at the position. The processor stays the same, and
    /// checkpoints that it prepared before are refused. A paused shard stays paused.
    ///
    /// `allow_skip`: whether records may be passed that are not processed. Otherwise only a position is taken of which
    /// this worker knows that all records before it are processed: before the checkpoint, or, if the library writes the
    /// checkpoints, before the last record that the processor took.
    ///
    /// A processor must not await this call, because the call waits for the processor: spawn it. The same holds for code
    /// that has a batch of [`consume`](crate::SchedulerBuilder::consume) in hand.
    ///
    /// Records of the shard's children that were processed before stay processed: a child starts when its parents end.
    ///
    /// # Errors
    /// [`SeekError`], for example if this worker does not process the shard, or the position would pass records.
    ///
    /// # Cancel safety
    /// If the future is dropped, the shard may be moved.
    pub async fn seek(
        &self,
        shard_id: &str,
        position: ShardPosition,
        allow_skip: bool,
    ) -> Result<(), SeekError> {
        self.view.seek(shard_id, position, allow_skip).await
    }

    /// Stops the worker at once, as a crash would, for tests and demonstrations. It writes no checkpoint, and its
    /// leases expire after the failover time.
    pub fn abort(&self) {
        self.aborted.store(true, Ordering::Relaxed);
        self.abort.abort();
    }

    /// Whether the worker has ended. [`join`](Self::join) may wait a moment longer, for its thread.
    pub fn is_finished(&self) -> bool {
        self.abort.is_finished()
    }

    /// State of the worker and of each shard that it owns. A worker that has ended owns no shard.
    pub fn snapshot(&self) -> WorkerSnapshot {
        self.view.snapshot()
    }

    /// Current state in the life of the worker.
    pub fn state(&self) -> WorkerState {
        self.watch_state().current()
    }

    /// Health of the worker, and the problems that it has. Makes no AWS call.
    ///
    /// Let a liveness probe restart a worker that stays [`Unhealthy`](crate::HealthStatus::Unhealthy) for longer than
    /// the outages of DynamoDB that should not cost a restart. Let an alarm call an operator for a worker that stays
    /// [`Degraded`](crate::HealthStatus::Degraded).
    pub fn health(&self) -> Health {
        self.view.health()
    }

    /// Returns a watch that follows [`state`](Self::state).
    pub fn watch_state(&self) -> StateWatch {
        self.view.states.watch()
    }

    /// All leases of the application, of this and of other workers, as this worker last read them. `None` if it has not
    /// read them yet. Makes no AWS call.
    pub fn lease_table(&self) -> Option<LeaseTableSnapshot> {
        self.view.lease_table()
    }

    /// Reason for which this worker does not process a shard of the stream, given by id. `None` if it does. Makes no
    /// AWS call.
    pub fn why_not_running(&self, shard_id: &str) -> Option<WhyNotRunning> {
        self.view.why_not_running(shard_id)
    }
}

impl fmt::Debug for WorkerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerHandle")
            .field("worker_id", &self.view.worker_id)
            .field("finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}
