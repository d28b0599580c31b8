//! Tests of every setting at its extremes: `validate` refuses the value with a text that names the setting, or the
//! worker runs with it.
//!
//! The fields come from the list of setters, which does not compile if one is missing. Their values come from
//! [`Extremes`], which the type of each setting must implement.

#[path = "../../../common/tests/support/extremes.rs"]
mod shared;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use aws_sdk_kinesis::primitives::Blob;
use fastrand::Rng;
use kinesis_common::backoff::Backoff;
use kinesis_testkit::LocalAws;
use tokio::runtime::Handle;

pub(super) use self::shared::{Change, changes};
use self::shared::{Extremes, Single, ends};
use super::{
    AfterRetries, AggregateRangePolicy, CheckpointPolicy, ConsumerConfig, FailurePolicy,
    FanOutConfig, FanOutConsumer, InitialPosition, OnRecreatedStream, OnStop, OnTrimmedGap,
    RetrievalMode, ShardPosition, ShardPositions, StreamPosition, TableConfig, Until,
};
use crate::clock::TokioClock;
use crate::delivery::AutoCheckpoint;
use crate::error::ProcessorError;
use crate::lease::Fence;
use crate::processor::{RecordProcessor, ShardContext, ShardEnd, Shutdown};
use crate::{DeadLetter, DeadLetterSink, RecordBatch, Scheduler};

/// Names have tests of their own.
impl Extremes for Option<String> {
    fn extremes() -> Vec<Self> {
        vec![None]
    }
}

impl Extremes for Option<Duration> {
    fn extremes() -> Vec<Self> {
        let some = Duration::extremes().into_iter().map(Some);
        some.chain([None]).collect()
    }
}

impl Extremes for (u32, u32) {
    fn extremes() -> Vec<Self> {
        let pairs = u32::extremes().into_iter().map(|units| (units, 1));
        pairs.chain([(1, u32::MAX)]).collect()
    }
}

impl Extremes for BTreeMap<String, String> {
    fn extremes() -> Vec<Self> {
        vec![Self::new()]
    }
}

impl Extremes for InitialPosition {
    fn extremes() -> Vec<Self> {
        let epoch = SystemTime::UNIX_EPOCH;
        let times = Duration::extremes()
            .into_iter()
            .flat_map(move |distance| [epoch.checked_add(distance), epoch.checked_sub(distance)]);
        let year_9999 = epoch + Duration::from_secs(253_402_300_799);
        let more = [Some(year_9999), Some(year_9999 + Duration::from_secs(1))];
        let times: Vec<_> = times.chain(more).flatten().collect();
        let of_shard = |position| {
            let others = StreamPosition::TrimHorizon;
            Self::PerShard(ShardPositions::new(others).with("shardId-000000000000", position))
        };
        let named = times.iter().map(|time| of_shard(ShardPosition::AtTimestamp(*time)));
        let others = times
            .iter()
            .map(|time| Self::PerShard(ShardPositions::new(StreamPosition::AtTimestamp(*time))));
        let every = times.iter().map(|time| Self::AtTimestamp(*time));
        let without_a_time = [Self::Latest, Self::TrimHorizon, of_shard(ShardPosition::Latest)];
        every.chain(named).chain(others).chain(without_a_time).collect()
    }
}

impl Extremes for FanOutConsumer {
    fn extremes() -> Vec<Self> {
        let name = |name: &str| Some(name.to_owned());
        vec![
            Self::Register { name: None },
            Self::Register { name: name(&"x".repeat(128)) },
            Self::Register { name: name("") },
            Self::Discover { name: name(&"x".repeat(129)) },
            Self::Arn(String::new()),
        ]
    }
}

impl Extremes for RetrievalMode {
    fn extremes() -> Vec<Self> {
        let changes = FanOutConfig::extremes_of_fields().into_iter();
        let fan_out = changes.flat_map(|(_, changes)| changes).map(|change| {
            let mut fan_out = FanOutConfig::default();
            (change.apply)(&mut fan_out);
            Self::FanOut(fan_out)
        });
        fan_out.chain([Self::Polling]).collect()
    }
}

impl Extremes for Until {
    fn extremes() -> Vec<Self> {
        let times = InitialPosition::extremes().into_iter().filter_map(|position| match position {
            InitialPosition::AtTimestamp(time) => Some(Self::Timestamp(time)),
            _ => None,
        });
        let last = "9".repeat(128).parse().unwrap();
        let named = Self::SequenceNumbers([("shardId-000000000000".to_owned(), last)].into());
        times.chain([Self::Tip, Self::SequenceNumbers(BTreeMap::new()), named]).collect()
    }
}

impl Extremes for CheckpointPolicy {
    fn extremes() -> Vec<Self> {
        let intervals = Duration::extremes().into_iter().map(Self::Interval);
        intervals.chain([Self::Manual, Self::AfterBatch]).collect()
    }
}

impl Extremes for AfterRetries {
    fn extremes() -> Vec<Self> {
        vec![Self::StopShard, Self::Skip, Self::DeadLetter]
    }
}

