//! Level and granularity of the metrics that are published.

/// Which metrics are published. The KPL's `MetricsLevel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum MetricsLevel {
    /// None.
    None,
    /// What an operator watches: records put, errors, expiries, the buffering time.
    Summary,
    /// All.
    #[default]
    Detailed,
}

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

/// The rule for a namespace of CloudWatch.
pub(crate) const NAMESPACE_RULE: &str =
    "must be 1 to 255 printable ASCII characters and not begin with `AWS/` or `:`";

/// Whether a text keeps [`NAMESPACE_RULE`].
pub(crate) fn is_namespace(text: &str) -> bool {
    is_printable(text, 255) && !text.starts_with("AWS/") && !text.starts_with(':')
}

/// Whether CloudWatch takes a text of at most `most` bytes: printable ASCII, not blank.
pub(crate) fn is_printable(text: &str, most: usize) -> bool {
    let is_printable = |c: char| c == ' ' || c.is_ascii_graphic();
    text.len() <= most && text.chars().all(is_printable) && !text.trim().is_empty()
}
