//! What a worker is doing, readable at any time.

mod calls;
mod lag;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use self::calls::Work;
use self::lag::Lag;
use crate::health::{Failed, ProblemKind, ProblemLog};
use crate::metrics::{Meter, Metric, milliseconds};
#[cfg(feature = "serde")]
use crate::millis;
use crate::sequence::{ExtendedSequenceNumber, SequenceNumber};
use crate::shard_state::ShardState;

/// What a worker is doing at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct WorkerSnapshot {
    /// The worker.
    pub worker_id: String,
    /// The shards it owns, by id.
    pub shards: Vec<ShardSnapshot>,
    /// User records for which `process_records` has returned `Ok`, since the start.
    pub records_delivered: u64,
    /// Payload bytes of those.
    pub bytes_delivered: u64,
    /// Aggregates that had records outside their shard's hash key range.
    pub aggregates_out_of_range: u64,
    /// Records that were dropped for that, by
    /// [`aggregate_range`](crate::ConsumerConfig::aggregate_range).
    pub records_out_of_range_dropped: u64,
    /// Broken aggregates, of which the records before the broken one were delivered.
    pub aggregate_defects: u64,
    /// Records of aggregates whose explicit hash key is no number, as old JavaScript writers leave
    /// them. They were delivered, if [`aggregate_range`](crate::ConsumerConfig::aggregate_range)
    /// allows, by the hash key of their partition key.
    pub invalid_hash_keys: u64,
    /// Compressed records that could not be opened; delivered as received.
    pub frame_errors: u64,
    /// Failures since the start, by what failed, those that passed included: of renewals, of scans of the lease
    /// table, of shard syncs, of the worker's row and more. [`health`](crate::WorkerHandle::health) has those of now.
    pub failures: BTreeMap<ProblemKind, u64>,
    /// Bytes of fetched records held now; see
    /// [`max_buffered_bytes`](crate::ConsumerConfig::max_buffered_bytes).
    pub buffered_bytes: usize,
}

/// One shard of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ShardSnapshot {
    /// The shard's id.
    pub shard_id: String,
    /// Where it is in its life.
    pub state: ShardState,
    /// User records for which `process_records` has returned `Ok`.
    pub records_delivered: u64,
    /// How far the last page read was behind the tip, to the millisecond. `None` before the first. It
    /// tells of reads only: see [`lag`](Self::lag).
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize_option"))]
    pub millis_behind_latest: Option<Duration>,
    /// How far processing is behind: the age of the oldest record that is not processed, at most. All
    /// records that arrived before are processed. It grows while a processor fails or does not return,
    /// and while the shard cannot be read. At the tip it is the time since the last read. `None` before
    /// the first read.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize_option"))]
    pub lag: Option<Duration>,
    /// Time since the batch in hand was first given to the processor. `None`: there is none.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize_option"))]
    pub batch_in_hand_for: Option<Duration>,
    /// The call of the processor that is under way. `None`: there is none.
    pub call: Option<ProcessorCall>,
    /// Calls of the processor that failed since the last one that succeeded.
    pub failures: u32,
    /// The last of them. `None` once a call has succeeded.
    pub last_failure: Option<String>,
    /// Reads of the shard that failed since the last one that succeeded. Throttles count from the third
    /// in a row on.
    pub read_failures: u32,
    /// The cause of the last of them, and what to do. `None` once a read has succeeded.
    pub last_read_failure: Option<String>,
    /// What retention deleted before it was read, within the last hour, or since the shard stands still for
    /// it: see [`on_trimmed_gap`](crate::ConsumerConfig::on_trimmed_gap).
    pub records_trimmed: Option<String>,
}

/// A call of a processor that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ProcessorCall {
    /// The method of [`RecordProcessor`](crate::RecordProcessor).
    pub name: &'static str,
    /// Time since it was called.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
    pub running_for: Duration,
}

impl WorkerSnapshot {
    /// The largest [`lag`](ShardSnapshot::lag) of its shards. `None`: it knows of none.
    pub fn lag(&self) -> Option<Duration> {
        self.shards.iter().filter_map(|shard| shard.lag).max()
    }
}

const NOT_KNOWN: u64 = u64::MAX;

/// A read that found nothing more.
#[derive(Debug, Clone)]
pub(crate) struct Tip {
    /// By the service's time: what arrived before it has been fetched.
    pub(crate) reached: SystemTime,
    /// The last record that this reader fetched.
    pub(crate) fetched: Option<SequenceNumber>,
}

