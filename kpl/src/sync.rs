//! The primitives that `kpl/loom` swaps for loom's, to run every interleaving of the modules that take them from here.

use std::sync::PoisonError;
pub(crate) use std::sync::atomic::AtomicBool;
pub(crate) use std::sync::{Mutex, MutexGuard, OnceLock};

/// Locks a mutex whose holders never leave it half changed, also when one panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
