//! Watchdog of the processors' runtime: detects code that blocks all of its threads.

use std::time::Duration;

use crate::error::WorkerError;
use crate::executor::Executor;
use crate::task::Task;

/// Spawns an empty task on the runtime every half failover time. If the runtime does not run it within the failover
/// time, calls `report(true)`, and `report(false)` when it has run.
///
/// Returns when the runtime has ended.
pub(super) async fn watch(
    runtime: &dyn Executor,
    failover: Duration,
    mut report: impl FnMut(bool),
) -> WorkerError {
    loop {
        let mut probe = Task::spawn(runtime, "the processors", async {});
        let outcome = match tokio::time::timeout(failover, &mut probe).await {
            Ok(outcome) => outcome,
            Err(_) => {
                tracing::error!(
                    "the runtime of the processors has run nothing for the failover time: blocking \
                     code has all its threads; no more shards are taken until it runs again"
                );
                report(true);
                let outcome = probe.await;
                report(false);
                outcome
            }
        };
        if let Err(error) = outcome {
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

    /// A runtime whose tasks wait while it is blocked.
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
