//! Signs that another live process uses this worker's id: pure.
//!
//! Each process stamps the counters that it writes, and its row, with a number drawn at random. A process
//! that has ended leaves its last stamps behind; only a live one writes new ones.

use std::collections::HashMap;
use std::time::Duration;

use crate::lease::Snapshot;

/// A process is alive when its new writes are at least this far apart: what a process that has ended had
/// sent arrives within a moment.
const APART: Duration = Duration::from_secs(3);
/// A process without a new write for this long has ended. A live one writes its row each 30 s.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(90);
/// A scan may not show yet what this process wrote so long ago.
const SCAN_LAG: Duration = Duration::from_secs(5);

/// The worker that looks out for others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Me<'a> {
    pub(crate) worker_id: &'a str,
    pub(crate) process: u64,
}

/// What was seen of other processes under this worker's id.
#[derive(Debug, Default)]
pub(crate) struct OtherProcesses {
    /// Process and counter of the leases that name this worker and that another process wrote last.
    stamps: HashMap<String, (u64, u64)>,
    /// Process and time of this worker's row, as another process last wrote it.
    row: Option<(u64, u64)>,
    /// When this process last wrote or removed its row.
    row_written: Option<Duration>,
    /// When the last scan was over.
    scanned: Option<Duration>,
    /// New writes by process: the first and the last.
    writes: HashMap<u64, (Duration, Duration)>,
}

/// What a scan shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sighting {
    /// The process that is alive, if one is.
    pub(crate) alive: Option<u64>,
    /// It, or one that may be alive, has written since the last scan.
    pub(crate) is_new: bool,
    /// Another process replaced this one's row. A live one does so again when this one restores it.
    pub(crate) row_replaced: bool,
}

impl OtherProcesses {
    /// The row was written or removed by this process, as answered at `now`.
    pub(crate) fn row_written(&mut self, now: Duration) {
        self.row_written = Some(now);
    }

    /// Takes in a scan of the lease table, asked for at `asked` and read by `now`.
    pub(crate) fn observe(
        &mut self,
        me: Me<'_>,
        snapshot: &Snapshot,
        asked: Duration,
        now: Duration,
    ) -> Sighting {
        let row_replaced = self.observe_row(me, snapshot, asked, now);
        let by_lease = self.observe_leases(me, snapshot, now);
        let since_last = self.scanned.map_or(Duration::ZERO, |last| now.saturating_sub(last));
        self.scanned = Some(now);
        // Scans of a large table are far apart.
        let patience = FORGOTTEN_AFTER.max(since_last * 2);
        self.writes.retain(|_, (_, last)| now.saturating_sub(*last) <= patience);
        let alive = self.writes.iter();
        let alive = alive.filter(|(_, (first, last))| last.saturating_sub(*first) >= APART);
        Sighting {
            alive: alive.map(|(process, _)| *process).min(),
            is_new: row_replaced || by_lease,
            row_replaced,
        }
    }

    /// True if there are new writes to leases by other processes.
    fn observe_leases(&mut self, me: Me<'_>, snapshot: &Snapshot, now: Duration) -> bool {
        let own = snapshot
            .leases
            .iter()
            .filter(|lease| lease.is_owned_by(me.worker_id) && lease.is_anothers(me.process));
        let stamps: HashMap<String, (u64, u64)> = own
            .filter_map(|lease| Some((lease.key.clone(), (lease.stamp?.process?, lease.counter))))
            .collect();
        let before = std::mem::replace(&mut self.stamps, stamps);
        // What the first scan shows may be from long ago.
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

    /// True if another process replaced the row that this one had written.
    fn observe_row(
        &mut self,
        me: Me<'_>,
        snapshot: &Snapshot,
        asked: Duration,
        now: Duration,
    ) -> bool {
        let mut rows = snapshot.workers.iter();
        let row = rows.find(|row| row.worker == me.worker_id);
        let row = row.and_then(|row| Some((row.process?, row.last_update)));
        let Some((process, written)) = row.filter(|(process, _)| *process != me.process) else {
            return false;
        };
        let is_shown =
            self.row_written.is_some_and(|written| asked.saturating_sub(written) >= SCAN_LAG);
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
    fn a_process_that_goes_on_writing_leases_is_alive() {
        let mut others = OtherProcesses::default();
        let mut look = |second, counter| {
            let snapshot = scan(&[lease("a", counter, OTHER), lease("b", 9, 1)], None);
            others.observe(ME, &snapshot, at(second), at(second))
        };
        assert_eq!(look(100, 5), Sighting::default(), "from before");
        let once = look(101, 6);
        assert!(once.is_new && once.alive.is_none());
        assert_eq!(look(102, 6), Sighting::default());
        assert_eq!(look(106, 7).alive, Some(OTHER));
        assert_eq!(look(150, 7).alive, Some(OTHER), "for a while");
        look(195, 7);
        assert_eq!(look(200, 7).alive, None, "it has ended");
    }

    #[test]
    fn what_a_process_that_ended_left_behind_or_had_sent_is_no_sign_of_life() {
        let mut others = OtherProcesses::default();
        let mut look = |second, leases: &[Lease], by, written| {
            let snapshot = scan(leases, Some(row(by, written)));
            others.observe(ME, &snapshot, at(second), at(second)).alive
        };
        let left = |counter| [lease("a", counter, OTHER), lease("b", 4, OTHER)];
        assert_eq!(look(100, &left(5), OTHER, 90), None);
        // A renewal and the row, on their way when it was killed.
        assert_eq!(look(101, &left(6), OTHER, 90), None);
        assert_eq!(look(102, &left(6), OTHER, 92), None);
        for second in 103..200 {
            // This process writes its row and takes one of the leases.
            let now = [lease("a", second, 1), lease("b", 4, OTHER)];
            assert_eq!(look(second, &now, 1, second), None);
        }
    }

    #[test]
    fn a_process_without_leases_is_seen_by_its_row() {
        let mut others = OtherProcesses::default();
        let look = |others: &mut OtherProcesses, second, by, written| {
            let snapshot = scan(&[lease("a", 3, 1)], Some(row(by, written)));
            others.observe(ME, &snapshot, at(second), at(second))
        };
        others.row_written(at(100));
        assert_eq!(look(&mut others, 102, OTHER, 95), Sighting::default(), "a scan that lags");
        let replaced = look(&mut others, 110, OTHER, 109);
        assert!(replaced.row_replaced && replaced.alive.is_none());
        assert!(!look(&mut others, 111, OTHER, 109).row_replaced, "once");
        others.row_written(at(111));
        assert_eq!(look(&mut others, 112, 1, 111), Sighting::default());
        let again = look(&mut others, 117, OTHER, 116);
        assert!(again.row_replaced);
        assert_eq!(again.alive, Some(OTHER));
    }
}
