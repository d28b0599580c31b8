//! The only place that reads a clock, and the clocks a test can put in its stead.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::time::Instant;

/// The time of day, as the embedded services see it.
///
/// Arrival timestamps, retention, the expiry of iterators and subscriptions, throughput limits,
/// resharding durations and the times of faults are judged on it. Any `Fn() -> SystemTime` is a
/// clock; [`ManualClock`] stands still until a test moves it, [`TokioClock`] follows tokio's time,
/// paused or not.
pub trait Clock: Send + Sync + 'static {
    /// The time now. Milliseconds count; finer parts are dropped.
    fn now(&self) -> SystemTime;
}

impl<F: Fn() -> SystemTime + Send + Sync + 'static> Clock for F {
    fn now(&self) -> SystemTime {
        self()
    }
}

/// The system's time of day: the default.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the system's clock")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// The first second of 2026, UTC, in milliseconds since 1970: where a test's clock starts.
const FIRST_OF_2026: u64 = 1_767_225_600_000;

/// A clock that moves only when told to. Clones share one time.
///
/// ```
/// use kinesis_testkit::{Clock, ManualClock};
/// use std::time::Duration;
///
/// let clock = ManualClock::default();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(24 * 3600));
/// assert_eq!(clock.now().duration_since(before).unwrap(), Duration::from_secs(24 * 3600));
/// ```
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock that stands at `start`.
    pub fn new(start: SystemTime) -> Self {
        Self(Arc::new(AtomicU64::new(Timestamp::from(start).millis())))
    }

    /// Moves the clock forward. Parts finer than a millisecond are dropped.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    /// A clock that stands at the first second of 2026, UTC.
    fn default() -> Self {
        Self(Arc::new(AtomicU64::new(FIRST_OF_2026)))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> SystemTime {
        Timestamp(self.0.load(Ordering::SeqCst)).into()
    }
}

/// A clock that moves with the tokio time of one runtime: where that is paused, a test's
/// `sleep` or `advance` moves it too. It tells the same time on every thread.
///
/// With [`LocalAws::in_process_config`](crate::LocalAws::in_process_config), the services, the SDK
/// and the code under test then live in one time, and a day passes as soon as everyone waits for it.
#[derive(Debug, Clone)]
pub struct TokioClock {
    runtime: Handle,
    origin: Instant,
    start: SystemTime,
}

impl TokioClock {
    /// The clock of the runtime this is called in, which shows the first second of 2026, UTC, now.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, as [`Handle::current`].
    pub fn current() -> Self {
        Self::starting_at(Timestamp(FIRST_OF_2026).into())
    }

    /// The clock of the runtime this is called in, which shows `start` now.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, as [`Handle::current`].
    pub fn starting_at(start: SystemTime) -> Self {
        let runtime = Handle::current();
        Self { origin: tokio_now(&runtime), runtime, start }
    }
}

impl Clock for TokioClock {
    fn now(&self) -> SystemTime {
        self.start + tokio_now(&self.runtime).saturating_duration_since(self.origin)
    }
}

/// A runtime's time, on whatever thread it is asked for.
#[allow(clippy::disallowed_methods, reason = "the one place that reads tokio's clock")]
fn tokio_now(runtime: &Handle) -> Instant {
    let _in_runtime = runtime.enter();
    Instant::now()
}

/// Milliseconds since 1970: the resolution Kinesis keeps.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
pub(crate) struct Timestamp(u64);

impl Timestamp {
    pub(crate) const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    pub(crate) const fn millis(self) -> u64 {
        self.0
    }

    pub(crate) const fn seconds(self) -> u64 {
        self.0 / 1000
    }

    pub(crate) fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    pub(crate) fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX)))
    }

    /// Milliseconds from `earlier` to `self`; 0 if `earlier` is later.
    pub(crate) const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        Self::UNIX_EPOCH + Duration::from_millis(time.0)
    }
}
