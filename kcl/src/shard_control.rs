//! Requests of the application to a running shard: to pause, to continue, to skip records, or to move to another position.

use kinesis_common::sync::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::config::ShardPosition;
use crate::seek::SeekError;
use crate::sequence::{ExtendedSequenceNumber, Span};

/// The requests of the application to one shard that the worker owns. The shard's consumer follows them between two
/// batches, and between two attempts of a batch.
#[derive(Debug, Default)]
pub(crate) struct ShardControl {
    requests: Mutex<Requests>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Requests {
    paused: bool,
    /// The records that are given up, at which the shard has stopped.
    stopped_at: Option<StoppedAt>,
    /// Records that an operator skips.
    to_skip: Vec<Span>,
    seek: Option<SeekRequest>,
    /// The shard takes no records any more.
    is_closed: bool,
}

/// Records at which a shard has stopped, because they cannot be processed.
#[derive(Debug)]
pub(crate) struct StoppedAt {
    pub(crate) spans: Vec<Span>,
    pub(crate) records: usize,
}

/// A position that the shard is to move to.
#[derive(Debug)]
pub(crate) struct SeekRequest {
    pub(crate) position: ShardPosition,
    /// Records that are not processed may be passed.
    pub(crate) allow_skip: bool,
    pub(crate) reply: oneshot::Sender<Result<(), SeekError>>,
}

impl ShardControl {
    pub(crate) fn set_paused(&self, paused: bool) {
        self.requests.lock().paused = paused;
        self.changed.notify_waiters();
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.requests.lock().paused
    }

    /// Whether nothing is to be read: the shard is paused, or has stopped at records.
    pub(crate) fn is_halted(&self) -> bool {
        self.requests.lock().is_halted()
    }

    /// Notes that the shard has stopped at records, until the application decides about them.
    /// It may have stopped at others before.
    pub(crate) fn stop_at(&self, mut records: StoppedAt) {
        {
            let mut requests = self.requests.lock();
            if let Some(before) = requests.stopped_at.take() {
                records.records += before.records;
                records.spans.extend(before.spans);
            }
            requests.stopped_at = Some(records);
        }
        self.changed.notify_waiters();
    }

    /// Lets a shard that has stopped at records try them again.
    pub(crate) fn retry_failed(&self) {
        self.requests.lock().stopped_at = None;
        self.changed.notify_waiters();
    }

    /// Lets a shard that has stopped at records skip them. Returns their number. `None`: it has not stopped.
    pub(crate) fn skip_failed(&self) -> Option<usize> {
        let records = {
            let mut requests = self.requests.lock();
            let StoppedAt { spans, records } = requests.stopped_at.take()?;
            requests.to_skip.extend(spans);
            records
        };
        self.changed.notify_waiters();
        Some(records)
    }

    /// The records that are to be skipped.
    pub(crate) fn to_skip(&self) -> Vec<Span> {
        self.requests.lock().to_skip.clone()
    }

    /// Whether the record at a position is to be skipped.
    pub(crate) fn is_to_skip(&self, position: &ExtendedSequenceNumber) -> bool {
        let requests = self.requests.lock();
        requests.to_skip.iter().any(|(first, last)| first <= position && position <= last)
    }

    /// Notes that the records up to a position are done or skipped.
    pub(crate) fn skipped_up_to(&self, position: &ExtendedSequenceNumber) {
        self.requests.lock().to_skip.retain(|(_, last)| last > position);
    }

    /// Asks for a move. It replaces one that is not done yet. After [`close`](Self::close), the request is dropped.
    pub(crate) fn seek(&self, request: SeekRequest) {
        let replaced = {
            let mut requests = self.requests.lock();
            if requests.is_closed {
                return;
            }
            requests.seek.replace(request)
        };
        if let Some(SeekRequest { reply, .. }) = replaced {
            // The caller may have been cancelled.
            let _ = reply.send(Err(SeekError::Replaced));
        }
        self.changed.notify_waiters();
    }

    /// Drops a move that is not done, and all that follow.
    pub(crate) fn close(&self) {
        let mut requests = self.requests.lock();
        requests.is_closed = true;
        requests.seek = None;
    }

    /// Takes the move that the application asks for.
    pub(crate) fn take_seek(&self) -> Option<SeekRequest> {
        self.requests.lock().seek.take()
    }

    /// Waits until the application asks for a change. `halted`: whether nothing is read now.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub(crate) async fn until_not(&self, halted: bool) {
        loop {
            // Created before the look, so that a change between the look and the wait is not missed.
            let changed = self.changed.notified();
            {
                let requests = self.requests.lock();
                if requests.is_halted() != halted || requests.seek.is_some() {
                    return;
                }
            }
            changed.await;
        }
    }
}

impl Requests {
    fn is_halted(&self) -> bool {
        self.paused || self.stopped_at.is_some()
    }
}
