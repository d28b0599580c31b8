//! A worker's process. All its tasks can be suspended or killed at any await. The tasks of its user code can also be
//! suspended or killed alone.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use kcl::Clock;
use kcl::internals::Executor;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

/// The worker id of a process. A second process under the id of a live one has a mark at the end of its name.
pub(super) fn worker_id(process: &str) -> &str {
    process.trim_end_matches(SECOND)
}

/// See [`worker_id`].
pub(super) const SECOND: char = '\'';

/// Runs the tasks of one worker.
#[derive(Debug)]
pub(super) struct Process {
    state: Mutex<State>,
    /// Cancelled when it is killed.
    ended: CancellationToken,
    /// The process of which this one is a part, and with which it is suspended and killed.
    parent: Option<Arc<Self>>,
    clock: Arc<dyn Clock>,
    /// How far the time of day is off, in seconds.
    wall_offset: AtomicI64,
}

#[derive(Default)]
struct State {
    /// The start of the current suspension.
    suspended: Option<Duration>,
    /// The sum of the earlier suspensions.
    slept: Duration,
    /// Tasks that were woken while the process was suspended.
    waiting: Vec<Waker>,
    /// Futures that were aborted meanwhile: a suspended thread drops nothing.
    aborted: Vec<BoxFuture<'static, ()>>,
    tasks: Vec<AbortHandle>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl Process {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            ended: CancellationToken::new(),
            parent: None,
            clock,
            wall_offset: AtomicI64::new(0),
        })
    }

    /// The threads of a runtime of its own within the process. They are suspended and killed with it, or alone.
    pub(super) fn runtime(self: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            ended: self.ended.child_token(),
            parent: Some(Arc::clone(self)),
            clock: Arc::clone(&self.clock),
            wall_offset: AtomicI64::new(0),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops all tasks where they are, or lets them go on.
    pub(super) fn suspend(&self, suspended: bool) {
        let (waiting, aborted) = {
            let mut state = self.state();
            let now = self.clock.now();
            if let Some(since) = state.suspended.take() {
                state.slept += now - since;
            }
            state.suspended = suspended.then_some(now);
            if suspended {
                return;
            }
            let State { waiting, aborted, .. } = &mut *state;
            (std::mem::take(waiting), std::mem::take(aborted))
        };
        for waker in waiting {
            waker.wake();
        }
        drop(aborted);
    }

    /// How long it was suspended, in all.
    pub(super) fn slept(&self) -> Duration {
        let state = self.state();
        let now = self.clock.now();
        state.slept + state.suspended.map_or(Duration::ZERO, |since| now - since)
    }

    /// How long it was not suspended, since an arbitrary origin.
    pub(super) fn awake(&self) -> Duration {
        self.clock.now() - self.slept()
    }

    /// Ends all tasks where they are. Requests that they have sent are on their way.
    pub(super) fn kill(&self) {
        self.ended.cancel();
        let (tasks, aborted) = {
            let State { tasks, aborted, .. } = &mut *self.state();
            (std::mem::take(tasks), std::mem::take(aborted))
        };
        for task in tasks {
            task.abort();
        }
        drop(aborted);
    }

    pub(super) fn is_dead(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Resolves when it is killed.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        self.ended.clone().cancelled_owned()
    }

    /// Lets the time of day jump.
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
        let task = tokio::spawn(Gated { process: Arc::clone(self), work: Some(work) });
        for process in self.lineage() {
            process.adopt(&task);
        }
        task
    }

    /// The process itself, and the one of which it is a part.
    fn lineage(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |process| process.parent.as_deref())
    }

    fn adopt(&self, task: &JoinHandle<()>) {
        let mut state = self.state();
        state.tasks.retain(|task| !task.is_finished());
        state.tasks.push(task.abort_handle());
        if self.is_dead() {
            task.abort();
        }
    }
}

/// The executor of a worker in a process. A type of its own, because the trait is the worker's.
#[derive(Debug)]
pub(super) struct InProcess(pub(super) Arc<Process>);

impl Executor for InProcess {
    fn spawn(&self, work: BoxFuture<'static, ()>) -> JoinHandle<()> {
        self.0.run_boxed(work)
    }
}

/// A future that is polled, and dropped, only while its process runs.
struct Gated {
    process: Arc<Process>,
    /// `None`: it is done.
    work: Option<BoxFuture<'static, ()>>,
}

impl Future for Gated {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.process.is_dead() {
            return Poll::Pending;
        }
        for process in self.process.lineage() {
            let mut state = process.state();
            if state.suspended.is_some() {
                state.waiting.push(context.waker().clone());
                return Poll::Pending;
            }
        }
        let Some(work) = &mut self.work else {
            return Poll::Ready(());
        };
        let done = work.as_mut().poll(context);
        if done.is_ready() {
            self.work = None;
        }
        done
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else {
            return;
        };
        if self.process.is_dead() {
            return;
        }
        for process in self.process.lineage() {
            let mut state = process.state();
            if state.suspended.is_some() {
                return state.aborted.push(work);
            }
        }
    }
}

/// The worker's clock: right for spans of time, not always for the time of day.
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
