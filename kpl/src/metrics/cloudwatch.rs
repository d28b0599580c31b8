//! Publishing the metrics to Amazon CloudWatch, under the names and dimensions of the KPL.

#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use aws_types::SdkConfig;
use kinesis_common::metrics::cloudwatch::{
    Collected, Dimensions, Publisher, SdkUploader, Source, Uploader, dimension,
};
use kinesis_common::metrics::{Kind, MetricsLevel, Unit};

use super::names::Metric;
use super::{Sample, Sink};
use crate::config::CloudWatchConfig;
use crate::config::metrics::{ERROR_CODE, MetricsGranularity, SHARD_ID, STREAM_NAME};

/// Time limit of the last upload, after the sender has ended.
pub(crate) const LAST_UPLOAD: Duration = Duration::from_secs(5);

/// The settings and the client of the publisher.
pub(crate) struct CloudWatch {
    pub(crate) config: CloudWatchConfig,
    pub(crate) uploader: Arc<dyn Uploader>,
}

impl CloudWatch {
    pub(crate) fn new(sdk_config: &SdkConfig, config: CloudWatchConfig) -> Self {
        let uploader = Arc::new(SdkUploader::new(sdk_config, &config.namespace, "kpl-metrics"));
        Self { config, uploader }
    }

    /// Returns the sink that collects the measurements of a stream, and the publisher that uploads them.
    pub(crate) fn publish(
        self,
        stream: Arc<str>,
        seed: u64,
    ) -> (CloudWatchSink, Publisher<SampleSource>) {
        let Self { config, uploader } = self;
        let sink = CloudWatchSink { level: config.level, collected: Collected::default() };
        let (collected, interval) = (sink.collected.clone(), config.upload_interval);
        let layout = Layout::new(&config, stream);
        let series_of = Box::new(move |source: &SampleSource| layout.series_of(source));
        (sink, Publisher::new(collected, series_of, uploader, interval, seed))
    }
}

/// A metric with its shard and error code.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SampleSource {
    metric: Metric,
    shard: Option<Arc<str>>,
    code: Option<Arc<str>>,
}

impl Source for SampleSource {
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
        Self { shard: None, ..self.clone() }
    }
}

/// Collects measurements for the next upload, up to a level. Clones share what is collected.
#[derive(Clone)]
pub(crate) struct CloudWatchSink {
    level: MetricsLevel,
    collected: Collected<SampleSource>,
}

impl Sink for CloudWatchSink {
    fn record(&mut self, sample: Sample<'_>) {
        let Sample { metric, shard, code, value, count } = sample;
        if metric.definition().level <= self.level {
            let source = SampleSource { metric, shard: shard.cloned(), code: code.cloned() };
            self.collected.add(source, value, count);
        }
    }
}

/// The dimensions of the series. Each measurement counts for the series of its finest dimensions and of all coarser
/// ones.
struct Layout {
    granularity: MetricsGranularity,
    more: Vec<(MetricsGranularity, Arc<str>, Arc<str>)>,
    stream: Arc<str>,
}

impl Layout {
    fn new(config: &CloudWatchConfig, stream: Arc<str>) -> Self {
        let more = config.dimensions.iter().map(|dimension| {
            let (name, value) = (&*dimension.name, &*dimension.value);
            (dimension.granularity, name.into(), value.into())
        });
        Self { granularity: config.granularity, more: more.collect(), stream }
    }

    fn series_of(&self, source: &SampleSource) -> Vec<Dimensions> {
        let finest = match &source.shard {
            None => MetricsGranularity::Stream,
            Some(_) => source.metric.definition().finest,
        };
        let finest = finest.min(self.granularity);
        [MetricsGranularity::Global, MetricsGranularity::Stream, MetricsGranularity::Shard]
            .into_iter()
            .filter(|granularity| *granularity <= finest)
            .map(|granularity| self.dimensions(granularity, source))
            .collect()
    }

    fn dimensions(&self, granularity: MetricsGranularity, source: &SampleSource) -> Dimensions {
        let more = |of| {
            self.more
                .iter()
                .filter(move |(granularity, ..)| *granularity == of)
                .map(|(_, name, value)| (Arc::clone(name), Arc::clone(value)))
        };
        let mut dimensions: Vec<_> = more(MetricsGranularity::Global).collect();
        dimensions.extend(source.code.as_ref().map(|code| dimension(ERROR_CODE, code)));
        if granularity >= MetricsGranularity::Stream {
            dimensions.push(dimension(STREAM_NAME, &self.stream));
            dimensions.extend(more(MetricsGranularity::Stream));
        }
        if granularity >= MetricsGranularity::Shard
            && let Some(shard) = &source.shard
        {
            dimensions.push(dimension(SHARD_ID, shard));
            dimensions.extend(more(MetricsGranularity::Shard));
        }
        dimensions
    }
}
