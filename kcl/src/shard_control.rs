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
    /// The shard has stopped at records since the consumer last looked, so what was read is to be read again.
    has_stopped: bool,
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
            requests.has_stopped = true;
        }
        self.changed.notify_waiters();
    }

    /// Whether the shard has stopped at records since the last call. The application may have decided about them already.
    pub(crate) fn take_has_stopped(&self) -> bool {
        std::mem::take(&mut self.requests.lock().has_stopped)
    }

    /// Forgets at which records the shard has stopped, and which are to be skipped.
    pub(crate) fn start_anew(&self) {
        let mut requests = self.requests.lock();
        requests.stopped_at = None;
        requests.to_skip.clear();
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
                if requests.is_halted() != halted || requests.seek.is_some() || requests.has_stopped
                {
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

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn at(number: u64) -> ExtendedSequenceNumber {
        ExtendedSequenceNumber::new(number.to_string().parse().unwrap(), 0)
    }

    #[test]
    fn a_stop_that_is_over_before_the_consumer_looks_is_noticed() {
        let control = ShardControl::default();
        assert!(control.until_not(false).now_or_never().is_none());
        control.stop_at(StoppedAt { spans: vec![(at(3), at(3))], records: 1 });
        assert_eq!(control.skip_failed(), Some(1));
        assert!(!control.is_halted());
        assert!(control.until_not(false).now_or_never().is_some());
        assert!(control.take_has_stopped() && !control.take_has_stopped());
        assert!(control.until_not(false).now_or_never().is_none());
    }

    #[test]
    fn records_of_several_stops_are_skipped_until_they_are_passed() {
        let control = ShardControl::default();
        control.stop_at(StoppedAt { spans: vec![(at(3), at(5))], records: 3 });
        control.stop_at(StoppedAt { spans: vec![(at(8), at(8))], records: 1 });
        assert_eq!(control.skip_failed(), Some(4));
        assert_eq!(control.skip_failed(), None);
        let skipped: Vec<_> = (0..10).filter(|number| control.is_to_skip(&at(*number))).collect();
        assert_eq!(skipped, [3, 4, 5, 8]);
        control.skipped_up_to(&at(5));
        assert_eq!(control.to_skip(), [(at(8), at(8))]);
        control.start_anew();
        assert_eq!(control.to_skip(), []);
    }
}
