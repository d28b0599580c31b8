#![doc = include_str!("metrics.md")]

#[cfg(feature = "cloudwatch")]
pub(crate) mod cloudwatch;
#[cfg(feature = "metrics")]
pub(crate) mod facade;
pub(crate) mod hot_keys;
#[cfg_attr(
    not(all(feature = "metrics", feature = "cloudwatch")),
    allow(dead_code, reason = "each sink reads what it needs")
)]
pub(crate) mod names;
pub(crate) mod shard_load;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use kinesis_common::metrics::histogram::Histogram;
use kinesis_common::metrics::milliseconds;

use self::hot_keys::{HotKeys, SAMPLING};
use self::names::Metric;
use crate::aggregate::kinesis_record::KinesisRecord;
use crate::clock::{self, Instant};
use crate::error::FailureCause;
use crate::stats::Counters;
use crate::sync::{Mutex, lock};

pub use kinesis_common::metrics::histogram::Percentiles;

pub use self::hot_keys::KeyLoad;
pub use self::shard_load::ShardLoad;
#[cfg(feature = "cloudwatch")]
pub use crate::config::{CloudWatchConfig, MetricsDimension};
pub use crate::config::{MetricsGranularity, MetricsLevel};

/// Pause between two samples of the gauges, as in the KPL.
const SAMPLING_PAUSE: Duration = Duration::from_millis(200);

/// Times measured since the producer was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Latencies {
    /// Time from acceptance, or from the end of the previous attempt, to the start of an attempt at a Kinesis record.
    pub buffering_time: Percentiles,
    /// Time of a PutRecords call.
    pub request_time: Percentiles,
    /// Time from the acceptance of the first member of a Kinesis record to its acknowledgement.
    pub delivery_time: Percentiles,
}

/// The load by shard and by key; from [`Producer::hot_spots`](crate::Producer::hot_spots).
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct HotSpots {
    /// All open shards, the hottest first.
    pub shards: Vec<ShardLoad>,
    /// The hottest partition keys, the hottest first; empty unless [`hot_keys`](crate::ProducerConfig::hot_keys) is
    /// set.
    pub keys: Vec<KeyLoad>,
}

/// Measurements that the handles of a producer read.
pub(crate) struct Telemetry {
    buffering: Histogram,
    request: Histogram,
    delivery: Histogram,
    in_flight_bytes: AtomicUsize,
    hot_keys: Option<Mutex<HotKeys>>,
    drawn: AtomicU64,
}

/// A record that is drawn as a sample for the hot keys.
pub(crate) struct Drawn {
    partition_key: String,
    bytes: usize,
}

impl Telemetry {
    pub(crate) fn new(hot_keys: usize) -> Self {
        Self {
            buffering: Histogram::default(),
            request: Histogram::default(),
            delivery: Histogram::default(),
            in_flight_bytes: AtomicUsize::new(0),
            hot_keys: (hot_keys > 0).then(|| Mutex::new(HotKeys::new(hot_keys, clock::now()))),
            drawn: AtomicU64::new(0),
        }
    }

    /// Draws whether a user record counts for the hot keys if it is accepted. Costs nothing if they are off.
    pub(crate) fn draw(&self, partition_key: &str, bytes: usize) -> Option<Drawn> {
        if self.hot_keys.is_none() || partition_key.is_empty() {
            return None;
        }
        // Every sixteenth on average, in an order that does not follow a period of the records.
        let turn = self.drawn.fetch_add(1, Ordering::Relaxed);
        let is_drawn = turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) < u64::MAX / SAMPLING;
        is_drawn.then(|| Drawn { partition_key: partition_key.to_owned(), bytes })
    }

    /// Counts a user record that was accepted.
    pub(crate) fn accepted(&self, drawn: Option<Drawn>) {
        if let (Some(hot_keys), Some(drawn)) = (&self.hot_keys, drawn) {
            lock(hot_keys).add(&drawn.partition_key, drawn.bytes, clock::now());
        }
    }

    pub(crate) fn hot_keys(&self) -> Vec<KeyLoad> {
        self.hot_keys
            .as_ref()
            .map(|hot_keys| lock(hot_keys).report(clock::now()))
            .unwrap_or_default()
    }

    pub(crate) fn latencies(&self) -> Latencies {
        Latencies {
            buffering_time: self.buffering.percentiles(),
            request_time: self.request.percentiles(),
            delivery_time: self.delivery.percentiles(),
        }
    }

    pub(crate) fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes.load(Ordering::Relaxed)
    }
}

/// `count` times `value` of a metric.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(
    not(any(test, feature = "metrics", feature = "cloudwatch")),
    expect(dead_code, reason = "only a sink reads it")
)]
pub(crate) struct Sample<'a> {
    pub(crate) metric: Metric,
    pub(crate) shard: Option<&'a Arc<str>>,
    pub(crate) code: Option<&'a Arc<str>>,
    pub(crate) value: f64,
    pub(crate) count: u64,
}

/// Receives the measurements of the sender.
pub(crate) trait Sink: Send {
    fn record(&mut self, sample: Sample<'_>);
}

/// Measures once for each Kinesis record or request, and never for each user record.
pub(crate) struct Meter {
    telemetry: Arc<Telemetry>,
    sinks: Vec<Box<dyn Sink>>,
    /// When the gauges were sampled last.
    sampled: Option<Instant>,
    accepted: u64,
    dropped: u64,
}

impl Meter {
    pub(crate) fn new(telemetry: Arc<Telemetry>) -> Self {
        Self { telemetry, sinks: Vec::new(), sampled: None, accepted: 0, dropped: 0 }
    }

