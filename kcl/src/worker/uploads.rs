//! The task that uploads metrics while a worker runs.

use std::time::Duration;

#[cfg(feature = "cloudwatch")]
use futures::FutureExt as _;
use futures::future::BoxFuture;
#[cfg(feature = "cloudwatch")]
use kinesis_common::metrics::cloudwatch::{Publisher, Source};
use tokio_util::sync::CancellationToken;

use crate::error::WorkerError;
use crate::executor::Executor;
#[cfg(feature = "cloudwatch")]
use crate::health::{ProblemKind, ProblemLog};
use crate::task::Task;

/// Longest time of the last upload, at the end of a planned stop.
#[cfg(feature = "cloudwatch")]
const LAST_UPLOAD: Duration = Duration::from_secs(5);

/// Uploads that have not begun.
pub(super) struct Uploads {
    work: BoxFuture<'static, ()>,
    ended: CancellationToken,
}

/// The running task. If it is dropped, nothing more is uploaded.
pub(super) struct RunningUploads {
    task: Task<()>,
    ended: CancellationToken,
}

impl Uploads {
    /// Uploads by `publisher`. Failures are noted in `problems`.
    #[cfg(feature = "cloudwatch")]
    pub(super) fn new<S: Source>(
        publisher: Publisher<S>,
        problems: std::sync::Arc<ProblemLog>,
    ) -> Self {
        let ended = CancellationToken::new();
        let publisher = publisher.on_upload(Box::new(move |result| {
            let kind = ProblemKind::MetricsUploadFailing;
            match result {
                Ok(()) => drop(problems.recovered(kind, None)),
                // The publisher has logged it.
                Err(error) => drop(problems.failed(kind, None, error)),
            }
        }));
        Self { work: publisher.run(ended.clone(), LAST_UPLOAD).boxed(), ended }
    }

    pub(super) fn start(self, executor: &dyn Executor) -> RunningUploads {
        let Self { work, ended } = self;
        RunningUploads { task: Task::spawn(executor, "the upload of metrics", work), ended }
    }
}

impl RunningUploads {
    /// Waits for the task to end before it is told to: it panicked, or its runtime ended.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub(super) async fn failed(&mut self) -> WorkerError {
        match (&mut self.task).await {
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        }
    }

    /// Uploads once more, for at most `limit`.
    pub(super) async fn end(self, limit: Duration) {
        self.ended.cancel();
        // A task that failed has ended the worker, or has nothing left to end.
        if tokio::time::timeout(limit, self.task).await.is_err() {
            tracing::warn!("the worker stopped before its last metrics were uploaded");
        }
    }
}
