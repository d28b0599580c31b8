//! Every setting at its extremes: `validate` refuses the value with a text that names the setting, or
//! the producer runs with it.
//!
//! The fields come from the list of setters, which does not compile when one is missing, and their
//! values from [`Extremes`], which each type of a setting must implement.

#[path = "../../../common/tests/support/extremes.rs"]
mod shared;

use std::time::Duration;

use fastrand::Rng;
use kinesis_testkit::LocalAws;

pub(super) use self::shared::{Change, changes};
use self::shared::{Extremes, Single, ends};
use super::{Compression, OnGap, ProducerConfig, RecordOrdering};
use crate::error::{FailureCause, SendError, StopReason};
use crate::producer::Producer;
use crate::record::UserRecord;

impl Extremes for Option<usize> {
    fn extremes() -> Vec<Self> {
        let some = usize::extremes().into_iter().map(Some);
        some.chain([None]).collect()
    }
}

impl Extremes for RecordOrdering {
    fn extremes() -> Vec<Self> {
        vec![Self::BestEffort, Self::PerPartitionKey]
    }
}

impl Extremes for OnGap {
    fn extremes() -> Vec<Self> {
        vec![Self::FailSuccessors, Self::Continue]
    }
}

impl Extremes for Compression {
    fn extremes() -> Vec<Self> {
        let levels = [i32::MIN, -1, 0, 1, 22, 23, i32::MAX];
        let levels = levels.into_iter().map(|level| Self::Zstd { level });
        levels.chain([Self::Off]).collect()
    }
}

/// For each field, the settings with each of its values.
fn one_at_a_time() -> Vec<Vec<Single<ProducerConfig>>> {
    shared::one_at_a_time(&ProducerConfig::default(), ProducerConfig::extremes_of_fields())
}

/// The defaults with `count` fields changed at random.
fn combination(random: &mut Rng, count: usize) -> ProducerConfig {
    let fields = ProducerConfig::extremes_of_fields();
    shared::combination(&ProducerConfig::default(), fields, random, count)
}

#[test]
fn a_refusal_names_the_setting_and_what_it_may_be() {
    for single in one_at_a_time().into_iter().flatten() {
        let Single { field, value, config } = single;
        // Whatever the settings are, their text is an error at most.
        #[cfg(feature = "serde")]
        let _ = serde_json::to_string(&config);
        let Err(error) = config.validate() else {
            continue;
        };
        let named = |(name, problem): (&str, &str)| {
            (name == field || problem.contains(field)) && problem.contains("must be ")
        };
        assert!(error.problems().any(named), "{field} at {value}: {error}");
    }
}

#[cfg(feature = "cloudwatch")]
#[test]
fn the_interval_of_uploads_is_bounded_too() {
    use crate::config::CloudWatchConfig;

    for upload_interval in Duration::extremes() {
        let config = CloudWatchConfig { upload_interval, ..Default::default() };
        match config.validate() {
            Ok(()) => assert!(upload_interval.mul_f64(1.1) < Duration::from_secs(7200)),
            Err(error) => assert!(error.to_string().contains("upload_interval"), "{error}"),
        }
    }
}

const STREAM: &str = "orders";

/// Sends some records with these settings, and closes the producer. Returns the number of records that were delivered.
async fn run(aws: &LocalAws, config: ProducerConfig, random: &mut Rng) -> Result<u64, String> {
    let built = Producer::builder(STREAM, &aws.in_process_config())
        .config(config)
        .seed(random.u64(..))
        .build();
    // Settings that leave no time to start are an error, as they should be.
    let producer = match built.await {
        Ok(producer) => producer,
        Err(error) if error.to_string().contains("panic") => return Err(error.to_string()),
        Err(_) => return Ok(0),
    };
    let ages = Duration::extremes();
    let mut deliveries = Vec::new();
    for (number, age) in ages.iter().enumerate() {
        let mut record = UserRecord::new(format!("key-{number}"), vec![b'd'; 200]);
        if number % 2 == 0 && !age.is_zero() {
            record = record.with_time_to_live(*age);
        }
        match producer.try_send(record) {
            Ok(delivery) => deliveries.push(delivery),
            Err(SendError::Closed { reason, .. }) => return Err(reason.to_string()),
            Err(_) => {}
        }
        if number % 5 == 0 {
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    // Longer than the pauses of lingering, refreshing and sweeping, where they are not extreme.
    tokio::time::sleep(Duration::from_secs(100)).await;
    let closed = ages[random.usize(..ages.len())];
    // What the settings keep from leaving would be awaited for as long.
    let report = producer.close(closed.min(Duration::from_secs(300))).await;
    for delivery in deliveries {
        if let Err(error) = delivery.await
            && let FailureCause::Abandoned(reason @ StopReason::Panicked { .. }) = error.cause()
        {
            return Err(reason.to_string());
        }
    }
    Ok(report.delivered)
}

#[tokio::test(start_paused = true)]
async fn a_producer_runs_with_what_is_valid() {
    let wall = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600);
    let services = kinesis_testkit::TokioClock::starting_at(wall);
    let aws = LocalAws::builder().clock(services).build().await.unwrap();
    aws.create_stream(STREAM, 2).await.unwrap();

    let mut random = Rng::with_seed(11);
    // Of many values, the ends of what is valid.
    let is_valid = |config: &ProducerConfig| config.validate().is_ok();
    let ends = one_at_a_time().into_iter().flat_map(|singles| ends(singles, is_valid));
    let ends = ends.map(|single| (format!("{} at {}", single.field, single.value), single.config));
    let mut choices = Rng::with_seed(12);
    let combinations = (0..1000).map(|round| combination(&mut choices, 2 + round % 3));
    let valid = combinations.filter(|config| config.validate().is_ok());
    let combinations = valid.take(50).map(|config| (format!("{config:?}"), config));
    let (mut runs, mut delivered) = (0, 0);
    for (settings, config) in ends.chain(combinations) {
        runs += 1;
        match run(&aws, config, &mut random).await {
            Ok(records) => delivered += usize::from(records > 0),
            Err(error) => panic!("{settings}: {error}"),
        }
    }
    assert!(delivered > runs / 2, "{delivered} of {runs} producers delivered");
}
