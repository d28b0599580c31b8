//! What fails at the moment: each part of a worker notes its failures here, and takes them back.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Problem, ProblemKind};
use crate::clock::Clock;

/// A problem that lasts is logged again after this time.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// The problems of one worker that are there now.
#[derive(Debug)]
pub(crate) struct ProblemLog {
    clock: Arc<dyn Clock>,
    /// By kind, then shard; `None` is the worker as a whole.
    entries: Mutex<Entries>,
    /// The size of `entries`, so that a success costs no lock while nothing is wrong.
    count: AtomicUsize,
    /// See [`ProblemLog::totals`].
    totals: Mutex<BTreeMap<ProblemKind, u64>>,
}

type Entries = BTreeMap<(ProblemKind, Option<String>), Entry>;

#[derive(Debug)]
struct Entry {
    since: Duration,
    failures: u32,
    cause: String,
    logged: Duration,
}

/// What a noted failure amounts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed {
    /// Failures in a row, this one included.
    pub(crate) failures: u32,
    /// Whether to log this failure: the first in a row is, and then one each [`LOG_INTERVAL`].
    pub(crate) log: bool,
}

impl ProblemLog {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            entries: Mutex::default(),
            count: AtomicUsize::new(0),
            totals: Mutex::default(),
        }
    }

    /// The time by which problems are dated.
    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Notes one more failure, with its cause as text: without payload or keys of records.
    pub(crate) fn failed(
        &self,
        kind: ProblemKind,
        shard_id: Option<&str>,
        cause: impl Display,
    ) -> Failed {
        self.count(kind);
        let now = self.clock.now();
        let mut entries = self.entries();
        let key = (kind, shard_id.map(str::to_owned));
        let mut is_new = false;
        let entry = entries.entry(key).or_insert_with(|| {
            is_new = true;
            Entry { since: now, failures: 0, cause: String::new(), logged: now }
        });
        entry.failures = entry.failures.saturating_add(1);
        entry.cause = cause.to_string();
        let log = is_new || now.saturating_sub(entry.logged) >= LOG_INTERVAL;
        if log {
            entry.logged = now;
        }
        let failed = Failed { failures: entry.failures, log };
        self.count.store(entries.len(), Ordering::Relaxed);
        failed
    }

    /// Takes a problem back: what failed works again. True if there was one.
    pub(crate) fn recovered(&self, kind: ProblemKind, shard_id: Option<&str>) -> bool {
        // Nearly every call: nothing is wrong. A failure that another thread notes at this moment is
        // later than this success.
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut entries = self.entries();
        let removed = entries.remove(&(kind, shard_id.map(str::to_owned)));
        self.count.store(entries.len(), Ordering::Relaxed);
        removed.is_some()
    }

    /// Takes back all problems of a shard: this worker does not own it any more.
    pub(crate) fn forget_shard(&self, shard_id: &str) {
        let mut entries = self.entries();
        entries.retain(|(_, shard), _| shard.as_deref() != Some(shard_id));
        self.count.store(entries.len(), Ordering::Relaxed);
    }

    /// Failures since the start by kind, those that passed included.
    pub(crate) fn totals(&self) -> BTreeMap<ProblemKind, u64> {
        let totals = self.totals.lock();
        totals.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, kind: ProblemKind) {
        let totals = self.totals.lock();
        let mut totals = totals.unwrap_or_else(PoisonError::into_inner);
        *totals.entry(kind).or_default() += 1;
    }

    /// The problem of this kind, if it is there now.
    pub(crate) fn find(&self, kind: ProblemKind, shard_id: Option<&str>) -> Option<Problem> {
        let now = self.clock.now();
        let entries = self.entries();
        let (key, entry) = entries.get_key_value(&(kind, shard_id.map(str::to_owned)))?;
        Some(entry.problem(key, now))
    }

    /// All problems that are there now.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let now = self.clock.now();
        let entries = self.entries();
        entries.iter().map(|(key, entry)| entry.problem(key, now)).collect()
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Each change is one insertion or removal: a panic elsewhere leaves nothing half done.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn problem(&self, (kind, shard_id): &(ProblemKind, Option<String>), now: Duration) -> Problem {
        Problem {
            kind: *kind,
            shard_id: shard_id.clone(),
            cause: self.cause.clone(),
            since: now.saturating_sub(self.since),
            failures: self.failures,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TokioClock;

    const READS: ProblemKind = ProblemKind::ReadsFailing;

    fn log() -> ProblemLog {
        ProblemLog::new(Arc::new(TokioClock::new()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_problem_stands_until_it_is_taken_back() {
        let log = log();
        assert!(!log.recovered(READS, Some("a")));
        log.failed(READS, Some("a"), "first");
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(log.failed(READS, Some("a"), "second").failures, 2);
        log.failed(READS, Some("b"), "other");

        let found = log.find(READS, Some("a")).unwrap();
        assert_eq!((found.failures, found.cause.as_str()), (2, "second"));
        assert_eq!(found.since, Duration::from_secs(5));
        assert_eq!(log.problems().len(), 2);

        assert!(log.recovered(READS, Some("a")));
        assert_eq!(log.find(READS, Some("a")), None);
        assert_eq!(log.totals(), BTreeMap::from([(READS, 3)]), "they stay counted");
        log.forget_shard("b");
        assert_eq!(log.problems(), []);
        assert_eq!(log.failed(READS, Some("a"), "anew").failures, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lasting_problem_is_logged_at_a_limited_rate() {
        let log = log();
        let mut logged = 0;
        for _ in 0..1_000 {
            logged += u32::from(log.failed(READS, None, "again").log);
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        // At 0, 30, 60 and 90 of 100 seconds.
        assert_eq!(logged, 4);
        log.recovered(READS, None);
        assert!(log.failed(READS, None, "anew").log);
    }
}
