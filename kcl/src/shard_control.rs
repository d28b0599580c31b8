//! Requests of the application to a running shard: to pause, to continue, or to move to another position.

use kinesis_common::sync::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::config::ShardPosition;
use crate::seek::SeekError;

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
    seek: Option<SeekRequest>,
    /// The shard takes no records any more.
    is_closed: bool,
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

    pub(crate) fn take_seek(&self) -> Option<SeekRequest> {
        self.requests.lock().seek.take()
    }

    /// Waits until the application asks for a change. `paused`: whether the shard is paused now.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub(crate) async fn until_not(&self, paused: bool) {
        loop {
            // Created before the look, so that a change between the look and the wait is not missed.
            let changed = self.changed.notified();
            {
                let requests = self.requests.lock();
                if requests.paused != paused || requests.seek.is_some() {
                    return;
                }
            }
            changed.await;
        }
    }
}
