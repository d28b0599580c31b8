//! What a worker offers to the application, as a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{FusedStream, Stream};
use tokio::sync::mpsc;

use super::handle::WorkerHandle;
use super::shutdown::ShutdownReport;
use crate::error::WorkerError;
use crate::processor::{Offer, Offered};

/// Yields what the shards of a worker offer, until the worker has ended.
pub(super) struct WorkerStream<T> {
    offers: mpsc::Receiver<Offer<T>>,
    worker: WorkerHandle,
    /// `None`: the stream has ended.
    outcome: Option<BoxFuture<'static, Result<ShutdownReport, WorkerError>>>,
    /// Deadline of the planned stop that follows the drop of the stream.
    stop_within: Duration,
}

impl<T> WorkerStream<T> {
    pub(super) fn new(
        offers: mpsc::Receiver<Offer<T>>,
        worker: WorkerHandle,
        stop_within: Duration,
    ) -> Self {
        let handle = worker.clone();
        let outcome = async move { handle.join().await }.boxed();
        Self { offers, worker, outcome: Some(outcome), stop_within }
    }

    pub(super) fn worker(&self) -> &WorkerHandle {
        &self.worker
    }
}

impl<T: Offered> Stream for WorkerStream<T> {
    type Item = Result<T, WorkerError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.outcome.is_none() {
            return Poll::Ready(None);
        }
        while let Poll::Ready(Some(offer)) = self.offers.poll_recv(context) {
            if let Some(taken) = offer.take() {
                return Poll::Ready(Some(Ok(taken)));
            }
        }
        // The worker decides about the end, because it may have no shard at times.
        let Some(outcome) = &mut self.outcome else { return Poll::Ready(None) };
        let outcome = ready!(outcome.poll_unpin(context));
        self.outcome = None;
        Poll::Ready(outcome.err().map(Err))
    }
}

impl<T: Offered> FusedStream for WorkerStream<T> {
    fn is_terminated(&self) -> bool {
        self.outcome.is_none()
    }
}

/// Stops the worker.
impl<T> Drop for WorkerStream<T> {
    fn drop(&mut self) {
        self.worker.request_stop(self.stop_within);
    }
}
