//! The life of a coordinator: it starts the tasks, takes the steps of a planned stop, and ends.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::OptionFuture;
use kinesis_common::stream_name::StreamName;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::acquire::Acquirer;
use super::assignment::Assignment;
use super::context::{Context, PreparedWorker};
use super::deletion_check::DeletionCheck;
use super::discovery::Discovery;
use super::fleet_mode::FleetModeWatch;
use super::fleet_view::SharedFleetView;
use super::planned_stop::PlannedStop;
use super::scan::Scanner;
use super::shard_sync::ShardSyncer;
use super::start;
use super::thread::OwnThread;
use crate::clock::Clock;
use crate::config::ConsumerConfig;
use crate::current_stream::CurrentStream;
use crate::error::{StartError, WorkerError};
use crate::executor::Executor;
use crate::health::ProblemLog;
use crate::lease::HeldLease;
use crate::metrics::Meter;
use crate::service_time::ServiceClock;
use crate::shard_state::ShardShutdown;
use crate::worker_state::StateSender;

/// Acquired leases that may wait for the worker to start their consumers.
const QUEUE: usize = 64;

/// The inputs of a start.
#[derive(Debug, Clone)]
pub(crate) struct CoordinatorParts {
    pub(crate) application: String,
    pub(crate) stream: StreamName,
    pub(crate) worker_id: String,
    /// A random number that tells this process from other processes of the same worker id.
    pub(crate) process: u64,
    pub(crate) kinesis: aws_sdk_kinesis::Client,
    /// `None`: the worker has no lease table.
    pub(crate) dynamodb: Option<aws_sdk_dynamodb::Client>,
    pub(crate) config: Arc<ConsumerConfig>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) seed: u64,
    /// Receives how far the start has come.
    pub(crate) states: StateSender,
    pub(crate) meter: Meter,
    pub(crate) problems: Arc<ProblemLog>,
    /// Where the tasks run. `None`: on a thread and runtime of their own.
    pub(crate) runtime: Option<Handle>,
}

/// The tasks that decide which leases a worker holds: heartbeat, discovery, assignment, shard sync,
/// and a renewer for each lease.
#[derive(Debug)]
pub(crate) struct Coordinator {
    ctx: Arc<Context>,
    scanner: Scanner,
    /// The tasks that end when the worker leaves.
    tasks: TaskTracker,
    /// The thread that drives the tasks, unless a runtime was given. It ends when this is dropped.
    thread: Option<OwnThread>,
}

impl Coordinator {
    /// Makes ready what a worker needs: the stream exists, the lease table exists and is this
    /// stream's, the fleet's mode is known, and every shard that needs a lease has one.
    ///
    /// # Cancel safety
    /// May be called again: every step is idempotent.
    pub(crate) async fn prepare(parts: CoordinatorParts) -> Result<Self, StartError> {
        let (runtime, thread) = match parts.runtime.clone() {
            Some(runtime) => (runtime, None),
            None => {
                let thread = OwnThread::start().await.map_err(no_runtime)?;
                (thread.runtime.clone(), Some(thread))
            }
        };
        // The first call is made on the runtime of the tasks, because a client's connections live
        // on the runtime that made them.
        let executor = Arc::new(runtime.clone());
        let prepare = runtime.spawn(Box::pin(start::prepare(parts, executor)));
        let worker = match AbortOnDropHandle::new(prepare).await {
            Ok(prepared) => prepared?,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(error) => return Err(no_runtime(error)),
        };
        let mut coordinator = Self::new(worker);
        coordinator.thread = thread;
        Ok(coordinator)
    }

    /// The coordinator of a prepared worker, on the executor that the worker names.
    pub(crate) fn new(worker: PreparedWorker) -> Self {
        let ctx = Arc::new(Context::new(worker));
        let scanner = Scanner::new(Arc::clone(&ctx));
        Self { ctx, scanner, tasks: TaskTracker::new(), thread: None }
    }

    /// Starts the tasks. Returns the leases that this worker acquires. Call it within a runtime.
    pub(crate) fn start(&self) -> mpsc::Receiver<HeldLease> {
        let (sender, acquired) = mpsc::channel(QUEUE);
        let acquirer = Acquirer::new(Arc::clone(&self.ctx), sender);
        let ctx = || Arc::clone(&self.ctx);
        // It ends by itself when the worker leaves, because it awaits a write that is on its way.
        let heartbeat = self.tasks.track_future(Arc::clone(&self.scanner.heartbeat).run());
        self.ctx.tasks.spawn("the heartbeat", heartbeat);
        self.spawn("lease discovery", Discovery::new(acquirer.clone()).run());
        self.spawn("lease assignment", Assignment::new(self.scanner.clone(), acquirer).run());
        self.spawn("shard sync", ShardSyncer::new(ctx()).run());
        self.spawn("the deletion check", DeletionCheck { ctx: ctx() }.run());
        if let Some(fleet_mode) = self.ctx.worker.fleet_mode.clone() {
            self.spawn(
                "the watch of the fleet's mode",
                FleetModeWatch::new(ctx(), fleet_mode).run(),
            );
        }
        acquired
    }

