//! Settings of publishing the metrics to CloudWatch.

use std::collections::BTreeSet;
use std::time::Duration;

use kinesis_common::metrics::{MetricsLevel, NAMESPACE_RULE, is_namespace};

/// Longest time between two uploads.
const LONGEST_INTERVAL: Duration = Duration::from_secs(3_600);

/// Settings of publishing the metrics to CloudWatch. Every field has a default and a `with_` setter.
///
/// ```
/// use kcl::metrics::{CloudWatchConfig, MetricsDimension};
///
/// // One series of each metric for all shards. CloudWatch charges for each series.
/// let config = CloudWatchConfig::default().with_dimensions([MetricsDimension::WorkerIdentifier].into());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct CloudWatchConfig {
    /// Namespace of the metrics: 1 to 255 printable ASCII characters, not beginning with `AWS/` or `:`. Default: the
    /// application name, as in Java.
    pub namespace: Option<String>,
    /// Which metrics are published. Default [`MetricsLevel::Summary`]: all that the alarms and the operations guide use.
    ///
    /// `Detailed`, Java's default, adds the results and durations of each call to Kinesis and DynamoDB, which doubles
    /// the number of series per shard. `None` publishes nothing.
    pub level: MetricsLevel,
    /// Dimensions beside `Operation`. Default: all, as in Java's `metricsEnabledDimensions`.
    ///
    /// Without `ShardId`, the series of all shards are one, which is the cheapest way to publish a stream of many
    /// shards. Leave `WorkerIdentifier` out if worker ids are random: each id is a new series.
    pub dimensions: BTreeSet<MetricsDimension>,
    /// Interval between uploads, jittered by a tenth. Default 60 s, the resolution of CloudWatch; at least 1 s, at most
    /// an hour. Java: `metricsBufferTimeMillis`, 10 s.
    #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration"))]
    pub upload_interval: Duration,
}

/// A dimension that the settings can leave out. The names are those of Java.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum MetricsDimension {
    /// The shard of a metric of a shard.
    ShardId,
    /// The worker of a metric of a worker.
    WorkerIdentifier,
}

impl MetricsDimension {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::ShardId, Self::WorkerIdentifier];

    /// Its name in CloudWatch.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ShardId => "ShardId",
            Self::WorkerIdentifier => "WorkerIdentifier",
        }
    }
}

impl CloudWatchConfig {
    /// The namespace of an application's metrics.
    pub(crate) fn namespace_of<'a>(&'a self, application: &'a str) -> &'a str {
        self.namespace.as_deref().unwrap_or(application)
    }

    /// One line per problem: the setting, and the values that are possible.
    pub(crate) fn problems(&self, application: &str) -> Vec<String> {
        let mut problems = Vec::new();
        let namespace = self.namespace_of(application);
        if !is_namespace(namespace) {
            problems.push(format!("CloudWatch namespace `{namespace}` {NAMESPACE_RULE}"));
        }
        let interval = self.upload_interval;
        if !(Duration::from_secs(1)..=LONGEST_INTERVAL).contains(&interval) {
            problems.push(format!(
                "CloudWatch upload_interval is {interval:?}; it must be at least 1s and at most an hour"
            ));
        }
        problems
    }

    /// Sets [`namespace`](Self::namespace).
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_problems_of_the_settings_are_named() {
        let config = CloudWatchConfig::default();
        assert_eq!(config.problems("billing"), [""; 0]);
        assert_eq!(config.namespace_of("billing"), "billing");
        for (namespace, is_valid) in
            [("Mine/of #1:a", true), (":mine", false), ("AWS/mine", false), (" ", false)]
        {
            let config = CloudWatchConfig::default().with_namespace(namespace);
            assert_eq!(config.problems("billing").is_empty(), is_valid, "{namespace}");
            assert_eq!(CloudWatchConfig::default().problems(namespace).is_empty(), is_valid);
        }
        for (seconds, is_valid) in [(0, false), (1, true), (3_600, true), (3_601, false)] {
            let interval = Duration::from_secs(seconds);
            let problems = CloudWatchConfig::default().with_upload_interval(interval).problems("b");
            assert_eq!(problems.is_empty(), is_valid, "{seconds}");
        }
        let both =
            CloudWatchConfig::default().with_namespace("").with_upload_interval(Duration::MAX);
        assert_eq!(both.problems("b").len(), 2);
    }
}
