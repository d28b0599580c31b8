//! The metrics through the `metrics` facade: to whatever recorder the application installed.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

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

#[derive(Clone)]
enum Handle {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

impl FacadeSink {
    pub(crate) fn new(application: &str, worker_id: &str) -> Self {
        for metric in Metric::ALL {
            let Definition { name, unit, kind, description, .. } = metric.definition();
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

    fn handles(&self) -> MutexGuard<'_, HashMap<String, HashMap<Metric, Handle>>> {
        // A handle is a cache entry: nothing depends on it.
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self, metric: Metric, shard: &str) -> Option<Handle> {
        self.handles().get(shard)?.get(&metric).cloned()
    }

    /// Two threads may register a series at once: a recorder gives both the same one.
    fn keep(&self, metric: Metric, shard: &str, handle: Handle) {
        let mut handles = self.handles();
        if handles.len() > MAX_SHARDS && !handles.contains_key(shard) {
            handles.clear();
        }
        let of_shard = handles.entry(shard.to_owned()).or_default();
        of_shard.insert(metric, handle);
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
        // The recorder is the application's and may block: it is called with no lock held, or renewals
        // would wait behind whichever thread it holds up.
        let handle = self.kept(metric, shard).unwrap_or_else(|| {
            let handle = self.register(metric, shard);
            self.keep(metric, shard, handle.clone());
            handle
        });
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use ::metrics::{
        CounterFn, GaugeFn, HistogramFn, Key, KeyName, Recorder, SharedString, with_local_recorder,
    };

    use super::*;

    /// Counts its calls, and looks each time whether another thread could record meanwhile.
    #[derive(Clone, Default)]
    struct Watchful {
        sink: Arc<OnceLock<FacadeSink>>,
        calls: Arc<Mutex<Vec<&'static str>>>,
    }

    impl Watchful {
        fn called(&self, what: &'static str) {
            let sink = self.sink.get().unwrap();
            assert!(sink.handles.try_lock().is_ok(), "{what} under the lock");
            self.calls.lock().unwrap().push(what);
        }
    }

    impl CounterFn for Watchful {
        fn increment(&self, _: u64) {
            self.called("increment");
        }
        fn absolute(&self, _: u64) {
            panic!("only steps are counted");
        }
    }

    impl GaugeFn for Watchful {
        fn increment(&self, _: f64) {
            panic!("gauges are set");
        }
        fn decrement(&self, _: f64) {
            panic!("gauges are set");
        }
        fn set(&self, _: f64) {
            self.called("set");
        }
    }

    impl HistogramFn for Watchful {
        fn record(&self, _: f64) {
            self.called("record");
        }
    }

    impl Recorder for Watchful {
        fn describe_counter(&self, _: KeyName, _: Option<facade::Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<facade::Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<facade::Unit>, _: SharedString) {}
        fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
            self.called("register");
            Counter::from_arc(Arc::new(self.clone()))
        }
        fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
            self.called("register");
            Gauge::from_arc(Arc::new(self.clone()))
        }
        fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
            self.called("register");
            Histogram::from_arc(Arc::new(self.clone()))
        }
    }

    #[test]
    fn a_recorder_that_blocks_holds_up_no_other_thread() {
        let recorder = Watchful::default();
        with_local_recorder(&recorder, || {
            let sink = recorder.sink.get_or_init(|| FacadeSink::new("billing", "w"));
            for _ in 0..2 {
                sink.record(Metric::RecordsProcessed, Some("shard-1"), 1.0);
                sink.record(Metric::CurrentLeases, None, 1.0);
                sink.record(Metric::RenewLeaseTime, None, 1.0);
            }
        });
        // Registered once each.
        let first = ["register", "increment", "register", "set", "register", "record"];
        let expected: Vec<_> = first.into_iter().chain(["increment", "set", "record"]).collect();
        assert_eq!(*recorder.calls.lock().unwrap(), expected);
    }

    #[test]
    fn it_keeps_the_handles_of_so_many_shards() {
        let recorder = Watchful::default();
        with_local_recorder(&recorder, || {
            let sink = recorder.sink.get_or_init(|| FacadeSink::new("billing", "w"));
            for shard in 0..3 * MAX_SHARDS {
                let shard = format!("shard-{shard}");
                sink.record(Metric::RecordsProcessed, Some(&shard), 1.0);
                assert!(sink.handles().len() <= MAX_SHARDS + 1);
            }
        });
    }
}
