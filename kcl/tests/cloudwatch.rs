//! A worker that publishes its metrics to a CloudWatch that answers, refuses and hangs, in paused time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use more of it")]
#[path = "support/clock.rs"]
mod clock;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use kcl::metrics::CloudWatchConfig;
use kcl::{
    BuildError, Clock, ConsumerConfig, HealthStatus, InitialPosition, ProblemKind, ProcessorError,
    RecordBatch, RecordProcessor, Scheduler, SchedulerBuilder, ShardContext, ShardEnd, Shutdown,
    WorkerHandle,
};
use kinesis_testkit::LocalAws;
use tokio::runtime::Handle;

use crate::clock::TokioClock;

const SECOND: Duration = Duration::from_secs(1);

/// What CloudWatch does with a call.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Taken,
    Forbidden,
    Never,
}

/// A CloudWatch in this process, which keeps the bodies of all requests.
#[derive(Debug, Clone)]
struct CloudWatch(Arc<Mutex<(Answer, Vec<Vec<u8>>)>>);

impl CloudWatch {
    fn new() -> Self {
        Self(Arc::new(Mutex::new((Answer::Taken, Vec::new()))))
    }

    fn answer(&self, answer: Answer) {
        self.0.lock().unwrap().0 = answer;
    }

    fn calls(&self) -> usize {
        self.0.lock().unwrap().1.len()
    }

    /// Whether a request has held the text.
    fn has_seen(&self, text: &str) -> bool {
        let holds = |body: &Vec<u8>| body.windows(text.len()).any(|part| part == text.as_bytes());
        self.0.lock().unwrap().1.iter().any(holds)
    }
}

impl HttpConnector for CloudWatch {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let body = request.body().bytes().unwrap().to_vec();
        let answer = {
            let mut state = self.0.lock().unwrap();
            state.1.push(body);
            state.0
        };
        HttpConnectorFuture::new(async move {
            let response = |status: u16, body: &'static [u8]| {
                HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::from(body))
            };
            Ok(match answer {
                Answer::Taken => {
                    let mut taken = response(200, b"\xA0");
                    taken.headers_mut().insert("smithy-protocol", "rpc-v2-cbor");
                    taken
                }
                Answer::Forbidden => response(403, b""),
                Answer::Never => std::future::pending().await,
            })
        })
    }
}

impl HttpClient for CloudWatch {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

/// Counts records.
struct Counting(Arc<AtomicUsize>);

impl RecordProcessor for Counting {
    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        self.0.fetch_add(batch.len(), Ordering::Relaxed);
        Ok(batch.checkpointer().checkpoint().await?)
    }
    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(end.checkpoint().await?)
    }
    async fn shutdown_requested(&mut self, _: Shutdown<'_>) -> Result<(), ProcessorError> {
        Ok(())
    }
}

/// A worker, its stream, and its CloudWatch.
struct Scene {
    aws: LocalAws,
    clock: TokioClock,
    cloudwatch: CloudWatch,
    processed: Arc<AtomicUsize>,
    put: usize,
}

impl Scene {
    async fn new() -> Self {
        let clock = TokioClock::new();
        let services = kinesis_testkit::TokioClock::starting_at(clock.wall());
        let aws = LocalAws::builder().clock(services).build().await.unwrap();
        aws.create_stream("orders", 2).await.unwrap();
        let (cloudwatch, processed) = (CloudWatch::new(), Arc::default());
        Self { aws, clock, cloudwatch, processed, put: 0 }
    }

    fn builder(&self, config: CloudWatchConfig) -> SchedulerBuilder {
        let sdk_config = self.aws.in_process_config();
        let cloudwatch = sdk_config.to_builder().http_client(self.cloudwatch.clone());
        let cloudwatch = cloudwatch.disable_request_compression(true).build();
        let processed = Arc::clone(&self.processed);
        let settings = ConsumerConfig::default()
            .with_worker_id("w1")
            .with_initial_position(InitialPosition::TrimHorizon);
        Scheduler::builder("billing", "orders", &sdk_config)
            .processor(move |_: &ShardContext| Counting(Arc::clone(&processed)))
            .config(settings)
            .cloudwatch(&cloudwatch, config)
            .coordination_on(Handle::current())
            .clock(Arc::new(self.clock))
    }

