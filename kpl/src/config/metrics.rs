//! Granularity of the metrics that are published, and the names of their dimensions.

/// Dimensions that metrics are published with. The KPL's `MetricsGranularity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum MetricsGranularity {
    /// All streams together.
    Global,
    /// That, and by `StreamName`.
    Stream,
    /// That, and by `ShardId`.
    #[default]
    Shard,
}

/// The names of the dimensions.
#[cfg(any(feature = "metrics", feature = "cloudwatch"))]
pub(crate) const STREAM_NAME: &str = "StreamName";
#[cfg(any(feature = "metrics", feature = "cloudwatch"))]
pub(crate) const SHARD_ID: &str = "ShardId";
#[cfg(any(feature = "metrics", feature = "cloudwatch"))]
pub(crate) const ERROR_CODE: &str = "ErrorCode";
