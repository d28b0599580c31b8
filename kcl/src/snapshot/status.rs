//! The state of a shard, as its tasks note it for snapshots, health and metrics.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use kinesis_common::metrics::histogram::Histogram;
use kinesis_common::sync::Mutex;

use super::calls::Work;
use super::rate::Rates;
use super::{AggregateCounts, ShardSnapshot, WorkerSnapshot};
use crate::error::ProcessorError;
use crate::health::{Facts, Failed, ProblemKind, ProblemLog, ShardHealth, judge};
use crate::metrics::{Meter, Metric, milliseconds};
use crate::progress::ShardProgress;
use crate::replay::{ReplayEnd, ReplayedShard};
use crate::sequence::ExtendedSequenceNumber;
use crate::service_time::ServiceClock;
use crate::shard_control::ShardControl;
use crate::shard_state::ShardState;

/// The state of a shard that the worker owns.
#[derive(Debug)]
pub(crate) struct ShardStatus {
    shard_id: String,
    state: Mutex<ShardState>,
    /// The start time in the future for which the shard waits.
    starts_at: Mutex<Option<SystemTime>>,
    records: AtomicU64,
    rates: Mutex<Rates>,
    /// Propagation delays, once there is one.
    delays: OnceLock<Box<Histogram>>,
    bytes: AtomicU64,
    /// True after all records up to the bound of a replay were processed.
    finished: AtomicBool,
    /// True after its processor has returned from its last call and was dropped.
    has_stopped: AtomicBool,
    control: ShardControl,
    /// True while nothing is read because the application has paused the shard.
    is_paused: AtomicBool,
    progress: ShardProgress,
    work: Mutex<Work>,
    totals: Arc<Totals>,
}

/// Totals of all shards that a worker has owned.
#[derive(Debug)]
pub(crate) struct Totals {
    records: AtomicU64,
    bytes: AtomicU64,
    delays: Histogram,
    /// The clock that delays are measured by.
    service_clock: ServiceClock,
    aggregates: Mutex<AggregateCounts>,
    pub(crate) meter: Meter,
    pub(crate) problems: Arc<ProblemLog>,
}

impl ShardStatus {
    pub(crate) fn new(shard_id: &str, progress: ShardProgress, totals: Arc<Totals>) -> Self {
        Self {
            shard_id: shard_id.to_owned(),
            state: Mutex::new(ShardState::WaitingOnParents),
            starts_at: Mutex::new(None),
            records: AtomicU64::new(0),
            rates: Mutex::new(Rates::new(totals.problems.now())),
            delays: OnceLock::new(),
            bytes: AtomicU64::new(0),
            finished: AtomicBool::new(false),
            has_stopped: AtomicBool::new(false),
            control: ShardControl::default(),
            is_paused: AtomicBool::new(false),
            progress,
            work: Mutex::default(),
            totals,
        }
    }

    pub(crate) fn shard_id(&self) -> &str {
        &self.shard_id
    }

    /// The progress of the shard.
    pub(crate) fn progress(&self) -> &ShardProgress {
        &self.progress
    }

    /// The requests of the application.
    pub(crate) fn control(&self) -> &ShardControl {
        &self.control
    }

