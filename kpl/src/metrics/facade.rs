//! The metrics through the `metrics` facade: to the recorder that the application installed.

#[cfg(test)]
#[path = "../../../common/tests/support/metrics_recorder.rs"]
mod metrics_recorder;

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

    use ::metrics::{Key, with_local_recorder};

    use super::metrics_recorder::{Kind, TestRecorder};
    use super::*;

    /// Every value, by its series.
    type Values = Arc<Mutex<BTreeMap<String, Vec<f64>>>>;

    fn recorder(values: &Values) -> TestRecorder {
        let values = Arc::clone(values);
        TestRecorder::new(move |kind: Kind, key: &Key, value| {
            let labels: Vec<_> =
                key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
            let kind = format!("{kind:?}").to_lowercase();
            let series = format!("{kind} {} {}", key.name(), labels.join(" "));
            values.lock().unwrap().entry(series).or_default().push(value);
        })
    }

    #[test]
    fn names_and_dimensions_are_the_kpls() {
        let values = Values::default();
        let (shard, code): (Arc<str>, Arc<str>) = ("shard-1".into(), "InternalFailure".into());
        with_local_recorder(&recorder(&values), || {
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
        let seen: Vec<_> = values.lock().unwrap().clone().into_iter().collect();
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
