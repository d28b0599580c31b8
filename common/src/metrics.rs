//! What a metric is, and the adapters to the `metrics` facade and to Amazon CloudWatch. The names of the series stay
//! with each crate.

#[cfg(feature = "cloudwatch")]
pub mod cloudwatch;
#[cfg(feature = "metrics")]
pub mod facade;
pub mod histogram;

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

/// Which metrics are published. The `MetricsLevel` of the KPL and the KCL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum MetricsLevel {
    /// None.
    None,
    /// What an operator watches.
    Summary,
    /// All.
    #[default]
    Detailed,
}

/// The rule for a namespace of CloudWatch.
pub const NAMESPACE_RULE: &str =
    "must be 1 to 255 printable ASCII characters and not begin with `AWS/` or `:`";

/// Whether a text keeps [`NAMESPACE_RULE`].
pub fn is_namespace(text: &str) -> bool {
    is_printable(text, 255) && !text.starts_with("AWS/") && !text.starts_with(':')
}

/// Whether CloudWatch takes a text of at most `most` bytes: printable ASCII, not blank.
pub fn is_printable(text: &str, most: usize) -> bool {
    let is_printable = |c: char| c == ' ' || c.is_ascii_graphic();
    text.len() <= most && text.chars().all(is_printable) && !text.trim().is_empty()
}
