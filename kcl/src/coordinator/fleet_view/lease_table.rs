//! The latest scan, and since when each lease has been as the scans showed it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint::Checkpoint;
use crate::lease::{CorruptItem, Lease, Snapshot};
use crate::lease_table::{CorruptLease, LeaseSnapshot, LeaseTableSnapshot};

/// The lease table as the latest scan showed it.
#[derive(Debug, Default)]
pub(super) struct ScannedTable {
    /// When it was read, and what it showed. `None`: before the first scan.
    latest: Option<(Duration, Arc<Snapshot>)>,
    since: HashMap<String, Since>,
}

/// Since when scans have shown a lease with its present owner, counter and checkpoint.
#[derive(Debug)]
struct Since {
    owner: (Option<String>, Duration),
    counter: (u64, Duration),
    checkpoint: (Checkpoint, Duration),
}

impl Since {
    fn new(lease: &Lease, now: Duration) -> Self {
        Self {
            owner: (lease.actual_owner().map(str::to_owned), now),
            counter: (lease.counter, now),
            checkpoint: (lease.checkpoint.clone(), now),
        }
    }

    fn update(&mut self, lease: &Lease, now: Duration) {
        if self.owner.0.as_deref() != lease.actual_owner() {
            self.owner = (lease.actual_owner().map(str::to_owned), now);
        }
        if self.counter.0 != lease.counter {
            self.counter = (lease.counter, now);
        }
        if self.checkpoint.0 != lease.checkpoint {
            self.checkpoint = (lease.checkpoint.clone(), now);
        }
    }
}

impl ScannedTable {
    /// Takes in a scan that was read by `now`. Returns the keys of the items that could not be read
    /// at the scan before, and are readable or gone now.
    pub(super) fn observe(&mut self, scan: &Arc<Snapshot>, now: Duration) -> Vec<String> {
        let mut before = std::mem::take(&mut self.since);
        for lease in &scan.leases {
            let (key, since) = match before.remove_entry(&lease.key) {
                Some((key, mut since)) => {
                    since.update(lease, now);
                    (key, since)
                }
                None => (lease.key.clone(), Since::new(lease, now)),
            };
            self.since.insert(key, since);
        }
        let is_corrupt = |key: &str| scan.corrupt.iter().any(|item| item.key == key);
        let repaired = self.corrupt().iter().filter(|item| !is_corrupt(&item.key));
        let repaired = repaired.map(|item| item.key.clone()).collect();
        self.latest = Some((now, Arc::clone(scan)));
        repaired
    }

    fn corrupt(&self) -> &[CorruptItem] {
        self.latest.as_ref().map_or(&[], |(_, scan)| &scan.corrupt)
    }

    pub(super) fn leases(&self) -> &[Lease] {
        self.latest.as_ref().map_or(&[], |(_, scan)| &scan.leases)
    }

    pub(super) fn items(&self) -> usize {
        self.latest.as_ref().map_or(0, |(_, scan)| scan.items())
    }

    pub(super) fn has_ended(&self, key: &str) -> bool {
        let since = self.since.get(key);
        since.is_some_and(|since| since.checkpoint.0 == Checkpoint::ShardEnd)
    }

    /// The time since the checkpoint of each unfinished lease of `owner` last moved, by shard.
    pub(super) fn checkpoint_ages(&self, owner: &str, now: Duration) -> Vec<(String, Duration)> {
        let own = self.since.iter().filter(|(_, since)| {
            since.owner.0.as_deref() == Some(owner) && since.checkpoint.0 != Checkpoint::ShardEnd
        });
        own.map(|(key, since)| (key.clone(), now.saturating_sub(since.checkpoint.1))).collect()
    }

    /// The table in the form of the public interface. `None`: it was not scanned yet.
    pub(super) fn present(&self, now: Duration) -> Option<LeaseTableSnapshot> {
        let (at, scan) = self.latest.as_ref()?;
        let leases = scan.leases.iter();
        let mut leases: Vec<_> = leases
            .filter_map(|lease| Some(present(lease, self.since.get(&lease.key)?, now)))
            .collect();
        leases.sort_by(|a, b| a.shard_id.cmp(&b.shard_id));
        let corrupt = scan.corrupt.iter();
        let corrupt = corrupt
            .map(|item| CorruptLease { key: item.key.clone(), problem: item.to_string() })
            .collect();
        Some(LeaseTableSnapshot { age: now.saturating_sub(*at), leases, corrupt })
    }
}

fn present(lease: &Lease, since: &Since, now: Duration) -> LeaseSnapshot {
    let age = |since: Duration| now.saturating_sub(since);
    let pending = lease.is_handoff_pending();
    LeaseSnapshot {
        shard_id: lease.key.clone(),
        owner: lease.actual_owner().map(str::to_owned),
        pending_owner: lease.owner.clone().filter(|_| pending),
        counter: lease.counter,
        checkpoint: lease.checkpoint.clone(),
        parents: lease.parents.iter().cloned().collect(),
        children: lease.children.iter().cloned().collect(),
        owned_for: age(since.owner.1),
        heartbeat_age: age(since.counter.1),
        checkpoint_age: age(since.checkpoint.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn scan(owner: &str, counter: u64) -> Arc<Snapshot> {
        let lease = Lease {
            owner: Some(owner.to_owned()),
            counter,
            ..Lease::new("shardId-1", Checkpoint::TrimHorizon)
        };
        Arc::new(Snapshot { leases: vec![lease], ..Snapshot::default() })
    }

    #[test]
    fn tells_since_when_a_lease_is_as_it_is() {
        let mut table = ScannedTable::default();
        assert!(table.present(at(9)).is_none());
        table.observe(&scan("a", 1), at(10));
        table.observe(&scan("a", 2), at(13));
        table.observe(&scan("b", 3), at(15));
        table.observe(&scan("b", 3), at(16));
        let seen = table.present(at(20)).unwrap();
        assert_eq!(seen.age, at(4));
        let lease = &seen.leases[0];
        assert_eq!(lease.owner.as_deref(), Some("b"));
        assert_eq!((lease.owned_for, lease.heartbeat_age), (at(5), at(5)));
        assert_eq!(lease.checkpoint_age, at(10));
        table.observe(&Arc::new(Snapshot::default()), at(21));
        table.observe(&scan("b", 3), at(22));
        let again = table.present(at(22)).unwrap();
        assert_eq!(again.leases[0].owned_for, at(0), "forgotten when it was gone");
    }

    #[test]
    fn a_pending_handoff_has_two_owners() {
        let pending = Lease {
            owner: Some("next".into()),
            checkpoint_owner: Some("now".into()),
            ..Lease::new("shardId-1", Checkpoint::TrimHorizon)
        };
        let mut table = ScannedTable::default();
        let snapshot = Snapshot { leases: vec![pending], ..Snapshot::default() };
        table.observe(&Arc::new(snapshot), at(1));
        let lease = table.present(at(1)).unwrap().leases.remove(0);
        assert_eq!(lease.owner.as_deref(), Some("now"));
        assert_eq!(lease.pending_owner.as_deref(), Some("next"));
    }
}