    /// Runs a task until the worker leaves. Then it is dropped where it waits.
    fn spawn(&self, task: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let work = self.ctx.stop.leaving.clone().run_until_cancelled_owned(work).map(drop);
        self.ctx.tasks.spawn(task, self.tasks.track_future(work));
    }

    /// The first step of a planned stop: this worker acquires no more leases, and every processor
    /// is told. It makes no call. Held leases are still renewed.
    ///
    /// `last_calls`: the time after which [`out_of_time`](Self::out_of_time) will be called. Failed
    /// writes are tried again until then.
    pub(crate) fn begin_to_leave(&self, last_calls: Duration) {
        let at = self.ctx.worker.clock.now().saturating_add(last_calls);
        // It is set once, because a worker stops once.
        let _ = self.ctx.stop.last_calls.set(at);
        self.ctx.stop.leaving.cancel();
    }

    /// Step 2 of a planned stop: the heartbeat is removed, so that no leader assigns leases to this worker,
    /// and the receivers of its leases are known.
    ///
    /// # Cancel safety
    /// May be called again.
    pub(crate) async fn withdraw(&self) {
        self.ctx.stop.leaving.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        // The step has reported its panic itself.
        let _ = self.ctx.tasks.run("planned stop", self.planned_stop().withdraw()).await;
    }

    /// The planned stop is about to reach its deadline: calls to the lease table that are under way
    /// are not awaited any longer, and no write is tried again.
    pub(crate) fn out_of_time(&self) {
        self.ctx.stop.out_of_time.cancel();
    }

    /// Step 5 of a planned stop, after every consumer has ended: leases that name this worker and that it
    /// does not process are passed on, as the settings say. Returns what became of each, by shard.
    ///
    /// # Cancel safety
    /// May be called again.
    pub(crate) async fn pass_leases_on(&self) -> Vec<(String, ShardShutdown)> {
        // The step has reported its panic itself.
        let passed_on = self.ctx.tasks.run("planned stop", self.planned_stop().pass_leases_on());
        passed_on.await.unwrap_or_default()
    }

    fn planned_stop(&self) -> PlannedStop {
        PlannedStop { scanner: self.scanner.clone() }
    }

    /// The last step: all tasks end where they are, and are awaited.
    pub(crate) async fn end(&self) {
        self.ctx.stop.stopped.cancel();
        self.ctx.tasks.ended().await;
    }

    /// The last two steps.
    #[cfg(test)]
    pub(crate) async fn stop(&self) {
        self.pass_leases_on().await;
        self.end().await;
    }

    /// The stream that the worker reads, shared with the readers.
    pub(crate) fn stream(&self) -> Arc<CurrentStream> {
        Arc::clone(&self.ctx.worker.sync.stream)
    }

    /// The time of the service.
    pub(crate) fn service_clock(&self) -> ServiceClock {
        self.ctx.worker.service_clock.clone()
    }

    /// The executor of the tasks. User code cannot block it.
    pub(crate) fn executor(&self) -> Arc<dyn Executor> {
        Arc::clone(&self.ctx.worker.executor)
    }

    /// Resolves when the coordinator's own thread, if it has one, has ended. That is after the
    /// coordinator was dropped.
    pub(crate) fn thread_ended(&self) -> impl Future<Output = ()> + Send + 'static {
        OptionFuture::from(self.thread.as_ref().map(OwnThread::ended)).map(drop)
    }

    /// While `is_held_back`, this worker acquires no leases and shows the other workers that it has
    /// no room. Held leases are still renewed.
    pub(crate) fn hold_back(&self, is_held_back: bool) {
        self.ctx.held.hold_back(is_held_back);
        self.ctx.scan_wanted.notify_one();
    }

    /// What the worker knows of the fleet from its scans of the lease table.
    pub(crate) fn fleet_view(&self) -> SharedFleetView {
        Arc::clone(&self.ctx.fleet)
    }

    /// Resolves when coordination cannot go on.
    pub(crate) fn failed(&self) -> impl Future<Output = WorkerError> + Send + 'static {
        self.ctx.tasks.failed()
    }
}

/// A worker that is dropped without a stop ends as in a crash: it writes nothing, and its leases
/// expire.
impl Drop for Coordinator {
    fn drop(&mut self) {
        self.ctx.stop.leaving.cancel();
        self.ctx.stop.stopped.cancel();
    }
}

fn no_runtime(error: impl std::error::Error) -> StartError {
    StartError::NoRuntime { cause: error.to_string() }
}

#[cfg(test)]
mod tests;
