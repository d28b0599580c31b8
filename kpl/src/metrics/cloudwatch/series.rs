//! Measurements since the last upload, and the time series that they belong to. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kinesis_common::metrics::Unit;

use super::super::histogram;
use super::super::names::Metric;
use super::super::{Sample, Sink};
use crate::config::cloudwatch::{CloudWatchConfig, MAX_DIMENSION_VALUE};
use crate::config::metrics::{
    ERROR_CODE, MetricsGranularity, MetricsLevel, SHARD_ID, STREAM_NAME, is_printable,
};
use crate::sync::{Mutex, lock};

/// Most series that are kept, before and after they are spread to their dimensions. Each takes about 300 bytes.
const MAX_SERIES: usize = 20_000;

/// Most different values of a datum. More values are sent as several data.
pub(super) const MAX_VALUES: usize = 150;

/// The statistics of values. Times are also counted by histogram bucket, from which CloudWatch computes percentiles.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Values {
    pub(crate) count: u64,
    pub(crate) sum: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    pub(crate) times: BTreeMap<u16, u64>,
}

impl Default for Values {
    fn default() -> Self {
        Self {
            count: 0,
            sum: 0.0,
            least: f64::INFINITY,
            most: f64::NEG_INFINITY,
            times: BTreeMap::new(),
        }
    }
}

impl Values {
    fn add(&mut self, sample: &Sample<'_>) {
        self.count += sample.count;
        self.sum += sample.value * sample.count as f64;
        self.least = self.least.min(sample.value);
        self.most = self.most.max(sample.value);
        if sample.metric.definition().unit == Unit::Milliseconds {
            let bucket = histogram::bucket_of(Duration::from_secs_f64(sample.value / 1e3));
            *self.times.entry(bucket as u16).or_default() += sample.count;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum += other.sum;
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
        for (bucket, count) in &other.times {
            *self.times.entry(*bucket).or_default() += count;
        }
    }
}

type Finest = (Metric, Option<Arc<str>>, Option<Arc<str>>);

/// Measurements since the last upload, by the finest dimensions. Clones share them.
#[derive(Clone)]
pub(crate) struct Collected {
    level: MetricsLevel,
    series: Arc<Mutex<BTreeMap<Finest, Values>>>,
}

impl Collected {
    /// Does not collect metrics above `level`.
    pub(crate) fn new(level: MetricsLevel) -> Self {
        Self { level, series: Arc::default() }
    }

    pub(super) fn take(&self) -> BTreeMap<Finest, Values> {
        std::mem::take(&mut lock(&self.series))
    }
}

impl Sink for Collected {
    fn record(&mut self, sample: Sample<'_>) {
        if self.level < sample.metric.definition().level {
            return;
        }
        let mut series = lock(&self.series);
        let mut key = (sample.metric, sample.shard.cloned(), sample.code.cloned());
        if series.len() >= MAX_SERIES && !series.contains_key(&key) {
            // Too many shards in one interval: further ones count for the stream.
            key.1 = None;
        }
        series.entry(key).or_default().add(&sample);
    }
}

/// A time series of CloudWatch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    pub(crate) metric: Metric,
    pub(crate) dimensions: Vec<(Arc<str>, Arc<str>)>,
}

/// A series and its values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Datum {
    pub(crate) series: Series,
    pub(crate) values: Values,
}

/// The series that wait to be uploaded. Each measurement counts for the series of its finest dimensions and of all
/// coarser ones.
pub(super) struct Pending {
    granularity: MetricsGranularity,
    more: Vec<(MetricsGranularity, Arc<str>, Arc<str>)>,
    stream: Arc<str>,
    series: BTreeMap<Series, Values>,
    /// Number of values whose series found no room.
    pub(super) dropped: u64,
}

impl Pending {
    pub(super) fn new(config: &CloudWatchConfig, stream: Arc<str>) -> Self {
        let more = config.dimensions.iter().map(|dimension| {
            let (name, value) = (&*dimension.name, &*dimension.value);
            (dimension.granularity, name.into(), value.into())
        });
        Self {
            granularity: config.granularity,
            more: more.collect(),
            stream,
            series: BTreeMap::new(),
            dropped: 0,
        }
    }

    pub(super) fn absorb(&mut self, collected: BTreeMap<Finest, Values>) {
        for ((metric, shard, code), values) in collected {
            let definition = metric.definition();
            let finest = match &shard {
                None => MetricsGranularity::Stream,
                Some(_) => definition.finest,
            };
            for granularity in
                [MetricsGranularity::Global, MetricsGranularity::Stream, MetricsGranularity::Shard]
            {
                if granularity > self.granularity || granularity > finest {
                    break;
                }
                let dimensions = self.dimensions(granularity, shard.as_ref(), code.as_ref());
                self.add(Series { metric, dimensions }, &values);
            }
        }
    }

    fn add(&mut self, series: Series, values: &Values) {
        let room = self.series.len() < MAX_SERIES;
        match self.series.get_mut(&series) {
            Some(known) => known.merge(values),
            None if room => drop(self.series.insert(series, values.clone())),
            None => self.dropped += 1,
        }
    }

    fn dimensions(
        &self,
        granularity: MetricsGranularity,
        shard: Option<&Arc<str>>,
        code: Option<&Arc<str>>,
    ) -> Vec<(Arc<str>, Arc<str>)> {
        let more = |of| {
            self.more
                .iter()
                .filter(move |(granularity, ..)| *granularity == of)
                .map(|(_, name, value)| (Arc::clone(name), Arc::clone(value)))
        };
        let ours = |name: &str, value: &Arc<str>| {
            // The text comes from the service. One that CloudWatch refuses would fail the whole call.
            let value = match is_printable(value, MAX_DIMENSION_VALUE) {
                true => Arc::clone(value),
                false => "Unknown".into(),
            };
            (name.into(), value)
        };
        let mut dimensions: Vec<_> = more(MetricsGranularity::Global).collect();
        dimensions.extend(code.map(|code| ours(ERROR_CODE, code)));
        if granularity >= MetricsGranularity::Stream {
            dimensions.push(ours(STREAM_NAME, &self.stream));
            dimensions.extend(more(MetricsGranularity::Stream));
        }
        if granularity >= MetricsGranularity::Shard
            && let Some(shard) = shard
        {
            dimensions.push(ours(SHARD_ID, shard));
            dimensions.extend(more(MetricsGranularity::Shard));
        }
        dimensions
    }

    /// The first series after `after`, of at most `most` data and `bytes` on the wire.
    pub(super) fn next(&self, after: Option<&Series>, most: usize, bytes: usize) -> Vec<Datum> {
        use std::ops::Bound::{Excluded, Unbounded};
        let start = after.map_or(Unbounded, Excluded);
        let (mut data, mut size) = (0, 0);
        self.series
            .range((start, Unbounded))
            .take_while(|(series, values)| {
                data += values.times.len().div_ceil(MAX_VALUES).max(1);
                size += series.size() + 24 * values.times.len();
                data <= most && size <= bytes
            })
            .map(|(series, values)| Datum { series: series.clone(), values: values.clone() })
            .collect()
    }

    /// Removes the series that were uploaded.
    pub(super) fn complete(&mut self, data: &[Series]) {
        for series in data {
            self.series.remove(series);
        }
    }
}

impl Series {
    /// Upper estimate of its bytes on the wire.
    fn size(&self) -> usize {
        let dimensions = self.dimensions.iter();
        250 + dimensions.map(|(name, value)| name.len() + value.len() + 30).sum::<usize>()
    }
}
