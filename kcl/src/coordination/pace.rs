//! How long to wait until the next look at the table: pure.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::lease::Snapshot;

/// Between two looks at a small table where nothing moves; a large one is read less often.
pub(super) const IDLE: Duration = Duration::from_secs(1);
/// Per lease: at most about 100 items a second are read.
const IDLE_PER_LEASE: Duration = Duration::from_millis(10);
/// Between two looks, however much moves.
pub(super) const SHORTEST: Duration = Duration::from_millis(100);
/// Looks are more frequent until nothing has moved for this long: one change seldom comes alone
/// (workers of a fleet start together, a split follows a split).
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// How much more frequent.
const EAGERNESS: u32 = 10;

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

/// Remembers when the table last changed its shape.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<(Shape, Duration)>,
}

impl Pace {
    /// The pause after a look at `snapshot`.
    pub(super) fn after(
        &mut self,
        snapshot: &Snapshot,
        now: Duration,
        failover: Duration,
    ) -> Duration {
        let shape = Shape::of(snapshot);
        let changed = match &self.last {
            Some((last, changed)) if *last == shape => *changed,
            _ => now,
        };
        self.last = Some((shape, changed));
        let leases = u32::try_from(snapshot.leases.len()).unwrap_or(u32::MAX);
        let idle = IDLE_PER_LEASE
            .saturating_mul(leases)
            .min(failover)
            .max(IDLE);
        if now.saturating_sub(changed) < SETTLED_AFTER {
            (idle / EAGERNESS).max(SHORTEST)
        } else {
            idle
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::lease::Lease;

    const F: Duration = Duration::from_secs(10);

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
        assert_eq!(pace.after(&table(4, "a", 1), at(0), F), SHORTEST);
        assert_eq!(pace.after(&table(4, "a", 2), at(2_900), F), SHORTEST);
        assert_eq!(
            pace.after(&table(4, "a", 3), at(3_000), F),
            IDLE,
            "heartbeats do not count"
        );
        assert_eq!(pace.after(&table(4, "b", 4), at(9_000), F), SHORTEST);
        assert_eq!(pace.after(&table(5, "b", 4), at(11_000), F), SHORTEST);
        assert_eq!(pace.after(&table(5, "b", 4), at(14_000), F), IDLE);
    }

    #[test]
    fn a_large_table_is_read_less_often() {
        let mut pace = Pace::default();
        assert_eq!(pace.after(&table(500, "a", 1), at(0), F), at(500));
        assert_eq!(pace.after(&table(500, "a", 1), at(5_000), F), at(5_000));
        assert_eq!(pace.after(&table(5_000, "a", 1), at(9_000), F), at(1_000));
        assert_eq!(
            pace.after(&table(5_000, "a", 1), at(19_000), F),
            F,
            "never beyond failover"
        );
    }
}
