//! Whether the runtime of the processors runs anything.

use std::time::Duration;

use crate::error::WorkerError;
use crate::executor::Executor;
use crate::task::Task;

/// Has the runtime run a task of nothing, again and again. Tells when one was not run within the
/// failover time (`true`), and when it was at last (`false`).
///
/// Returns when the runtime has ended.
pub(super) async fn watch(
    runtime: &dyn Executor,
    failover: Duration,
    mut tell: impl FnMut(bool),
) -> WorkerError {
    loop {
        let mut beat = Task::spawn(runtime, "the processors", async {});
        let beaten = match tokio::time::timeout(failover, &mut beat).await {
            Ok(beaten) => beaten,
            Err(_) => {
                tracing::error!(
                    "the runtime of the processors has run nothing for the failover time: blocking \
                     code has all its threads; no more shards are taken until it runs again"
                );
                tell(true);
                let beaten = beat.await;
                tell(false);
                beaten
            }
        };
        if let Err(error) = beaten {
            return error;
        }
        tokio::time::sleep(failover / 2).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures::future::BoxFuture;
    use tokio::sync::watch::{Receiver, Sender};
    use tokio::task::JoinHandle;

    use super::*;

    const F: Duration = Duration::from_secs(10);

    /// Its tasks wait while it is blocked.
    #[derive(Debug)]
    struct Blockable(Receiver<bool>);

    impl Executor for Blockable {
        fn spawn(&self, work: BoxFuture<'static, ()>) -> JoinHandle<()> {
            let mut blocked = self.0.clone();
            tokio::spawn(async move {
                let _ = blocked.wait_for(|blocked| !blocked).await;
                work.await;
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_runs_nothing_for_the_failover_time_is_told_until_it_does() {
        let blocked = Sender::new(false);
        let runtime = Blockable(blocked.subscribe());
        let told = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&told);
        let watch = async move {
            watch(&runtime, F, |blocked| notes.lock().unwrap().push(blocked)).await;
        };
        let _watch = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(watch));
        let told = || told.lock().unwrap().clone();
        tokio::time::sleep(3 * F).await;
        assert_eq!(told(), [false; 0], "it runs");
        blocked.send_replace(true);
        tokio::time::sleep(F - Duration::from_secs(1)).await;
        blocked.send_replace(false);
        tokio::time::sleep(3 * F).await;
        assert_eq!(told(), [false; 0], "it was blocked for less");
        blocked.send_replace(true);
        tokio::time::sleep(2 * F).await;
        assert_eq!(told(), [true]);
        tokio::time::sleep(5 * F).await;
        assert_eq!(told(), [true], "once");
        blocked.send_replace(false);
        tokio::time::sleep(F).await;
        assert_eq!(told(), [true, false]);
    }
}
