//! Settings of publishing the metrics to CloudWatch.

use std::collections::BTreeSet;
use std::time::Duration;

use kinesis_common::metrics::cloudwatch::MAX_DIMENSION_VALUE;
use kinesis_common::metrics::{MetricsLevel, NAMESPACE_RULE, is_namespace, is_printable};

use super::InvalidConfig;
use super::metrics::{ERROR_CODE, MetricsGranularity, SHARD_ID, STREAM_NAME};

/// Settings of publishing the metrics to CloudWatch.
///
/// ```
/// use kpl::metrics::{CloudWatchConfig, MetricsGranularity};
///
/// let config = CloudWatchConfig {
///     granularity: MetricsGranularity::Stream, // a stream of many shards has many metrics, and each one costs
///     ..Default::default()
/// };
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
pub struct CloudWatchConfig {
    /// The namespace. Default `KinesisProducerLibrary`; 1 to 255 printable ASCII characters, not beginning with `AWS/`
    /// or `:`. KPL: `MetricsNamespace`.
    pub namespace: String,

    /// Which metrics are published. Default all. KPL: `MetricsLevel`.
    pub level: MetricsLevel,

    /// Dimensions of the metrics. Default: by shard. KPL: `MetricsGranularity`.
    pub granularity: MetricsGranularity,

    /// Interval between uploads, jittered by a tenth. Default 60 s; at most an hour. KPL: `MetricsUploadDelay`.
    #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration"))]
    pub upload_interval: Duration,

    /// More dimensions. Default none. KPL: `addAdditionalMetricsDimension`.
    pub dimensions: Vec<MetricsDimension>,
}

/// A dimension beside `StreamName`, `ShardId` and `ErrorCode`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MetricsDimension {
    /// Its name. Names are unique, and none is `StreamName`, `ShardId` or `ErrorCode`.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The coarsest metrics that have it. `Stream`: those with a `StreamName` or finer. `Global`: all.
    pub granularity: MetricsGranularity,
}

impl Default for CloudWatchConfig {
    fn default() -> Self {
        Self {
            namespace: "KinesisProducerLibrary".to_owned(),
            level: MetricsLevel::default(),
            granularity: MetricsGranularity::default(),
            upload_interval: Duration::from_secs(60),
            dimensions: Vec::new(),
        }
    }
}

/// Most additional dimensions of a datum. CloudWatch takes 30, and three are the producer's.
const MAX_DIMENSIONS: usize = 27;

/// Most bytes of the name of a dimension.
const MAX_DIMENSION_NAME: usize = 255;

impl CloudWatchConfig {
    pub(crate) fn validate(&self) -> Result<(), InvalidConfig> {
        let interval = self.upload_interval;
        let checks = [
            (is_namespace(&self.namespace), "metrics namespace", NAMESPACE_RULE),
            (
                !interval.is_zero() && interval <= Duration::from_secs(3600),
                "metrics upload_interval",
                "must be longer than zero and at most an hour",
            ),
            (
                self.has_valid_dimensions(),
                "metrics dimensions",
                "must be at most 27, each with a unique name, not `StreamName`, `ShardId` or `ErrorCode`, of 1 to 255 printable ASCII characters, not beginning with `:`, and a value of 1 to 1,024",
            ),
        ];
        let problems = checks.into_iter().filter(|(is_valid, ..)| !is_valid);
        let problems = problems.map(|(_, field, text)| (field.to_owned(), text.to_owned()));
        InvalidConfig::check(problems.collect())
    }

    fn has_valid_dimensions(&self) -> bool {
        let mut names = BTreeSet::from([STREAM_NAME, SHARD_ID, ERROR_CODE]);
        self.dimensions.len() <= MAX_DIMENSIONS
            && self.dimensions.iter().all(|dimension| {
                is_printable(&dimension.name, MAX_DIMENSION_NAME)
                    && !dimension.name.starts_with(':')
                    && is_printable(&dimension.value, MAX_DIMENSION_VALUE)
                    && names.insert(&dimension.name)
            })
    }
}
