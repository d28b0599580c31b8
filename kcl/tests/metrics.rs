//! What a worker reports through the facade, on the embedded AWS.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../common/tests/support/metrics_recorder.rs"]
mod metrics_recorder;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_kinesis::primitives::Blob;
use kcl::{
    ConsumerConfig, InitialPosition, ProcessorError, RecordBatch, RecordProcessor, Scheduler,
    ShardContext, ShardEnd, Shutdown,
};
use kinesis_testkit::LocalAws;
use metrics::Key;

use crate::metrics_recorder::{Kind, TestRecorder};

/// The sum of each counter, the last value of each gauge, and the number of values of each histogram, by
/// its [`series`].
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<BTreeMap<String, f64>>>);

impl Notes {
    fn recorder(&self) -> TestRecorder {
        let notes = self.clone();
        TestRecorder::new(move |kind: Kind, key: &Key, value| {
            let mut notes = notes.0.lock().unwrap();
            let noted = notes.entry(series(key)).or_default();
            match kind {
                Kind::Counter => *noted += value,
                Kind::Gauge => *noted = value,
                Kind::Histogram => {
                    assert!(value >= 0.0);
                    *noted += 1.0;
                }
            }
        })
    }

    fn of(&self, series: &str) -> Option<f64> {
        self.0.lock().unwrap().get(series).copied()
    }

    async fn until(&self, series: &str, wanted: impl Fn(f64) -> bool) {
        for _ in 0..6_000 {
            if self.of(series).is_some_and(&wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{series}: {:?}", self.of(series));
    }
}

/// "operation name dimension=value".
fn series(key: &Key) -> String {
    let label = |name: &str| {
        let mut labels = key.labels();
        labels.find(|label| label.key() == name).map(|label| label.value().to_owned())
    };
    assert_eq!(label("ApplicationName").as_deref(), Some("billing"));
    let operation = label("Operation").unwrap();
    let by = match label("ShardId") {
        Some(shard) => format!("shard={shard}"),
        None => format!("worker={}", label("WorkerIdentifier").unwrap()),
    };
    format!("{operation} {} {by}", key.name())
}

/// Fails the first time, then checkpoints.
struct Flaky {
    failed: bool,
}

impl RecordProcessor for Flaky {
    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        if !std::mem::replace(&mut self.failed, true) {
            return Err("the first time".into());
        }
        Ok(batch.checkpointer().checkpoint().await?)
    }
    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(end.checkpoint().await?)
    }
    async fn shutdown_requested(&mut self, _: Shutdown<'_>) -> Result<(), ProcessorError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_worker_reports_under_the_names_of_the_java_library() {
    let notes = Notes::default();
    metrics::set_global_recorder(notes.recorder()).unwrap();
    let aws = LocalAws::start().await.unwrap();
    aws.create_stream("orders", 1).await.unwrap();
    let put = || {
        let request = aws.kinesis().put_record().stream_name("orders");
        request.partition_key("k").data(Blob::new("four")).send()
    };
    for _ in 0..3 {
        put().await.unwrap();
    }
    let start = async |worker_id: &str| {
        let config = ConsumerConfig::default()
            .with_worker_id(worker_id)
            .with_initial_position(InitialPosition::TrimHorizon)
            .with_failover_time(Duration::from_secs(2))
            .with_dynamodb_request_timeout(Duration::from_millis(500));
        let builder = Scheduler::builder("billing", "orders", &aws.sdk_config())
            .processor(|_: &ShardContext| Flaky { failed: false })
            .config(config);
        builder.build().await.unwrap().spawn()
    };
    let worker = start("w").await;
    let by_shard = "shard=shardId-000000000000";
    let task = |name: &str| format!("ProcessTask {name} {by_shard}");
    notes.until(&task("RecordsProcessed"), |sum| sum == 3.0).await;
    assert_eq!(notes.of(&task("DataBytesProcessed")), Some(12.0));
    assert_eq!(notes.of(&task("FailedBatches")), Some(1.0));
    let calls = notes.of(&task("RecordProcessor.processRecords.Time")).unwrap();
    let successes = notes.of(&task("Success")).unwrap();
    assert_eq!(calls, successes + 1.0, "one failed");
    assert_eq!(notes.of(&task("Time")), Some(successes), "per batch");
    assert_eq!(notes.of(&task("UpdateLease.Success")), Some(successes));
    notes.until(&task("MillisBehindLatest"), |last| last == 0.0).await;
    notes.until(&task("MillisSinceCheckpoint"), |last| last > 0.0).await;
    // One page of three records: its oldest and its newest one.
    assert!(notes.of(&task("PropagationDelay")).unwrap() >= 2.0);
    let fetches = "KinesisDataFetcher.getRecords";
    assert!(notes.of(&task(&format!("{fetches}.Success"))).unwrap() >= 1.0);
    assert!(notes.of(&task(&format!("{fetches}.Time"))).unwrap() >= 1.0);
    let initialised = format!("InitializeTask Success {by_shard}");
    assert_eq!(notes.of(&initialised), Some(1.0));

    let worker_metrics = [
        ("RenewAllLeases CurrentLeases", 1.0),
        ("TakeLeases TotalLeases", 1.0),
        ("TakeLeases TakenLeases", 1.0),
        ("TakeLeases UnownedLeases", 0.0),
        ("TakeLeases NumWorkers", 1.0),
        ("TakeLeases LeaseDeserializationFailureCount", 0.0),
        ("WorkerMetricStatsReporter Success", 1.0),
        ("ApplicationTracker MillisBehindLatest", 0.0),
        ("ShardHealth IdleShards", 1.0),
        ("ShardHealth StuckShards", 0.0),
    ];
    for (series, value) in worker_metrics {
        let series = format!("{series} worker=w");
        notes.until(&series, |last| last == value).await;
    }
    notes.until("RenewAllLeases RenewLease.Success worker=w", |sum| sum >= 1.0).await;
    notes.until("LeaseDiscovery ListLeaseKeysForWorker.Success worker=w", |sum| sum >= 1.0).await;

    // A lease of a dead worker counts as unowned once the failover time has passed.
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let dead = aws.dynamodb().update_item().table_name("billing");
    dead.key("leaseKey", text("shardId-000000000000"))
        .update_expression("SET leaseOwner = :o ADD leaseCounter :n")
        .expression_attribute_values(":o", text("dead"))
        .expression_attribute_values(":n", AttributeValue::N("5".to_owned()))
        .send()
        .await
        .unwrap();
    notes.until("RenewAllLeases LostLeases worker=w", |sum| sum == 1.0).await;
    notes.until("TakeLeases UnownedLeases worker=w", |last| last == 1.0).await;
    notes.until("TakeLeases TakenLeases worker=w", |sum| sum == 2.0).await;
    worker.shutdown(Duration::from_secs(20)).await.unwrap();
    let asked = format!("ShutdownNotificationTask Success {by_shard}");
    assert_eq!(notes.of(&asked), Some(1.0));
    assert_eq!(notes.of("RenewAllLeases CurrentLeases worker=w"), Some(0.0));

    let aborted = start("v").await;
    let held = "RenewAllLeases CurrentLeases worker=v";
    notes.until(held, |last| last == 1.0).await;
    aborted.abort();
    aborted.join().await.unwrap_err();
    assert_eq!(notes.of(held), Some(0.0));
}
