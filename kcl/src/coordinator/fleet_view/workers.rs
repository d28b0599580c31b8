//! Which workers are alive, as far as the table tells: pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::lease_history::Observations;
use crate::lease::{Lease, WorkerRow};

/// A row is written each 30 s; a worker whose row is older than two of that is gone.
const ROW_LIFETIME: u64 = 60;
/// A worker that is to receive a lease must not have missed a single row.
const RECEIVER_ROW_LIFETIME: u64 = 35;
/// How far a live worker's clock may be ahead. A row from further in the future would outlive its
/// worker for as long.
const CLOCK_AHEAD: u64 = 60;

/// The workers of a fleet, by what can be expected of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Liveness {
    /// They count for the balance.
    pub(crate) live: BTreeSet<String>,
    /// A lease may be handed to them: they will start on it soon.
    pub(crate) receivers: BTreeSet<String>,
}

/// Whether each owner of a lease renews any of its leases.
pub(crate) fn renewing<'a>(
    leases: &'a [Lease],
    observations: &Observations,
    now: Duration,
    failover: Duration,
) -> BTreeMap<&'a str, bool> {
    let mut renews: BTreeMap<&str, bool> = BTreeMap::new();
    for lease in leases.iter().filter(|lease| !lease.has_ended()) {
        if let Some(owner) = lease.actual_owner() {
            let fresh = !observations.is_expired(lease, now, failover);
            *renews.entry(owner).or_default() |= fresh;
        }
    }
    renews
}

/// A worker lives if it owns a lease that it renews; or, while it owns none, if its row is fresh and
/// was not there when it was found dead.
pub(crate) fn judge(
    rows: &[WorkerRow],
    leases: &[Lease],
    observations: &Observations,
    now: Duration,
    epoch_seconds: u64,
    failover: Duration,
) -> Liveness {
    let renews = renewing(leases, observations, now, failover);
    let age_of = |row: &WorkerRow| epoch_seconds.saturating_sub(row.last_update);
    let latest = epoch_seconds.saturating_add(CLOCK_AHEAD);
    let not_dead = |worker: &str| renews.get(worker).copied().unwrap_or(true);
    let with_row = |lifetime| {
        rows.iter()
            .filter(move |row| age_of(row) < lifetime && row.last_update <= latest)
            .filter(|row| not_dead(&row.worker) && !observations.is_dead(row))
            .map(|row| row.worker.clone())
    };
    let renewing =
        renews.iter().filter(|(_, renews)| **renews).map(|(worker, _)| (*worker).to_owned());
    Liveness {
        live: with_row(ROW_LIFETIME).chain(renewing).collect(),
        receivers: with_row(RECEIVER_ROW_LIFETIME).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;

    const F: Duration = Duration::from_secs(10);
    const NOW: Duration = Duration::from_secs(1000);

    fn lease(key: &str, owner: &str) -> Lease {
        Lease { owner: Some(owner.to_owned()), ..Lease::new(key, Checkpoint::TrimHorizon) }
    }

    #[test]
    fn rows_and_heartbeats_decide() {
        let row = |worker: &str, age: u64| WorkerRow {
            worker: worker.into(),
            last_update: 5000 - age,
            measures: false,
            process: None,
        };
        let rows = [
            row("fresh", 5),
            row("late", 40),
            row("stale", 60),
            row("dead", 5),
            row("ahead", 0),
            WorkerRow {
                worker: "future".into(),
                last_update: 5060,
                measures: false,
                process: None,
            },
            WorkerRow {
                worker: "far-future".into(),
                last_update: 5061,
                measures: false,
                process: None,
            },
        ];
        let leases = [lease("a", "dead"), lease("b", "no-row"), lease("c", "late")];
        let mut observations = Observations::default();
        observations.observe_all(&leases, Duration::from_secs(900), Duration::from_secs(900), F);
        let renewed: Vec<_> = leases
            .iter()
            .map(|l| Lease { counter: u64::from(l.owner.as_deref() != Some("dead")), ..l.clone() })
            .collect();
        observations.observe_all(&renewed, NOW, NOW, F);

        let liveness = judge(&rows, &renewed, &observations, NOW, 5000, F);
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(liveness.live, set(&["ahead", "fresh", "future", "late", "no-row"]));
        assert_eq!(liveness.receivers, set(&["ahead", "fresh", "future"]));
    }

    #[test]
    fn a_dead_worker_whose_leases_were_taken_over_receives_none_of_them_back() {
        let row = |written| WorkerRow {
            worker: "dead".into(),
            last_update: written,
            measures: false,
            process: None,
        };
        let mut observations = Observations::default();
        let mut look = |now: u64, owner: &str, counter, written| {
            let leases = [Lease { counter, ..lease("a", owner) }];
            let (now, rows) = (Duration::from_secs(now), [row(written)]);
            observations.observe_all(&leases, now, now, F);
            let renews = renewing(&leases, &observations, now, F);
            observations.observe_workers(&rows, &renews);
            let live = judge(&rows, &leases, &observations, now, 5000, F);
            live.receivers.contains("dead")
        };
        assert!(look(1000, "dead", 3, 4990));
        assert!(!look(1026, "dead", 3, 4990), "its lease has expired");
        assert!(!look(1027, "heir", 4, 4990), "another has taken it");
        assert!(!look(1028, "heir", 5, 4990));
        assert!(look(1029, "heir", 6, 4995), "it has come back");
    }

    #[test]
    fn finished_leases_say_nothing_about_their_owner() {
        let rows =
            [WorkerRow { worker: "w".into(), last_update: 5000, measures: false, process: None }];
        let ended = [Lease { checkpoint: Checkpoint::ShardEnd, ..lease("a", "w") }];
        let mut observations = Observations::default();
        observations.observe_all(&ended, Duration::ZERO, Duration::ZERO, F);
        let liveness = judge(&rows, &ended, &observations, NOW, 5000, F);
        assert!(liveness.receivers.contains("w"));
    }
}