    /// Puts a record a second, for so many seconds, and waits until all are processed.
    async fn process(&mut self, seconds: usize) {
        let kinesis = aws_sdk_kinesis::Client::new(&self.aws.in_process_config());
        for id in 0..seconds {
            let put = kinesis.put_record().stream_name("orders").partition_key(id.to_string());
            put.data(Blob::new("data")).send().await.unwrap();
            tokio::time::sleep(SECOND).await;
        }
        self.put += seconds;
        for _ in 0..60 {
            if self.processed.load(Ordering::Relaxed) == self.put {
                return;
            }
            tokio::time::sleep(SECOND).await;
        }
        panic!("{} of {} are processed", self.processed.load(Ordering::Relaxed), self.put);
    }
}

fn upload_problem(worker: &WorkerHandle) -> Option<String> {
    let mut problems = worker.health().problems.into_iter();
    let problem = problems.find(|problem| problem.kind == ProblemKind::MetricsUploadFailing);
    problem.map(|problem| problem.to_string())
}

#[tokio::test(start_paused = true)]
async fn metrics_are_published_and_a_failure_holds_up_nothing() {
    let mut scene = Scene::new().await;
    let builder = scene.builder(CloudWatchConfig::default());
    let worker = builder.build().await.unwrap().spawn();
    scene.process(240).await;
    let calls = scene.cloudwatch.calls();
    assert!((3..=5).contains(&calls), "{calls} calls in four minutes");
    for text in [
        "billing",
        "Operation",
        "ProcessTask",
        "RecordsProcessed",
        "MillisBehindLatest",
        "ApplicationTracker",
        "ShardId",
        "shardId-000000000001",
        "RenewAllLeases",
        "CurrentLeases",
        "WorkerIdentifier",
        "StatisticValues",
        "Milliseconds",
    ] {
        assert!(scene.cloudwatch.has_seen(text), "{text}");
    }
    assert!(!scene.cloudwatch.has_seen("KinesisDataFetcher"), "it is above the level");
    assert!(worker.health().is_healthy(), "{}", worker.health());

    scene.cloudwatch.answer(Answer::Forbidden);
    scene.process(70).await;
    let text = upload_problem(&worker).unwrap();
    assert!(text.contains("cloudwatch:PutMetricData"), "{text}");
    assert_eq!(worker.health().status, HealthStatus::Degraded);
    scene.cloudwatch.answer(Answer::Taken);
    scene.process(70).await;
    assert_eq!(upload_problem(&worker), None);

    scene.cloudwatch.answer(Answer::Never);
    scene.process(110).await;
    assert!(upload_problem(&worker).unwrap().contains("timeout"), "{:?}", upload_problem(&worker));
    let (stopping, deadline) = (scene.clock.now(), 20 * SECOND);
    let report = worker.shutdown(deadline).await.unwrap();
    assert_eq!(report.drained.len(), 2, "{report}");
    assert!(scene.clock.now() - stopping <= WorkerHandle::STOP_MARGIN + SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_last_metrics_are_uploaded_at_a_planned_stop_and_none_after_a_crash() {
    let mut scene = Scene::new().await;
    let hourly = || CloudWatchConfig::default().with_upload_interval(3_600 * SECOND);
    let worker = scene.builder(hourly()).build().await.unwrap().spawn();
    scene.process(5).await;
    assert_eq!(scene.cloudwatch.calls(), 0);
    worker.shutdown(20 * SECOND).await.unwrap();
    assert_eq!(scene.cloudwatch.calls(), 1);
    assert!(scene.cloudwatch.has_seen("RecordsProcessed"));
    assert!(scene.cloudwatch.has_seen("ShutdownNotificationTask"), "of the stop itself");

    let worker = scene.builder(hourly()).build().await.unwrap().spawn();
    scene.process(5).await;
    worker.abort();
    worker.join().await.unwrap_err();
    assert_eq!(scene.cloudwatch.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn wrong_settings_are_named_by_build() {
    let scene = Scene::new().await;
    let wrong = CloudWatchConfig::default().with_namespace("AWS/mine");
    let error = scene.builder(wrong).build().await.unwrap_err();
    assert!(matches!(error, BuildError::Config(_)), "{error}");
    assert!(error.to_string().contains("CloudWatch namespace"), "{error}");
}