    #[cfg(any(test, feature = "metrics", feature = "cloudwatch"))]
    pub(crate) fn add_sink(&mut self, sink: impl Sink + 'static) {
        self.sinks.push(Box::new(sink));
    }

    /// Measures a PutRecords call that was answered or failed.
    pub(crate) fn request(&mut self, took: Duration, records: &[KinesisRecord]) {
        self.telemetry.request.record(took);
        if self.sinks.is_empty() {
            return;
        }
        let users: usize = records.iter().map(|record| record.members.len()).sum();
        let mut put = |metric, value| self.put(metric, None, value, 1);
        put(Metric::RequestTime, milliseconds(took));
        let count = records.len() as f64;
        put(Metric::KinesisRecordsPerPutRecordsRequest, count);
        put(Metric::UserRecordsPerPutRecordsRequest, users as f64);
    }

    /// Measures an attempt at a Kinesis record. `shard` is the predicted one.
    pub(crate) fn attempt(
        &mut self,
        record: &KinesisRecord,
        shard: Option<&Arc<str>>,
        error: Option<&Arc<str>>,
    ) {
        let waited = record.history.waited();
        self.telemetry.buffering.record(waited);
        if self.sinks.is_empty() {
            return;
        }
        self.put(Metric::BufferingTime, shard, milliseconds(waited), 1);
        let failed = f64::from(u8::from(error.is_some()));
        self.put(Metric::AllErrors, shard, failed, 1);
        self.put(Metric::KinesisRecordsPut, shard, 1.0 - failed, 1);
        if let Some(code) = error {
            self.count_by_code(Metric::ErrorsByCode, shard, code, 1);
        } else {
            let bytes = record.size() as f64;
            self.put(Metric::KinesisRecordsDataPut, shard, bytes, 1);
            let users = record.members.len() as f64;
            self.put(Metric::UserRecordsPerKinesisRecord, shard, users, 1);
        }
    }

    /// Measures a Kinesis record that is acknowledged. `shard` took it.
    pub(crate) fn delivered(&mut self, record: &KinesisRecord, shard: &Arc<str>, now: Instant) {
        let took = now.saturating_duration_since(record.history.accepted);
        self.telemetry.delivery.record(took);
        if self.sinks.is_empty() {
            return;
        }
        let shard = Some(shard);
        let users = record.members.len() as u64;
        self.put(Metric::UserRecordsPut, shard, 1.0, users);
        let bytes = record.user_bytes() as f64 / users.max(1) as f64;
        self.put(Metric::UserRecordsDataPut, shard, bytes, users);
        let retries = f64::from(record.history.attempts.saturating_sub(1));
        self.put(Metric::RetriesPerRecord, shard, retries, users);
        self.put(Metric::DeliveryTime, shard, milliseconds(took), 1);
    }

    /// Measures user records that failed.
    pub(crate) fn failed(
        &mut self,
        user_records: usize,
        attempts: u32,
        shard: Option<&Arc<str>>,
        cause: &FailureCause,
    ) {
        if self.sinks.is_empty() {
            return;
        }
        let users = user_records as u64;
        self.put(Metric::UserRecordsPut, shard, 0.0, users);
        self.count_by_code(Metric::UserRecordsFailed, shard, &cause.code(), users);
        let retries = f64::from(attempts.saturating_sub(1));
        self.put(Metric::RetriesPerRecord, shard, retries, users);
        if matches!(cause, FailureCause::Expired { .. }) {
            self.put(Metric::UserRecordExpired, shard, 1.0, users);
        }
    }

    /// Samples the gauges, once a turn of the sender. Returns when to sample again, if the last sample is too recent.
    pub(crate) fn turn(
        &mut self,
        now: Instant,
        counters: &Counters,
        buffered: usize,
        in_flight: usize,
    ) -> Option<Instant> {
        let telemetry = &self.telemetry;
        telemetry.in_flight_bytes.store(in_flight, Ordering::Relaxed);
        if self.sinks.is_empty() {
            return None;
        }
        let due = self.sampled.map_or(now, |sampled| sampled + SAMPLING_PAUSE);
        if now < due {
            return Some(due);
        }
        self.sampled = Some(now);
        let completed = counters.user_records_delivered.get()
            + counters.user_records_failed.get()
            + counters.user_records_abandoned.get();
        let accepted = counters.user_records_accepted.get();
        let new = accepted - std::mem::replace(&mut self.accepted, accepted);
        if new > 0 {
            self.put(Metric::UserRecordsReceived, None, 1.0, new);
        }
        let dropped = counters.user_records_dropped.get();
        let new = dropped - std::mem::replace(&mut self.dropped, dropped);
        if new > 0 {
            self.put(Metric::UserRecordsPut, None, 0.0, new);
            self.put(Metric::UserRecordsDropped, None, 1.0, new);
        }
        let pending = accepted.saturating_sub(completed);
        self.put(Metric::UserRecordsPending, None, pending as f64, 1);
        self.put(Metric::BufferedBytes, None, buffered as f64, 1);
        self.put(Metric::InFlightBytes, None, in_flight as f64, 1);
        None
    }

    /// Makes the next turn sample, whatever the time, because it is the last one.
    pub(crate) fn end(&mut self) {
        self.sampled = None;
    }

    fn count_by_code(
        &mut self,
        metric: Metric,
        shard: Option<&Arc<str>>,
        code: &Arc<str>,
        count: u64,
    ) {
        let sample = Sample { metric, shard, code: Some(code), value: 1.0, count };
        self.sinks.iter_mut().for_each(|sink| sink.record(sample));
    }

    fn put(&mut self, metric: Metric, shard: Option<&Arc<str>>, value: f64, count: u64) {
        let sample = Sample { metric, shard, code: None, value, count };
        self.sinks.iter_mut().for_each(|sink| sink.record(sample));
    }
}
