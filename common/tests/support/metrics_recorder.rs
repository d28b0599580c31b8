//! A recorder of the `metrics` facade that hands each value to a test.

use std::sync::Arc;

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

/// Kind of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

type Take = dyn Fn(Kind, &Key, f64) + Send + Sync;

/// Calls a closure with each value, and the kind and key of its series. The value of a counter is the
/// step by which it grew.
pub(crate) struct TestRecorder(Arc<Take>);

impl TestRecorder {
    pub(crate) fn new(take: impl Fn(Kind, &Key, f64) + Send + Sync + 'static) -> Self {
        Self(Arc::new(take))
    }

    fn series(&self, kind: Kind, key: &Key) -> Arc<Series> {
        Arc::new(Series { take: Arc::clone(&self.0), kind, key: key.clone() })
    }
}

struct Series {
    take: Arc<Take>,
    kind: Kind,
    key: Key,
}

impl Series {
    fn value(&self, value: f64) {
        (self.take)(self.kind, &self.key, value);
    }
}

impl CounterFn for Series {
    fn increment(&self, value: u64) {
        self.value(value as f64);
    }

    fn absolute(&self, _: u64) {
        panic!("only steps are counted");
    }
}

impl GaugeFn for Series {
    fn increment(&self, _: f64) {
        panic!("gauges are set");
    }

    fn decrement(&self, _: f64) {
        panic!("gauges are set");
    }

    fn set(&self, value: f64) {
        self.value(value);
    }
}

impl HistogramFn for Series {
    fn record(&self, value: f64) {
        self.value(value);
    }
}

impl Recorder for TestRecorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.series(Kind::Counter, key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.series(Kind::Gauge, key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.series(Kind::Histogram, key))
    }
}