    /// Notes whether the shard is paused.
    pub(crate) fn paused(&self, is_paused: bool) {
        self.is_paused.store(is_paused, Ordering::Relaxed);
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Relaxed)
    }

    pub(crate) fn state(&self) -> ShardState {
        *self.state.lock()
    }

    pub(crate) fn enter(&self, state: ShardState) {
        *self.state.lock() = state;
    }

    /// Notes the start time for which the shard waits. Returns the former one.
    pub(crate) fn waits_until(&self, time: Option<SystemTime>) -> Option<SystemTime> {
        std::mem::replace(&mut *self.starts_at.lock(), time)
    }

    /// The start time for which the shard waits.
    pub(crate) fn starts_at(&self) -> Option<SystemTime> {
        *self.starts_at.lock()
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.totals.meter
    }

    /// The log for failures of the shard's reads, calls and checkpoints.
    pub(crate) fn problems(&self) -> &ProblemLog {
        &self.totals.problems
    }

    pub(crate) fn measure(&self, metric: Metric, value: f64) {
        self.meter().put(metric, Some(&self.shard_id), value);
    }

    pub(crate) fn behind(&self, millis: Option<u64>) {
        if let Some(millis) = millis {
            self.measure(Metric::MillisBehindLatest, millis as f64);
        }
        self.progress.lock().lag.answered(self.now(), millis.map(Duration::from_millis));
    }

    fn now(&self) -> Duration {
        self.totals.problems.now()
    }

    /// Notes that a page with records was fetched. `spread`: the time from the arrival of its first record to
    /// that of its last one.
    pub(crate) fn fetched(&self, millis_behind: Option<u64>, spread: Duration) {
        let behind = millis_behind.map(Duration::from_millis);
        self.progress.lock().lag.fetched(self.now(), behind, spread);
    }

    /// The present time by the service's clock.
    pub(crate) fn service_time(&self) -> SystemTime {
        self.totals.service_clock.exact_now()
    }

    /// Notes that a page is delivered for the first time. `arrivals`: of some of its records.
    pub(crate) fn first_delivery(&self, arrivals: impl Iterator<Item = SystemTime>) {
        let now = self.service_time();
        for arrival in arrivals {
            // The record may seem to arrive after its delivery, because two clocks differ.
            let delay = now.duration_since(arrival).unwrap_or_default();
            self.totals.delays.record(delay);
            self.delays.get_or_init(Box::default).record(delay);
            self.measure(Metric::PropagationDelay, milliseconds(delay));
        }
    }

    /// Notes that the processor has finished with its batch.
    pub(crate) fn batch_processed(&self) {
        self.work.lock().has_no_batch();
    }

    /// Notes that the processor is given the records from `first` to `last`.
    pub(crate) fn took_batch(&self, first: &ExtendedSequenceNumber, last: &ExtendedSequenceNumber) {
        self.work.lock().took_batch(self.now(), first.clone(), last.clone());
    }

    /// Notes that a call of the processor begins. It has ended when the guard is dropped.
    pub(crate) fn call(&self, name: &'static str) -> CallGuard<'_> {
        self.work.lock().began(name, self.now());
        CallGuard(self)
    }

    /// Notes the record whose handler has run for longest, and when it began. `None`: no handler runs.
    pub(crate) fn handles(&self, longest: Option<(ExtendedSequenceNumber, Duration)>) {
        let was_slow = {
            let mut work = self.work.lock();
            let was_slow = work.ended();
            work.has_no_batch();
            if let Some((position, since)) = longest {
                work.took_batch(since, position.clone(), position);
                work.began("handler", since);
            }
            was_slow
        };
        if was_slow {
            self.slow_call_ended();
        }
    }

    fn slow_call_ended(&self) {
        self.problems().recovered(ProblemKind::ProcessorStuck, Some(&self.shard_id));
        tracing::info!(shard_id = self.shard_id, "the slow call of the processor has ended");
    }

    /// Warns of a call that takes longer than `limit`, and measures how far processing is behind.
    pub(crate) fn watch_over(&self, limit: Option<Duration>) {
        let now = self.now();
        let ages = {
            let mut progress = self.progress.lock();
            progress.lag.watch(now, self.is_paused());
            [
                (Metric::ProcessingLag, progress.lag.at(now)),
                (Metric::MillisSinceCheckpoint, progress.since_checkpoint(now)),
            ]
        };
        if self.meter().is_on() {
            // The recorder is code of the application, so no lock is held while it runs.
            for (metric, age) in ages {
                age.into_iter().for_each(|age| self.measure(metric, milliseconds(age)));
            }
            let call = self.work.lock().call(now);
            let running_for = call.map_or(Duration::ZERO, |call| call.running_for);
            self.measure(Metric::ProcessorCallTime, milliseconds(running_for));
        }
        let (slow, noted) = {
            // The problem is noted under the lock, which the end of the call needs, too. So a call that has ended
            // is never noted as stuck.
            let mut work = self.work.lock();
            let slow = limit.and_then(|limit| work.slow(limit, now));
            let Some(slow) = slow else { return };
            let (kind, shard) = (ProblemKind::ProcessorStuck, Some(&*self.shard_id));
            let noted = self.problems().failed(kind, shard, &slow);
            (slow, noted)
        };
        if noted.log {
            let first = slow.records.as_ref().map(|(first, _)| tracing::field::display(first));
            let last = slow.records.as_ref().map(|(_, last)| tracing::field::display(last));
            tracing::warn!(
                shard_id = self.shard_id, call = slow.call.name, running_for = ?slow.call.running_for, first, last,
                "a call of the processor takes long, and the shard waits for it"
            );
        }
    }

    /// Notes that a call of the processor failed.
    pub(crate) fn failed(&self, error: &ProcessorError) -> Failed {
        self.problems().failed(ProblemKind::ProcessorFailing, Some(&self.shard_id), error)
    }

    /// Notes that all records up to the bound of a replay were processed.
    pub(crate) fn has_finished(&self) {
        self.finished.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Relaxed)
    }

    /// The work on the shard, for the report of a bounded replay. `has_ended`: it was processed to its end.
    pub(crate) fn replayed(&self, has_ended: bool) -> ReplayedShard {
        ReplayedShard {
            records: self.records.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            last: self.progress.lock().last_delivered().cloned(),
            end: match has_ended {
                true => ReplayEnd::ShardEnded,
                false if self.is_finished() => ReplayEnd::Finished,
                false => ReplayEnd::GivenUp,
            },
        }
    }

    pub(crate) fn processor_stopped(&self) {
        self.has_stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.has_stopped.load(Ordering::Relaxed)
    }

    pub(crate) fn succeeded(&self) {
        self.problems().recovered(ProblemKind::ProcessorFailing, Some(&self.shard_id));
    }

    pub(crate) fn delivered(&self, records: usize, bytes: usize) {
        self.measure(Metric::RecordsProcessed, records as f64);
        self.measure(Metric::DataBytesProcessed, bytes as f64);
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.rates.lock().add(self.now(), records, bytes);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.totals.records.fetch_add(records as u64, Ordering::Relaxed);
        self.totals.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn found(&self, counts: &AggregateCounts) {
        self.totals.aggregates.lock().add(counts);
    }

    /// What the shard does. `longest_call`: time from which on a call of the processor does not return. `stops_at_gaps`:
    /// whether the shard stops where records were trimmed.
    pub(crate) fn health(&self, longest_call: Duration, stops_at_gaps: bool) -> ShardHealth {
        let find = |kind| self.problems().find(kind, Some(&self.shard_id));
        let (now, state) = (self.now(), self.state());
        let since = |kind| find(kind).map(|problem| problem.since);
        let processor_fails = since(ProblemKind::ProcessorFailing);
        let reads_fail = since(ProblemKind::ReadsFailing);
        let is_at_gap = stops_at_gaps && find(ProblemKind::RecordsTrimmed).is_some();
        let has_stopped_at_records = find(ProblemKind::ShardStopped).is_some();
        let call = self.work.lock().call(now).map(|call| call.running_for);
        let progress = self.progress.lock();
        let lag = &progress.lag;
        let (activity, held_up_by) = judge(&Facts {
            state,
            call,
            longest_call,
            is_paused: self.is_paused(),
            processor_fails,
            reads_fail,
            is_at_gap,
            has_stopped_at_records,
            has_records: lag.has_records(),
            behind: lag.behind(),
            falls_behind: lag.falls_behind(),
        });
        ShardHealth {
            shard_id: self.shard_id.clone(),
            activity,
            held_up_by,
            lag: lag.at(now),
            millis_behind_latest: lag.behind(),
            since_checkpoint: progress.since_checkpoint(now),
        }
    }

    pub(crate) fn snapshot(&self) -> ShardSnapshot {
        let find = |kind| self.problems().find(kind, Some(&self.shard_id));
        let (calls, reads) = (find(ProblemKind::ProcessorFailing), find(ProblemKind::ReadsFailing));
        let now = self.now();
        let (call, batch_in_hand_for) = {
            let work = self.work.lock();
            (work.call(now), work.batch_in_hand_for(now))
        };
        let (lag, millis_behind_latest, since_checkpoint) = {
            let progress = self.progress.lock();
            (progress.lag.at(now), progress.lag.behind(), progress.since_checkpoint(now))
        };
        let [records_per_second, bytes_per_second] = self.rates.lock().per_second(now);
        let delays = self.delays.get().map(|delays| delays.percentiles());
        ShardSnapshot {
            lag,
            millis_behind_latest,
            since_checkpoint,
            records_per_second,
            bytes_per_second,
            propagation_delay: delays.unwrap_or_default(),
            batch_in_hand_for,
            call,
            read_failures: reads.as_ref().map_or(0, |problem| problem.failures),
            last_read_failure: reads.map(|problem| problem.cause),
            records_trimmed: find(ProblemKind::RecordsTrimmed).map(|problem| problem.cause),
            shard_id: self.shard_id.clone(),
            state: self.state(),
            is_paused: self.is_paused(),
            records_delivered: self.records.load(Ordering::Relaxed),
            failures: calls.as_ref().map_or(0, |problem| problem.failures),
            last_failure: calls.map(|problem| problem.cause),
        }
    }
}

