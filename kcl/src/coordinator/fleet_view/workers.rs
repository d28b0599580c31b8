//! Which workers are alive, and which of them may receive a lease. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::mem;

use crate::lease::{Lease, WorkerRow};

/// Age of a heartbeat, in seconds, from which on its worker counts as dead. Workers write one every
/// 30 s.
const HEARTBEAT_LIFETIME: u64 = 60;
/// Age of a heartbeat, in seconds, from which on its worker receives no leases: it has missed a
/// heartbeat.
const RECEIVER_HEARTBEAT_LIFETIME: u64 = 35;
/// Seconds by which the clock of a live worker may be ahead. A heartbeat from further in the future
/// would outlive its worker by as much.
const CLOCK_AHEAD: u64 = 60;

/// The workers of the fleet, as of the latest scan.
///
/// A worker proves that it lives by renewing a lease. The age of its heartbeat (its row in the
/// table of worker metrics) counts only while it owns no lease: after a crash, the row stays fresh
/// for longer than the other workers need to take the leases.
#[derive(Debug, Default)]
pub(crate) struct Workers {
    /// Workers from which a lease was stolen since the latest scan.
    stolen_from: BTreeSet<String>,
    /// Dead workers, and the time of the heartbeat that each left behind.
    dead: HashMap<String, u64>,
    /// Workers that are alive: each renews a lease; or it owns none, and its heartbeat is less than
    /// 60 s old.
    ///
    /// A worker whose leases all expired or were taken is dead until it writes another heartbeat.
    pub(crate) live: BTreeSet<String>,
    /// Live workers that may be handed a lease: each has room for one, and its heartbeat is less
    /// than 35 s old.
    pub(crate) receivers: BTreeSet<String>,
    /// The number of leases of each receiver but this worker: those of the latest scan, and those
    /// that this worker handed to it since.
    loads: BTreeMap<String, usize>,
}

impl Workers {
    /// Notes that another worker took a lease that `owner` had neither released nor handed over.
    pub(super) fn lease_stolen(&mut self, owner: String) {
        self.stolen_from.insert(owner);
    }

    /// Takes in the heartbeats that a scan shows, after its leases. `renews`: each owner of a
    /// lease, and whether it renews any.
    pub(super) fn observe(
        &mut self,
        rows: &[WorkerRow],
        renews: &BTreeMap<&str, bool>,
        epoch_seconds: u64,
    ) {
        let stolen_from = mem::take(&mut self.stolen_from);
        let dead = rows.iter().filter(|row| {
            let worker = row.worker.as_str();
            match renews.get(worker) {
                Some(renews) => !renews,
                // It owns no lease now. It is dead if its leases were stolen, until it writes
                // another heartbeat.
                None => self.is_dead(row) || stolen_from.contains(worker),
            }
        });
        self.dead = dead.map(|row| (row.worker.clone(), row.last_update)).collect();
        let latest = epoch_seconds.saturating_add(CLOCK_AHEAD);
        let with_heartbeat = |lifetime| {
            rows.iter()
                .filter(move |row| epoch_seconds.saturating_sub(row.last_update) < lifetime)
                .filter(|row| row.last_update <= latest && !self.is_dead(row))
                .map(|row| row.worker.clone())
        };
        let renewing = renews.iter().filter(|(_, renews)| **renews);
        let renewing = renewing.map(|(worker, _)| (*worker).to_owned());
        let live = with_heartbeat(HEARTBEAT_LIFETIME).chain(renewing).collect();
        let receivers = with_heartbeat(RECEIVER_HEARTBEAT_LIFETIME).collect();
        (self.live, self.receivers) = (live, receivers);
    }

    /// True if the worker was found dead and has written no heartbeat since.
    fn is_dead(&self, row: &WorkerRow) -> bool {
        self.dead.get(&row.worker) == Some(&row.last_update)
    }

    /// Counts the unfinished leases of each receiver but `me`; a lease in a handoff counts for its
    /// next owner.
    pub(super) fn count_leases(&mut self, leases: &[Lease], me: &str) {
        let others = self.receivers.iter().filter(|worker| *worker != me);
        self.loads = others.map(|worker| (worker.clone(), 0)).collect();
        for lease in leases.iter().filter(|lease| !lease.has_ended()) {
            if let Some(load) = lease.owner.as_ref().and_then(|owner| self.loads.get_mut(owner)) {
                *load += 1;
            }
        }
    }

    /// Chooses the receiver with the fewest leases, other than this worker. The lease counts as the
    /// receiver's until the next scan, so that several leases are transferred evenly.
    pub(crate) fn next_receiver(&mut self) -> Option<String> {
        let loads = self.loads.iter_mut();
        let (worker, load) = loads.min_by_key(|(worker, load)| (**load, (*worker).clone()))?;
        *load += 1;
        Some(worker.clone())
    }
}

#[cfg(test)]
mod tests {

    use super::super::FleetView;
    use super::super::tests::{at, fleet_of, lease, pending, scan};
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::lease::Snapshot;

    const EPOCH_SECONDS: u64 = 5000;

    fn row(worker: &str, age: u64) -> WorkerRow {
        let last_update = EPOCH_SECONDS - age;
        WorkerRow { worker: worker.into(), last_update, measures: false, process: None }
    }

    fn owned(key: &str, owner: &str, counter: u64) -> Lease {
        Lease { key: key.into(), ..lease(Some(owner), counter) }
    }

    fn observe(fleet: &mut FleetView, second: u64, leases: &[Lease], rows: &[WorkerRow]) {
        let (leases, workers) = (leases.to_vec(), rows.to_vec());
        scan(fleet, second, Snapshot { leases, workers, ..Snapshot::default() });
    }

    fn receives(fleet: &FleetView, worker: &str) -> bool {
        fleet.workers.receivers.contains(worker)
    }

