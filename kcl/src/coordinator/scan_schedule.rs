//! When to scan the lease table next, within a budget of read units. Pure.
//!
//! A scan reads every item, so its cost grows with the table. The schedule has a rate (read units a
//! second, the setting `max_lease_table_reads`) and follows three rules:
//! * While nothing changes, a scan is made every second, or as often as the rate pays for.
//! * After a change, scans are ten times as frequent for 3 s, because one change seldom comes
//!   alone: the workers of a fleet start together, and a split follows a split.
//! * No scan is made before it is paid for. Twice the rate comes in, so scans at rest save as much
//!   as they spend.

use std::collections::BTreeSet;
use std::time::Duration;

use fastrand::Rng;

use crate::lease::{Lease, Snapshot};

/// Time between two scans of a small table in which nothing changes.
const IDLE: Duration = Duration::from_secs(1);
/// Items that one read unit reads: 8 KiB, and the item of a lease has about 400 bytes.
const ITEMS_PER_UNIT: f64 = 20.0;
/// Items of the index that one read unit reads. Each holds the lease and its owner in less than 80
/// bytes.
const KEYS_PER_UNIT: f64 = 100.0;
/// Read units that the smallest read costs.
const LEAST_UNITS: f64 = 0.5;
/// Least time between two scans.
const SHORTEST: Duration = Duration::from_millis(100);
/// Time without a change after which scans are not frequent any more.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// Factor by which scans are more frequent after a change.
const EAGERNESS: u32 = 10;
/// Read budget saved up: at most 60 s of the rate.
const SAVED_SECONDS: f64 = 60.0;
/// Scans that the saved budget may always hold, however large the table is.
const SAVED_SCANS: f64 = 2.0;

/// Read units of an eventually consistent scan of `items` items.
fn units(items: usize) -> f64 {
    (items as f64 / ITEMS_PER_UNIT).max(LEAST_UNITS)
}

/// Time between two scans of a table of `items` items in which nothing changes. `rate`: read units
/// a second.
pub(super) fn at_rest(items: usize, rate: f64) -> Duration {
    Duration::from_secs_f64(units(items) / rate).max(IDLE)
}

/// Time between two shard syncs. They read the table consistently, which costs twice as much.
pub(super) fn between_syncs(items: usize, rate: f64) -> Duration {
    at_rest(items, rate) * 2
}

/// Time between two queries of the index. `keys`: the leases that the latest one returned.
pub(super) fn between_queries(keys: usize, rate: f64) -> Duration {
    Duration::from_secs_f64(keys as f64 / KEYS_PER_UNIT / rate).max(IDLE)
}

/// `pause` and up to half of it more, at random: workers that wait at the same time do not call at
/// the same time.
pub(super) fn jittered(pause: Duration, random: &mut Rng) -> Duration {
    pause.mul_f64(1.0 + 0.5 * random.f64())
}

/// The wait before the next scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    /// Time before which no scan is made, even if a task asks for one.
    pub(super) at_least: Duration,
    /// Time after which a scan is made, even if no task asks for one.
    pub(super) at_most: Duration,
}

/// The workers, and the owner of each lease: all that a scan shows but counters and checkpoints.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    leases: BTreeSet<(String, Option<String>, Option<String>, bool)>,
    workers: BTreeSet<String>,
}

impl Shape {
    fn of(snapshot: &Snapshot) -> Self {
        let lease = |lease: &Lease| {
            let (owner, former) = (lease.owner.clone(), lease.checkpoint_owner.clone());
            (lease.key.clone(), owner, former, lease.has_ended())
        };
        Self {
            leases: snapshot.leases.iter().map(lease).collect(),
            workers: snapshot.workers.iter().map(|row| row.worker.clone()).collect(),
        }
    }
}

/// Decides when the next scan is made, from what the scans showed and cost.
#[derive(Debug)]
pub(super) struct ScanSchedule {
    /// Read units a second for scans at rest.
    rate: f64,
    /// The table at the latest scan, and since when it has had this shape.
    latest: Option<(Shape, Duration)>,
    /// Items that the latest scan read.
    items: usize,
    /// Read units that are saved up, and at what time.
    saved: (f64, Duration),
}

impl ScanSchedule {
    pub(super) fn new(rate: f64) -> Self {
        Self { rate, latest: None, items: 0, saved: (f64::INFINITY, Duration::ZERO) }
    }

    /// The wait after a scan that showed `snapshot`.
    pub(super) fn succeeded(&mut self, snapshot: &Snapshot, now: Duration) -> Wait {
        let shape = Shape::of(snapshot);
        let since = match &self.latest {
            Some((latest, since)) if *latest == shape => *since,
            _ => now,
        };
        self.latest = Some((shape, since));
        self.items = snapshot.items();
        let at_least = self.pay(now).max(SHORTEST);
        let mut pause = at_rest(self.items, self.rate);
        if now.saturating_sub(since) < SETTLED_AFTER {
            pause /= EAGERNESS;
        }
        Wait { at_least, at_most: pause.max(at_least) }
    }

    /// The wait after a scan that failed. No task can shorten it.
    ///
    /// The whole scan is paid for, because its last page may have failed. A throttled table does
    /// not recover while all workers repeat whole scans.
    pub(super) fn failed(&mut self, now: Duration, random: &mut Rng) -> Wait {
        let paid = self.pay(now);
        let pause = jittered(at_rest(self.items, self.rate), random).max(paid);
        Wait { at_least: pause, at_most: pause }
    }

    /// Pays for a scan. Returns the time until the next one can be paid for.
    fn pay(&mut self, now: Duration) -> Duration {
        let (cost, income) = (units(self.items), 2.0 * self.rate);
        let (saved, then) = self.saved;
        let earned = income * now.saturating_sub(then).as_secs_f64();
        let most = (self.rate * SAVED_SECONDS).max(cost * SAVED_SCANS);
        let saved = (saved + earned).min(most) - cost;
        self.saved = (saved, now);
        Duration::from_secs_f64(((cost - saved) / income).max(0.0))
    }
}

#[cfg(test)]
mod tests;
