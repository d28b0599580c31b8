//! The coordinator's own thread, with a runtime that user code cannot block.

use std::io;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The name of the thread in tools. Linux shows 15 characters of it.
const NAME: &str = "kcl-coordinator";

/// A thread that drives a runtime until this is dropped.
///
/// The thread drops the runtime itself, because dropping a runtime in async code panics.
#[derive(Debug)]
pub(super) struct OwnThread {
    pub(super) runtime: Handle,
    _end: DropGuard,
    /// Closed when the thread ends, even by a panic.
    ended: watch::Receiver<()>,
}

impl OwnThread {
    /// Starts the thread, and waits for its runtime.
    ///
    /// # Errors
    /// The limit on threads or on open files is reached.
    ///
    /// # Cancel safety
    /// The thread ends.
    pub(super) async fn start() -> io::Result<Self> {
        let (running, ended) = watch::channel(());
        let (runtime, _end) = drive(running).await?;
        Ok(Self { runtime, _end, ended })
    }

    /// Resolves when the thread has dropped all tasks and has nothing more to do.
    pub(super) fn ended(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut ended = self.ended.clone();
        async move {
            // No value is ever sent. The error says that the thread has ended.
            let _ = ended.changed().await;
        }
    }
}

/// Starts the thread, and waits for its runtime. The thread ends when the guard is dropped, or this future.
async fn drive(running: watch::Sender<()>) -> io::Result<(Handle, DropGuard)> {
    let end = CancellationToken::new();
    let (started, runtime) = oneshot::channel();
    let asked = end.clone();
    let drive = move || {
        let _running = running;
        let runtime = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                // If the start was cancelled, no receiver is left.
                let _ = started.send(Err(error));
                return;
            }
        };
        let _ = started.send(Ok(runtime.handle().clone()));
        runtime.block_on(asked.cancelled());
        // Drops all tasks without waiting for blocking work, such as the resolution of a host name.
        runtime.shutdown_background();
    };
    let end = end.drop_guard();
    std::thread::Builder::new().name(NAME.to_owned()).spawn(drive)?;
    Ok((runtime.await.map_err(io::Error::other)??, end))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn dropped_in_async_code_it_drops_its_tasks_and_ends() {
        let thread = OwnThread::start().await.unwrap();
        let held = Arc::new(());
        let holds = Arc::clone(&held);
        let task = thread.runtime.spawn(async move {
            let _holds = holds;
            std::future::pending::<()>().await;
        });
        let ended = thread.ended();
        drop(thread);
        ended.await;
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(task.await.unwrap_err().is_cancelled());
    }

    #[tokio::test]
    async fn a_start_that_is_cancelled_leaves_no_thread() {
        let (running, mut ended) = watch::channel(());
        drop(drive(running).now_or_never());
        ended.changed().await.unwrap_err();
    }
}
