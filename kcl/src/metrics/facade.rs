//! The metrics through the `metrics` facade: to whatever recorder the application installed.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use ::metrics::{self as facade, Counter, Gauge, Histogram, Label, Level, Metadata};

use super::names::{Definition, Dimension, Kind, Unit};
use super::{Metric, Sink};

/// Shards whose handles are kept; shards come and go.
const MAX_SHARDS: usize = 1_000;

/// Keeps the handle of each series, so that a measurement costs two look-ups.
pub(crate) struct FacadeSink {
    application: String,
    worker_id: String,
    /// By shard; those of the worker by "".
    handles: Mutex<HashMap<String, HashMap<Metric, Handle>>>,
}

enum Handle {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

impl FacadeSink {
    pub(crate) fn new(application: &str, worker_id: &str) -> Self {
        for metric in Metric::ALL {
            let Definition {
                name,
                unit,
                kind,
                description,
                ..
            } = metric.definition();
            let unit = Some(match unit {
                Unit::Count => facade::Unit::Count,
                Unit::Bytes => facade::Unit::Bytes,
                Unit::Milliseconds => facade::Unit::Milliseconds,
            });
            let (name, description) = (name.into(), description.into());
            facade::with_recorder(|recorder| match kind {
                Kind::Counter => recorder.describe_counter(name, unit, description),
                Kind::Gauge => recorder.describe_gauge(name, unit, description),
                Kind::Distribution => recorder.describe_histogram(name, unit, description),
            });
        }
        Self {
            application: application.to_owned(),
            worker_id: worker_id.to_owned(),
            handles: Mutex::default(),
        }
    }

    fn register(&self, metric: Metric, shard: &str) -> Handle {
        const METADATA: Metadata<'static> = Metadata::new("kcl", Level::INFO, Some(module_path!()));
        let definition = metric.definition();
        let labels = vec![
            Label::new("ApplicationName", self.application.clone()),
            Label::from_static_parts("Operation", definition.operation),
            match definition.dimension {
                Dimension::Shard => Label::new("ShardId", shard.to_owned()),
                Dimension::Worker => Label::new("WorkerIdentifier", self.worker_id.clone()),
            },
        ];
        let key = facade::Key::from_parts(definition.name, labels);
        facade::with_recorder(|recorder| match definition.kind {
            Kind::Counter => Handle::Counter(recorder.register_counter(&key, &METADATA)),
            Kind::Gauge => Handle::Gauge(recorder.register_gauge(&key, &METADATA)),
            Kind::Distribution => Handle::Histogram(recorder.register_histogram(&key, &METADATA)),
        })
    }
}

impl Sink for FacadeSink {
    fn record(&self, metric: Metric, shard: Option<&str>, value: f64) {
        let shard = shard.unwrap_or_default();
        // A handle is a cache entry: nothing depends on it.
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        if !handles.contains_key(shard) {
            if handles.len() > MAX_SHARDS {
                handles.clear();
            }
            handles.insert(shard.to_owned(), HashMap::new());
        }
        let Some(of_shard) = handles.get_mut(shard) else {
            return;
        };
        let handle = of_shard
            .entry(metric)
            .or_insert_with(|| self.register(metric, shard));
        match handle {
            Handle::Counter(counter) => counter.increment(value as u64),
            Handle::Gauge(gauge) => gauge.set(value),
            Handle::Histogram(histogram) => histogram.record(value),
        }
    }
}

impl fmt::Debug for FacadeSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FacadeSink")
            .field("application", &self.application)
            .field("worker_id", &self.worker_id)
            .finish_non_exhaustive()
    }
}
