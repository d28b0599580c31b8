//! The only place that reads a clock.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

/// Time, as a worker sees it.
///
/// Fences are judged on [`now`](Self::now), so it must run on while the machine is suspended.
pub trait Clock: Send + Sync + Debug {
    /// Time since an arbitrary origin; never goes back.
    fn now(&self) -> Duration;

    /// The time of day. It may jump.
    fn wall(&self) -> SystemTime;

    /// Milliseconds since 1970, as items hold it.
    fn epoch_millis(&self) -> u64 {
        let since_epoch = self.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }
}

/// The machine's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemClock {
    #[cfg(not(target_os = "linux"))]
    _private: (),
}

#[allow(clippy::disallowed_methods, reason = "the clock module is where the ban ends")]
impl Clock for SystemClock {
    /// The boot-time clock on Linux: std's monotonic clock stops in suspend, and a fence must not.
    #[cfg(target_os = "linux")]
    fn now(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::try_from(time).unwrap_or_default()
    }

    #[cfg(not(target_os = "linux"))]
    fn now(&self) -> Duration {
        static ORIGIN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        ORIGIN.get_or_init(std::time::Instant::now).elapsed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// Tokio's clock, which a test pauses and advances. Made inside a runtime; the time of day moves with
/// it.
#[cfg(any(test, feature = "simulation"))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokioClock {
    origin: tokio::time::Instant,
    wall_origin: SystemTime,
}

#[cfg(any(test, feature = "simulation"))]
#[allow(clippy::disallowed_methods, reason = "the clock module is where the ban ends")]
impl TokioClock {
    pub(crate) fn starting_at(wall_origin: SystemTime) -> Self {
        Self { origin: tokio::time::Instant::now(), wall_origin }
    }

    /// From the real time of day on.
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self::starting_at(SystemTime::now())
    }
}

#[cfg(any(test, feature = "simulation"))]
impl Clock for TokioClock {
    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn wall(&self) -> SystemTime {
        self.wall_origin + self.now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_never_goes_back() {
        let clock = SystemClock::default();
        let readings: Vec<_> = (0..100).map(|_| clock.now()).collect();
        assert!(readings.is_sorted());
        assert!(readings[0] > Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_tokio_clock_moves_with_paused_time() {
        let clock = TokioClock::new();
        let (now, wall) = (clock.now(), clock.wall());
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(clock.now() - now, Duration::from_secs(7));
        assert_eq!(clock.wall().duration_since(wall).unwrap(), Duration::from_secs(7));
    }
}
