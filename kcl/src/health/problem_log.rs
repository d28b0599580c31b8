//! The present problems of a worker. Each part of the worker notes its failures here, and its recoveries.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kinesis_common::sync::Mutex;

use super::{Problem, ProblemKind};
use crate::clock::Clock;

/// Time after which a problem that lasts is logged again.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// The present problems of one worker.
#[derive(Debug)]
pub(crate) struct ProblemLog {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// The number of problems, so that a success costs no lock while there is none.
    count: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    /// The problems by kind and shard. `None`: the whole worker.
    entries: BTreeMap<(ProblemKind, Option<String>), Entry>,
    /// Failures since the start, by kind.
    totals: BTreeMap<ProblemKind, u64>,
}

#[derive(Debug)]
struct Entry {
    since: Duration,
    failures: u32,
    cause: String,
    logged: Duration,
}

/// The count of a failure, and whether to log it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed {
    /// Failures in a row, with this one.
    pub(crate) failures: u32,
    /// True for the first failure in a row, and then for one each [`LOG_INTERVAL`].
    pub(crate) log: bool,
}

impl ProblemLog {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default(), count: AtomicUsize::new(0) }
    }

    /// The time by the clock that dates the problems.
    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// The clock that dates the problems.
    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Notes a failure. The text of `cause` must not hold payload or keys of records.
    pub(crate) fn failed(
        &self,
        kind: ProblemKind,
        shard_id: Option<&str>,
        cause: impl Display,
    ) -> Failed {
        let now = self.clock.now();
        // Before the lock: the text may be made by code of the user.
        let cause = cause.to_string();
        let mut state = self.state.lock();
        let State { entries, totals } = &mut *state;
        *totals.entry(kind).or_default() += 1;
        let key = (kind, shard_id.map(str::to_owned));
        let mut is_new = false;
        let entry = entries.entry(key).or_insert_with(|| {
            is_new = true;
            Entry { since: now, failures: 0, cause: String::new(), logged: now }
        });
        entry.failures = entry.failures.saturating_add(1);
        entry.cause = cause;
        let log = is_new || now.saturating_sub(entry.logged) >= LOG_INTERVAL;
        if log {
            entry.logged = now;
        }
        let failed = Failed { failures: entry.failures, log };
        self.count.store(entries.len(), Ordering::Relaxed);
        failed
    }

    /// Removes a problem, because what failed works again. Returns true if there was one.
    pub(crate) fn recovered(&self, kind: ProblemKind, shard_id: Option<&str>) -> bool {
        // In most calls, there is no problem. A failure that another thread notes at this moment counts as later
        // than this success.
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let mut state = self.state.lock();
        let entries = &mut state.entries;
        let removed = entries.remove(&(kind, shard_id.map(str::to_owned)));
        self.count.store(entries.len(), Ordering::Relaxed);
        removed.is_some()
    }

    /// Removes the problems of a shard that this worker does not own any more. What a scan found about its lease stays
    /// until the next scan.
    pub(crate) fn forget_shard(&self, shard_id: &str) {
        let mut state = self.state.lock();
        let entries = &mut state.entries;
        entries.retain(|(kind, shard), _| {
            *kind == ProblemKind::CorruptLease || shard.as_deref() != Some(shard_id)
        });
        self.count.store(entries.len(), Ordering::Relaxed);
    }

    /// Failures since the start by kind, also those that are over.
    pub(crate) fn totals(&self) -> BTreeMap<ProblemKind, u64> {
        self.state.lock().totals.clone()
    }

    /// The problem of this kind, if there is one now.
    pub(crate) fn find(&self, kind: ProblemKind, shard_id: Option<&str>) -> Option<Problem> {
        let now = self.clock.now();
        let state = self.state.lock();
        let (key, entry) = state.entries.get_key_value(&(kind, shard_id.map(str::to_owned)))?;
        Some(entry.problem(key, now))
    }

    /// All present problems.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let now = self.clock.now();
        let state = self.state.lock();
        state.entries.iter().map(|(key, entry)| entry.problem(key, now)).collect()
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

    #[tokio::test]
    async fn the_text_of_a_cause_may_ask_for_the_problems() {
        struct Asks<'a>(&'a ProblemLog);
        impl Display for Asks<'_> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let is_free = !self.0.state.is_locked();
                write!(f, "{is_free}")
            }
        }
        let log = log();
        log.failed(READS, None, Asks(&log));
        assert_eq!(log.find(READS, None).unwrap().cause, "true");
    }

    #[tokio::test]
    async fn a_corrupt_lease_is_a_problem_until_a_scan_finds_it_repaired() {
        let log = log();
        log.failed(ProblemKind::CorruptLease, Some("a"), "no counter");
        log.failed(READS, Some("a"), "throttled");
        log.forget_shard("a");
        let kinds: Vec<_> = log.problems().iter().map(|problem| problem.kind).collect();
        assert_eq!(kinds, [ProblemKind::CorruptLease]);
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
