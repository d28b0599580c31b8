//! Readers on one shard with the service's limits: five reads and 2 MiB a second. Each read is counted with its time.

use std::sync::atomic::{AtomicUsize, Ordering};

use aws_sdk_kinesis::config::interceptors::{
    BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::BoxError;

use tokio_util::task::AbortOnDropHandle;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// The calls of GetRecords of one reader.
#[derive(Debug, Clone)]
struct Calls {
    clock: Arc<dyn Clock>,
    counted: Arc<Mutex<Counted>>,
}

#[derive(Debug, Default, Clone)]
struct Counted {
    sent: Vec<Duration>,
    refused: Vec<Duration>,
}

impl Intercept for Calls {
    fn name(&self) -> &'static str {
        "Calls"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let target = context.request().headers().get("x-amz-target");
        if target.is_some_and(|target| target.ends_with(".GetRecords")) {
            self.counted.lock().sent.push(self.clock.now());
        }
        Ok(())
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if context.response().status().as_u16() != 200 {
            self.counted.lock().refused.push(self.clock.now());
        }
        Ok(())
    }
}

impl Calls {
    /// The calls from this time on.
    fn since(&self, time: Duration) -> Counted {
        let Counted { mut sent, mut refused } = self.counted.lock().clone();
        sent.retain(|at| *at >= time);
        refused.retain(|at| *at >= time);
        Counted { sent, refused }
    }
}

impl Counted {
    /// Most calls in any second.
    fn most_in_a_second(&self) -> usize {
        let from = |first: usize| {
            let end = self.sent[first] + SECOND;
            self.sent[first..].iter().take_while(|at| **at < end).count()
        };
        (0..self.sent.len()).map(from).max().unwrap_or_default()
    }

    fn shortest_interval(&self) -> Duration {
        let intervals = self.sent.windows(2).map(|pair| pair[1] - pair[0]);
        intervals.min().unwrap_or(Duration::MAX)
    }
}

struct Shared {
    paused: Paused,
}

impl Shared {
    async fn start() -> Self {
        Self { paused: Paused::with(|aws| aws.shard_limits(true)).await }
    }

    fn now(&self) -> Duration {
        self.paused.clock.now()
    }

    async fn reader(
        &self,
        seed: u64,
        position: Position,
        config: ConsumerConfig,
    ) -> (Reader, Calls) {
        let clock = Arc::clone(&self.paused.clock);
        let calls = Calls { clock: Arc::clone(&clock), counted: Arc::default() };
        let client = self.paused.client();
        let client = client.config().to_builder().interceptor(calls.clone());
        let client = Client::from_conf(client.build());
        let idle = config.idle_time_between_reads;
        let mut reader = Reader::with(&client, SHARD, position, config, clock).await;
        reader.polling.pacer = Pacer::new(idle, Rng::with_seed(seed));
        (reader, calls)
    }

    async fn three(&self, position: Position, config: ConsumerConfig) -> Vec<(Reader, Calls)> {
        let mut readers = Vec::new();
        for seed in 0..3 {
            readers.push(self.reader(seed, position.clone(), config.clone()).await);
        }
        readers
    }

    /// Puts records of 100 kB, at less than the shard takes.
    async fn put_large(&self, records: u32) {
        for number in 0..records {
            put_by(&self.paused.client(), number..number + 1, 100_000).await;
            tokio::time::sleep(SECOND / 5).await;
        }
    }

    /// Puts small records, at less than the shard takes.
    async fn put_small(&self, records: u32) {
        let client = self.paused.client();
        for first in (0..records).step_by(500) {
            put_by(&client, first..(first + 500).min(records), 0).await;
            tokio::time::sleep(SECOND).await;
        }
    }
}

/// One record in each page, so that the number of calls limits a reader.
fn small_pages() -> ConsumerConfig {
    ConsumerConfig::default().with_max_records(1)
}

