#![doc = include_str!("metrics.md")]

#[cfg(feature = "cloudwatch")]
pub(crate) mod cloudwatch;
#[cfg(feature = "metrics")]
pub(crate) mod facade;
#[cfg_attr(
    not(all(feature = "metrics", feature = "cloudwatch")),
    allow(dead_code, reason = "each sink reads what it needs")
)]
mod names;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use kinesis_common::metrics::milliseconds;

pub(crate) use self::names::Metric;
use crate::clock::Clock;
#[cfg(feature = "cloudwatch")]
pub use crate::config::{CloudWatchConfig, MetricsDimension};
#[cfg(feature = "cloudwatch")]
pub use kinesis_common::metrics::MetricsLevel;
pub use kinesis_common::metrics::histogram::Percentiles;

/// Receives the measurements of a worker.
pub(crate) trait Sink: Send + Sync + Debug {
    /// Records a value. `shard`: `None` for a metric of the whole worker.
    fn record(&self, metric: Metric, shard: Option<&str>, value: f64);
}

/// Passes a worker's measurements to its sinks. Without a sink, which is the default, a measurement costs one branch.
/// Nothing is measured for each user record. Clones share the sinks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Option<Arc<[Arc<dyn Sink>]>>);

impl Meter {
    pub(crate) fn new(sinks: Vec<Arc<dyn Sink>>) -> Self {
        Self((!sinks.is_empty()).then(|| sinks.into()))
    }

    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn put(&self, metric: Metric, shard: Option<&str>, value: f64) {
        if let Some(sinks) = &self.0 {
            sinks.iter().for_each(|sink| sink.record(metric, shard, value));
        }
    }

    /// Starts to measure the duration of a call. See [`Timer::done`].
    pub(crate) fn timer<'a>(&'a self, clock: &'a dyn Clock) -> Timer<'a> {
        let started = self.0.as_ref().map(|_| clock.now());
        Timer { meter: self, clock, started }
    }
}

/// Measures the duration of a call. If it is dropped, nothing is recorded.
pub(crate) struct Timer<'a> {
    meter: &'a Meter,
    clock: &'a dyn Clock,
    started: Option<Duration>,
}

impl Timer<'_> {
    /// Records the duration of the call, and 1 for a success or 0 for a failure.
    pub(crate) fn done(self, (success, time): (Metric, Metric), shard: Option<&str>, ok: bool) {
        self.meter.put(success, shard, f64::from(u8::from(ok)));
        self.took(time, shard);
    }

    /// Records the duration alone.
    pub(crate) fn took(self, time: Metric, shard: Option<&str>) {
        if let Some(started) = self.started {
            let took = self.clock.now().saturating_sub(started);
            self.meter.put(time, shard, milliseconds(took));
        }
    }
}
