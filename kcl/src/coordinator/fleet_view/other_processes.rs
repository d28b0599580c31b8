//! Signs that another live process uses this worker's id. Pure.
//!
//! Each process draws a random number, and stamps the counters and the heartbeat that it writes
//! with it. A process that has ended leaves its last stamps behind. Only a live process writes new
//! ones.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::lease::Snapshot;

/// Time between the first and the last new write of a process from which on it counts as alive.
/// Writes that a process sent before it ended arrive within less.
const APART: Duration = Duration::from_secs(3);
/// Time without a new write after which a process has ended. A live one writes its heartbeat every
/// 30 s.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(90);
/// Age of a write below which a scan may not show it yet.
const SCAN_LAG: Duration = Duration::from_secs(5);

/// The worker and process that looks for other processes of its id.
#[derive(Debug, Clone, Copy)]
pub(super) struct Me<'a> {
    pub(super) worker_id: &'a str,
    pub(super) process: u64,
}

/// Writes of other processes under this worker's id.
#[derive(Debug, Default)]
pub(super) struct OtherProcesses {
    /// The leases of this worker that another process wrote last: that process and the counter, by
    /// lease key.
    stamps: BTreeMap<String, (u64, u64)>,
    /// This worker's heartbeat as another process last wrote it: that process and the time in the
    /// row.
    row: Option<(u64, u64)>,
    /// When this process last wrote or removed its heartbeat.
    pub(super) row_written: Option<Duration>,
    /// When the latest scan was over.
    scanned: Option<Duration>,
    /// When the first and the last new write of each process were observed.
    writes: BTreeMap<u64, (Duration, Duration)>,
}

/// Signs of other processes that a scan shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// A process that is alive, if there is one.
    pub(crate) alive: Option<u64>,
    /// True if another process has written since the scan before.
    pub(crate) is_new: bool,
    /// True if another process replaced the heartbeat of this one. A live process does so again
    /// after this process has restored it.
    pub(crate) row_replaced: bool,
}

impl OtherProcesses {
    /// Takes in a scan that was sent at `sent` and answered by `now`.
    pub(super) fn observe(
        &mut self,
        me: Me<'_>,
        snapshot: &Snapshot,
        sent: Duration,
        now: Duration,
    ) -> Sighting {
        let row_replaced = self.observe_row(me, snapshot, sent, now);
        let by_lease = self.observe_leases(me, snapshot, now);
        let since_last = self.scanned.map_or(Duration::ZERO, |last| now.saturating_sub(last));
        self.scanned = Some(now);
        // Scans of a large table are further apart than the heartbeats.
        let lifetime = FORGOTTEN_AFTER.max(since_last * 2);
        self.writes.retain(|_, (_, last)| now.saturating_sub(*last) <= lifetime);
        let alive = self.writes.iter();
        let alive = alive.filter(|(_, (first, last))| last.saturating_sub(*first) >= APART);
        Sighting {
            alive: alive.map(|(process, _)| *process).min(),
            is_new: row_replaced || by_lease,
            row_replaced,
        }
    }

    /// True if other processes have written leases since the scan before.
    fn observe_leases(&mut self, me: Me<'_>, snapshot: &Snapshot, now: Duration) -> bool {
        let own = snapshot
            .leases
            .iter()
            .filter(|lease| lease.is_owned_by(me.worker_id) && lease.is_anothers(me.process));
        let stamps: BTreeMap<String, (u64, u64)> = own
            .filter_map(|lease| Some((lease.key.clone(), (lease.stamp?.process?, lease.counter))))
            .collect();
        let before = std::mem::replace(&mut self.stamps, stamps);
        // A write that the first scan shows may be from long ago.
        let is_first = self.scanned.is_none();
        let new = |(key, stamp): &(&String, &(u64, u64))| match before.get(*key) {
            Some(known) => known.0 != stamp.0 || known.1 < stamp.1,
            None => !is_first,
        };
        let writers: Vec<u64> = self.stamps.iter().filter(new).map(|(_, s)| s.0).collect();
        for process in &writers {
            self.wrote(*process, now);
        }
        !writers.is_empty()
    }

