//! The time of a simulation: tokio's paused clock.

use std::time::{Duration, SystemTime};

use kcl::Clock;
use tokio::time::Instant;

/// The time of day at which every simulation starts, so that its trace is the same on any day.
const NOON: Duration = Duration::from_secs(1_800_000_000);

/// Tokio's clock. The time of day moves with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PausedClock(Instant);

impl PausedClock {
    /// A clock that starts now, within a runtime.
    #[allow(clippy::disallowed_methods, reason = "the time is that of a paused runtime")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }
}

impl Clock for PausedClock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + NOON + self.now()
    }
}
