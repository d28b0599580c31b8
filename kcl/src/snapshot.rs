//! What a worker is doing, readable at any time.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::delivery::Tally;
use crate::health::ProblemLog;
use crate::metrics::{Meter, Metric};
#[cfg(feature = "serde")]
use crate::millis;
use crate::shard_consumer::ShardState;

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
    /// How far the last page read was behind the tip, to the millisecond. `None` before the first.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize_option"))]
    pub millis_behind_latest: Option<Duration>,
    /// Calls of the processor that failed since the last one that succeeded.
    pub failures: u32,
    /// The last of them. `None` once a call has succeeded.
    pub last_failure: Option<String>,
}

const NOT_KNOWN: u64 = u64::MAX;

/// What a shard's tasks write down.
#[derive(Debug)]
pub(crate) struct ShardStatus {
    shard_id: String,
    state: Mutex<ShardState>,
    records: AtomicU64,
    behind: AtomicU64,
    failures: AtomicU32,
    last_failure: Mutex<Option<String>>,
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
        self.behind
            .store(millis.unwrap_or(NOT_KNOWN), Ordering::Relaxed);
    }

    pub(crate) fn failed(&self, error: String) -> u32 {
        *lock(&self.last_failure) = Some(error);
        self.failures.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn succeeded(&self) {
        if self.failures.swap(0, Ordering::Relaxed) > 0 {
            *lock(&self.last_failure) = None;
        }
    }

    pub(crate) fn delivered(&self, records: usize, bytes: usize) {
        self.measure(Metric::RecordsProcessed, records as f64);
        self.measure(Metric::DataBytesProcessed, bytes as f64);
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.totals
            .records
            .fetch_add(records as u64, Ordering::Relaxed);
        self.totals.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn found(&self, tally: &Tally) {
        lock(&self.totals.tally).add(tally);
    }

    pub(crate) fn snapshot(&self) -> ShardSnapshot {
        let behind = self.behind.load(Ordering::Relaxed);
        ShardSnapshot {
            shard_id: self.shard_id.clone(),
            state: *lock(&self.state),
            records_delivered: self.records.load(Ordering::Relaxed),
            millis_behind_latest: (behind != NOT_KNOWN).then(|| Duration::from_millis(behind)),
            failures: self.failures.load(Ordering::Relaxed),
            last_failure: lock(&self.last_failure).clone(),
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
            buffered_bytes,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change is one assignment or sum: a panic elsewhere leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
