//! What the application asks of a running shard: to pause, or to continue.

use kinesis_common::sync::Mutex;
use tokio::sync::Notify;

/// The wishes of the application for one shard that the worker owns. The shard's consumer follows them between two
/// batches, and between two attempts of a batch.
#[derive(Debug, Default)]
pub(crate) struct ShardControl {
    paused: Mutex<bool>,
    changed: Notify,
}

impl ShardControl {
    pub(crate) fn set_paused(&self, paused: bool) {
        *self.paused.lock() = paused;
        self.changed.notify_waiters();
    }

    pub(crate) fn is_paused(&self) -> bool {
        *self.paused.lock()
    }

    /// Waits until the shard is to pause, or until it is to continue.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub(crate) async fn until_paused(&self, paused: bool) {
        loop {
            // Created before the look, so that a change between the look and the wait is not missed.
            let changed = self.changed.notified();
            if self.is_paused() == paused {
                return;
            }
            changed.await;
        }
    }
}
