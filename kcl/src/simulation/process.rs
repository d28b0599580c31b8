//! A worker's process: all its tasks can be stopped for a while, or for ever, at any await.

use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use tokio::task::{AbortHandle, JoinHandle};

use crate::clock::Clock;
use crate::executor::Executor;

/// The worker id of a process: a second one under the id of another, at the same time, has a mark at
/// the end of its name.
pub(super) fn worker_id(process: &str) -> &str {
    process.trim_end_matches(SECOND)
}

/// See [`worker_id`].
pub(super) const SECOND: char = '\'';

/// Runs the tasks of one worker.
#[derive(Debug)]
pub(super) struct Process {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    /// How far the time of day is off, in seconds.
    wall_offset: AtomicI64,
}

#[derive(Debug, Default)]
struct State {
    /// Since when it is.
    suspended: Option<Duration>,
    /// How long it was, before.
    slept: Duration,
    dead: bool,
    /// Tasks that were woken while the process was suspended.
    waiting: Vec<Waker>,
    tasks: Vec<AbortHandle>,
}

impl Process {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            clock,
            wall_offset: AtomicI64::new(0),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops all tasks where they are, or lets them go on.
    pub(super) fn suspend(&self, suspended: bool) {
        let waiting = {
            let mut state = self.state();
            let now = self.clock.now();
            if let Some(since) = state.suspended.take() {
                state.slept += now - since;
            }
            state.suspended = suspended.then_some(now);
            std::mem::take(&mut state.waiting)
        };
        for waker in waiting {
            waker.wake();
        }
    }

    /// How long it was not suspended, since an arbitrary origin.
    pub(super) fn awake(&self) -> Duration {
        self.clock.now() - self.state().slept
    }

    /// Ends all tasks where they are. What they had sent is on its way.
    pub(super) fn kill(&self) {
        let tasks = {
            let mut state = self.state();
            state.dead = true;
            std::mem::take(&mut state.tasks)
        };
        for task in tasks {
            task.abort();
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// The time of day jumps.
    pub(super) fn jump(&self, seconds: i64) {
        self.wall_offset.fetch_add(seconds, Ordering::Relaxed);
    }

    pub(super) fn run(
        self: &Arc<Self>,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        self.run_boxed(Box::pin(work))
    }

    fn run_boxed(self: &Arc<Self>, work: BoxFuture<'static, ()>) -> JoinHandle<()> {
        let task = tokio::spawn(Gated {
            process: Arc::clone(self),
            work,
        });
        self.adopt(&task);
        task
    }

    fn adopt(&self, task: &JoinHandle<()>) {
        let mut state = self.state();
        state.tasks.retain(|task| !task.is_finished());
        state.tasks.push(task.abort_handle());
        if state.dead {
            task.abort();
        }
    }
}

/// The tasks of a real worker. A process handle of its own type: the trait is the worker's.
#[derive(Debug)]
pub(super) struct InProcess(pub(super) Arc<Process>);

impl Executor for InProcess {
    fn spawn(&self, work: BoxFuture<'static, ()>) -> JoinHandle<()> {
        self.0.run_boxed(work)
    }
}

/// A future that is polled only while its process runs.
struct Gated {
    process: Arc<Process>,
    work: BoxFuture<'static, ()>,
}

impl Future for Gated {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        {
            let mut state = self.process.state();
            if state.dead {
                return Poll::Pending;
            }
            if state.suspended.is_some() {
                state.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
        }
        self.work.as_mut().poll(context)
    }
}

/// The worker's clock: true for spans of time, not always for the time of day.
impl Clock for Process {
    fn now(&self) -> Duration {
        self.clock.now()
    }

    fn wall(&self) -> SystemTime {
        let wall = self.clock.wall();
        let offset = self.wall_offset.load(Ordering::Relaxed);
        let span = Duration::from_secs(offset.unsigned_abs());
        if offset < 0 { wall - span } else { wall + span }
    }
}
