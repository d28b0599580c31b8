//! Executors of tasks.

use std::fmt::Debug;

use futures::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Spawns tasks. A simulation has an executor of its own for each worker, which it can stop and end.
pub trait Executor: Send + Sync + Debug {
    fn spawn(&self, work: BoxFuture<'static, ()>) -> JoinHandle<()>;
}

/// Spawns tasks on one runtime: that of the coordination or that of the processors.
impl Executor for Handle {
    fn spawn(&self, work: BoxFuture<'static, ()>) -> JoinHandle<()> {
        Self::spawn(self, work)
    }
}
