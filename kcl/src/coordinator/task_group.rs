//! The tasks of the coordinator: where they run, how they end, and what a panic in one of them
//! does.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kinesis_common::panic_message::panic_message;
use kinesis_common::sync::until_set;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::WorkerError;
use crate::executor::Executor;
use crate::task::Task;

/// Runs tasks on one executor and takes their failures. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct TaskGroup {
    executor: Arc<dyn Executor>,
    tracker: TaskTracker,
    stopped: CancellationToken,
    /// Why coordination cannot go on.
    failure: watch::Sender<Option<WorkerError>>,
}

impl TaskGroup {
    /// `stopped`: when it is cancelled, all tasks end where they are.
    pub(super) fn new(executor: Arc<dyn Executor>, stopped: CancellationToken) -> Self {
        Self { executor, tracker: TaskTracker::new(), stopped, failure: watch::Sender::new(None) }
    }

    /// Ends the worker, because coordination cannot go on. The first failure counts.
    pub(super) fn fail(&self, failure: WorkerError) {
        self.failure.send_if_modified(|known| {
            let is_first = known.is_none();
            if is_first {
                tracing::error!(error = %failure, "coordination cannot go on");
                *known = Some(failure);
            }
            is_first
        });
    }

    /// Resolves when coordination cannot go on; never, when it stops as asked.
    pub(super) fn failed(&self) -> impl Future<Output = WorkerError> + Send + 'static {
        let mut failure = self.failure.subscribe();
        async move { until_set(&mut failure).await }
    }

    /// Runs a task. If it panics, or its runtime drops it, the worker ends with a
    /// [`WorkerError`].
    pub(super) fn spawn(
        &self,
        task: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let unfinished = Unfinished { group: self.clone(), task, is_done: false };
        let work = self.clone().caught(task, work.boxed());
        let work = async move {
            work.await;
            unfinished.finish();
        };
        self.executor.spawn(self.tracker.track_future(work).boxed());
    }

    /// Runs a step on the executor of the tasks and awaits it. A client's connections live on the
    /// runtime that made them, so a step that ran on a runtime that user code blocks would stand
    /// still. Returns `None` if the step panicked or its runtime ended; then the worker ends, too.
    ///
    /// # Cancel safety
    /// As that of the step: it is dropped, too.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        step: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let work = self.tracker.track_future(self.clone().caught(step, work.boxed()));
        Task::spawn(&*self.executor, step, work).await.ok()?
    }

    /// `None`: the work panicked, or was dropped where it was because all tasks end.
    ///
    /// The work is boxed, because each `async` function around it would take its size twice: for the argument, and for
    /// the future that it awaits.
    async fn caught<T>(self, task: &'static str, work: BoxFuture<'static, T>) -> Option<T> {
        let work = self.stopped.run_until_cancelled(work);
        match AssertUnwindSafe(work).catch_unwind().await {
            Ok(result) => result,
            Err(panic) => {
                let message = panic_message(&*panic);
                self.fail(WorkerError::Panicked { task, message });
                None
            }
        }
    }

    /// Waits until all tasks have ended. No task starts after that.
    pub(super) async fn ended(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// Ends the worker if the runtime drops the task.
struct Unfinished {
    group: TaskGroup,
    task: &'static str,
    is_done: bool,
}

impl Unfinished {
    fn finish(mut self) {
        self.is_done = true;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_done && !self.group.stopped.is_cancelled() {
            self.group.fail(WorkerError::RuntimeEnded { task: self.task });
        }
    }
}
