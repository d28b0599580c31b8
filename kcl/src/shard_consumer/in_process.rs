//! The records of a handler that are in process: what the consumer does with them between two pages.

use std::sync::Arc;
use std::time::SystemTime;

use super::ShardConsumer;
use crate::error::WorkerError;
use crate::processor::{Batch, InFlight, Incoming};
use crate::sequence::SequenceNumber;

/// The window of a handler, and the page that is being admitted to it. Other processors are done with a page when their
/// call returns. They have no window, and nothing is ever in process here.
pub(super) struct InProcess<'a> {
    window: Option<&'a Arc<InFlight>>,
    incoming: Option<Incoming>,
}

impl<'a> InProcess<'a> {
    pub(super) fn new(window: Option<&'a Arc<InFlight>>) -> Self {
        Self { window, incoming: None }
    }

    /// Whether the processor has a window.
    pub(super) fn is_some(&self) -> bool {
        self.window.is_some()
    }

    /// Whether records of a page wait for room in the window.
    pub(super) fn is_admitting(&self) -> bool {
        self.incoming.is_some()
    }

    /// Admits the page in hand.
    ///
    /// # Cancel safety
    /// A call that is dropped loses no record.
    pub(super) async fn admit(&mut self) {
        if let (Some(window), Some(incoming)) = (self.window, &mut self.incoming) {
            window.admit(incoming).await;
        }
        self.incoming = None;
    }

    /// True if all records that were read are done.
    pub(super) fn is_all_done(&self) -> bool {
        self.incoming.is_none() && self.window.is_none_or(|window| window.is_all_done())
    }

    /// Whether more records are done than at the last call.
    pub(super) fn take_progress(&self) -> bool {
        self.window.is_some_and(|window| window.take_progress())
    }

    /// The error that ends the worker, if a handler returned one.
    pub(super) fn take_fatal(&self) -> Option<WorkerError> {
        self.window.and_then(|window| window.take_fatal())
    }

    /// Waits for the handlers at work, and drops the records that are not done. They are to be read again.
    pub(super) async fn interrupt(&mut self) {
        self.incoming = None;
        if let Some(window) = self.window {
            window.interrupt().await;
        }
    }

    /// Forgets what is done, because the shard was moved.
    pub(super) fn moved(&self) {
        if let Some(window) = self.window {
            window.moved();
        }
    }
}

/// Waits until more records are done.
pub(super) async fn progressed(window: Option<&InFlight>) {
    match window {
        Some(window) => window.progressed().await,
        None => std::future::pending().await,
    }
}

impl ShardConsumer {
    /// Takes a page for the window. `last`: its last record, and the time of its arrival.
    pub(super) fn take_in(
        &self,
        batch: Batch,
        last: Option<(SequenceNumber, Option<SystemTime>)>,
        in_process: &mut InProcess<'_>,
    ) {
        // A page of aggregates may have no record to process.
        if batch.len() > 0 {
            self.status.first_delivery(batch.arrivals());
            self.held_lease.record_bytes(batch.payload_bytes() as u64);
        }
        if let Some(last) = last {
            let end = batch.span().map(|(_, end)| end);
            self.held_lease.progress().lock().page_in_process(last, end);
        }
        in_process.incoming = Some(Incoming::from(batch));
    }
}
