//! The publisher on a scripted CloudWatch.

mod socket;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kinesis_common::metrics::cloudwatch::{Datum, Pending, UploadError, Values};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::clock;
use crate::config::{MetricsDimension, MetricsGranularity, MetricsLevel};
use crate::metrics::names::Metric;
use crate::metrics::{Sample, Sink};
use crate::sync::{Mutex, lock};

pub(crate) type Answer = Result<(), UploadError>;

/// Notes what it is given and when, and answers as its script says.
pub(crate) struct Scripted {
    script: Box<dyn Fn(usize) -> Answer + Send + Sync>,
    calls: Mutex<Vec<(clock::Instant, Vec<Datum>)>>,
}

impl Scripted {
    pub(crate) fn new(script: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { script: Box::new(script), calls: Mutex::default() })
    }

    pub(crate) fn calls(&self) -> Vec<Vec<Datum>> {
        let calls = lock(&self.calls);
        calls.iter().map(|(_, data)| data.clone()).collect()
    }
}

impl Uploader for Scripted {
    fn put(&self, data: Vec<Datum>) -> BoxFuture<'static, Answer> {
        let mut calls = lock(&self.calls);
        let answer = (self.script)(calls.len());
        calls.push((clock::now(), data));
        async move { answer }.boxed()
    }
}

fn unavailable() -> Answer {
    Err(UploadError {
        code: "InternalServiceError".into(),
        message: "scripted".into(),
        is_refused: false,
    })
}

/// Dimensions as text, for comparison.
pub(crate) fn texts(data: &[Datum]) -> BTreeMap<(&'static str, String), Values> {
    let text = |datum: &Datum| {
        let dimensions = datum.series.dimensions.iter();
        let dimensions: Vec<_> =
            dimensions.map(|(name, value)| format!("{name}={value}")).collect();
        let name = datum.series.metric;
        ((name, dimensions.join(" ")), datum.values.clone())
    };
    data.iter().map(text).collect()
}