impl Extremes for FailurePolicy {
    fn extremes() -> Vec<Self> {
        let changes = Self::extremes_of_fields().into_iter();
        let changes = changes.flat_map(|(_, changes)| changes);
        let policy = |change: Change<Self>| {
            let mut policy = Self::default();
            (change.apply)(&mut policy);
            policy
        };
        changes.map(policy).collect()
    }
}

impl Extremes for OnStop {
    fn extremes() -> Vec<Self> {
        vec![Self::HandOver, Self::Release, Self::Keep]
    }
}

impl Extremes for OnRecreatedStream {
    fn extremes() -> Vec<Self> {
        vec![Self::Error, Self::StartOver]
    }
}

impl Extremes for OnTrimmedGap {
    fn extremes() -> Vec<Self> {
        vec![Self::Continue, Self::StopShard]
    }
}

impl Extremes for AggregateRangePolicy {
    fn extremes() -> Vec<Self> {
        vec![Self::Auto, Self::Strict, Self::KeepInRange, Self::KeepAll]
    }
}

impl Extremes for TableConfig {
    fn extremes() -> Vec<Self> {
        let changes = Self::extremes_of_fields().into_iter();
        let changes = changes.flat_map(|(_, changes)| changes);
        let table = |change: Change<Self>| {
            let mut table = Self::default();
            (change.apply)(&mut table);
            table
        };
        changes.map(table).collect()
    }
}

#[cfg(feature = "cloudwatch")]
mod cloudwatch {
    use std::collections::BTreeSet;

    use kinesis_common::metrics::MetricsLevel;

    use super::Extremes;
    use crate::config::{CloudWatchConfig, MetricsDimension};

    impl Extremes for MetricsLevel {
        fn extremes() -> Vec<Self> {
            vec![Self::None, Self::Summary, Self::Detailed]
        }
    }

    impl Extremes for BTreeSet<MetricsDimension> {
        fn extremes() -> Vec<Self> {
            vec![Self::new(), Self::from(MetricsDimension::ALL)]
        }
    }

    #[test]
    fn a_refusal_names_the_setting_of_cloudwatch_and_what_is_valid_is_data() {
        let (mut valid, mut refused) = (0, 0);
        for (field, changes) in CloudWatchConfig::extremes_of_fields() {
            for change in changes {
                let mut config = CloudWatchConfig::default();
                (change.apply)(&mut config);
                let problems = config.problems("billing");
                if problems.is_empty() {
                    valid += 1;
                    #[cfg(feature = "serde")]
                    {
                        let text = serde_json::to_string(&config).unwrap();
                        let read: CloudWatchConfig = serde_json::from_str(&text).unwrap();
                        assert_eq!(read, config);
                    }
                } else {
                    refused += 1;
                    assert!(
                        problems[0].contains(field),
                        "{field} at {}: {problems:?}",
                        change.text
                    );
                }
            }
        }
        assert!(valid >= 6 && refused >= 6, "{valid} and {refused}");
    }
}

/// The default settings, except that the worker also reads records that were put before its start.
fn base() -> ConsumerConfig {
    ConsumerConfig::default().with_initial_position(InitialPosition::TrimHorizon)
}

/// For each field, the settings with each of its values.
fn one_at_a_time() -> Vec<Vec<Single<ConsumerConfig>>> {
    shared::one_at_a_time(&base(), ConsumerConfig::extremes_of_fields())
}

/// Settings with `count` fields changed at random.
fn combination(random: &mut Rng, count: usize) -> ConsumerConfig {
    shared::combination(&base(), ConsumerConfig::extremes_of_fields(), random, count)
}

#[test]
fn a_refusal_names_the_setting_and_what_it_may_be() {
    for single in one_at_a_time().into_iter().flatten() {
        let Single { field, value, config } = single;
        let Err(error) = config.validate() else {
            continue;
        };
        let named = |problem: &String| {
            problem.contains(field) && (problem.contains("at ") || problem.contains(" to "))
        };
        assert!(error.problems().iter().any(named), "{field} at {value}: {error}");
    }
}

/// Computes what the library computes from settings without a call to AWS, at any age of the host.
fn compute(config: &ConsumerConfig) {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

    for now in [Duration::ZERO, Duration::from_nanos(1), CENTURY] {
        let mut fence = Fence::new(config.failover_time, now);
        assert!(!fence.has_fallen(now));
        let interval = config.failover_time / 2;
        assert!(fence.renewal_due(interval) <= fence.deadline());
        fence.succeeded(now);
        fence.read_back();
        assert!(fence.has_fallen(fence.deadline()));

        let mut auto = AutoCheckpoint::new(config.checkpoint, now);
        auto.delivered();
        auto.tried(now, false);
        auto.tried(now, true);
        auto.delivered();
        assert!(auto.due_in(now, Some(now)).is_none_or(|due| due <= CENTURY));
    }
    let random = Rng::with_seed(1);
    let mut backoff = Backoff::new(config.retry_initial_delay, config.retry_max_delay, random);
    for _ in 0..200 {
        assert!(backoff.next_delay() <= config.retry_max_delay);
    }
    assert!(config.dynamodb_attempt_timeout() <= config.failover_time / 4);
    #[cfg(feature = "serde")]
    {
        let text = serde_json::to_string(config).unwrap();
        assert_eq!(serde_json::from_str::<ConsumerConfig>(&text).unwrap(), *config);
    }
}

