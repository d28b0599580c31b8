//! The clock of a worker.

#[cfg(test)]
#[path = "../tests/support/clock.rs"]
mod tokio_clock;

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

#[cfg(test)]
pub(crate) use tokio_clock::TokioClock;

/// Clock of a worker.
///
/// The deadlines of leases are judged by [`now`](Self::now), so it must run on while the machine is suspended.
pub trait Clock: Send + Sync + Debug {
    /// Time since an arbitrary origin. It never goes back.
    fn now(&self) -> Duration;

    /// The time of day. It may jump.
    fn wall(&self) -> SystemTime;

    /// Milliseconds since 1970, in which lease items hold the time of day.
    fn epoch_millis(&self) -> u64 {
        let since_epoch = self.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Time from `now` to the next whole second of the clock.
///
/// Every shard has checks to make about once a second. If all of them wake at whole seconds, a thread wakes once for all
/// its shards, and not once for each.
pub(crate) fn until_next_second(now: Duration) -> Duration {
    Duration::from_secs(1) - Duration::from_nanos(now.subsec_nanos().into())
}

/// The machine's clocks. On Linux, [`now`](Clock::now) is the boot-time clock, which runs on in suspend.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Duration {
        kinesis_common::clock::since_boot()
    }

    fn wall(&self) -> SystemTime {
        kinesis_common::clock::wall()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_second_is_at_most_a_second_away() {
        for (now, until) in [(0, 1000), (1, 999), (999, 1), (1000, 1000), (7250, 750)] {
            let [now, until] = [now, until].map(Duration::from_millis);
            assert_eq!(until_next_second(now), until, "{now:?}");
        }
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
