//! The clocks of the machine and its source of chance.
//!
//! No other module of `kpl` and `kcl` reads them. All other code takes the time and a seeded generator as
//! arguments, so that tests and simulations can drive both.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime};

pub use tokio::time::Instant;

/// A century: a delay of this length never ends in practice, and a clock can still add it.
pub const NEVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Reads Tokio's clock, which a test can pause and advance.
#[allow(clippy::disallowed_methods, reason = "the clock module")]
pub fn now() -> Instant {
    Instant::now()
}

/// Returns `now + delay`, for a delay of any length. A delay longer than [`NEVER`] counts as that.
pub fn after(now: Instant, delay: Duration) -> Instant {
    now.checked_add(delay.min(NEVER)).unwrap_or(now)
}

/// Reads the time since the machine booted. It never goes back, and runs on while the machine is
/// suspended. The monotonic clock of std stops then.
#[cfg(target_os = "linux")]
pub fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}

/// Reads the time since the first call. It never goes back.
#[cfg(not(target_os = "linux"))]
#[allow(clippy::disallowed_methods, reason = "the clock module")]
pub fn since_boot() -> Duration {
    static ORIGIN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    ORIGIN.get_or_init(std::time::Instant::now).elapsed()
}

/// Reads the time of day. It may jump.
#[allow(clippy::disallowed_methods, reason = "the clock module")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}

/// Returns a seed that differs between processes and between calls.
pub fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_since_boot_never_goes_back() {
        let readings: Vec<_> = (0..100).map(|_| since_boot()).collect();
        assert!(readings.is_sorted());
        assert!(readings[0] > Duration::ZERO || cfg!(not(target_os = "linux")));
    }

    #[tokio::test(start_paused = true)]
    async fn any_delay_can_be_added() {
        let start = now();
        assert_eq!(after(start, Duration::from_secs(7)), start + Duration::from_secs(7));
        assert_eq!(after(start, Duration::MAX), start + NEVER);
    }

    #[test]
    fn seeds_differ() {
        assert_ne!(random_seed(), random_seed());
    }
}