#[test]
fn what_is_valid_can_be_computed_with() {
    let mut random = Rng::with_seed(11);
    let mut valid = 0;
    let singles = one_at_a_time().into_iter().flatten().map(|single| single.config);
    let combinations = (0..3000).map(|round| combination(&mut random, 2 + round % 4));
    for config in singles.chain(combinations) {
        // Serializing may fail for any settings, but must not panic.
        #[cfg(feature = "serde")]
        let _ = serde_json::to_string(&config);
        if config.validate().is_ok() {
            valid += 1;
            compute(&config);
        }
    }
    assert!(valid > 300, "{valid} valid settings tell little");
}

/// A sink that is never called.
struct NoLetters;

impl DeadLetterSink for NoLetters {
    type Error = String;

    async fn write(&self, letters: &[DeadLetter]) -> Result<(), String> {
        Err(format!("there are no letters, not even these {}", letters.len()))
    }
}

/// A processor that fails once, so that the pause before a retry is drawn, too.
struct Counting {
    records: Arc<AtomicUsize>,
    has_failed: bool,
}

impl RecordProcessor for Counting {
    async fn process_records(&mut self, batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
        if !std::mem::replace(&mut self.has_failed, true) {
            // It succeeds later, whatever the policy.
            return Err(ProcessorError::retryable("the first call fails"));
        }
        self.records.fetch_add(batch.records().count(), Ordering::Relaxed);
        Ok(())
    }

    async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> {
        Ok(end.checkpoint().await?)
    }

    async fn shutdown_requested(&mut self, last: Shutdown<'_>) -> Result<(), ProcessorError> {
        Ok(last.checkpointer().checkpoint().await?)
    }
}

/// Runs a worker with these settings for some seconds of paused time, and stops it.
async fn run(
    aws: &LocalAws,
    application: String,
    config: ConsumerConfig,
    deadline: Duration,
) -> Result<usize, String> {
    let records = Arc::new(AtomicUsize::new(0));
    let processed = Arc::clone(&records);
    let scheduler = Scheduler::builder(application, STREAM, &aws.in_process_config())
        .processor(move |_shard: &ShardContext| Counting {
            records: Arc::clone(&processed),
            has_failed: false,
        })
        .dead_letters(NoLetters)
        .config(config)
        .coordination_on(Handle::current())
        .clock(Arc::new(TokioClock::new()))
        .build()
        .await
        .map_err(|error| format!("build: {error}"))?;
    let worker = scheduler.spawn();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let stopped = worker.shutdown(deadline).await;
    stopped.map_err(|error| format!("stop: {error}"))?;
    Ok(records.load(Ordering::Relaxed))
}

const STREAM: &str = "orders";

#[tokio::test(start_paused = true)]
async fn a_worker_runs_with_what_is_valid() {
    let wall = TokioClock::new();
    let services = kinesis_testkit::TokioClock::starting_at(crate::clock::Clock::wall(&wall));
    let aws = LocalAws::builder().clock(services).build().await.unwrap();
    aws.create_stream(STREAM, 1).await.unwrap();
    let kinesis = aws_sdk_kinesis::Client::new(&aws.in_process_config());
    let put = kinesis.put_record().stream_name(STREAM).partition_key("k");
    put.data(Blob::new("d")).send().await.unwrap();

    // Of many valid values, only the smallest and largest are run, because a run takes a hundredth of a second.
    let is_valid = |config: &ConsumerConfig| config.validate().is_ok();
    let ends = one_at_a_time().into_iter().flat_map(|singles| ends(singles, is_valid));
    let ends = ends.map(|single| (format!("{} at {}", single.field, single.value), single.config));
    let mut random = Rng::with_seed(12);
    let combinations = (0..200).map(|_| combination(&mut random, 3));
    let valid = combinations.filter(|config| config.validate().is_ok());
    let combinations = valid.take(30).map(|config| (format!("{config:?}"), config));
    let (mut runs, mut processed) = (0, 0);
    for (settings, config) in ends.chain(combinations) {
        runs += 1;
        // The deadline of a stop is a duration, too.
        let deadlines = [Duration::from_secs(2), Duration::MAX, Duration::ZERO];
        let deadline = deadlines[runs % deadlines.len()];
        match run(&aws, format!("application-{runs}"), config, deadline).await {
            Ok(records) => processed += usize::from(records > 0),
            Err(error) => panic!("{settings}: {error}"),
        }
    }
    // The other workers do not reach a record in time, because of their position or a pause.
    assert!(processed > runs / 2, "{processed} of {runs} workers worked");
}