    /// True if another process replaced the heartbeat that this process had written.
    fn observe_row(
        &mut self,
        me: Me<'_>,
        snapshot: &Snapshot,
        sent: Duration,
        now: Duration,
    ) -> bool {
        let mut rows = snapshot.workers.iter();
        let row = rows.find(|row| row.worker == me.worker_id);
        let row = row.and_then(|row| Some((row.process?, row.last_update)));
        let Some((process, written)) = row.filter(|(process, _)| *process != me.process) else {
            return false;
        };
        let is_shown =
            self.row_written.is_some_and(|written| sent.saturating_sub(written) >= SCAN_LAG);
        if !is_shown || self.row == Some((process, written)) {
            return false;
        }
        self.row = Some((process, written));
        self.wrote(process, now);
        true
    }

    fn wrote(&mut self, process: u64, now: Duration) {
        self.writes.entry(process).or_insert((now, now)).1 = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::lease::{Lease, Stamp, WorkerRow};

    const ME: Me<'static> = Me { worker_id: "w", process: 1 };
    const OTHER: u64 = 2;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lease(key: &str, counter: u64, process: u64) -> Lease {
        Lease {
            owner: Some("w".into()),
            counter,
            stamp: Some(Stamp { counter, process: Some(process) }),
            ..Lease::new(key, Checkpoint::TrimHorizon)
        }
    }

    fn row(process: u64, last_update: u64) -> WorkerRow {
        WorkerRow { worker: "w".into(), last_update, measures: false, process: Some(process) }
    }

    fn scan(leases: &[Lease], row: Option<WorkerRow>) -> Snapshot {
        Snapshot {
            leases: leases.to_vec(),
            workers: row.into_iter().collect(),
            ..Snapshot::default()
        }
    }

    #[test]
    fn a_process_that_keeps_writing_leases_is_alive() {
        let mut others = OtherProcesses::default();
        let mut scanned = |second, counter| {
            let snapshot = scan(&[lease("a", counter, OTHER), lease("b", 9, 1)], None);
            others.observe(ME, &snapshot, at(second), at(second))
        };
        assert_eq!(scanned(100, 5), Sighting::default(), "a write from before the first scan");
        let once = scanned(101, 6);
        assert!(once.is_new && once.alive.is_none());
        assert_eq!(scanned(102, 6), Sighting::default());
        assert_eq!(scanned(106, 7).alive, Some(OTHER));
        assert_eq!(scanned(150, 7).alive, Some(OTHER), "it counts as alive for a while");
        scanned(195, 7);
        assert_eq!(scanned(200, 7).alive, None, "it has ended");
    }

    #[test]
    fn writes_that_an_ended_process_left_behind_or_had_sent_are_no_sign_of_life() {
        let mut others = OtherProcesses::default();
        let mut scanned = |second, leases: &[Lease], by, written| {
            let snapshot = scan(leases, Some(row(by, written)));
            others.observe(ME, &snapshot, at(second), at(second)).alive
        };
        let left = |counter| [lease("a", counter, OTHER), lease("b", 4, OTHER)];
        assert_eq!(scanned(100, &left(5), OTHER, 90), None);
        // A renewal and the heartbeat were on their way when the process was killed.
        assert_eq!(scanned(101, &left(6), OTHER, 90), None);
        assert_eq!(scanned(102, &left(6), OTHER, 92), None);
        for second in 103..200 {
            // This process writes its heartbeat and takes one of the leases.
            let now = [lease("a", second, 1), lease("b", 4, OTHER)];
            assert_eq!(scanned(second, &now, 1, second), None);
        }
    }

    #[test]
    fn a_process_without_leases_is_found_by_its_heartbeat() {
        let mut others = OtherProcesses::default();
        let scanned = |others: &mut OtherProcesses, second, by, written| {
            let snapshot = scan(&[lease("a", 3, 1)], Some(row(by, written)));
            others.observe(ME, &snapshot, at(second), at(second))
        };
        others.row_written = Some(at(100));
        assert_eq!(scanned(&mut others, 102, OTHER, 95), Sighting::default(), "a scan that lags");
        let replaced = scanned(&mut others, 110, OTHER, 109);
        assert!(replaced.row_replaced && replaced.alive.is_none());
        assert!(!scanned(&mut others, 111, OTHER, 109).row_replaced, "once");
        others.row_written = Some(at(111));
        assert_eq!(scanned(&mut others, 112, 1, 111), Sighting::default());
        let again = scanned(&mut others, 117, OTHER, 116);
        assert!(again.row_replaced);
        assert_eq!(again.alive, Some(OTHER));
    }
}
