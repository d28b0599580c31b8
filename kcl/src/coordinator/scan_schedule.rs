//! How long to wait until the next look at the table, and what that may cost: pure.

use std::collections::BTreeSet;
use std::time::Duration;

use fastrand::Rng;

use crate::lease::Snapshot;

/// Between two looks at a small table where nothing moves; a large one is read less often.
const IDLE: Duration = Duration::from_secs(1);
/// A unit reads 8 KiB; the item of a lease has about 400 bytes.
const ITEMS_PER_UNIT: f64 = 20.0;
/// That of the index names the lease and its owner, in less than 80 bytes.
const KEYS_PER_UNIT: f64 = 100.0;
/// What a read costs at least.
const LEAST_UNITS: f64 = 0.5;
/// Between two looks, however much moves.
const SHORTEST: Duration = Duration::from_millis(100);
/// Looks are more frequent until nothing has moved for this long: one change seldom comes alone
/// (workers of a fleet start together, a split follows a split).
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// How much more frequent, as long as they can be paid for.
const EAGERNESS: u32 = 10;
/// Most that is saved up: what may be spent in so many seconds,
const SAVED_SECONDS: f64 = 60.0;
/// but always so many looks.
const SAVED_LOOKS: f64 = 2.0;

/// Units of an eventually consistent look.
fn units(items: usize) -> f64 {
    (items as f64 / ITEMS_PER_UNIT).max(LEAST_UNITS)
}

/// Between two looks where nothing moves; `rate`: units a second that may be spent.
pub(super) fn at_rest(items: usize, rate: f64) -> Duration {
    Duration::from_secs_f64(units(items) / rate).max(IDLE)
}

/// Between two shard syncs, which read the table consistently, for `rate` units a second.
pub(super) fn between_syncs(items: usize, rate: f64) -> Duration {
    at_rest(items, rate) * 2
}

/// Between two queries of the index, which answered with so many `keys`, for `rate` units a second.
pub(super) fn between_queries(keys: usize, rate: f64) -> Duration {
    Duration::from_secs_f64(keys as f64 / KEYS_PER_UNIT / rate).max(IDLE)
}

/// `pause`, and up to half as much again: those who waited together do not come together.
pub(super) fn jittered(pause: Duration, random: &mut Rng) -> Duration {
    pause.mul_f64(1.0 + 0.5 * random.f64())
}

/// When the next look is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait {
    /// Not before, whoever asks for one.
    pub(super) at_least: Duration,
    /// Then, though nobody does.
    pub(super) at_most: Duration,
}

/// Who is there and who owns what: everything but heartbeats.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    leases: BTreeSet<(String, Option<String>, Option<String>, bool)>,
    workers: BTreeSet<String>,
}

impl Shape {
    fn of(snapshot: &Snapshot) -> Self {
        let lease = |lease: &crate::lease::Lease| {
            let (owner, former) = (lease.owner.clone(), lease.checkpoint_owner.clone());
            (lease.key.clone(), owner, former, lease.has_ended())
        };
        Self {
            leases: snapshot.leases.iter().map(lease).collect(),
            workers: snapshot.workers.iter().map(|row| row.worker.clone()).collect(),
        }
    }
}

/// Remembers when the table last changed its shape, and keeps account of what looks cost: twice the
/// rate comes in, so that looks at rest save up as much as they spend, and no look is made before
/// it can be paid for.
#[derive(Debug)]
pub(super) struct Pace {
    /// Units a second at rest.
    rate: f64,
    last: Option<(Shape, Duration)>,
    /// In the table as last seen.
    items: usize,
    /// Units, and when that was.
    saved: (f64, Duration),
}

impl Pace {
    pub(super) fn new(rate: f64) -> Self {
        Self { rate, last: None, items: 0, saved: (f64::INFINITY, Duration::ZERO) }
    }

    /// After a look at `snapshot`.
    pub(super) fn looked(&mut self, snapshot: &Snapshot, now: Duration) -> Wait {
        let shape = Shape::of(snapshot);
        let changed = match &self.last {
            Some((last, changed)) if *last == shape => *changed,
            _ => now,
        };
        self.last = Some((shape, changed));
        self.items = snapshot.items();
        let at_least = self.pay(now).max(SHORTEST);
        let mut pause = at_rest(self.items, self.rate);
        if now.saturating_sub(changed) < SETTLED_AFTER {
            pause /= EAGERNESS;
        }
        Wait { at_least, at_most: pause.max(at_least) }
    }

    /// After a look that failed: perhaps with the last of its pages. A table that is throttled does not
    /// recover while everybody repeats whole looks, so nobody hastens the next one.
    pub(super) fn failed(&mut self, now: Duration, random: &mut Rng) -> Wait {
        let paid = self.pay(now);
        let pause = jittered(at_rest(self.items, self.rate), random).max(paid);
        Wait { at_least: pause, at_most: pause }
    }

    /// Pays for a look; how long until another one can be paid for.
    fn pay(&mut self, now: Duration) -> Duration {
        let (cost, income) = (units(self.items), 2.0 * self.rate);
        let (saved, then) = self.saved;
        let earned = income * now.saturating_sub(then).as_secs_f64();
        let most = (self.rate * SAVED_SECONDS).max(cost * SAVED_LOOKS);
        let saved = (saved + earned).min(most) - cost;
        self.saved = (saved, now);
        Duration::from_secs_f64(((cost - saved) / income).max(0.0))
    }
}

#[cfg(test)]
mod tests;
