//! Passes the metrics to the `metrics` facade, and so to the recorder that the application installed.

use ::metrics::{Label, Level, Metadata};
use kinesis_common::metrics::facade::{Handle, Handles, describe};

use super::names::{Definition, Dimension};
use super::{Metric, Sink};

const METADATA: Metadata<'static> = Metadata::new("kcl", Level::INFO, Some(module_path!()));

#[derive(Debug)]
pub(crate) struct FacadeSink {
    application: String,
    worker_id: String,
    handles: Handles<Metric>,
}

impl FacadeSink {
    pub(crate) fn new(application: &str, worker_id: &str) -> Self {
        for metric in Metric::ALL {
            let Definition { name, unit, kind, description, .. } = metric.definition();
            describe(name, unit, kind, description);
        }
        Self {
            application: application.to_owned(),
            worker_id: worker_id.to_owned(),
            handles: Handles::default(),
        }
    }
}

impl Sink for FacadeSink {
    fn record(&self, metric: Metric, shard: Option<&str>, value: f64) {
        let shard = shard.unwrap_or_default();
        let handle = self.handles.handle(shard, metric, || {
            let Definition { name, operation, kind, dimension, .. } = metric.definition();
            let labels = vec![
                Label::new("ApplicationName", self.application.clone()),
                Label::from_static_parts("Operation", operation),
                match dimension {
                    Dimension::Shard => Label::new("ShardId", shard.to_owned()),
                    // A gauge of the application has the label, too: each worker has a value of its own.
                    Dimension::Worker | Dimension::Application => {
                        Label::new("WorkerIdentifier", self.worker_id.clone())
                    }
                },
            ];
            Handle::register(&METADATA, name, kind, labels)
        });
        handle.record(value, 1);
    }
}
