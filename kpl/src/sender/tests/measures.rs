//! Metrics and logs of the sender.

use std::io::Write;

use tracing_subscriber::fmt::MakeWriter;

use super::*;
use crate::metrics::tests::Recorded;

/// A sender with a sink, without the handle: run by hand.
async fn measured(
    service: Arc<Scripted>,
    config: ProducerConfig,
) -> (Recorded, Producer, tokio_util::task::TaskTracker) {
    let context = Context::new(config, None, None);
    let shards = ShardRouter::new(Arc::clone(&context), 1 << 20, false);
    let map = crate::shard::map::ShardMap::new(lock(&service.shards).clone());
    shards.install(1, map);
    let recorded = Recorded::default();
    let mut sender = Sender::new(Arc::clone(&context), Arc::clone(&shards), service, 42).unwrap();
    sender.meter.add_sink(recorded.clone());
    let tasks = tokio_util::task::TaskTracker::new();
    tasks.spawn(async move { sender.run().await });
    tasks.close();
    (recorded, Producer::new(context, shards, tasks.clone()), tasks)
}

#[tokio::test(start_paused = true)]
async fn each_metric_counts_what_happened() {
    let service = Scripted::new(|passed, entries| {
        let outcome = |entry: &Entry| match shard_of(entry) {
            "low" if passed < Duration::from_millis(150) => refused("InternalFailure"),
            _ => written(entry),
        };
        (QUICK, Ok(entries.iter().map(outcome).collect()))
    });
    let (recorded, producer, tasks) = measured(service, ProducerConfig::default()).await;
    let mut deliveries = Vec::new();
    for id in 0..10_u128 {
        deliveries.push(send(&producer, id, "12345").await);
        deliveries.push(send(&producer, u128::MAX - id, "12345").await);
    }
    all_delivered(deliveries).await;
    assert_eq!(producer.in_flight_bytes(), 0);
    producer.close(Duration::from_secs(1)).await;
    tasks.wait().await;

    let low = |name| recorded.of(name, Some("low"), None);
    let high = |name| recorded.of(name, Some("high"), None);
    let stream = |name| recorded.of(name, None, None);
    assert_eq!(stream("UserRecordsReceived"), (20, 20.0));
    assert_eq!(low("UserRecordsPut"), (10, 10.0));
    assert_eq!(high("UserRecordsPut"), (10, 10.0));
    assert_eq!(high("UserRecordsDataPut"), (10, 60.0), "keys are counted");
    let failures = low("AllErrors").1;
    assert!(failures >= 1.0);
    assert_eq!(
        recorded.of("ErrorsByCode", Some("low"), Some("InternalFailure")),
        (failures as u64, failures)
    );
    assert_eq!(low("KinesisRecordsPut"), (failures as u64 + 1, 1.0));
    assert_eq!(high("AllErrors"), (1, 0.0));
    assert_eq!(low("RetriesPerRecord"), (10, 10.0 * failures));
    assert_eq!(low("BufferingTime").0, failures as u64 + 1);
    assert_eq!(high("UserRecordsPerKinesisRecord"), (1, 10.0));
    let calls = producer.stats().put_records_calls;
    assert_eq!(stream("RequestTime").0, calls);
    assert!((stream("RequestTime").1 - 5.0 * calls as f64).abs() < 2.0 * calls as f64);
    assert_eq!(stream("KinesisRecordsPerPutRecordsRequest").1, failures + 2.0);
    assert_eq!(high("DeliveryTime").0, 1);
    assert!(high("DeliveryTime").1 >= 105.0, "linger and request");
    assert!(stream("UserRecordsPending").0 > 0 && stream("BufferedBytes").1 > 0.0);

    let latencies = producer.latencies();
    assert_eq!(latencies.request_time.count, calls);
    assert_eq!(latencies.buffering_time.count, failures as u64 + 2);
    assert_eq!(latencies.delivery_time.count, 2);
    assert!(latencies.delivery_time.max >= Duration::from_millis(105));
    assert!(latencies.delivery_time.p50 <= latencies.delivery_time.p99);
}

