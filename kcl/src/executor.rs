//! Where tasks run.

use std::fmt::Debug;

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Spawns tasks: a simulation stops and ends those of one worker by its own.
pub trait Executor: Send + Sync + Debug {
    fn spawn(&self, work: BoxFuture<'static, ()>) -> JoinHandle<()>;
}

/// Whichever runtime asks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct CurrentRuntime;

impl Executor for CurrentRuntime {
    fn spawn(&self, work: BoxFuture<'static, ()>) -> JoinHandle<()> {
        tokio::spawn(work)
    }
}

/// One runtime, whichever asks: coordination's own, one that was given, or that of the processors.
impl Executor for Handle {
    fn spawn(&self, work: BoxFuture<'static, ()>) -> JoinHandle<()> {
        Self::spawn(self, work)
    }
}
