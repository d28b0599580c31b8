//! The alarm rules of the page on metrics, read from it, on processors that hang, fail and work.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "other tests use more of it")]
#[path = "support/clock.rs"]
mod clock;
#[path = "../../common/tests/support/metrics_recorder.rs"]
mod metrics_recorder;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use kcl::{
    Clock, ConsumerConfig, InitialPosition, ProcessorError, RecordBatch, RecordProcessor,
    Scheduler, ShardContext, ShardEnd, Shutdown,
};
use kinesis_testkit::LocalAws;
use metrics::Key;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::clock::TokioClock;
use crate::metrics_recorder::{Kind, TestRecorder};

const SECOND: Duration = Duration::from_secs(1);

/// A row of the page.
#[derive(Debug)]
struct Rule {
    metric: String,
    above: f64,
    lasting: Duration,
}

/// The rules of the page, by metric.
fn rules() -> Vec<Rule> {
    let page = include_str!("../src/metrics.md");
    let (_, section) = page.split_once("# Alarms").unwrap();
    let (section, _) = section.split_once("\n# ").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let seconds = cells[3].strip_suffix(" s").unwrap();
        Rule {
            metric: cells[1].trim_matches('`').to_owned(),
            above: cells[2].parse().unwrap(),
            lasting: Duration::from_secs(seconds.parse().unwrap()),
        }
    })
    .collect()
}

/// An application and a metric.
type Name = (String, String);

/// Every value of every gauge, with its time.
#[derive(Clone, Default)]
struct Series(Arc<Mutex<Values>>);

type Values = BTreeMap<Name, Vec<(Instant, f64)>>;

#[allow(clippy::disallowed_methods, reason = "a recorder with the time of the test")]
fn now() -> Instant {
    Instant::now()
}

impl Series {
    fn recorder(&self) -> TestRecorder {
        let series = self.clone();
        TestRecorder::new(move |kind: Kind, key: &Key, value| {
            if kind == Kind::Gauge {
                let mut labels = key.labels();
                let application = labels.find(|label| label.key() == "ApplicationName");
                let name = (application.unwrap().value().to_owned(), key.name().to_owned());
                series.0.lock().unwrap().entry(name).or_default().push((now(), value));
            }
        })
    }

    /// Whether the rule fires on this application's metric, which has one series here.
    fn fires(&self, application: &str, rule: &Rule) -> bool {
        let series = self.0.lock().unwrap();
        let at = (application.to_owned(), rule.metric.clone());
        let values = series.get(&at).unwrap_or_else(|| panic!("{at:?}"));
        let mut above_since = None;
        values.iter().any(|(at, value)| {
            if *value <= rule.above {
                above_since = None;
                return false;
            }
            *at - *above_since.get_or_insert(*at) >= rule.lasting
        })
    }
}

/// By its application's name.
struct Processor(&'static str);

impl RecordProcessor for Processor {
    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        match self.0 {
            "hangs" => std::future::pending().await,
            "fails" => Err("told to fail".into()),
            _ => Ok(batch.checkpointer().checkpoint().await?),
        }
    }
    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(end.checkpoint().await?)
    }
    async fn shutdown_requested(&mut self, _: Shutdown<'_>) -> Result<(), ProcessorError> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn the_documented_alarms_fire_on_processors_that_hang_or_fail_and_on_no_others() {
    let series = Series::default();
    metrics::set_global_recorder(series.recorder()).unwrap();
    let clock = TokioClock::new();
    let services = kinesis_testkit::TokioClock::starting_at(clock.wall());
    let aws = LocalAws::builder().clock(services).build().await.unwrap();
    aws.create_stream("orders", 1).await.unwrap();
    let mut workers = Vec::new();
    for application in ["hangs", "fails", "works"] {
        let config = ConsumerConfig::default().with_initial_position(InitialPosition::TrimHorizon);
        let builder = Scheduler::builder(application, "orders", &aws.in_process_config())
            .processor(move |_: &ShardContext| Processor(application))
            .config(config)
            .coordination_on(Handle::current())
            .clock(Arc::new(clock));
        workers.push(builder.build().await.unwrap().spawn());
    }
    let kinesis = aws_sdk_kinesis::Client::new(&aws.in_process_config());
    // Longer than any rule asks for, and its threshold on top.
    for _ in 0..100 {
        let put = kinesis.put_record().stream_name("orders");
        let put = put.partition_key("key").data(Blob::new("data"));
        put.send().await.unwrap();
        tokio::time::sleep(2 * SECOND).await;
    }
    let rules = rules();
    let named: Vec<_> = rules.iter().map(|rule| rule.metric.as_str()).collect();
    assert_eq!(named, ["ProcessingLag", "ProcessorCallTime", "UnownedLeases"]);
    for (application, fire) in [
        ("hangs", &["ProcessingLag", "ProcessorCallTime"][..]),
        ("fails", &["ProcessingLag"]),
        ("works", &[]),
    ] {
        let fired = rules.iter().filter(|rule| series.fires(application, rule));
        let fired: Vec<_> = fired.map(|rule| rule.metric.as_str()).collect();
        assert_eq!(fired, fire, "{application}");
    }
    for worker in workers {
        worker.abort();
    }
}
