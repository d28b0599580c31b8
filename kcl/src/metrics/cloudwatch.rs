//! Publishing the metrics to Amazon CloudWatch, under the names and dimensions of the Java library.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use aws_types::SdkConfig;
use kinesis_common::metrics::cloudwatch::{
    Collected, Dimensions, Publisher, SdkUploader, Source, Uploader, dimension,
};
use kinesis_common::metrics::{Kind, MetricsLevel, Unit};

use super::names::{Definition, Dimension};
use super::{Metric, Sink};
use crate::config::{CloudWatchConfig, MetricsDimension};

/// The settings and the client of the publisher.
pub(crate) struct CloudWatch {
    config: CloudWatchConfig,
    uploader: Arc<dyn Uploader>,
}

impl CloudWatch {
    pub(crate) fn new(sdk_config: &SdkConfig, config: CloudWatchConfig, application: &str) -> Self {
        let namespace = config.namespace_of(application);
        let uploader = Arc::new(SdkUploader::new(sdk_config, namespace, "kcl-metrics"));
        Self { config, uploader }
    }

    /// Returns the sink that collects the measurements of a worker, and the publisher that uploads them.
    pub(crate) fn publish(
        self,
        worker_id: &str,
        seed: u64,
    ) -> (CloudWatchSink, Publisher<MetricSource>) {
        let Self { config, uploader } = self;
        let sink = CloudWatchSink { level: config.level, collected: Collected::default() };
        let layout = Layout { dimensions: config.dimensions, worker_id: worker_id.into() };
        let series_of = Box::new(move |source: &MetricSource| vec![layout.dimensions_of(source)]);
        let (collected, interval) = (sink.collected.clone(), config.upload_interval);
        (sink, Publisher::new(collected, series_of, uploader, interval, seed))
    }
}

/// A metric, and its shard if it has one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MetricSource {
    metric: Metric,
    shard: Option<Arc<str>>,
}

impl Source for MetricSource {
    fn metric(&self) -> &'static str {
        self.metric.definition().name
    }

    fn unit(&self) -> Unit {
        self.metric.definition().unit
    }

    fn kind(&self) -> Kind {
        self.metric.definition().kind
    }

    fn without_shard(&self) -> Self {
        Self { metric: self.metric, shard: None }
    }
}

/// Collects measurements for the next upload, up to a level.
#[derive(Debug)]
pub(crate) struct CloudWatchSink {
    level: MetricsLevel,
    collected: Collected<MetricSource>,
}

impl Sink for CloudWatchSink {
    fn record(&self, metric: Metric, shard: Option<&str>, value: f64) {
        if metric.definition().level <= self.level {
            let source = MetricSource { metric, shard: shard.map(Arc::from) };
            self.collected.add(source, value, 1);
        }
    }
}

/// The dimensions of the series.
struct Layout {
    dimensions: BTreeSet<MetricsDimension>,
    worker_id: Arc<str>,
}

impl Layout {
    fn dimensions_of(&self, source: &MetricSource) -> Dimensions {
        let Definition { operation, dimension: by, .. } = source.metric.definition();
        let further = match by {
            Dimension::Shard => Some((MetricsDimension::ShardId, source.shard.as_ref())),
            Dimension::Worker => Some((MetricsDimension::WorkerIdentifier, Some(&self.worker_id))),
            // All workers report to one series.
            Dimension::Application => None,
        };
        let further = further.filter(|(by, _)| self.dimensions.contains(by));
        let further = further.and_then(|(by, value)| Some(dimension(by.name(), value?)));
        [("Operation".into(), operation.into())].into_iter().chain(further).collect()
    }
}

impl fmt::Debug for CloudWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudWatch").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
