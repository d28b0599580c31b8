//! What the application asks of a running shard: to pause, to continue, or to move to another position.

use kinesis_common::sync::Mutex;
use tokio::sync::{Notify, oneshot};

use crate::config::ShardPosition;
use crate::seek::SeekError;

/// The wishes of the application for one shard that the worker owns. The shard's consumer follows them between two
/// batches, and between two attempts of a batch.
#[derive(Debug, Default)]
pub(crate) struct ShardControl {
    wishes: Mutex<Wishes>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Wishes {
    paused: bool,
    seek: Option<SeekRequest>,
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
        self.wishes.lock().paused = paused;
        self.changed.notify_waiters();
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.wishes.lock().paused
    }

    /// Asks for a move. It replaces one that is not done yet.
    pub(crate) fn seek(&self, request: SeekRequest) {
        let replaced = self.wishes.lock().seek.replace(request);
        if let Some(SeekRequest { reply, .. }) = replaced {
            // The caller may have been cancelled.
            let _ = reply.send(Err(SeekError::Replaced));
        }
        self.changed.notify_waiters();
    }

    pub(crate) fn take_seek(&self) -> Option<SeekRequest> {
        self.wishes.lock().seek.take()
    }

    /// Waits until the shard is to pause, to move, or no longer to be as it is. `paused`: it is paused.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub(crate) async fn until_not(&self, paused: bool) {
        loop {
            // Created before the look, so that a change between the look and the wait is not missed.
            let changed = self.changed.notified();
            {
                let wishes = self.wishes.lock();
                if wishes.paused != paused || wishes.seek.is_some() {
                    return;
                }
            }
            changed.await;
        }
    }
}
