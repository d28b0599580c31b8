//! Measurements since the last upload, and the time series that they belong to. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Kind, Unit, histogram, is_printable};
use crate::sync::Mutex;

/// Most series that are kept, before and after they are spread to their dimensions. Each takes about 300 bytes, and a
/// distribution a few KiB, if its values differ much.
const MAX_SERIES: usize = 20_000;

/// Most bytes of the value of a dimension.
pub const MAX_DIMENSION_VALUE: usize = 1024;

/// Most different values of a datum. More values are sent as several data.
pub(super) const MAX_VALUES: usize = 150;

/// The statistics of values. Durations of a [`Kind::Distribution`] are also counted by histogram bucket, from which
/// CloudWatch computes percentiles.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    /// Number of values.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The smallest value.
    pub least: f64,
    /// The largest value.
    pub most: f64,
    /// Numbers of times by their bucket. Empty for other units.
    pub times: BTreeMap<u16, u64>,
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
    /// Adds a value that was measured `count` times.
    fn add(&mut self, is_time: bool, value: f64, count: u64) {
        self.count += count;
        self.sum += value * count as f64;
        self.least = self.least.min(value);
        self.most = self.most.max(value);
        if is_time {
            let bucket = histogram::bucket_of(Duration::from_secs_f64(value / 1e3));
            *self.times.entry(bucket as u16).or_default() += count;
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

/// What a measurement belongs to at the finest: a metric, and what its dimensions are made of.
pub trait Source: Ord + Clone + Send + 'static {
    /// Name of the metric.
    fn metric(&self) -> &'static str;

    /// Unit of its values.
    fn unit(&self) -> Unit;

    /// How its values add up.
    fn kind(&self) -> Kind;

    /// The source that takes the measurements of further shards when there is no room for them.
    fn without_shard(&self) -> Self;
}

/// Measurements since the last upload, by their sources. Clones share them.
#[derive(Debug)]
pub struct Collected<S>(Arc<Mutex<BTreeMap<S, Values>>>);

impl<S> Clone for Collected<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> Default for Collected<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S: Source> Collected<S> {
    /// Adds a value that was measured `count` times.
    pub fn add(&self, source: S, value: f64, count: u64) {
        let is_time = source.unit() == Unit::Milliseconds && source.kind() == Kind::Distribution;
        let mut sources = self.0.lock();
        let source = match sources.len() >= MAX_SERIES && !sources.contains_key(&source) {
            // Too many shards in one interval.
            true => source.without_shard(),
            false => source,
        };
        sources.entry(source).or_default().add(is_time, value, count);
    }

    /// Takes all measurements.
    pub fn take(&self) -> BTreeMap<S, Values> {
        std::mem::take(&mut self.0.lock())
    }
}

/// Names and values of dimensions.
pub type Dimensions = Vec<(Arc<str>, Arc<str>)>;

/// A dimension whose value comes from the service. A value that CloudWatch refuses would fail the whole call, so it
/// becomes `Unknown`.
pub fn dimension(name: &str, value: &Arc<str>) -> (Arc<str>, Arc<str>) {
    let value = match is_printable(value, MAX_DIMENSION_VALUE) {
        true => Arc::clone(value),
        false => "Unknown".into(),
    };
    (name.into(), value)
}

/// A time series of CloudWatch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// Name of the metric.
    pub metric: &'static str,
    /// Unit of its values.
    pub unit: Unit,
    /// Dimensions of the series.
    pub dimensions: Dimensions,
}

/// A series and its values.
#[derive(Debug, Clone, PartialEq)]
pub struct Datum {
    /// The series.
    pub series: Series,
    /// Its values since they were last uploaded.
    pub values: Values,
}

/// The series that wait to be uploaded.
#[derive(Debug, Default)]
pub struct Pending {
    series: BTreeMap<Series, Values>,
    /// Number of values whose series found no room.
    pub(super) dropped: u64,
}

impl Pending {
    /// Adds measurements. Each counts for every series of its source: `series_of` returns their dimensions.
    pub fn absorb<S: Source>(
        &mut self,
        collected: BTreeMap<S, Values>,
        series_of: impl Fn(&S) -> Vec<Dimensions>,
    ) {
        for (source, values) in collected {
            for dimensions in series_of(&source) {
                let series = Series { metric: source.metric(), unit: source.unit(), dimensions };
                self.add(series, &values);
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

    /// The first series after `after`, of at most `most` data and `bytes` on the wire.
    pub fn next(&self, after: Option<&Series>, most: usize, bytes: usize) -> Vec<Datum> {
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
