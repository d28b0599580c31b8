//! The one place where time and chance enter: everything else takes `now` and a generator.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Tokio's clock, so that tests under paused time drive the whole producer.
pub(crate) use tokio::time::Instant;

#[allow(clippy::disallowed_methods, reason = "the clock module")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A seed that differs between processes and calls, without a global generator.
pub(crate) fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