#[tokio::test(start_paused = true)]
async fn a_reader_alone_spreads_nearly_five_calls_over_each_second() {
    const RECORDS: u32 = 100;
    let shared = Shared::start().await;
    shared.put_small(RECORDS).await;
    let started = shared.now();
    let (mut reader, calls) = shared.reader(0, Position::TrimHorizon, small_pages()).await;
    assert_eq!(reader.read(RECORDS as usize).await, numbers(0..RECORDS));
    let calls = calls.since(started);
    assert_eq!((calls.sent.len(), calls.refused.len()), (100, 0));
    assert_eq!(calls.most_in_a_second(), 5);
    assert!(calls.shortest_interval() >= SECOND / 5, "{:?}", calls.shortest_interval());
    let took = shared.now() - started;
    // 4.8 calls a second. The rest lets another reader in.
    assert!(took < 21 * SECOND, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_alone_catches_up_at_two_megabytes_a_second_and_is_throttled_once() {
    const RECORDS: u32 = 300;
    let shared = Shared::start().await;
    shared.put_large(RECORDS).await;
    let started = shared.now();
    let config = ConsumerConfig::default();
    let (mut reader, calls) = shared.reader(0, Position::TrimHorizon, config).await;
    assert_eq!(reader.read(RECORDS as usize).await, numbers(0..RECORDS));
    let calls = calls.since(started);
    // The first page is larger than the limits allow. They show by its throttle.
    assert_eq!(calls.refused.len(), 1, "{calls:?}");
    assert!(calls.most_in_a_second() <= 5);
    assert!(calls.shortest_interval() >= SECOND / 5, "{:?}", calls.shortest_interval());
    let took = (shared.now() - started).as_secs_f64();
    // A rested shard has 2 MiB saved up.
    let rate = (f64::from(RECORDS) * 100_000.0 - f64::from(2 << 20)) / took;
    assert!(rate > 1.9e6, "{rate} in {took} s");
}

#[tokio::test(start_paused = true)]
async fn no_pause_is_followed_by_a_burst() {
    const PAUSE: Duration = Duration::from_secs(30);
    const RECORDS: u32 = 60;
    for pause in ["a slow processor", "no memory", "an outage", "throttles"] {
        let shared = Shared::start().await;
        shared.put_small(RECORDS).await;
        let started = shared.now();
        let (mut reader, calls) = shared.reader(0, Position::TrimHorizon, small_pages()).await;
        let budget = ByteBudget::new(1000);
        let status = Arc::clone(&reader.polling.status);
        reader.pages = pages::channel(ShardBudget::new(&budget), status).0;
        let mut first = reader.read(9).await;
        let page = reader.page().await;
        first.extend(texts(&page));
        assert_eq!(first, numbers(0..10));
        let faults = shared.paused.aws.faults();
        match pause {
            "a slow processor" => tokio::time::sleep(PAUSE).await,
            "no memory" => {
                let other = ShardBudget::new(&budget);
                let _all = other.reserve(1000).await;
                let waits = tokio::time::timeout(PAUSE, reader.page()).await;
                assert!(waits.is_err(), "the page before it is still held");
            }
            "an outage" => {
                faults.add(Fault::cut_connection().operation("GetRecords").lasting(PAUSE));
            }
            _ => {
                faults.add(Fault::throttle().operation("GetRecords").lasting(PAUSE));
            }
        }
        drop(page);
        assert_eq!(reader.read(50).await, numbers(10..RECORDS), "{pause}");
        assert!(shared.now() - started > PAUSE, "{pause}");
        let calls = calls.since(started);
        assert!(calls.most_in_a_second() <= 5, "{pause}: {}", calls.most_in_a_second());
        let shortest = calls.shortest_interval();
        assert!(shortest >= SECOND / 5, "{pause}: {shortest:?}");
    }
}

/// Of three readers: all calls, the share of them that was refused, and how much of an equal share the reader with the
/// fewest answers got.
fn judge(calls: &[Calls], since: Duration) -> (f64, f64, f64) {
    let counted: Vec<_> = calls.iter().map(|calls| calls.since(since)).collect();
    let all: usize = counted.iter().map(|calls| calls.sent.len()).sum();
    let refused: usize = counted.iter().map(|calls| calls.refused.len()).sum();
    let answered = counted.iter().map(|calls| calls.sent.len() - calls.refused.len());
    let fewest = answered.min().unwrap_or_default() as f64;
    let (all, refused) = (all as f64, refused as f64);
    (all, refused / all, fewest * counted.len() as f64 / (all - refused))
}

#[tokio::test(start_paused = true)]
async fn three_readers_at_the_tip_share_the_calls_and_are_hardly_ever_throttled() {
    for (idle, most_refused, least) in [(1000, 0.0, 0.95), (200, 0.02, 0.7)] {
        let shared = Shared::start().await;
        let idle_time = Duration::from_millis(idle);
        let config = ConsumerConfig::default().with_idle_time_between_reads(idle_time);
        let readers = shared.three(Position::Latest, config).await;
        let (readers, calls): (Vec<_>, Vec<_>) = readers.into_iter().unzip();
        let reading: Vec<_> = readers
            .into_iter()
            .map(|mut reader| tokio::spawn(async move { reader.read(1).await }))
            .collect();
        tokio::time::sleep(120 * SECOND).await;
        let warm = shared.now();
        tokio::time::sleep(600 * SECOND).await;
        let (all, refused, fewest) = judge(&calls, warm);
        assert!(all > 1500.0, "{all}");
        assert!(refused <= most_refused, "{refused} of {all} at {idle} ms");
        assert!(fewest > least, "{fewest} at {idle} ms");
        shared.paused.put(0..1).await;
        for reader in reading {
            assert_eq!(reader.await.unwrap(), numbers(0..1));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn readers_that_come_one_after_the_other_and_catch_up_share_the_calls() {
    const RECORDS: u32 = 3000;
    let shared = Shared::start().await;
    shared.put_small(RECORDS).await;
    let mut calls = Vec::new();
    let mut reading = Vec::new();
    for (mut reader, counted) in shared.three(Position::TrimHorizon, small_pages()).await {
        calls.push(counted);
        let all = async move { reader.read(RECORDS as usize).await };
        reading.push(AbortOnDropHandle::new(tokio::spawn(all)));
        // The reader before it takes all that the shard allows by then.
        tokio::time::sleep(30 * SECOND).await;
    }
    tokio::time::sleep(60 * SECOND).await;
    let warm = shared.now();
    tokio::time::sleep(300 * SECOND).await;
    assert!(reading.iter().all(|reader| !reader.is_finished()));
    let (all, refused, fewest) = judge(&calls, warm);
    assert!(refused < 0.03, "{refused}");
    assert!(fewest > 0.6, "{fewest}");
    let answered = all * (1.0 - refused) / 300.0;
    assert!(answered > 4.3, "{answered} answers a second, of five");
    for calls in &calls {
        let shortest = calls.since(warm).shortest_interval();
        assert!(shortest >= SECOND / 5, "{shortest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn three_readers_that_catch_up_share_the_bytes() {
    const RECORDS: u32 = 480;
    let shared = Shared::start().await;
    shared.put_large(RECORDS).await;
    let mut reading = Vec::new();
    let mut counts = Vec::new();
    for (mut reader, _) in shared.three(Position::TrimHorizon, ConsumerConfig::default()).await {
        let count = Arc::new(AtomicUsize::new(0));
        counts.push(Arc::clone(&count));
        let all = async move {
            while count.load(Ordering::Relaxed) < RECORDS as usize {
                count.fetch_add(reader.page().await.records.len(), Ordering::Relaxed);
            }
        };
        reading.push(AbortOnDropHandle::new(tokio::spawn(all)));
    }
    let counted = || counts.iter().map(|count| count.load(Ordering::Relaxed)).collect::<Vec<_>>();
    // Their first pages, of 10 MiB, are paid for by then.
    tokio::time::sleep(20 * SECOND).await;
    let warm = counted();
    tokio::time::sleep(30 * SECOND).await;
    let got: Vec<_> = counted().iter().zip(&warm).map(|(count, warm)| count - warm).collect();
    assert!(reading.iter().all(|reader| !reader.is_finished()), "{warm:?} {got:?}");
    let (all, fewest) = (got.iter().sum::<usize>(), *got.iter().min().unwrap());
    // Records of 100 kB: most of 2 MB a second.
    assert!(all > 500, "{got:?}");
    assert!(fewest * 3 > all / 2, "{got:?}");
}
