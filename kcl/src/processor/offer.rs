//! What a stream offers to the application: from the offer to its acknowledgement.

use std::sync::Arc;

use kinesis_common::sync::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::StopSignals;
use crate::checkpoint::CheckpointError;
use crate::error::ProcessorError;

pub(super) const NOT_TAKEN: &str =
    "the shard is given up, and its records were not taken from the stream";
pub(super) const NOT_ACKNOWLEDGED: &str = "the records were dropped without an acknowledgement";
pub(super) const STREAM_DROPPED: &str = "the stream was dropped";

/// The answer of the application. What is dropped gets none.
#[derive(Debug)]
pub(super) enum Answer {
    /// All records are done. The sender takes the outcome of the acknowledgement.
    Done(oneshot::Sender<Result<(), CheckpointError>>),
    Failed(ProcessorError),
}

/// Records that a stream yields.
pub(crate) trait Offered {
    /// True while the shard of the records is not to be given up.
    fn is_current(&self) -> bool;
}

/// Records on their way to the stream. Their processor takes them back if the shard is given up before the stream takes
/// them.
#[derive(Debug)]
pub(crate) struct Offer<T>(Arc<Mutex<Option<T>>>);

impl<T> Clone for Offer<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Offered> Offer<T> {
    /// Takes the records for the application. `None`: their shard was given up meanwhile.
    pub(crate) fn take(&self) -> Option<T> {
        // The processor may not have noticed yet. If so, it sees that the records are dropped.
        self.0.lock().take().filter(T::is_current)
    }
}

impl<T> Offer<T> {
    /// Takes the records back. Returns false if the application has them.
    fn withdraw(&self) -> bool {
        self.0.lock().take().is_some()
    }
}

/// Records from their offer to their answer. If it is dropped before the answer, their processor was aborted: the records
/// are withdrawn, or cancelled if the application has them.
pub(super) struct Delivery<T> {
    offer: Offer<T>,
    answered: oneshot::Receiver<Answer>,
    /// Tells the application that its answer comes too late.
    cancel: CancellationToken,
    is_over: bool,
}

impl<T> Delivery<T> {
    pub(super) fn new(
        records: T,
        answered: oneshot::Receiver<Answer>,
        cancel: CancellationToken,
    ) -> Self {
        let offer = Offer(Arc::new(Mutex::new(Some(records))));
        Self { offer, answered, cancel, is_over: false }
    }

    /// Offers the records, and waits until they are acknowledged. Returns the sender of the outcome.
    ///
    /// # Errors
    /// They are not acknowledged: the application says so or drops them, the shard is to be given up before the application
    /// has them, or the stream is gone.
    pub(super) async fn acknowledged(
        &mut self,
        offers: &mpsc::Sender<Offer<T>>,
        signals: &StopSignals,
    ) -> Result<oneshot::Sender<Result<(), CheckpointError>>, ProcessorError> {
        tokio::select! {
            biased;
            _ = signals.raised() => return Err(NOT_TAKEN.into()),
            sent = offers.send(self.offer.clone()) => if sent.is_err() {
                return Err(stream_dropped(signals).await);
            },
        }
        match self.answer(signals).await? {
            Some(Answer::Done(reply)) => Ok(reply),
            Some(Answer::Failed(error)) => Err(error),
            // What the stream had not yielded is dropped with it. It has not failed.
            None if offers.is_closed() => Err(stream_dropped(signals).await),
            None => Err(NOT_ACKNOWLEDGED.into()),
        }
    }

    /// Waits for the answer. `None`: the records were dropped.
    ///
    /// # Errors
    /// The shard is to be given up, and the records were withdrawn.
    async fn answer(&mut self, signals: &StopSignals) -> Result<Option<Answer>, ProcessorError> {
        let answer = tokio::select! {
            biased;
            answer = &mut self.answered => answer,
            _ = signals.raised() => {
                if self.offer.withdraw() {
                    return Err(NOT_TAKEN.into());
                }
                // The application has the records until it answers. The deadline of the stop ends the wait.
                (&mut self.answered).await
            }
        };
        self.is_over = true;
        Ok(answer.ok())
    }
}

impl<T> Drop for Delivery<T> {
    fn drop(&mut self) {
        if !self.is_over && !self.offer.withdraw() {
            self.cancel.cancel();
        }
    }
}

/// Waits for the planned stop that the drop of the stream has requested, so that its records do not count as failed.
async fn stream_dropped(signals: &StopSignals) -> ProcessorError {
    signals.raised().await;
    STREAM_DROPPED.into()
}
