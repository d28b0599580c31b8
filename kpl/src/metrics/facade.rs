//! The metrics through the `metrics` facade: to whatever recorder the application installed.

use std::collections::HashMap;
use std::sync::Arc;

use ::metrics::{self as facade, Counter, Gauge, Histogram, Label, Level, Metadata};

use super::names::{Definition, Kind, Metric, Unit};
use super::{Sample, Sink};
use crate::config::metrics::{ERROR_CODE, MetricsGranularity, SHARD_ID, STREAM_NAME};

/// Handles that are kept; shards come and go.
const MAX_HANDLES: usize = 10_000;

/// Keeps the handle of each series, so that a sample costs one look-up.
pub(crate) struct FacadeSink {
    stream: Arc<str>,
    handles: HashMap<Series, Handle>,
}

type Series = (Metric, Option<Arc<str>>, Option<Arc<str>>);

enum Handle {
    Counter(Counter),
    Gauge(Gauge),
    Histogram(Histogram),
}

impl FacadeSink {
    pub(crate) fn new(stream: Arc<str>) -> Self {
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
        Self { stream, handles: HashMap::new() }
    }

    fn register(&self, series: &Series) -> Handle {
        const METADATA: Metadata<'static> = Metadata::new("kpl", Level::INFO, Some(module_path!()));
        let (metric, shard, code) = series;
        let definition = metric.definition();
        let labels = [
            Some(Label::new(STREAM_NAME, self.stream.to_string())),
            shard.as_ref().map(|shard| Label::new(SHARD_ID, shard.to_string())),
            code.as_ref().map(|code| Label::new(ERROR_CODE, code.to_string())),
        ];
        let labels: Vec<_> = labels.into_iter().flatten().collect();
        let key = facade::Key::from_parts(definition.name, labels);
        facade::with_recorder(|recorder| match definition.kind {
            Kind::Counter => Handle::Counter(recorder.register_counter(&key, &METADATA)),
            Kind::Gauge => Handle::Gauge(recorder.register_gauge(&key, &METADATA)),
            Kind::Distribution => Handle::Histogram(recorder.register_histogram(&key, &METADATA)),
        })
    }
}

impl Sink for FacadeSink {
    fn record(&mut self, sample: Sample<'_>) {
        let by_shard = sample.metric.definition().finest == MetricsGranularity::Shard;
        let shard = sample.shard.filter(|_| by_shard).cloned();
        let series = (sample.metric, shard, sample.code.cloned());
        if !self.handles.contains_key(&series) {
            if self.handles.len() >= MAX_HANDLES {
                self.handles.clear();
            }
            let handle = self.register(&series);
            self.handles.insert(series.clone(), handle);
        }
        match self.handles.get(&series) {
            Some(Handle::Counter(counter)) => {
                counter.increment((sample.value * sample.count as f64).round() as u64);
            }
            Some(Handle::Gauge(gauge)) => gauge.set(sample.value),
            // Once, however often it occurred: recorders take each value by itself, and one record can have 10,000 members.
            Some(Handle::Histogram(histogram)) => histogram.record(sample.value),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use ::metrics::{
        CounterFn, GaugeFn, HistogramFn, Key, KeyName, Recorder, SharedString, with_local_recorder,
    };

    use super::*;

    /// Notes every value by its series.
    #[derive(Clone, Default)]
    struct Notes(Arc<Mutex<BTreeMap<String, Vec<f64>>>>);

    struct Note(Notes, String);

    impl Note {
        fn push(&self, value: f64) {
            let mut notes = self.0.0.lock().unwrap();
            notes.entry(self.1.clone()).or_default().push(value);
        }
    }

    impl CounterFn for Note {
        fn increment(&self, value: u64) {
            self.push(value as f64);
        }
        fn absolute(&self, _: u64) {
            panic!("only steps are counted");
        }
    }

    impl GaugeFn for Note {
        fn increment(&self, _: f64) {
            panic!("gauges are set");
        }
        fn decrement(&self, _: f64) {
            panic!("gauges are set");
        }
        fn set(&self, value: f64) {
            self.push(value);
        }
    }

    impl HistogramFn for Note {
        fn record(&self, value: f64) {
            self.push(value);
        }
    }

    impl Notes {
        fn note(&self, kind: &str, key: &Key) -> Arc<Note> {
            let labels: Vec<_> =
                key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            let series = format!("{kind} {} {}", key.name(), labels.join(" "));
            Arc::new(Note(self.clone(), series))
        }
    }

    impl Recorder for Notes {
        fn describe_counter(&self, _: KeyName, _: Option<facade::Unit>, _: SharedString) {}
        fn describe_gauge(&self, _: KeyName, _: Option<facade::Unit>, _: SharedString) {}
        fn describe_histogram(&self, _: KeyName, _: Option<facade::Unit>, _: SharedString) {}
        fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
            Counter::from_arc(self.note("counter", key))
        }
        fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
            Gauge::from_arc(self.note("gauge", key))
        }
        fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
            Histogram::from_arc(self.note("histogram", key))
        }
    }

    #[test]
    fn names_and_dimensions_are_the_kpls() {
        let notes = Notes::default();
        let (shard, code): (Arc<str>, Arc<str>) = ("shard-1".into(), "InternalFailure".into());
        with_local_recorder(&notes, || {
            let mut sink = FacadeSink::new("orders".into());
            let mut record = |metric, code, value, count| {
                sink.record(Sample { metric, shard: Some(&shard), code, value, count });
            };
            record(Metric::UserRecordsPut, None, 1.0, 3);
            record(Metric::UserRecordsPut, None, 0.0, 2);
            record(Metric::ErrorsByCode, Some(&code), 1.0, 1);
            // 42 bytes, as a mean of 9 records: neither more nor less.
            record(Metric::UserRecordsDataPut, None, 42.0 / 9.0, 9);
            record(Metric::UserRecordsFailed, Some(&code), 1.0, 2);
            record(Metric::UserRecordsDropped, None, 1.0, 4);
            record(Metric::BufferingTime, None, 12.5, 1);
            record(Metric::RetriesPerRecord, None, 2.0, 10_000);
            record(Metric::UserRecordsPending, None, 7.0, 1);
        });
        let seen: Vec<_> = notes.0.lock().unwrap().clone().into_iter().collect();
        let expected = [
            (
                "counter ErrorsByCode StreamName=orders ShardId=shard-1 ErrorCode=InternalFailure",
                vec![1.0],
            ),
            ("counter UserRecordsDataPut StreamName=orders ShardId=shard-1", vec![42.0]),
            ("counter UserRecordsDropped StreamName=orders", vec![4.0]),
            (
                "counter UserRecordsFailed StreamName=orders ShardId=shard-1 ErrorCode=InternalFailure",
                vec![2.0],
            ),
            ("counter UserRecordsPut StreamName=orders ShardId=shard-1", vec![3.0, 0.0]),
            ("gauge UserRecordsPending StreamName=orders", vec![7.0]),
            ("histogram BufferingTime StreamName=orders ShardId=shard-1", vec![12.5]),
            ("histogram RetriesPerRecord StreamName=orders ShardId=shard-1", vec![2.0]),
        ];
        assert_eq!(seen, expected.map(|(series, values)| (series.to_owned(), values)));
    }
}
