//! The one place where time and chance enter: everything else takes `now` and a generator.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Tokio's clock, so that tests under paused time drive the whole producer.
pub(crate) use tokio::time::Instant;

#[allow(clippy::disallowed_methods, reason = "the clock module")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A century: what is longer never comes, and a clock can still count it.
pub(crate) const NEVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// `now + delay`, for any delay.
pub(crate) fn after(now: Instant, delay: Duration) -> Instant {
    now.checked_add(delay.min(NEVER)).unwrap_or(now)
}

/// A seed that differs between processes and calls, without a global generator.
pub(crate) fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