/// What was found while taking records apart.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) aggregates: u64,
    /// Aggregates with a member outside the shard's hash key range.
    pub(crate) aggregates_out_of_range: u64,
    /// Members that the range policy dropped.
    pub(crate) members_dropped: u64,
    /// Aggregates of which broken members were lost.
    pub(crate) defects: u64,
    /// Members whose explicit hash key is no number.
    pub(crate) invalid_hash_keys: u64,
    /// Compressed frames that could not be opened.
    pub(crate) frame_errors: u64,
    /// Bytes that compressed frames expanded to.
    pub(crate) decompressed_bytes: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, more: &Self) {
        self.aggregates += more.aggregates;
        self.aggregates_out_of_range += more.aggregates_out_of_range;
        self.members_dropped += more.members_dropped;
        self.defects += more.defects;
        self.invalid_hash_keys += more.invalid_hash_keys;
        self.frame_errors += more.frame_errors;
        self.decompressed_bytes += more.decompressed_bytes;
    }
}

/// What a shard's tasks write down.
#[derive(Debug)]
pub(crate) struct ShardStatus {
    shard_id: String,
    state: Mutex<ShardState>,
    records: AtomicU64,
    behind: AtomicU64,
    failures: AtomicU32,
    last_failure: Mutex<Option<String>>,
    /// Its processor returned from its last call, and was dropped.
    has_stopped: AtomicBool,
    lag: Mutex<Lag>,
    work: Mutex<Work>,
    tip: Mutex<Option<Tip>>,
    totals: Arc<Totals>,
}

/// Sums over all shards that a worker has owned.
#[derive(Debug)]
pub(crate) struct Totals {
    records: AtomicU64,
    bytes: AtomicU64,
    tally: Mutex<Tally>,
    meter: Meter,
    problems: Arc<ProblemLog>,
}

impl ShardStatus {
    pub(crate) fn new(shard_id: &str, totals: Arc<Totals>) -> Self {
        Self {
            shard_id: shard_id.to_owned(),
            state: Mutex::new(ShardState::WaitingOnParents),
            records: AtomicU64::new(0),
            behind: AtomicU64::new(NOT_KNOWN),
            failures: AtomicU32::new(0),
            last_failure: Mutex::default(),
            has_stopped: AtomicBool::new(false),
            lag: Mutex::default(),
            work: Mutex::default(),
            tip: Mutex::default(),
            totals,
        }
    }

    pub(crate) fn shard_id(&self) -> &str {
        &self.shard_id
    }

    pub(crate) fn enter(&self, state: ShardState) {
        *lock(&self.state) = state;
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.totals.meter
    }

