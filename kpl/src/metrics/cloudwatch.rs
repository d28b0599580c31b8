//! Publishing the metrics to Amazon CloudWatch, as the KPL does: settings, and the parts wired.

mod client;
mod publisher;
mod series;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use aws_types::SdkConfig;
use futures::future::BoxFuture;

use self::client::SdkUploader;
pub(crate) use self::publisher::Publisher;
pub(crate) use self::series::Collected;
pub(crate) use self::series::Datum;
use super::names::{MetricsGranularity, MetricsLevel};
use crate::config::InvalidConfig;

/// How the metrics are published to CloudWatch.
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
    /// The namespace. Default `KinesisProducerLibrary`; 1 to 255 characters, not beginning with `AWS/`. KPL:
    /// `MetricsNamespace`.
    pub namespace: String,

    /// Which metrics are published. Default all. KPL: `MetricsLevel`.
    pub level: MetricsLevel,

    /// How fine the dimensions are. Default by shard. KPL: `MetricsGranularity`.
    pub granularity: MetricsGranularity,

    /// How often, jittered by a tenth. Default 60 s; at most an hour. KPL: `MetricsUploadDelay`.
    #[cfg_attr(feature = "serde", serde(with = "crate::config::duration"))]
    pub upload_interval: Duration,

    /// More dimensions. Default none. KPL: `addAdditionalMetricsDimension`.
    pub dimensions: Vec<MetricsDimension>,
}

/// A dimension beside `StreamName`, `ShardId` and `ErrorCode`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct MetricsDimension {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// From where on metrics have it: `Stream` are those with a `StreamName` or finer, `Global` all.
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

/// The dimensions of a datum that are not ours: CloudWatch takes 30.
const MAX_DIMENSIONS: usize = 27;

impl CloudWatchConfig {
    pub(crate) fn validate(&self) -> Result<(), InvalidConfig> {
        let namespace = &self.namespace;
        let namespace_is_valid = (1..=255).contains(&namespace.len())
            && namespace.is_ascii()
            && !namespace.starts_with("AWS/");
        let interval = self.upload_interval;
        let dimensions_are_valid = self.dimensions.len() <= MAX_DIMENSIONS
            && self.dimensions.iter().all(|dimension| {
                let is_text = |text: &str, most| {
                    text.is_ascii() && !text.trim().is_empty() && text.len() <= most
                };
                is_text(&dimension.name, 255)
                    && !dimension.name.starts_with(':')
                    && is_text(&dimension.value, 1024)
            });
        let checks = [
            (
                namespace_is_valid,
                "metrics namespace",
                "must be 1 to 255 ASCII characters and not begin with `AWS/`",
            ),
            (
                !interval.is_zero() && interval <= Duration::from_secs(3600),
                "metrics upload_interval",
                "must be longer than zero and at most an hour",
            ),
            (
                dimensions_are_valid,
                "metrics dimensions",
                "must be at most 27, with a name of 1 to 255 ASCII characters, not beginning with `:`, and a value of 1 to 1,024",
            ),
        ];
        let problems = checks.into_iter().filter(|(is_valid, ..)| !is_valid);
        let problems = problems.map(|(_, field, text)| Err(InvalidConfig::one(field, text.into())));
        InvalidConfig::all(problems, Ok(()))
    }
}

/// What a producer needs to publish.
pub(crate) struct CloudWatch {
    pub(crate) config: CloudWatchConfig,
    pub(crate) uploader: Arc<dyn Uploader>,
}

impl CloudWatch {
    pub(crate) fn new(sdk_config: &SdkConfig, config: CloudWatchConfig) -> Self {
        let uploader = Arc::new(SdkUploader::new(sdk_config, &config.namespace));
        Self { config, uploader }
    }
}

/// A PutMetricData call that failed.
#[derive(Debug, Clone)]
pub(crate) struct UploadError {
    pub(crate) code: String,
    pub(crate) message: String,
    /// The same data would be refused again.
    pub(crate) is_refused: bool,
}

/// Makes PutMetricData calls: with the AWS SDK, or as a test says.
pub(crate) trait Uploader: Send + Sync {
    fn put(&self, data: Vec<Datum>) -> BoxFuture<'static, Result<(), UploadError>>;
}
