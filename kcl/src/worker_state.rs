//! States in the life of a worker, and watches of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::error::{BuildError, WorkerError};

/// State in the life of a worker. The states follow one another in this order, and some last only a moment.
///
/// [`StateWatch`] takes the place of the Java library's `WorkerStateChangeListener`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum WorkerState {
    /// [`build`](crate::SchedulerBuilder::build) was not called yet. Java: `CREATED`.
    Created,
    /// Describes the stream. Java: `INITIALIZING`, as for the next two states.
    FindingStream,
    /// Describes the lease table, creates it if it is missing, and waits until it is active.
    PreparingTable,
    /// Lists the shards, and creates missing leases.
    SyncingShards,
    /// Built; [`spawn`](crate::Scheduler::spawn) starts it.
    Ready,
    /// Takes leases and processes their shards. Java: `STARTED`.
    Running,
    /// Gives its shards up: in a planned stop (`None`), or because of a failure. Java: `SHUT_DOWN_STARTED`.
    Stopping(Option<WorkerError>),
    /// Has ended: by a planned stop (`None`), or because of a failure. Last state. Java: `SHUT_DOWN`.
    Stopped(Option<WorkerError>),
    /// Could not be built. Last state.
    NotStarted(BuildError),
}

impl WorkerState {
    /// Whether no other state follows.
    pub fn is_last(&self) -> bool {
        matches!(self, Self::Stopped(_) | Self::NotStarted(_))
    }
}

/// Watch of the [`WorkerState`] of one worker. Clones are independent.
///
/// It holds the latest state only, so a slow reader may miss states that lasted a moment.
///
/// ```
/// # use kcl::{RecordBatch, RecordProcessor, ProcessorError, Scheduler, ShardContext, ShardEnd, Shutdown, WorkerState};
/// # struct Nothing;
/// # impl RecordProcessor for Nothing {
/// #     async fn process_records(&mut self, _: RecordBatch<'_>) -> Result<(), ProcessorError> { Ok(()) }
/// #     async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> { Ok(end.checkpoint().await?) }
/// #     async fn shutdown_requested(&mut self, _: Shutdown<'_>) -> Result<(), ProcessorError> { Ok(()) }
/// # }
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let aws = kinesis_testkit::LocalAws::start().await?;
/// # aws.create_stream("orders", 1).await?;
/// let builder = Scheduler::builder("billing", "orders", &aws.sdk_config())
///     .processor(|_shard: &ShardContext| Nothing);
/// let mut states = builder.watch_state();
/// tokio::spawn(async move {
///     while let Some(state) = states.next().await {
///         println!("the worker is {state:?}");
///     }
/// });
/// let worker = builder.build().await?.spawn();
/// let running = worker.watch_state().until(|state| matches!(state, WorkerState::Running)).await;
/// assert!(running.is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct StateWatch(watch::Receiver<WorkerState>);

impl StateWatch {
    /// Current state.
    pub fn current(&self) -> WorkerState {
        self.0.borrow().clone()
    }

    /// Waits for the next state. The state at the creation of the watch is not returned. Returns `None` after the last
    /// state, or if the worker was dropped before it ran.
    ///
    /// # Cancel safety
    /// Dropping the future loses no state but those that are replaced by a later one.
    pub async fn next(&mut self) -> Option<WorkerState> {
        if self.current().is_last() && matches!(self.0.has_changed(), Ok(false)) {
            return None;
        }
        self.0.changed().await.ok()?;
        Some(self.0.borrow_and_update().clone())
    }

    /// Waits for a state that `wanted` accepts, which may be the current one. Returns `None` if no such state follows.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn until(
        &mut self,
        mut wanted: impl FnMut(&WorkerState) -> bool,
    ) -> Option<WorkerState> {
        let mut state = self.0.borrow_and_update().clone();
        while !wanted(&state) {
            state = self.next().await?;
        }
        Some(state)
    }
}

/// Sender of the states of a worker.
#[derive(Debug, Clone)]
pub(crate) struct StateSender(watch::Sender<WorkerState>);

impl Default for StateSender {
    fn default() -> Self {
        Self(watch::Sender::new(WorkerState::Created))
    }
}

impl StateSender {
    /// Enters a state, unless the current one is the last.
    pub(crate) fn enter(&self, state: WorkerState) {
        self.0.send_if_modified(|current| {
            let changes = !current.is_last();
            if changes {
                tracing::debug!(?state, "worker state");
                *current = state;
            }
            changes
        });
    }

    pub(crate) fn watch(&self) -> StateWatch {
        StateWatch(self.0.subscribe())
    }
}

/// Guard in the worker's task. When the task ends for any reason, the worker enters its last state.
pub(crate) struct LastState {
    pub(crate) states: StateSender,
    /// Whether the worker was aborted.
    pub(crate) aborted: Arc<AtomicBool>,
}

impl Drop for LastState {
    fn drop(&mut self) {
        let error = if std::thread::panicking() {
            WorkerError::Panicked { task: "the worker", message: "see join()".to_owned() }
        } else if self.aborted.load(Ordering::Relaxed) {
            WorkerError::Aborted
        } else {
            WorkerError::RuntimeEnded { task: "the worker" }
        };
        self.states.enter(WorkerState::Stopped(Some(error)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_watch_shows_the_latest_state_once_and_ends_behind_the_last() {
        let states = StateSender::default();
        let (mut fast, mut slow) = (states.watch(), states.watch());
        assert!(matches!(fast.current(), WorkerState::Created));
        states.enter(WorkerState::FindingStream);
        assert!(matches!(fast.next().await, Some(WorkerState::FindingStream)));
        states.enter(WorkerState::Running);
        assert!(matches!(fast.next().await, Some(WorkerState::Running)));
        states.enter(WorkerState::Stopped(None));
        drop(LastState { states: states.clone(), aborted: Arc::default() });
        assert!(matches!(slow.until(WorkerState::is_last).await, Some(WorkerState::Stopped(None))));
        assert!(slow.next().await.is_none());
        let never = |state: &WorkerState| matches!(state, WorkerState::Ready);
        assert!(fast.until(never).await.is_none());
    }

    #[tokio::test]
    async fn a_worker_that_is_dropped_has_stopped() {
        for aborted in [true, false] {
            let states = StateSender::default();
            let mut watch = states.watch();
            drop(LastState { states, aborted: Arc::new(AtomicBool::new(aborted)) });
            match watch.next().await {
                Some(WorkerState::Stopped(Some(error))) => {
                    assert_eq!(matches!(error, WorkerError::Aborted), aborted, "{error}");
                }
                other => panic!("{other:?}"),
            }
            assert!(watch.next().await.is_none());
        }
    }
}