#[cfg(feature = "cloudwatch")]
#[tokio::test(start_paused = true)]
async fn the_last_metrics_are_uploaded_when_the_producer_is_closed() {
    use crate::metrics::CloudWatchConfig;
    use crate::metrics::cloudwatch::CloudWatch;
    use crate::metrics::cloudwatch::tests::{Scripted as CloudWatchScript, texts};

    let uploader = CloudWatchScript::new(|_| Ok(()));
    let components = Components {
        cloudwatch: Some(CloudWatch {
            config: CloudWatchConfig::default(),
            uploader: Arc::clone(&uploader) as _,
        }),
        ..Components::default()
    };
    let service = Scripted::new(|_, entries| all_written(entries));
    let stream = "arn:aws:kinesis:eu-central-1:123456789012:stream/orders";
    let config = ProducerConfig::default();
    let producer = builder::start(stream.into(), service, config, components).await.unwrap();
    for id in 0..7 {
        drop(send(&producer, id, "v").await);
    }
    assert_eq!(producer.close(Duration::from_secs(5)).await.delivered, 7);
    let data = uploader.calls().concat();
    let put = ("UserRecordsPut", "StreamName=orders ShardId=low".to_owned());
    assert_eq!(texts(&data)[&put].sum, 7.0);
}

#[tokio::test(start_paused = true)]
async fn failures_and_expiries_are_counted() {
    let service = Scripted::new(|_, entries| {
        let outcome = |entry: &Entry| match shard_of(entry) {
            "low" => refused("InternalFailure"),
            _ => refused("ValidationException"),
        };
        (QUICK, Ok(entries.iter().map(outcome).collect()))
    });
    let config = ProducerConfig { record_ttl: Duration::from_secs(2), ..Default::default() };
    let (recorded, producer, _tasks) = measured(service, config).await;
    let low = [send(&producer, 0, "a").await, send(&producer, 1, "b").await];
    let high = send(&producer, u128::MAX, "c").await;
    for delivery in low {
        delivery.await.unwrap_err();
    }
    high.await.unwrap_err();
    assert_eq!(recorded.of("UserRecordsPut", Some("low"), None), (2, 0.0));
    assert_eq!(recorded.of("UserRecordExpired", Some("low"), None), (2, 2.0));
    assert_eq!(recorded.of("UserRecordsPut", Some("high"), None), (1, 0.0));
    assert_eq!(recorded.of("UserRecordExpired", Some("high"), None).0, 0);
    let failed = |shard, code| recorded.of("UserRecordsFailed", Some(shard), Some(code));
    assert_eq!(failed("low", "Expired"), (2, 2.0));
    assert_eq!(failed("high", "ValidationException"), (1, 1.0));
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_or_abandoned_counts_as_not_put() {
    let service = Scripted::new(|_, entries| {
        let throttled = refused("ProvisionedThroughputExceededException");
        (QUICK, Ok(entries.iter().map(|_| throttled.clone()).collect()))
    });
    let config = ProducerConfig { max_buffered_bytes: 64 * 1024, ..Default::default() };
    let (recorded, producer, tasks) = measured(service, config).await;
    drop(send(&producer, 0, &"x".repeat(20_000)).await);
    for _ in 0..2 {
        let record = UserRecord::new("k", vec![1; 60_000])
            .with_explicit_hash_key(HashKey::new(0))
            .with_priority(crate::record::Priority::Droppable);
        drop(producer.send(record).await.unwrap());
    }
    producer.close(Duration::from_secs(1)).await;
    tasks.wait().await;
    assert_eq!(recorded.of("UserRecordsPut", None, None), (2, 0.0));
    assert_eq!(recorded.of("UserRecordsPut", Some("low"), None), (1, 0.0));
    assert_eq!(recorded.of("UserRecordsDropped", None, None), (2, 2.0));
    assert_eq!(recorded.of("UserRecordsFailed", Some("low"), Some("Abandoned")), (1, 1.0));
}

#[tokio::test(start_paused = true)]
async fn what_rises_is_seen_to_fall_when_the_pipeline_falls_idle() {
    let service = Scripted::new(|_, entries| all_written(entries));
    let (recorded, producer, _tasks) = measured(service, ProducerConfig::default()).await;
    for round in 0..5 {
        for id in 0..10 {
            drop(send(&producer, id, "v").await);
        }
        tokio::time::sleep(Duration::from_millis(90 + round)).await;
        assert!(recorded.last("UserRecordsPending") > Some(0.0));
    }
    producer.flush().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    for gauge in ["UserRecordsPending", "BufferedBytes", "InFlightBytes"] {
        assert_eq!(recorded.last(gauge), Some(0.0), "{gauge}");
    }
    let samples = recorded.of("UserRecordsPending", None, None).0;
    tokio::time::sleep(Duration::from_secs(100)).await;
    // Only the shard map wakes the sender now.
    let idle = recorded.of("UserRecordsPending", None, None).0 - samples;
    assert!(idle <= 10, "{idle} samples of nothing");
}

#[tokio::test(start_paused = true)]
async fn the_hottest_shard_and_key_stand_first() {
    let service = Scripted::new(|_, entries| all_written(entries));
    let config = ProducerConfig { hot_keys: 10, ..Default::default() };
    let producer = producer(service, config).await;
    assert!(producer.hot_spots().shards.iter().all(|shard| shard.rate == 0.0 || shard.rate == 1.5));
    for n in 0..2000 {
        let (key, hash_key) =
            if n % 3 == 0 { (format!("cold-{n}"), 0) } else { ("hot".to_owned(), u128::MAX) };
        let record =
            UserRecord::new(key, "x".repeat(300)).with_explicit_hash_key(HashKey::new(hash_key));
        drop(producer.send(record).await.unwrap());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    producer.flush().await;
    let report = producer.hot_spots();
    assert_eq!(&*report.shards[0].shard_id, "high");
    assert!(report.shards[0].bytes_per_second > 1.5 * report.shards[1].bytes_per_second);
    assert!(report.shards[0].utilisation > 0.1 && report.shards[0].rate > 0.0);
    assert_eq!(report.keys[0].partition_key, "hot");
    assert!(report.keys[0].share > 0.5 && report.keys.len() <= 10);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_pending_record_is_the_one_that_is_stuck() {
    let service = Scripted::new(|passed, entries| {
        let outcome = |entry: &Entry| match shard_of(entry) {
            "low" if passed < Duration::from_secs(5) => refused("InternalFailure"),
            _ => written(entry),
        };
        (QUICK, Ok(entries.iter().map(outcome).collect()))
    });
    let producer = producer(service, ProducerConfig::default()).await;
    assert_eq!(producer.oldest_pending(), None);
    drop(send(&producer, u128::MAX, "goes").await);
    producer.flush().await;
    assert_eq!(producer.oldest_pending(), None);
    let stuck = send(&producer, 0, "stuck").await;
    let began = clock::now();
    while began.elapsed() < Duration::from_secs(4) {
        drop(send(&producer, u128::MAX, "goes").await);
        tokio::time::sleep(Duration::from_millis(30)).await;
        let oldest = producer.oldest_pending().unwrap();
        let surplus = oldest.saturating_sub(began.elapsed());
        assert!(oldest >= began.elapsed() && surplus < Duration::from_millis(100));
    }
    stuck.await.unwrap();
    assert!(producer.oldest_pending() < Some(Duration::from_secs(1)));
    producer.flush().await;
    assert_eq!(producer.oldest_pending(), None);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_refused_does_not_heat_its_key() {
    let service = Scripted::new(|_, entries| {
        let throttled = refused("ProvisionedThroughputExceededException");
        (QUICK, Ok(entries.iter().map(|_| throttled.clone()).collect()))
    });
    let config =
        ProducerConfig { hot_keys: 10, max_buffered_bytes: 256 * 1024, ..Default::default() };
    let producer = producer(service, config).await;
    let record = |key: &'static str| {
        UserRecord::new(key, vec![1; 100]).with_explicit_hash_key(HashKey::new(0))
    };
    let mut accepted = 0;
    while let Ok(delivery) = producer.try_send(record("taken")) {
        drop(delivery);
        accepted += 1;
    }
    assert!(accepted > 300);
    for _ in 0..10_000 {
        producer.try_send(record("refused")).unwrap_err();
    }
    let keys = producer.hot_spots().keys;
    let keys: Vec<_> = keys.iter().map(|key| &*key.partition_key).collect();
    assert_eq!(keys, ["taken"]);
}

/// All that is logged, at every level.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Takes what this thread logs while the guards live.
    pub(super) fn listen(&self) -> (tracing::Dispatch, tracing::subscriber::DefaultGuard) {
        // While there is one subscriber alone, a test on another thread, without it, can turn an event off for all.
        let second = tracing_subscriber::fmt().with_writer(std::io::sink);
        let second = tracing::Dispatch::new(second.finish());
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_span_events(tracing_subscriber::fmt::format::FmtSpan::FULL)
            .with_ansi(false)
            .with_writer(self.clone())
            .finish();
        (second, tracing::subscriber::set_default(subscriber))
    }

    fn text(&self) -> String {
        String::from_utf8(lock(&self.0).clone()).unwrap()
    }

    /// The numbers of user records in the lines that hold `text`.
    pub(super) fn user_records(&self, text: &str) -> Vec<u64> {
        let number = |line: &str| {
            let (_, rest) = line.split_once("user_records=")?;
            rest.split_whitespace().next()?.parse().ok()
        };
        let log = self.text();
        let lines = log.lines().filter(|line| line.contains(text));
        lines.map(|line| number(line).unwrap()).collect()
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn logs_tell_of_each_trouble_without_data_or_keys_and_cannot_flood() {
    let log = Log::default();
    let _guards = log.listen();
    let service = Scripted::new(|passed, entries| {
        let error = |code: &str| CallError {
            kind: CallErrorKind::Service,
            code: code.into(),
            // The service quotes the record that it refuses.
            message: format!("Value '{}' is refused", entries[0].partition_key).into(),
            may_have_been_written: false,
            source: None,
        };
        match passed.as_millis() / 100 % 5 {
            0 => (QUICK, Err(unreachable())),
            1 => (QUICK, Err(error("ValidationException"))),
            2 => (QUICK, Ok(entries.iter().map(|_| refused("KMSDisabledException")).collect())),
            3 => (
                QUICK,
                Ok(entries
                    .iter()
                    .map(|_| refused("ProvisionedThroughputExceededException"))
                    .collect()),
            ),
            _ => all_written(entries),
        }
    });
    let config = ProducerConfig {
        record_ttl: Duration::from_secs(1),
        record_max_buffered_time: Duration::from_millis(5),
        hot_keys: 5,
        ..Default::default()
    };
    let producer = builder::start("s".into(), service, config, {
        Components { seed: Some(42), ..Components::default() }
    })
    .await
    .unwrap();
    let seconds = 60;
    for n in 0..seconds * 20_u128 {
        let record = UserRecord::new(format!("secret-key-{n}"), format!("secret-data-{n}"))
            .with_explicit_hash_key(HashKey::new(n << 100));
        drop(producer.send(record).await.unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let stats = producer.stats();
    assert!(stats.user_records_failed > 100, "{stats:?}");
    producer.close(Duration::from_secs(5)).await;

    let text = log.text();
    assert!(!text.contains("secret-"), "{text}");
    for expected in ["PutRecords failed", "records failed", "put_records", "outcome"] {
        assert!(text.contains(expected), "{expected}");
    }
    let warnings = text.lines().filter(|line| line.contains(" WARN ")).count();
    // One line of each of three kinds in ten seconds, and one at the end.
    assert!((3..=3 * 8).contains(&warnings), "{warnings} warnings");
    let lost = |what: &str| log.user_records(what).iter().sum::<u64>();
    let told = lost("records failed") + lost("records expired");
    assert_eq!(told, producer.stats().user_records_failed);
}

#[tokio::test(start_paused = true)]
async fn the_message_to_an_unknown_code_is_not_logged() {
    let log = Log::default();
    let _guards = log.listen();
    for (code, is_told) in [("AnUnknownCode", false), ("InternalFailure", true)] {
        let service = Scripted::new(move |passed, entries| {
            let error = CallError {
                kind: CallErrorKind::Service,
                code: code.into(),
                message: format!("about '{}'", entries[0].partition_key).into(),
                may_have_been_written: false,
                source: None,
            };
            match passed < Duration::from_millis(150) {
                true => (QUICK, Err(error)),
                false => all_written(entries),
            }
        });
        let producer = producer(service, ProducerConfig::default()).await;
        let key = format!("key-to-{code}");
        let sent = producer.send(UserRecord::new(key.clone(), "v")).await;
        sent.unwrap().await.unwrap();
        let text = log.text();
        let told =
            text.lines().find(|line| line.contains("PutRecords failed") && line.contains(code));
        assert!(told.is_some(), "{text}");
        assert_eq!(text.contains(&key), is_told, "{text}");
    }
}
