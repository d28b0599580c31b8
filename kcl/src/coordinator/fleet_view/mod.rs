//! What this worker knows of the fleet from its scans of the lease table.
//!
//! Each scan, and each read of a single lease, is fed to the one [`FleetView`]. Every question
//! about the fleet is a method of it: which workers are alive, which leases are expired, may this
//! worker start on a lease. The module is pure: it makes no call, and the time is passed in.

mod lease_history;
mod other_processes;
mod workers;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kinesis_common::sync::Mutex;

pub(crate) use self::lease_history::ReadTime;
pub(crate) use self::other_processes::Sighting;

use self::lease_history::LeaseHistory;
use self::other_processes::{Me, OtherProcesses};
use self::workers::Workers;
use crate::lease::{LeaderLock, Lease, Snapshot};
use crate::lease_table::LeaseTableSnapshot;
use crate::replay::{Standing, standing};

/// The one [`FleetView`] of a worker, shared by its tasks. No task holds the lock while it awaits or
/// runs code of the application.
pub(crate) type SharedFleetView = Arc<Mutex<FleetView>>;

/// The lease table, the workers and the leader, as this worker observed them over time.
#[derive(Debug)]
pub(crate) struct FleetView {
    worker_id: String,
    /// Tells this process from other processes of the same worker id.
    process: u64,
    failover: Duration,
    /// The histories of the leases, by key.
    leases: HashMap<String, LeaseHistory>,
    /// The counter of each lease when this process last stopped to hold it.
    released: HashMap<String, u64>,
    pub(crate) workers: Workers,
    /// The leader's lock, and when its present version was first observed.
    leader: Option<(LeaderLock, Duration)>,
    other_processes: OtherProcesses,
    /// When the latest scan was answered, and what it showed. `None`: before the first scan.
    latest: Option<(Duration, Arc<Snapshot>)>,
}

/// What a scan has changed.
#[derive(Debug)]
pub(crate) struct ScanChanges {
    /// Items that could not be read at the scan before, and are readable or gone now.
    pub(crate) repaired: Vec<String>,
    /// Signs of other live processes under this worker's id.
    pub(crate) sighting: Sighting,
}

impl FleetView {
    /// The view of process `process` of worker `worker_id`, before its first scan.
    pub(crate) fn new(worker_id: impl Into<String>, process: u64, failover: Duration) -> Self {
        Self {
            worker_id: worker_id.into(),
            process,
            failover,
            leases: HashMap::new(),
            released: HashMap::new(),
            workers: Workers::default(),
            leader: None,
            other_processes: OtherProcesses::default(),
            latest: None,
        }
    }

    /// Takes in a scan of the whole table. Leases that it does not show are forgotten.
    ///
    /// `epoch_seconds`: the time of day at the end of the scan, for the heartbeats, which hold such
    /// times.
    pub(crate) fn observe_scan(
        &mut self,
        scan: &Arc<Snapshot>,
        read: ReadTime,
        epoch_seconds: u64,
    ) -> ScanChanges {
        let now = read.answered;
        for lease in &scan.leases {
            self.observe_lease(lease, read);
        }
        let present: HashSet<&str> = scan.leases.iter().map(|lease| lease.key.as_str()).collect();
        self.leases.retain(|key, _| present.contains(key.as_str()));
        self.released.retain(|key, _| present.contains(key.as_str()));
        for lease in &scan.leases {
            let is_available = self.is_available(lease, now);
            if let Some(history) = self.leases.get_mut(&lease.key) {
                history.set_available(is_available, now);
            }
        }
        // Owners of leases that are not finished, and whether each renews any of them.
        let mut renews: BTreeMap<&str, bool> = BTreeMap::new();
        for lease in scan.leases.iter().filter(|lease| !lease.has_ended()) {
            if let Some(owner) = lease.actual_owner() {
                *renews.entry(owner).or_default() |= !self.is_expired(lease, now);
            }
        }
        self.workers.observe(&scan.workers, &renews, epoch_seconds);
        self.workers.count_leases(&scan.leases, &self.worker_id);
        self.observe_leader(scan.leader.as_ref(), now);
        let me = Me { worker_id: &self.worker_id, process: self.process };
        let sighting = self.other_processes.observe(me, scan, read.sent, now);
        let before = self.latest.replace((now, Arc::clone(scan)));
        let before = before.as_ref().map_or(&[][..], |(_, before)| &before.corrupt);
        let is_corrupt = |key: &str| scan.corrupt.iter().any(|item| item.key == key);
        let repaired = before.iter().filter(|item| !is_corrupt(&item.key));
        ScanChanges { repaired: repaired.map(|item| item.key.clone()).collect(), sighting }
    }

    /// Takes in a read of a single lease.
    pub(crate) fn observe_lease(&mut self, lease: &Lease, read: ReadTime) {
        let Some(history) = self.leases.get_mut(&lease.key) else {
            self.leases.insert(lease.key.clone(), LeaseHistory::new(lease, read));
            return;
        };
        if let Some(owner) = history.observe(lease, read, self.failover) {
            self.workers.lease_stolen(owner);
        }
    }

    fn observe_leader(&mut self, lock: Option<&LeaderLock>, now: Duration) {
        let known = self.leader.take();
        self.leader = lock.map(|lock| {
            let same = known.filter(|(known, _)| known.version == lock.version);
            (lock.clone(), same.map_or(now, |(_, since)| since))
        });
    }

    /// Notes that this process stopped to hold a lease. `counter`: as last known.
    pub(crate) fn lease_ended(&mut self, key: &str, counter: u64) {
        self.released.insert(key.to_owned(), counter);
    }