/// A call of a processor that is under way.
pub(crate) struct CallGuard<'a>(&'a ShardStatus);

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        // Bound first, so that the lock is free again.
        let was_slow = self.0.work.lock().ended();
        if was_slow {
            self.0.slow_call_ended();
        }
    }
}

impl Totals {
    pub(crate) fn new(meter: Meter, problems: Arc<ProblemLog>) -> Self {
        Self {
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            delays: Histogram::default(),
            service_clock: ServiceClock::new(Arc::clone(problems.clock())),
            aggregates: Mutex::default(),
            meter,
            problems,
        }
    }

    /// Sets the clock that delays are measured by. Default: one that has learned nothing from the service.
    pub(crate) fn with_service_clock(self, service_clock: ServiceClock) -> Self {
        Self { service_clock, ..self }
    }

    pub(crate) fn snapshot(
        &self,
        worker_id: &str,
        mut shards: Vec<ShardSnapshot>,
        buffered_bytes: usize,
    ) -> WorkerSnapshot {
        shards.sort_by(|a, b| a.shard_id.cmp(&b.shard_id));
        let aggregates = *self.aggregates.lock();
        WorkerSnapshot {
            worker_id: worker_id.to_owned(),
            records_per_second: shards.iter().map(|shard| shard.records_per_second).sum(),
            bytes_per_second: shards.iter().map(|shard| shard.bytes_per_second).sum(),
            propagation_delay: self.delays.percentiles(),
            shards,
            records_delivered: self.records.load(Ordering::Relaxed),
            bytes_delivered: self.bytes.load(Ordering::Relaxed),
            aggregates_out_of_range: aggregates.aggregates_out_of_range,
            records_out_of_range_dropped: aggregates.members_dropped,
            aggregate_defects: aggregates.defects,
            invalid_hash_keys: aggregates.invalid_hash_keys,
            frame_errors: aggregates.frame_errors,
            failures: self.problems.totals(),
            buffered_bytes,
        }
    }
}