    #[test]
    fn heartbeats_and_renewals_decide() {
        let ahead =
            |worker: &str, by: u64| WorkerRow { last_update: EPOCH_SECONDS + by, ..row(worker, 0) };
        let rows = [
            row("fresh", 5),
            row("late", 40),
            row("stale", 60),
            row("dead", 5),
            row("exact", 0),
            ahead("future", 60),
            ahead("far-future", 61),
        ];
        let leases = |counter| {
            [owned("a", "dead", 0), owned("b", "no-row", counter), owned("c", "late", counter)]
        };
        let mut fleet = FleetView::new("me", 7, at(10));
        observe(&mut fleet, 900, &leases(0), &rows);
        observe(&mut fleet, 1000, &leases(1), &rows);
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let live: BTreeSet<String> = set(&["exact", "fresh", "future", "late", "no-row"]);
        assert_eq!(fleet.workers.live, live);
        let receivers: BTreeSet<String> = set(&["exact", "fresh", "future"]);
        assert_eq!(fleet.workers.receivers, receivers);
    }

    #[test]
    fn a_dead_worker_whose_leases_were_taken_over_receives_none_of_them_back() {
        let mut fleet = FleetView::new("me", 7, at(10));
        let mut receives = |second, owner: &str, counter, age| {
            let leases = [owned("a", owner, counter)];
            observe(&mut fleet, second, &leases, &[row("dead", age)]);
            receives(&fleet, "dead")
        };
        assert!(receives(1000, "dead", 3, 10));
        assert!(!receives(1026, "dead", 3, 10), "its lease has expired");
        assert!(!receives(1027, "next", 4, 10), "another worker has taken it");
        assert!(!receives(1028, "next", 5, 10));
        assert!(receives(1029, "next", 6, 5), "it has written another heartbeat");
    }

    #[test]
    fn finished_leases_say_nothing_about_their_owner() {
        let mut fleet = FleetView::new("me", 7, at(10));
        let ended = [Lease { checkpoint: Checkpoint::ShardEnd, ..owned("a", "w", 0) }];
        observe(&mut fleet, 0, &ended, &[row("w", 0)]);
        observe(&mut fleet, 1000, &ended, &[row("w", 0)]);
        assert!(receives(&fleet, "w"));
    }

    #[test]
    fn a_worker_whose_leases_were_stolen_is_dead_until_its_next_heartbeat() {
        let is_dead = |before: Lease, after: Lease| {
            let mut fleet = FleetView::new("me", 7, at(10));
            observe(&mut fleet, 100, &[before], &[row("w", 10)]);
            observe(&mut fleet, 101, std::slice::from_ref(&after), &[row("w", 10)]);
            let is_dead = !receives(&fleet, "w");
            observe(&mut fleet, 102, std::slice::from_ref(&after), &[row("w", 10)]);
            assert_eq!(!receives(&fleet, "w"), is_dead, "nothing has changed");
            observe(&mut fleet, 103, &[after], &[row("w", 0)]);
            assert!(receives(&fleet, "w"), "it wrote another heartbeat");
            is_dead
        };
        let owned = lease(Some("w"), 3);
        // Taken, and renewed since.
        assert!(is_dead(owned.clone(), lease(Some("other"), 4)));
        assert!(is_dead(owned.clone(), lease(Some("other"), 6)));
        let marked_before = Lease { released_at: Some(3), ..lease(Some("other"), 6) };
        assert!(is_dead(owned.clone(), marked_before), "released to it, not by it");
        // It gave the lease up itself: by a mark of ours, by a handoff, or as a planned stop does.
        let marked = Lease { released_at: Some(4), ..lease(Some("other"), 6) };
        assert!(!is_dead(owned.clone(), marked));
        assert!(!is_dead(pending("other", "w", 3), lease(Some("other"), 4)));
        assert!(!is_dead(owned.clone(), lease(None, 4)));
        assert!(!is_dead(owned.clone(), lease(Some("w"), 4)), "it renewed");
        assert!(!is_dead(lease(None, 3), lease(Some("other"), 4)));
    }

    #[test]
    fn a_worker_that_renews_is_live_and_one_whose_leases_expired_is_dead() {
        let mut fleet = FleetView::new("me", 7, at(10));
        let mut receives = |second, leases: &[Lease]| {
            observe(&mut fleet, second, leases, &[row("w", 0)]);
            receives(&fleet, "w")
        };
        assert!(receives(100, &[owned("a", "w", 3), owned("b", "w", 3)]));
        assert!(receives(101, &[owned("a", "x", 4), owned("b", "w", 4)]), "it renews another");
        assert!(!receives(112, &[owned("a", "x", 5), owned("b", "w", 4)]), "that one expired");
        assert!(!receives(113, &[owned("a", "x", 5), owned("b", "x", 5)]), "and was taken");
        assert!(receives(114, &[owned("a", "w", 6), owned("b", "x", 5)]), "it has come back");
    }

    #[test]
    fn several_leases_are_handed_over_evenly() {
        let leases = |owner: &str, count: usize| {
            let owner = owner.to_owned();
            (0..count).map(move |n| owned(&format!("{owner}-{n}"), &owner, 1))
        };
        let mut fleet = FleetView::new("me", 7, at(10));
        let all: Vec<Lease> = leases("v", 1).chain(leases("x", 5)).collect();
        observe(&mut fleet, 100, &all, &[row("v", 0), row("w", 0), row("x", 0), row("me", 0)]);
        let given: Vec<_> = (0..5).filter_map(|_| fleet.workers.next_receiver()).collect();
        assert_eq!(given, ["w", "v", "w", "v", "w"]);
        assert_eq!(fleet_of(&[]).workers.next_receiver(), None);
    }
}