struct Running {
    uploader: Arc<Scripted>,
    sink: CloudWatchSink,
    ended: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn run(uploader: Arc<Scripted>, config: CloudWatchConfig) -> Running {
    let ended = CancellationToken::new();
    let cloudwatch = CloudWatch { config, uploader: Arc::clone(&uploader) as Arc<dyn Uploader> };
    let (sink, publisher) = cloudwatch.publish("orders".into(), 42);
    let task = tokio::spawn(publisher.run(ended.clone(), LAST_UPLOAD));
    Running { uploader, sink, ended, task }
}

fn record(sink: &CloudWatchSink, metric: Metric, shard: Option<&str>, value: f64, count: u64) {
    let shard = shard.map(Arc::from);
    let code = (metric == Metric::ErrorsByCode).then(|| Arc::from("InternalFailure"));
    sink.clone().record(Sample {
        metric,
        shard: shard.as_ref(),
        code: code.as_ref(),
        value,
        count,
    });
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn each_minute_brings_the_sums_of_shard_stream_and_all() {
    let Running { uploader, sink, ended, task } =
        run(Scripted::new(|_| Ok(())), CloudWatchConfig::default());
    record(&sink, Metric::UserRecordsPut, Some("a"), 1.0, 3);
    record(&sink, Metric::UserRecordsPut, Some("a"), 0.0, 1);
    record(&sink, Metric::UserRecordsPut, Some("b"), 1.0, 2);
    record(&sink, Metric::ErrorsByCode, Some("b"), 1.0, 1);
    record(&sink, Metric::UserRecordsPending, None, 7.0, 1);
    record(&sink, Metric::RequestTime, Some("a"), 12.0, 1);
    tokio::time::sleep(MINUTE + MINUTE / 8).await;

    let calls = uploader.calls();
    assert_eq!(calls.len(), 1);
    let seen = texts(&calls[0]);
    let of = |name, dimensions: &str| &seen[&(name, dimensions.to_owned())];
    let shard = of("UserRecordsPut", "StreamName=orders ShardId=a");
    assert_eq!((shard.count, shard.sum, shard.least, shard.most), (4, 3.0, 0.0, 1.0));
    for coarser in ["", "StreamName=orders"] {
        let all = of("UserRecordsPut", coarser);
        assert_eq!((all.count, all.sum), (6, 5.0));
        assert_eq!(of("UserRecordsPending", coarser).most, 7.0);
        assert_eq!(of("RequestTime", coarser).times.len(), 1);
    }
    for dimensions in [
        "ErrorCode=InternalFailure",
        "ErrorCode=InternalFailure StreamName=orders",
        "ErrorCode=InternalFailure StreamName=orders ShardId=b",
    ] {
        assert_eq!(of("ErrorsByCode", dimensions).sum, 1.0);
    }
    assert_eq!(seen.len(), 4 + 3 + 2 + 2, "{seen:?}");

    // Without new samples nothing is sent. The end sends the rest.
    tokio::time::sleep(3 * MINUTE).await;
    assert_eq!(uploader.calls().len(), 1);
    record(&sink, Metric::UserRecordExpired, Some("a"), 1.0, 1);
    ended.cancel();
    task.await.unwrap();
    assert_eq!(uploader.calls().len(), 2);
    assert_eq!(uploader.calls()[1].len(), 3);
}

#[tokio::test(start_paused = true)]
async fn level_granularity_and_more_dimensions_are_as_configured() {
    let config = |level, granularity| CloudWatchConfig {
        level,
        granularity,
        dimensions: [
            ("all", MetricsGranularity::Global),
            ("of", MetricsGranularity::Stream),
            ("fine", MetricsGranularity::Shard),
        ]
        .map(|(name, granularity)| MetricsDimension {
            name: name.into(),
            value: "x".into(),
            granularity,
        })
        .into(),
        ..Default::default()
    };
    let seen = async |level, granularity| {
        let running = run(Scripted::new(|_| Ok(())), config(level, granularity));
        record(&running.sink, Metric::UserRecordsPut, Some("a"), 1.0, 1);
        record(&running.sink, Metric::RetriesPerRecord, Some("a"), 1.0, 1);
        running.ended.cancel();
        running.task.await.unwrap();
        let data = running.uploader.calls().concat();
        texts(&data).into_keys().collect::<Vec<_>>()
    };
    let put = |dimensions: &str| ("UserRecordsPut", dimensions.to_owned());
    let by_shard = seen(MetricsLevel::Summary, MetricsGranularity::Shard).await;
    let expected = [
        put("all=x"),
        put("all=x StreamName=orders of=x"),
        put("all=x StreamName=orders of=x ShardId=a fine=x"),
    ];
    assert_eq!(by_shard, expected);
    let by_stream = seen(MetricsLevel::Summary, MetricsGranularity::Stream).await;
    assert_eq!(by_stream, expected[..2]);
    let all = seen(MetricsLevel::Detailed, MetricsGranularity::Global).await;
    assert_eq!(all, [("RetriesPerRecord", "all=x".to_owned()), put("all=x")]);
    assert!(seen(MetricsLevel::None, MetricsGranularity::Shard).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_uploaded_comes_with_the_next() {
    let uploader = Scripted::new(|call| if call < 3 { unavailable() } else { Ok(()) });
    let running = run(uploader, CloudWatchConfig::default());
    for _ in 0..4 {
        record(&running.sink, Metric::UserRecordsPut, Some("a"), 1.0, 10);
        record(&running.sink, Metric::BufferingTime, Some("a"), 5.0, 1);
        tokio::time::sleep(MINUTE + MINUTE / 8).await;
    }
    let calls = running.uploader.calls();
    assert_eq!(calls.len(), 4);
    let last = texts(&calls[3]);
    let of = |name| &last[&(name, "StreamName=orders".to_owned())];
    assert_eq!(of("UserRecordsPut").sum, 40.0);
    assert_eq!(of("BufferingTime").times.values().sum::<u64>(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_call_has_a_thousand_data_at_most_and_what_is_kept_is_bounded() {
    let uploader = Scripted::new(|call| if call == 0 { unavailable() } else { Ok(()) });
    let running = run(uploader, CloudWatchConfig::default());
    for shard in 0..30_000 {
        let shard = format!("shardId-{shard:012}");
        record(&running.sink, Metric::BufferingTime, Some(&shard), 1.0, 1);
    }
    tokio::time::sleep(3 * MINUTE).await;
    let calls = running.uploader.calls();
    assert!(calls.iter().all(|data| data.len() <= 1000));
    let uploaded = texts(&calls[1..].concat());
    assert!(uploaded.len() > 15_000 && uploaded.len() <= 20_000, "{}", uploaded.len());
    let all = &uploaded[&("BufferingTime", String::new())];
    assert_eq!(all.count, 30_000, "what found no room by shard counts for all");
    // Each series was uploaded once.
    assert_eq!(calls[1..].concat().len(), uploaded.len());
}

#[tokio::test(start_paused = true)]
async fn refused_data_are_dropped_and_a_hanging_end_is_cut() {
    let uploader = Scripted::new(|_| {
        Err(UploadError {
            code: "InvalidParameterValue".into(),
            message: "scripted".into(),
            is_refused: true,
        })
    });
    let running = run(uploader, CloudWatchConfig::default());
    record(&running.sink, Metric::UserRecordsPut, Some("a"), 1.0, 1);
    tokio::time::sleep(5 * MINUTE).await;
    assert_eq!(running.uploader.calls().len(), 1);

    struct Hangs;
    impl Uploader for Hangs {
        fn put(&self, _: Vec<Datum>) -> BoxFuture<'static, Answer> {
            futures::future::pending().boxed()
        }
    }
    let cloudwatch = CloudWatch { config: CloudWatchConfig::default(), uploader: Arc::new(Hangs) };
    let (sink, publisher) = cloudwatch.publish("s".into(), 1);
    record(&sink, Metric::UserRecordsPut, None, 1.0, 1);
    let ended = CancellationToken::new();
    ended.cancel();
    let began = clock::now();
    publisher.run(ended, LAST_UPLOAD).await;
    assert_eq!(began.elapsed(), Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_always_fails_holds_up_no_other() {
    const POISON: &str = "shardId-01500";
    /// Fails every call that holds one certain shard, and notes what it takes.
    #[derive(Default)]
    struct Choosy(Mutex<(usize, Vec<Datum>)>);
    impl Uploader for Choosy {
        fn put(&self, data: Vec<Datum>) -> BoxFuture<'static, Answer> {
            let of_poison = |(_, value): &(Arc<str>, Arc<str>)| &**value == POISON;
            let mut is_poisoned = data.iter().map(|datum| &datum.series.dimensions);
            let is_poisoned = is_poisoned.any(|dimensions| dimensions.iter().any(of_poison));
            let mut seen = lock(&self.0);
            let answer = match is_poisoned {
                true => {
                    seen.0 += 1;
                    unavailable()
                }
                false => {
                    seen.1.extend(data);
                    Ok(())
                }
            };
            async move { answer }.boxed()
        }
    }
    let uploader = Arc::new(Choosy::default());
    let cloudwatch = CloudWatch {
        config: CloudWatchConfig::default(),
        uploader: Arc::clone(&uploader) as Arc<dyn Uploader>,
    };
    let (sink, publisher) = cloudwatch.publish("orders".into(), 42);
    let ended = CancellationToken::new();
    let task = tokio::spawn(publisher.run(ended.clone(), LAST_UPLOAD));
    for round in 1..=3 {
        for shard in 0..5000 {
            let shard = format!("shardId-{shard:05}");
            record(&sink, Metric::UserRecordsPut, Some(&shard), f64::from(round), 1);
        }
        tokio::time::sleep(MINUTE + MINUTE / 8).await;
    }
    ended.cancel();
    task.await.unwrap();
    let (failures, taken) = std::mem::take(&mut *lock(&uploader.0));
    assert!(failures >= 3, "each upload tries what failed again");
    let mut sums = BTreeMap::new();
    for datum in taken {
        *sums.entry(datum.series.dimensions).or_insert(0.0) += datum.values.sum;
    }
    // All but the data in the same call as the shard that fails.
    let whole = sums.values().filter(|sum| **sum == 6.0).count();
    assert!((4000..5000).contains(&whole), "{whole} of {}", sums.len());
    assert!(sums.values().all(|sum| *sum <= 6.0 || *sum == 30_000.0));
}

fn layout() -> (Layout, CloudWatchSink) {
    let layout = Layout::new(&CloudWatchConfig::default(), "orders".into());
    (layout, CloudWatchSink { level: MetricsLevel::Detailed, collected: Collected::default() })
}

#[test]
fn an_error_code_that_cloudwatch_would_refuse_is_unknown() {
    let (layout, mut sink) = layout();
    for code in ["", "  ", "Größe", "bad\u{7}", &"x".repeat(1025), "Good one"] {
        sink.record(Sample {
            metric: Metric::ErrorsByCode,
            shard: None,
            code: Some(&code.into()),
            value: 1.0,
            count: 1,
        });
    }
    let mut pending = Pending::default();
    pending.absorb(sink.collected.take(), |source| layout.series_of(source));
    let seen = texts(&pending.next(None, 1000, 1_000_000));
    let sum_of = |code| seen[&("ErrorsByCode", format!("ErrorCode={code}"))].sum;
    assert_eq!((sum_of("Unknown"), sum_of("Good one")), (5.0, 1.0));
    assert_eq!(seen.len(), 4, "{seen:?}");
}

fn dimension(name: &str, value: &str) -> MetricsDimension {
    MetricsDimension {
        name: name.into(),
        value: value.into(),
        granularity: MetricsGranularity::Global,
    }
}

#[test]
fn all_problems_of_the_settings_are_named() {
    assert_eq!(CloudWatchConfig::default().validate(), Ok(()));
    let config = CloudWatchConfig {
        namespace: "AWS/Kinesis".into(),
        upload_interval: Duration::ZERO,
        dimensions: vec![dimension("", "x")],
        ..Default::default()
    };
    assert_eq!(config.validate().unwrap_err().problems().len(), 3);
}

#[test]
fn what_cloudwatch_would_refuse_is_no_valid_setting() {
    let with = |dimensions: &[(&str, &str)]| CloudWatchConfig {
        dimensions: dimensions.iter().map(|(name, value)| dimension(name, value)).collect(),
        ..Default::default()
    };
    for wrong in [
        &[("a", "1"), ("a", "2")][..],
        &[("StreamName", "x")],
        &[("ShardId", "x")],
        &[("ErrorCode", "x")],
        &[(":a", "x")],
        &[("a\n", "x")],
        &[("a", "\u{7f}")],
        &[("a", " ")],
    ] {
        let problems = with(wrong).validate().unwrap_err();
        assert_eq!(problems.problems().len(), 1, "{wrong:?}");
    }
    assert_eq!(with(&[("a", "x y"), ("b", "x y")]).validate(), Ok(()));

    // In a file of the KPL, too.
    for (namespace, is_valid) in [
        ("Mine/of #1:a", true),
        (":mine", false),
        ("AWS/mine", false),
        ("tab\there", false),
        ("größe", false),
        (" ", false),
    ] {
        let config = CloudWatchConfig { namespace: namespace.into(), ..Default::default() };
        assert_eq!(config.validate().is_ok(), is_valid, "{namespace}");
        let read = crate::ProducerConfig::from_properties(&format!("MetricsNamespace={namespace}"));
        assert_eq!(read.is_ok(), is_valid, "{namespace}");
        assert!(read.is_err() || read.unwrap().cloudwatch.validate().is_ok());
    }
}