    /// Notes that this process wrote or removed its heartbeat, as answered at `now`.
    pub(crate) fn heartbeat_written(&mut self, now: Duration) {
        self.other_processes.row_written = Some(now);
    }

    /// True if this worker may start on `lease`, which names it as the owner and which it did not
    /// take itself.
    ///
    /// It may start when no other processor can be at work on the shard:
    /// 1. at once, if the previous owner released the lease to this worker (`rustReleasedAt` equals
    ///    the counter);
    /// 2. at once, if this process held the lease before and no other worker has owned it since;
    /// 3. at once, if the lease was unassigned right before;
    /// 4. at once, if a handoff to this worker was completed less than 25 s after it was requested;
    /// 5. else when the previous owner has not renewed the lease for the failover time (for 2.5
    ///    times that, if no renewal by it was observed): by then it has stopped by itself.
    ///
    /// If another process wrote the counter, even one of this worker's id, rules 2 to 4 do not
    /// hold, and rule 5 counts from that write: that process may be at work.
    pub(crate) fn may_start(&self, lease: &Lease, now: Duration) -> bool {
        if lease.was_released_to_owner() || self.held_before(lease) {
            return true;
        }
        let is_of_other_process = lease.is_anothers(self.process);
        self.history(lease).is_some_and(|history| {
            history.previous_owner_has_stopped(lease, is_of_other_process, now, self.failover)
        })
    }

    /// True if this process held the lease before, and no other process has owned it since.
    pub(crate) fn held_before(&self, lease: &Lease) -> bool {
        // The last write of this process may have arrived after it stopped to hold the lease: it
        // adds one.
        let released = self.released.get(&lease.key);
        let is_untouched =
            released.is_some_and(|&own| (own..=own.saturating_add(1)).contains(&lease.counter));
        is_untouched && !lease.is_anothers(self.process)
    }

    /// True if the owner of the lease has not renewed it for the failover time; if no renewal by
    /// that owner was observed yet, for 2.5 times that. Other workers then take the lease.
    pub(crate) fn is_expired(&self, lease: &Lease, now: Duration) -> bool {
        self.history(lease).is_some_and(|history| history.is_expired(lease, now, self.failover))
    }

    /// True if a worker may take the lease: its shard is not finished, and it is unassigned or
    /// expired.
    pub(crate) fn is_available(&self, lease: &Lease, now: Duration) -> bool {
        !lease.has_ended() && (lease.owner.is_none() || self.is_expired(lease, now))
    }

    /// Time for which scans have shown the lease available.
    pub(crate) fn available_for(&self, lease: &Lease, now: Duration) -> Duration {
        self.history(lease).map_or(Duration::ZERO, |history| history.available_for(now))
    }

    /// The number of expired leases of the latest scan, and that of all available ones.
    pub(crate) fn count_available(&self, now: Duration) -> (usize, usize) {
        let leases = self.latest.iter().flat_map(|(_, scan)| &scan.leases);
        let available = leases.filter(|lease| self.is_available(lease, now));
        (available.clone().filter(|lease| lease.owner.is_some()).count(), available.count())
    }

    /// The history of a lease. `None`: it was not observed yet.
    pub(in crate::coordinator) fn history(&self, lease: &Lease) -> Option<&LeaseHistory> {
        self.leases.get(&lease.key)
    }

    /// The live worker that leads the fleet: it assigns free leases and balances. `None`: there is
    /// no leader, or it is silent.
    ///
    /// The lock expires when the leader has not renewed it for the duration that the lock states (120 s in Java). A
    /// dead leader is noticed earlier, when its leases expire.
    pub(crate) fn live_leader(&self, now: Duration) -> Option<&str> {
        let (lock, since) = self.leader.as_ref()?;
        let is_held = now.saturating_sub(*since) <= lock.duration;
        let leader = Some(lock.owner.as_str()).filter(|_| is_held);
        leader.filter(|leader| self.workers.live.contains(*leader))
    }

    /// How many items the latest scan has read.
    pub(crate) fn items(&self) -> usize {
        self.latest.as_ref().map_or(0, |(_, scan)| scan.items())
    }

    /// True if the lease was last observed at `SHARD_END`.
    pub(crate) fn has_ended(&self, key: &str) -> bool {
        self.leases.get(key).is_some_and(LeaseHistory::has_ended)
    }

    /// Whether a bounded replay has work for this worker. `own`: whether each shard with a consumer in this worker has
    /// finished.
    pub(crate) fn replay_standing(&self, own: &BTreeMap<String, bool>, now: Duration) -> Standing {
        let Some((_, scan)) = &self.latest else { return Standing::Working };
        // A lease whose item cannot be read belongs to a shard that may have records.
        if !scan.corrupt.is_empty() {
            return Standing::Working;
        }
        standing(&scan.leases, own, |lease| {
            let owner = lease.actual_owner();
            owner.is_some_and(|owner| owner != self.worker_id) && !self.is_expired(lease, now)
        })
    }

    /// The lease table for the application. `None`: it was not scanned yet.
    pub(crate) fn lease_table(&self, now: Duration) -> Option<LeaseTableSnapshot> {
        let (at, scan) = self.latest.as_ref()?;
        let leases = scan.leases.iter();
        let leases = leases.filter_map(|lease| Some(self.history(lease)?.present(lease, now)));
        Some(LeaseTableSnapshot::new(now.saturating_sub(*at), scan, leases.collect()))
    }
}

#[cfg(test)]
mod tests;
