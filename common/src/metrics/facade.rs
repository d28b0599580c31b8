//! Reports to the recorder of the `metrics` facade that the application installed.

use std::collections::HashMap;
use std::hash::Hash;

use ::metrics::{self as facade, Counter, Gauge, Histogram, Label, Metadata};

use super::{Kind, Unit};
use crate::sync::Mutex;

/// Shards whose handles are kept. Shards come and go.
const MAX_SHARDS: usize = 1_000;

/// Tells the recorder what a metric is.
pub fn describe(name: &'static str, unit: Unit, kind: Kind, description: &'static str) {
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

/// The recorder's handle of one series.
#[derive(Debug, Clone)]
pub enum Handle {
    /// Of a [`Kind::Counter`].
    Counter(Counter),
    /// Of a [`Kind::Gauge`].
    Gauge(Gauge),
    /// Of a [`Kind::Distribution`].
    Histogram(Histogram),
}

impl Handle {
    /// Registers a series at the recorder.
    pub fn register(
        metadata: &Metadata<'static>,
        name: &'static str,
        kind: Kind,
        labels: Vec<Label>,
    ) -> Self {
        let key = facade::Key::from_parts(name, labels);
        facade::with_recorder(|recorder| match kind {
            Kind::Counter => Self::Counter(recorder.register_counter(&key, metadata)),
            Kind::Gauge => Self::Gauge(recorder.register_gauge(&key, metadata)),
            Kind::Distribution => Self::Histogram(recorder.register_histogram(&key, metadata)),
        })
    }

    /// Records a value that was measured `count` times.
    pub fn record(&self, value: f64, count: u64) {
        match self {
            Self::Counter(counter) => counter.increment((value * count as f64).round() as u64),
            Self::Gauge(gauge) => gauge.set(value),
            // Once, however often it occurred: recorders take each value by itself, and one Kinesis record
            // can have 10,000 members.
            Self::Histogram(histogram) => histogram.record(value),
        }
    }
}

/// The handles of all series, by shard, so that a value costs two look-ups. `S` tells the series of a shard
/// apart.
#[derive(Debug)]
pub struct Handles<S> {
    by_shard: Mutex<HashMap<String, HashMap<S, Handle>>>,
}

impl<S: Eq + Hash> Handles<S> {
    /// Returns the handle of a series. `shard`: empty for a series of no shard.
    ///
    /// The recorder is the application's and may block. `register` and the handle are therefore called
    /// without a lock: otherwise other threads would wait for the one that the recorder holds up.
    pub fn handle(&self, shard: &str, series: S, register: impl FnOnce() -> Handle) -> Handle {
        if let Some(kept) = self.kept(shard, &series) {
            return kept;
        }
        // Two threads may register a series at once: a recorder gives both the same one.
        let handle = register();
        let mut by_shard = self.by_shard.lock();
        if by_shard.len() > MAX_SHARDS && !by_shard.contains_key(shard) {
            by_shard.clear();
        }
        by_shard.entry(shard.to_owned()).or_default().insert(series, handle.clone());
        handle
    }

    fn kept(&self, shard: &str, series: &S) -> Option<Handle> {
        self.by_shard.lock().get(shard)?.get(series).cloned()
    }
}

impl<S> Default for Handles<S> {
    fn default() -> Self {
        Self { by_shard: Mutex::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ::metrics::{
        CounterFn, GaugeFn, HistogramFn, Key, KeyName, Level, Recorder, SharedString,
        with_local_recorder,
    };

    use super::*;

    const METADATA: Metadata<'static> = Metadata::new("test", Level::INFO, Some(module_path!()));

    /// Notes its calls, and looks each time whether another thread could record meanwhile.
    #[derive(Clone, Default)]
    struct Watchful {
        handles: Arc<Handles<&'static str>>,
        calls: Arc<Mutex<Vec<String>>>,
    }

    impl Watchful {
        fn called(&self, what: &str) {
            assert!(!self.handles.by_shard.is_locked(), "{what} under the lock");
            self.calls.lock().push(what.to_owned());
        }

        fn record(&self, shard: &str, name: &'static str, kind: Kind, value: f64, count: u64) {
            let register = || Handle::register(&METADATA, name, kind, Vec::new());
            self.handles.handle(shard, name, register).record(value, count);
        }
    }

    impl CounterFn for Watchful {
        fn increment(&self, value: u64) {
            self.called(&format!("increment {value}"));
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
        fn set(&self, value: f64) {
            self.called(&format!("set {value}"));
        }
    }

    impl HistogramFn for Watchful {
        fn record(&self, value: f64) {
            self.called(&format!("record {value}"));
        }
    }

    impl Recorder for Watchful {
        fn describe_counter(&self, name: KeyName, unit: Option<facade::Unit>, _: SharedString) {
            self.called(&format!("describe counter {} {unit:?}", name.as_str()));
        }
        fn describe_gauge(&self, name: KeyName, unit: Option<facade::Unit>, _: SharedString) {
            self.called(&format!("describe gauge {} {unit:?}", name.as_str()));
        }
        fn describe_histogram(&self, name: KeyName, unit: Option<facade::Unit>, _: SharedString) {
            self.called(&format!("describe histogram {} {unit:?}", name.as_str()));
        }
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
    fn a_series_is_registered_once_and_the_recorder_is_called_without_a_lock() {
        let recorder = Watchful::default();
        with_local_recorder(&recorder, || {
            for _ in 0..2 {
                recorder.record("shard-1", "Records", Kind::Counter, 1.0, 3);
                recorder.record("", "Leases", Kind::Gauge, 7.0, 1);
                recorder.record("", "Time", Kind::Distribution, 2.5, 10_000);
            }
        });
        let calls = ["increment 3", "set 7", "record 2.5"];
        let first = calls.into_iter().flat_map(|call| ["register", call]);
        let expected: Vec<_> = first.chain(calls).collect();
        assert_eq!(*recorder.calls.lock(), expected);
    }

    #[test]
    fn a_counter_of_a_mean_is_rounded() {
        let recorder = Watchful::default();
        with_local_recorder(&recorder, || {
            // 42 bytes, as a mean of 9 records: neither more nor less.
            recorder.record("shard-1", "Bytes", Kind::Counter, 42.0 / 9.0, 9);
        });
        assert_eq!(*recorder.calls.lock(), ["register", "increment 42"]);
    }

    #[test]
    fn units_and_kinds_are_described() {
        let recorder = Watchful::default();
        with_local_recorder(&recorder, || {
            describe("A", Unit::Count, Kind::Counter, "a");
            describe("B", Unit::Bytes, Kind::Gauge, "b");
            describe("C", Unit::Milliseconds, Kind::Distribution, "c");
        });
        assert_eq!(
            *recorder.calls.lock(),
            [
                "describe counter A Some(Count)",
                "describe gauge B Some(Bytes)",
                "describe histogram C Some(Milliseconds)"
            ]
        );
    }

    #[test]
    fn it_keeps_the_handles_of_so_many_shards() {
        let recorder = Watchful::default();
        with_local_recorder(&recorder, || {
            for shard in 0..3 * MAX_SHARDS {
                recorder.record(&format!("shard-{shard}"), "Records", Kind::Counter, 1.0, 1);
                assert!(recorder.handles.by_shard.lock().len() <= MAX_SHARDS + 1);
            }
        });
    }
}
