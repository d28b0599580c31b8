#![doc = include_str!("metrics.md")]

#[cfg(feature = "metrics")]
pub(crate) mod facade;
#[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "a sink reads it"))]
mod names;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::names::Metric;
use crate::clock::Clock;

/// Takes what a worker measures.
pub(crate) trait Sink: Send + Sync + Debug {
    /// `shard`: `None` for what concerns the whole worker.
    fn record(&self, metric: Metric, shard: Option<&str>, value: f64);
}

/// Where a worker's measurements go. Without a sink (the default) they cost a branch each; nothing is
/// measured for each user record. Clones share the sink.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Option<Arc<dyn Sink>>);

impl Meter {
    #[cfg(feature = "metrics")]
    pub(crate) fn new(sink: impl Sink + 'static) -> Self {
        Self(Some(Arc::new(sink)))
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn put(&self, metric: Metric, shard: Option<&str>, value: f64) {
        if let Some(sink) = &self.0 {
            sink.record(metric, shard, value);
        }
    }

    /// The time that a call takes, when it is done: see [`Timer::done`].
    pub(crate) fn timer<'a>(&'a self, clock: &'a dyn Clock) -> Timer<'a> {
        let started = self.0.as_ref().map(|_| clock.now());
        Timer { meter: self, clock, started }
    }
}

/// A call whose time is taken. Dropped: nothing is recorded.
pub(crate) struct Timer<'a> {
    meter: &'a Meter,
    clock: &'a dyn Clock,
    started: Option<Duration>,
}

impl Timer<'_> {
    /// The call returned: records the time it took, and 1 for a success or 0.
    pub(crate) fn done(self, (success, time): (Metric, Metric), shard: Option<&str>, ok: bool) {
        self.meter.put(success, shard, f64::from(u8::from(ok)));
        self.took(time, shard);
    }

    /// Records the time alone.
    pub(crate) fn took(self, time: Metric, shard: Option<&str>) {
        if let Some(started) = self.started {
            let took = self.clock.now().saturating_sub(started);
            self.meter.put(time, shard, milliseconds(took));
        }
    }
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
