//! A mutex that a panic does not poison, and the wait for a value of another task.

use std::sync::{MutexGuard, PoisonError, TryLockError};

use tokio::sync::watch;

/// A mutex for state that is valid at any time: each holder changes it by assignments and single operations of a
/// collection. So a panic of a holder leaves it valid, and later holders go on with it.
#[derive(Debug, Default)]
pub struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// A mutex that guards `value`.
    pub const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Locks the state, even if an earlier holder panicked. Blocks while another thread holds it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a thread holds the lock, for tests of what runs under it.
    pub fn is_locked(&self) -> bool {
        matches!(self.0.try_lock(), Err(TryLockError::WouldBlock))
    }
}

/// Waits until the watched value is set. Never returns if the sender is gone.
///
/// # Cancel safety
/// Dropping the future has no effect.
pub async fn until_set<T: Clone>(watched: &mut watch::Receiver<Option<T>>) -> T {
    match watched.wait_for(Option::is_some).await.ok().and_then(|value| value.clone()) {
        Some(value) => value,
        None => std::future::pending().await,
    }
}
