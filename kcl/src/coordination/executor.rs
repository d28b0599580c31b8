//! Where the tasks of coordination run.

use std::fmt::Debug;

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// Spawns tasks: a simulation stops and ends those of one worker by its own.
pub(crate) trait Executor: Send + Sync + Debug {
    fn spawn(&self, tasks: &TaskTracker, work: BoxFuture<'static, ()>) -> JoinHandle<()>;
}

/// Whichever runtime asks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CurrentRuntime;

impl Executor for CurrentRuntime {
    fn spawn(&self, tasks: &TaskTracker, work: BoxFuture<'static, ()>) -> JoinHandle<()> {
        tasks.spawn(work)
    }
}

/// One runtime, whichever asks: coordination's own, or one that was given.
impl Executor for Handle {
    fn spawn(&self, tasks: &TaskTracker, work: BoxFuture<'static, ()>) -> JoinHandle<()> {
        tasks.spawn_on(work, self)
    }
}
