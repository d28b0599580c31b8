//! How long to wait until the next look at the table: pure.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::lease::Snapshot;

/// Between two looks at a small table where nothing moves; a large one is read less often.
pub(super) const IDLE: Duration = Duration::from_secs(1);
/// A unit reads 8 KiB; the item of a lease has about 400 bytes.
const ITEMS_PER_UNIT: f64 = 20.0;
/// What a read costs at least.
const LEAST_UNITS: f64 = 0.5;
/// Between two looks, however much moves.
pub(super) const SHORTEST: Duration = Duration::from_millis(100);
/// Looks are more frequent until nothing has moved for this long: one change seldom comes alone
/// (workers of a fleet start together, a split follows a split).
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// How much more frequent, as long as units for that are saved up.
const EAGERNESS: u32 = 10;
/// Most that are saved up: what may be spent in so many seconds.
const SAVED_SECONDS: f64 = 60.0;

/// Units of an eventually consistent look.
fn units(items: usize) -> f64 {
    (items as f64 / ITEMS_PER_UNIT).max(LEAST_UNITS)
}

/// Between two looks where nothing moves; `rate`: units a second that may be spent.
fn at_rest(items: usize, rate: f64) -> Duration {
    Duration::from_secs_f64(units(items) / rate).max(IDLE)
}

/// Between two shard syncs, which read the table consistently, for `rate` units a second.
pub(super) fn between_syncs(items: usize, rate: u32) -> Duration {
    at_rest(items, f64::from(rate)) * 2
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
            workers: snapshot
                .workers
                .iter()
                .map(|row| row.worker.clone())
                .collect(),
        }
    }
}

/// Remembers when the table last changed its shape, and what may be spent on more frequent looks.
#[derive(Debug)]
pub(super) struct Pace {
    last: Option<(Shape, Duration)>,
    /// Units, and when that was.
    saved: (f64, Duration),
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            last: None,
            saved: (f64::INFINITY, Duration::ZERO),
        }
    }
}

impl Pace {
    /// The pause after a look at `snapshot`, for `rate` units a second.
    pub(super) fn after(&mut self, snapshot: &Snapshot, now: Duration, rate: u32) -> Duration {
        let shape = Shape::of(snapshot);
        let changed = match &self.last {
            Some((last, changed)) if *last == shape => *changed,
            _ => now,
        };
        self.last = Some((shape, changed));
        let (items, rate) = (snapshot.items(), f64::from(rate.max(1)));
        let (pause, cost) = (at_rest(items, rate), units(items));
        let (saved, then) = self.saved;
        let earned = rate * now.saturating_sub(then).as_secs_f64();
        let saved = (saved + earned).min((rate * SAVED_SECONDS).max(cost));
        let is_eager = now.saturating_sub(changed) < SETTLED_AFTER && saved >= cost;
        self.saved = (if is_eager { saved - cost } else { saved }, now);
        if is_eager {
            (pause / EAGERNESS).max(SHORTEST)
        } else {
            pause
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::lease::Lease;

    const RATE: u32 = 5;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn table(leases: usize, owner: &str, counter: u64) -> Snapshot {
        let lease = |n| Lease {
            owner: Some(owner.to_owned()),
            counter,
            ..Lease::new(format!("shardId-{n}"), Checkpoint::TrimHorizon)
        };
        Snapshot {
            leases: (0..leases).map(lease).collect(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn looks_are_frequent_until_the_table_has_settled() {
        let mut pace = Pace::default();
        assert_eq!(pace.after(&table(4, "a", 1), at(0), RATE), SHORTEST);
        assert_eq!(pace.after(&table(4, "a", 2), at(2_900), RATE), SHORTEST);
        assert_eq!(
            pace.after(&table(4, "a", 3), at(3_000), RATE),
            IDLE,
            "heartbeats do not count"
        );
        assert_eq!(pace.after(&table(4, "b", 4), at(9_000), RATE), SHORTEST);
        assert_eq!(pace.after(&table(5, "b", 4), at(11_000), RATE), SHORTEST);
        assert_eq!(pace.after(&table(5, "b", 4), at(14_000), RATE), IDLE);
    }

    #[test]
    fn a_large_table_is_read_less_often() {
        let mut pace = Pace::default();
        let mut after = |leases, millis| pace.after(&table(leases, "a", 1), at(millis), RATE);
        assert_eq!(after(100, 0), SHORTEST);
        assert_eq!(after(100, 5_000), IDLE);
        assert_eq!(after(500, 6_000), at(500));
        assert_eq!(after(500, 11_000), at(5_000));
        assert_eq!(after(10_000, 20_000), at(100_000), "nothing is saved up");
        assert_eq!(after(10_000, 120_000), at(100_000));
        let mut pace = Pace::default();
        let frugal = pace.after(&table(500, "a", 1), at(5_000), 1);
        assert_eq!(frugal, at(2_500));
        assert_eq!(between_syncs(10_000, RATE), at(200_000));
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]

        /// At any size and however much moves: the rate, as much again while it moves, and what was
        /// saved up.
        #[test]
        fn never_spends_more_than_the_rate_allows(
            leases in proptest::sample::select(vec![0_usize, 4, 90, 300, 2_000]),
            rate in 1_u32..50,
            moves in proptest::collection::vec(proptest::bool::weighted(0.7), 1..60),
        ) {
            let (mut pace, mut now, mut spent) = (Pace::default(), at(0), 0.0);
            for (n, moves) in moves.into_iter().enumerate() {
                let owner = if moves { n.to_string() } else { String::new() };
                let read = table(leases, &owner, 1);
                spent += units(leases);
                now += pace.after(&read, now, rate);
            }
            let rate = f64::from(rate);
            let saved = (rate * SAVED_SECONDS).max(units(leases));
            proptest::prop_assert!(spent <= 2.0 * rate * now.as_secs_f64() + saved + 1e-6);
        }
    }
}
