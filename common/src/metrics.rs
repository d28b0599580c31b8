//! What a metric is, and the adapter to the `metrics` facade. The names of the series stay with each crate.

#[cfg(feature = "metrics")]
pub mod facade;

use std::time::Duration;

/// The unit of a metric's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// A number of things.
    Count,
    /// A number of bytes.
    Bytes,
    /// A time in milliseconds.
    Milliseconds,
}

/// How the values of a metric add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The sum of the values counts.
    Counter,
    /// The last value counts.
    Gauge,
    /// Each value counts by itself.
    Distribution,
}

/// Converts a time to the values of [`Unit::Milliseconds`].
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
