//! Tasks whose owner awaits their result.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::FutureExt as _;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinError};
use tokio_util::task::AbortOnDropHandle;

use crate::error::WorkerError;
use crate::executor::Executor;

/// A task on an [`Executor`], as a future of its result. When it is dropped, the task is aborted.
#[derive(Debug)]
#[must_use = "a task that is dropped is aborted"]
pub(crate) struct Task<T> {
    name: &'static str,
    handle: AbortOnDropHandle<()>,
    result: oneshot::Receiver<T>,
}

impl<T: Send + 'static> Task<T> {
    pub(crate) fn spawn(
        executor: &dyn Executor,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Self {
        let (sender, result) = oneshot::channel();
        // With `map`, the task holds the work once. An `async` block would hold it twice.
        let work = work.map(move |output| {
            // If the receiver is gone, the task is being aborted.
            let _ = sender.send(output);
        });
        Self { name, handle: AbortOnDropHandle::new(executor.spawn(work.boxed())), result }
    }

    /// Returns a future of the result whose drop does not abort the task.
    pub(crate) fn detach(self) -> impl Future<Output = Result<T, WorkerError>> + Send + 'static {
        let Self { name, handle, mut result } = self;
        let handle = handle.detach();
        async move { outcome(name, handle.await, &mut result) }
    }

    /// Aborts the task, and waits until what it owned is dropped.
    pub(crate) async fn stop(mut self) {
        self.handle.abort();
        // The owner may have taken the result already, after which the handle must not be polled.
        if !self.handle.is_finished() {
            let _ = (&mut self.handle).await;
        }
    }

    pub(crate) fn abort_handle(&self) -> AbortHandle {
        self.handle.abort_handle()
    }
}

/// Resolves to an error if the task panicked, or if its runtime ended or the task was aborted.
impl<T> Future for Task<T> {
    type Output = Result<T, WorkerError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let joined = ready!(self.handle.poll_unpin(context));
        Poll::Ready(outcome(self.name, joined, &mut self.result))
    }
}

fn outcome<T>(
    name: &'static str,
    joined: Result<(), JoinError>,
    result: &mut oneshot::Receiver<T>,
) -> Result<T, WorkerError> {
    match joined {
        Ok(()) => result.try_recv().map_err(|_| WorkerError::RuntimeEnded { task: name }),
        Err(error) => Err(WorkerError::from_join(name, error)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::BoxFuture;
    use tokio::runtime::Handle;
    use tokio::task::JoinHandle;

    use super::*;

    #[tokio::test]
    async fn its_result_its_panic_and_its_abortion_come_out() {
        let spawn = |work| Task::spawn(&Handle::current(), "a test", work);
        assert_eq!(spawn(async { 7 }.boxed()).await.unwrap(), 7);
        match spawn(async { panic!("no luck") }.boxed()).await.unwrap_err() {
            WorkerError::Panicked { task, message } => {
                assert_eq!((task, message.as_str()), ("a test", "no luck"));
            }
            other => panic!("{other}"),
        }
        let task = spawn(std::future::pending().boxed());
        task.abort_handle().abort();
        assert!(matches!(task.await, Err(WorkerError::RuntimeEnded { task: "a test" })));
    }

    #[tokio::test]
    async fn it_can_be_stopped_after_its_result_was_taken() {
        let mut task = Task::spawn(&Handle::current(), "a test", async { 7 });
        assert_eq!((&mut task).await.unwrap(), 7);
        task.stop().await;
    }

    /// Notes the size of what it spawns.
    #[derive(Debug, Default)]
    struct Sizes(AtomicUsize);

    impl Executor for Sizes {
        fn spawn(&self, work: BoxFuture<'static, ()>) -> JoinHandle<()> {
            self.0.store(size_of_val(&*work), Ordering::Relaxed);
            tokio::spawn(work)
        }
    }

    #[tokio::test]
    async fn a_task_holds_its_work_once() {
        let sizes = Sizes::default();
        let large = [0_u8; 4096];
        let work = async move {
            std::future::pending::<()>().await;
            large
        };
        let size = size_of_val(&work);
        drop(Task::spawn(&sizes, "a test", work));
        let spawned = sizes.0.load(Ordering::Relaxed);
        assert!(spawned < size + 256, "{spawned} bytes for {size}");
    }

    #[tokio::test]
    async fn dropped_it_is_aborted() {
        let held = Arc::new(());
        let holds = Arc::clone(&held);
        let task = Task::spawn(&Handle::current(), "a test", async move {
            let _holds = holds;
            std::future::pending::<()>().await;
        });
        drop(task);
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
