//! The publisher on a scripted CloudWatch, and the real client on a socket.

use std::collections::BTreeMap;

use futures::FutureExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::series::{Pending, Values};
use super::*;
use crate::clock;
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
        Arc::new(Self {
            script: Box::new(script),
            calls: Mutex::default(),
        })
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
        let dimensions: Vec<_> = dimensions
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let name = datum.series.metric.definition().name;
        ((name, dimensions.join(" ")), datum.values.clone())
    };
    data.iter().map(text).collect()
}

struct Running {
    uploader: Arc<Scripted>,
    collected: Collected,
    ended: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn run(uploader: Arc<Scripted>, config: CloudWatchConfig) -> Running {
    let collected = Collected::new(config.level);
    let ended = CancellationToken::new();
    let cloudwatch = CloudWatch {
        config,
        uploader: Arc::clone(&uploader) as Arc<dyn Uploader>,
    };
    let publisher = Publisher::new(cloudwatch, "orders".into(), collected.clone(), 42);
    let task = tokio::spawn(publisher.run(ended.clone()));
    Running {
        uploader,
        collected,
        ended,
        task,
    }
}

fn record(collected: &Collected, metric: Metric, shard: Option<&str>, value: f64, count: u64) {
    let shard = shard.map(Arc::from);
    let code = (metric == Metric::ErrorsByCode).then(|| Arc::from("InternalFailure"));
    collected.clone().record(Sample {
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
    let Running {
        uploader,
        collected,
        ended,
        task,
    } = run(Scripted::new(|_| Ok(())), CloudWatchConfig::default());
    record(&collected, Metric::UserRecordsPut, Some("a"), 1.0, 3);
    record(&collected, Metric::UserRecordsPut, Some("a"), 0.0, 1);
    record(&collected, Metric::UserRecordsPut, Some("b"), 1.0, 2);
    record(&collected, Metric::ErrorsByCode, Some("b"), 1.0, 1);
    record(&collected, Metric::UserRecordsPending, None, 7.0, 1);
    record(&collected, Metric::RequestTime, Some("a"), 12.0, 1);
    tokio::time::sleep(MINUTE + MINUTE / 8).await;

    let calls = uploader.calls();
    assert_eq!(calls.len(), 1);
    let seen = texts(&calls[0]);
    let of = |name, dimensions: &str| &seen[&(name, dimensions.to_owned())];
    let shard = of("UserRecordsPut", "StreamName=orders ShardId=a");
    assert_eq!(
        (shard.count, shard.sum, shard.least, shard.most),
        (4, 3.0, 0.0, 1.0)
    );
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

    // Nothing new, nothing sent; and at the end what is left.
    tokio::time::sleep(3 * MINUTE).await;
    assert_eq!(uploader.calls().len(), 1);
    record(&collected, Metric::UserRecordExpired, Some("a"), 1.0, 1);
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
        record(
            &running.collected,
            Metric::UserRecordsPut,
            Some("a"),
            1.0,
            1,
        );
        record(
            &running.collected,
            Metric::RetriesPerRecord,
            Some("a"),
            1.0,
            1,
        );
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
    assert_eq!(
        all,
        [("RetriesPerRecord", "all=x".to_owned()), put("all=x")]
    );
    assert!(
        seen(MetricsLevel::None, MetricsGranularity::Shard)
            .await
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_uploaded_comes_with_the_next() {
    let uploader = Scripted::new(|call| if call < 3 { unavailable() } else { Ok(()) });
    let running = run(uploader, CloudWatchConfig::default());
    for _ in 0..4 {
        record(
            &running.collected,
            Metric::UserRecordsPut,
            Some("a"),
            1.0,
            10,
        );
        record(&running.collected, Metric::BufferingTime, Some("a"), 5.0, 1);
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
        record(
            &running.collected,
            Metric::BufferingTime,
            Some(&shard),
            1.0,
            1,
        );
    }
    tokio::time::sleep(3 * MINUTE).await;
    let calls = running.uploader.calls();
    assert!(calls.iter().all(|data| data.len() <= 1000));
    let uploaded = texts(&calls[1..].concat());
    assert!(
        uploaded.len() > 15_000 && uploaded.len() <= 20_000,
        "{}",
        uploaded.len()
    );
    let all = &uploaded[&("BufferingTime", String::new())];
    assert_eq!(
        all.count, 30_000,
        "what found no room by shard counts for all"
    );
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
    record(
        &running.collected,
        Metric::UserRecordsPut,
        Some("a"),
        1.0,
        1,
    );
    tokio::time::sleep(5 * MINUTE).await;
    assert_eq!(running.uploader.calls().len(), 1);

    struct Hangs;
    impl Uploader for Hangs {
        fn put(&self, _: Vec<Datum>) -> BoxFuture<'static, Answer> {
            futures::future::pending().boxed()
        }
    }
    let collected = Collected::new(MetricsLevel::Detailed);
    record(&collected, Metric::UserRecordsPut, None, 1.0, 1);
    let cloudwatch = CloudWatch {
        config: CloudWatchConfig::default(),
        uploader: Arc::new(Hangs),
    };
    let ended = CancellationToken::new();
    ended.cancel();
    let began = clock::now();
    Publisher::new(cloudwatch, "s".into(), collected, 1)
        .run(ended)
        .await;
    assert_eq!(began.elapsed(), Duration::from_secs(5));
}

#[test]
fn all_problems_of_the_settings_are_named() {
    assert_eq!(CloudWatchConfig::default().validate(), Ok(()));
    let config = CloudWatchConfig {
        namespace: "AWS/Kinesis".into(),
        upload_interval: Duration::ZERO,
        dimensions: vec![MetricsDimension {
            name: String::new(),
            value: "x".into(),
            granularity: MetricsGranularity::Global,
        }],
        ..Default::default()
    };
    assert_eq!(config.validate().unwrap_err().problems().len(), 3);
}

/// Takes one request by HTTP/1.1, answers it as CloudWatch does, and gives back its head and body.
async fn one_request(listener: TcpListener) -> (String, Vec<u8>) {
    let (mut socket, _) = listener.accept().await.unwrap();
    let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let end = request.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        if let Some(end) = end {
            let head = String::from_utf8(request[..end].to_vec())
                .unwrap()
                .to_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.unwrap().trim().parse().unwrap();
            if request.len() >= end + 4 + length {
                let answer = b"HTTP/1.1 200 OK\r\nsmithy-protocol: rpc-v2-cbor\r\ncontent-type: application/cbor\r\ncontent-length: 1\r\n\r\n\xA0";
                socket.write_all(answer).await.unwrap();
                return (head, request[end + 4..end + 4 + length].to_vec());
            }
        }
        let read = socket.read(&mut chunk).await.unwrap();
        assert!(read > 0, "the request ended early");
        request.extend_from_slice(&chunk[..read]);
    }
}

#[tokio::test]
async fn the_real_client_puts_metric_data() {
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use aws_types::region::Region;

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let credentials = Credentials::new("id", "secret", None, None, "a test");
    let sdk_config = SdkConfig::builder()
        .region(Region::new("eu-central-1"))
        .endpoint_url(url)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    let CloudWatch { config, uploader } = CloudWatch::new(&sdk_config, CloudWatchConfig::default());
    let collected = Collected::new(MetricsLevel::Detailed);
    record(
        &collected,
        Metric::UserRecordsPut,
        Some("shardId-7"),
        1.0,
        42,
    );
    record(
        &collected,
        Metric::BufferingTime,
        Some("shardId-7"),
        12.0,
        1,
    );
    let mut pending = Pending::new(&config, "orders".into());
    pending.absorb(collected.take());
    let data = pending.next(None, 1000, 1_000_000);
    let ((head, body), answer) = tokio::join!(one_request(listener), uploader.put(data));
    answer.unwrap();

    assert!(head.contains("putmetricdata"), "{head}");
    assert!(
        head.contains("credential=id/") && head.contains("/monitoring/aws4_request"),
        "{head}"
    );
    let holds = |text: &str| {
        body.windows(text.len())
            .any(|bytes| bytes == text.as_bytes())
    };
    for text in [
        "KinesisProducerLibrary",
        "UserRecordsPut",
        "BufferingTime",
        "StreamName",
        "orders",
        "ShardId",
        "shardId-7",
        "StatisticValues",
        "SampleCount",
        "Values",
        "Counts",
        "Milliseconds",
    ] {
        assert!(holds(text), "{text}: {}", String::from_utf8_lossy(&body));
    }
}
