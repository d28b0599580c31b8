//! A clock in the paused time of a test or a simulation.

use std::time::{Duration, SystemTime};

use kcl::Clock;
use tokio::time::Instant;

/// Reads Tokio's clock, which a test pauses and advances. The time of day moves with it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokioClock {
    origin: Instant,
    wall_origin: SystemTime,
}

impl TokioClock {
    /// A clock on which it is a day of January 2027 now: on any day the same, so that a seed has one
    /// trace.
    pub(crate) fn new() -> Self {
        Self::starting_at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000))
    }

    /// A clock on which the time of day is `wall` now.
    #[allow(clippy::disallowed_methods, reason = "the runtime's time is paused")]
    pub(crate) fn starting_at(wall: SystemTime) -> Self {
        Self { origin: Instant::now(), wall_origin: wall }
    }

    /// A clock of a host whose time of day is ahead of this one, or behind where `seconds` are
    /// negative.
    pub(crate) fn skewed(self, seconds: i64) -> Self {
        let by = Duration::from_secs(seconds.unsigned_abs());
        let origin = self.wall_origin;
        Self { wall_origin: if seconds < 0 { origin - by } else { origin + by }, ..self }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn wall(&self) -> SystemTime {
        self.wall_origin + self.now()
    }
}
