//! The publisher on a CloudWatch that notes its calls.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use kinesis_common::metrics::cloudwatch::{Datum, UploadError, Values};
use kinesis_common::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::metrics::Meter;

const MINUTE: Duration = Duration::from_secs(60);

/// Takes all data, and notes them by call.
#[derive(Default)]
struct Calls(Mutex<Vec<Vec<Datum>>>);

impl Uploader for Calls {
    fn put(&self, data: Vec<Datum>) -> BoxFuture<'static, Result<(), UploadError>> {
        self.0.lock().push(data);
        async { Ok(()) }.boxed()
    }
}

/// A publisher of the settings that runs until the test ends it.
struct Running {
    calls: Arc<Calls>,
    meter: Meter,
    ended: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(config: CloudWatchConfig) -> Self {
        let calls = Arc::new(Calls::default());
        let uploader = Arc::clone(&calls) as Arc<dyn Uploader>;
        let (sink, publisher) = CloudWatch { config, uploader }.publish("w1", 42);
        let ended = CancellationToken::new();
        let task = tokio::spawn(publisher.run(ended.clone(), Duration::from_secs(5)));
        Self { calls, meter: Meter::new(vec![Arc::new(sink)]), ended, task }
    }

    async fn end(self) -> Vec<Vec<Datum>> {
        self.ended.cancel();
        self.task.await.unwrap();
        std::mem::take(&mut *self.calls.0.lock())
    }
}

/// The values of each series, by "metric dimension=value ...".
fn series(data: Vec<Datum>) -> BTreeMap<String, Values> {
    let text = |datum: Datum| {
        let dimensions = datum.series.dimensions.iter();
        let dimensions = dimensions.map(|(name, value)| format!(" {name}={value}"));
        (format!("{}{}", datum.series.metric, dimensions.collect::<String>()), datum.values)
    };
    data.into_iter().map(text).collect()
}

#[tokio::test(start_paused = true)]
async fn names_and_dimensions_are_those_of_the_java_library() {
    let running = Running::start(CloudWatchConfig::default());
    let meter = &running.meter;
    meter.put(Metric::RecordsProcessed, Some("shard-1"), 3.0);
    meter.put(Metric::RecordsProcessed, Some("shard-1"), 4.0);
    meter.put(Metric::ProcessRecordsTime, Some("shard-1"), 12.5);
    meter.put(Metric::MillisBehindLatest, Some("shard-1"), 1_500.0);
    meter.put(Metric::ApplicationMillisBehindLatest, None, 1_500.0);
    meter.put(Metric::CurrentLeases, None, 7.0);
    let seen = series(running.end().await.concat());
    let names: Vec<_> = seen.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "CurrentLeases Operation=RenewAllLeases WorkerIdentifier=w1",
            "MillisBehindLatest Operation=ApplicationTracker",
            "MillisBehindLatest Operation=ProcessTask ShardId=shard-1",
            "RecordProcessor.processRecords.Time Operation=ProcessTask ShardId=shard-1",
            "RecordsProcessed Operation=ProcessTask ShardId=shard-1",
        ]
    );
    let records = &seen["RecordsProcessed Operation=ProcessTask ShardId=shard-1"];
    assert_eq!((records.count, records.sum, records.most), (2, 7.0, 4.0));
    let time = "RecordProcessor.processRecords.Time Operation=ProcessTask ShardId=shard-1";
    assert_eq!(seen[time].times.len(), 1, "CloudWatch computes percentiles of it");
    let behind = &seen["MillisBehindLatest Operation=ApplicationTracker"];
    assert!(behind.times.is_empty(), "a gauge has a maximum");
}

#[tokio::test(start_paused = true)]
async fn level_and_dimensions_are_as_configured() {
    let seen = async |config: CloudWatchConfig| {
        let running = Running::start(config);
        for shard in ["shard-1", "shard-2"] {
            running.meter.put(Metric::RecordsProcessed, Some(shard), 2.0);
            running.meter.put(Metric::GetRecordsTime, Some(shard), 2.0);
        }
        running.meter.put(Metric::CurrentLeases, None, 2.0);
        let seen = series(running.end().await.concat());
        seen.into_iter().map(|(name, values)| format!("{name}: {}", values.sum)).collect::<Vec<_>>()
    };
    let config = CloudWatchConfig::default;
    let summary = seen(config().with_level(MetricsLevel::Summary)).await;
    assert_eq!(summary.len(), 3, "{summary:?}");
    let detailed = seen(config().with_level(MetricsLevel::Detailed)).await;
    assert_eq!(detailed.len(), 5, "{detailed:?}");
    assert!(seen(config().with_level(MetricsLevel::None)).await.is_empty());
    let merged = seen(config().with_dimensions(BTreeSet::new())).await;
    let expected =
        ["CurrentLeases Operation=RenewAllLeases: 2", "RecordsProcessed Operation=ProcessTask: 4"];
    assert_eq!(merged, expected);
}

/// Number of calls in a minute of a worker that measures every metric of each shard in each second.
async fn calls_per_minute(shards: usize, level: MetricsLevel) -> usize {
    const MINUTES: u32 = 5;
    let running = Running::start(CloudWatchConfig::default().with_level(level));
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..MINUTES * 60 {
        for metric in Metric::ALL {
            if metric.definition().dimension == Dimension::Shard {
                for shard in 0..shards {
                    let shard = format!("shardId-{shard:012}");
                    running.meter.put(*metric, Some(&shard), 1.1_f64.powi(random.i32(0..20)));
                }
            } else {
                running.meter.put(*metric, None, 1.0);
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    running.end().await.len().div_ceil(MINUTES as usize)
}

/// The Java library puts 20 data in a call, at least each 10 s. With its default level a shard has ten series that each
/// second brings a value of, so 100 shards take 50 calls each 10 s, and more while its queue overflows before.
#[tokio::test(start_paused = true)]
async fn a_hundred_shards_take_few_calls() {
    let java = 100 * 10 / 20 * 6;
    let summary = calls_per_minute(100, MetricsLevel::Summary).await;
    let detailed = calls_per_minute(100, MetricsLevel::Detailed).await;
    assert!(summary <= 3 && detailed <= 6, "{summary} and {detailed} calls a minute");
    assert!(50 * detailed <= java, "{detailed} instead of {java}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_while_nothing_is_measured() {
    let running = Running::start(CloudWatchConfig::default());
    running.meter.put(Metric::RecordsProcessed, Some("shard-1"), 3.0);
    tokio::time::sleep(5 * MINUTE).await;
    assert_eq!(running.end().await.len(), 1);
}