    /// Where the failures of this shard's reads, calls and checkpoints are noted.
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
        self.behind.store(millis.unwrap_or(NOT_KNOWN), Ordering::Relaxed);
        lock(&self.lag).answered(self.now(), millis.map(Duration::from_millis));
    }

    fn now(&self) -> Duration {
        self.totals.problems.now()
    }

    /// A page with records was fetched; `spread`: from the arrival of its first record to that of its
    /// last one.
    pub(crate) fn fetched(&self, millis_behind: Option<u64>, spread: Duration) {
        let behind = millis_behind.map(Duration::from_millis);
        lock(&self.lag).fetched(self.now(), behind, spread);
    }

    /// The oldest of those pages was processed.
    pub(crate) fn processed(&self) {
        lock(&self.lag).processed();
        lock(&self.work).has_no_batch();
    }

    /// The processor is given the records from `first` to `last`.
    pub(crate) fn took_batch(&self, first: &ExtendedSequenceNumber, last: &ExtendedSequenceNumber) {
        lock(&self.work).took_batch(self.now(), first.clone(), last.clone());
    }

    /// A call of the processor begins; it has ended when the guard is dropped.
    pub(crate) fn call(&self, name: &'static str) -> CallGuard<'_> {
        lock(&self.work).began(name, self.now());
        CallGuard(self)
    }

    /// Warns of a call that takes longer than `limit`, and reports how far processing is.
    pub(crate) fn watch_over(&self, limit: Option<Duration>) {
        let now = self.now();
        if self.meter().is_on() {
            // The recorder is the application's code: no lock is held while it runs.
            let lag = lock(&self.lag).at(now);
            if let Some(lag) = lag {
                self.measure(Metric::ProcessingLag, milliseconds(lag));
            }
            let call = lock(&self.work).call(now);
            let running_for = call.map_or(Duration::ZERO, |(_, running_for)| running_for);
            self.measure(Metric::ProcessorCallTime, milliseconds(running_for));
        }
        let (slow, noted) = {
            // Noted under the lock, which the end of the call needs: a call that has ended is not stuck.
            let mut work = lock(&self.work);
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
                shard_id = self.shard_id, call = slow.name, running_for = ?slow.running_for, first, last,
                "a call of the processor takes long: the shard waits for it"
            );
        }
    }

    pub(crate) fn reached_tip(&self, tip: Tip) {
        *lock(&self.tip) = Some(tip);
    }

    /// The last time that the reader found nothing more.
    pub(crate) fn tip(&self) -> Option<Tip> {
        lock(&self.tip).clone()
    }

    /// A call of the processor failed; how often in a row, and whether to log it.
    pub(crate) fn failed(&self, error: String) -> Failed {
        let kind = ProblemKind::ProcessorFailing;
        let failed = self.problems().failed(kind, Some(&self.shard_id), &error);
        *lock(&self.last_failure) = Some(error);
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        Failed { failures, ..failed }
    }

    pub(crate) fn processor_stopped(&self) {
        self.has_stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.has_stopped.load(Ordering::Relaxed)
    }

    pub(crate) fn succeeded(&self) {
        if self.failures.swap(0, Ordering::Relaxed) > 0 {
            *lock(&self.last_failure) = None;
            let kind = ProblemKind::ProcessorFailing;
            self.problems().recovered(kind, Some(&self.shard_id));
        }
    }

    pub(crate) fn delivered(&self, records: usize, bytes: usize) {
        self.measure(Metric::RecordsProcessed, records as f64);
        self.measure(Metric::DataBytesProcessed, bytes as f64);
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.totals.records.fetch_add(records as u64, Ordering::Relaxed);
        self.totals.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn found(&self, tally: &Tally) {
        lock(&self.totals.tally).add(tally);
    }

    pub(crate) fn snapshot(&self) -> ShardSnapshot {
        let behind = self.behind.load(Ordering::Relaxed);
        let reads = self.problems().find(ProblemKind::ReadsFailing, Some(&self.shard_id));
        let now = self.now();
        let (call, batch_in_hand_for) = {
            let work = lock(&self.work);
            (work.call(now), work.batch_in_hand_for(now))
        };
        ShardSnapshot {
            lag: lock(&self.lag).at(now),
            batch_in_hand_for,
            call: call.map(|(name, running_for)| ProcessorCall { name, running_for }),
            read_failures: reads.as_ref().map_or(0, |problem| problem.failures),
            last_read_failure: reads.map(|problem| problem.cause),
            records_trimmed: self
                .problems()
                .find(ProblemKind::RecordsTrimmed, Some(&self.shard_id))
                .map(|problem| problem.cause),
            shard_id: self.shard_id.clone(),
            state: *lock(&self.state),
            records_delivered: self.records.load(Ordering::Relaxed),
            millis_behind_latest: (behind != NOT_KNOWN).then(|| Duration::from_millis(behind)),
            failures: self.failures.load(Ordering::Relaxed),
            last_failure: lock(&self.last_failure).clone(),
        }
    }
}

/// A call of a processor that is under way.
pub(crate) struct CallGuard<'a>(&'a ShardStatus);

impl Drop for CallGuard<'_> {
    fn drop(&mut self) {
        if lock(&self.0.work).ended() {
            let kind = ProblemKind::ProcessorStuck;
            let shard_id = self.0.shard_id.as_str();
            self.0.problems().recovered(kind, Some(shard_id));
            tracing::info!(shard_id, "the slow call of the processor has ended");
        }
    }
}

impl Totals {
    pub(crate) fn new(meter: Meter, problems: Arc<ProblemLog>) -> Self {
        Self {
            records: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            tally: Mutex::default(),
            meter,
            problems,
        }
    }

    pub(crate) fn snapshot(
        &self,
        worker_id: &str,
        mut shards: Vec<ShardSnapshot>,
        buffered_bytes: usize,
    ) -> WorkerSnapshot {
        shards.sort_by(|a, b| a.shard_id.cmp(&b.shard_id));
        let tally = *lock(&self.tally);
        WorkerSnapshot {
            worker_id: worker_id.to_owned(),
            shards,
            records_delivered: self.records.load(Ordering::Relaxed),
            bytes_delivered: self.bytes.load(Ordering::Relaxed),
            aggregates_out_of_range: tally.aggregates_out_of_range,
            records_out_of_range_dropped: tally.members_dropped,
            aggregate_defects: tally.defects,
            invalid_hash_keys: tally.invalid_hash_keys,
            frame_errors: tally.frame_errors,
            failures: self.problems.totals(),
            buffered_bytes,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one assignment or sum: a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
