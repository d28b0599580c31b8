//! The metrics through the `metrics` facade: to whatever recorder the application installed.

use std::sync::Arc;

use ::metrics::{Label, Level, Metadata};
use kinesis_common::metrics::facade::{Handle, Handles, describe};

use super::names::{Definition, Metric};
use super::{Sample, Sink};
use crate::config::metrics::{ERROR_CODE, MetricsGranularity, SHARD_ID, STREAM_NAME};

const METADATA: Metadata<'static> = Metadata::new("kpl", Level::INFO, Some(module_path!()));

pub(crate) struct FacadeSink {
    stream: Arc<str>,
    /// By metric and error code.
    handles: Handles<(Metric, Option<Arc<str>>)>,
}

impl FacadeSink {
    pub(crate) fn new(stream: Arc<str>) -> Self {
        for metric in Metric::ALL {
            let Definition { name, unit, kind, description, .. } = metric.definition();
            describe(name, unit, kind, description);
        }
        Self { stream, handles: Handles::default() }
    }
}

impl Sink for FacadeSink {
    fn record(&mut self, sample: Sample<'_>) {
        let Definition { name, kind, finest, .. } = sample.metric.definition();
        let shard = sample.shard.filter(|_| finest == MetricsGranularity::Shard);
        let shard = shard.map(|shard| &**shard).unwrap_or_default();
        let handle = self.handles.handle(shard, (sample.metric, sample.code.cloned()), || {
            let labels = [
                Some(Label::new(STREAM_NAME, self.stream.to_string())),
                (!shard.is_empty()).then(|| Label::new(SHARD_ID, shard.to_owned())),
                sample.code.map(|code| Label::new(ERROR_CODE, code.to_string())),
            ];
            Handle::register(&METADATA, name, kind, labels.into_iter().flatten().collect())
        });
        handle.record(sample.value, sample.count);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use ::metrics::{
        self as facade, Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName,
        Recorder, SharedString, with_local_recorder,
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
