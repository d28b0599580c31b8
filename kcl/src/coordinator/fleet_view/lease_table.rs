//! What the latest look at the lease table showed, kept for those who ask from outside.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::checkpoint::Checkpoint;
use crate::lease::{Lease, Snapshot};
use crate::lease_table::{CorruptLease, LeaseSnapshot, LeaseTableSnapshot};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct LastLook(Mutex<Look>);

#[derive(Debug, Default)]
struct Look {
    /// When, and what. `None`: not yet.
    seen: Option<(Duration, Arc<Snapshot>)>,
    since: HashMap<String, Since>,
}

/// Since when a lease is as it is, as far as this worker saw.
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

impl LastLook {
    fn look(&self) -> MutexGuard<'_, Look> {
        // Nothing in it depends on anything else in it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a whole snapshot, read until `now`.
    pub(crate) fn note(&self, snapshot: &Arc<Snapshot>, now: Duration) {
        let mut look = self.look();
        let mut before = std::mem::take(&mut look.since);
        for lease in &snapshot.leases {
            let since = match before.remove_entry(&lease.key) {
                Some((key, mut since)) => {
                    since.update(lease, now);
                    (key, since)
                }
                None => (lease.key.clone(), Since::new(lease, now)),
            };
            look.since.insert(since.0, since.1);
        }
        look.seen = Some((now, Arc::clone(snapshot)));
    }

    /// The keys of the items that could not be read.
    pub(crate) fn corrupt(&self) -> Vec<String> {
        let look = self.look();
        let seen = look.seen.as_ref().map(|(_, seen)| seen);
        let corrupt = seen.into_iter().flat_map(|seen| &seen.corrupt);
        corrupt.map(|item| item.key.clone()).collect()
    }

    /// How many items the table had.
    pub(crate) fn items(&self) -> usize {
        let look = self.look();
        look.seen.as_ref().map_or(0, |(_, seen)| seen.items())
    }

    /// True if the lease was seen at `SHARD_END`.
    pub(crate) fn has_ended(&self, key: &str) -> bool {
        let look = self.look();
        let since = look.since.get(key);
        since.is_some_and(|since| since.checkpoint.0 == Checkpoint::ShardEnd)
    }

    /// For how long the checkpoint of each unfinished lease of `owner` has stood still, by shard.
    pub(crate) fn checkpoint_ages(&self, owner: &str, now: Duration) -> Vec<(String, Duration)> {
        let look = self.look();
        let own = look.since.iter().filter(|(_, since)| {
            since.owner.0.as_deref() == Some(owner) && since.checkpoint.0 != Checkpoint::ShardEnd
        });
        own.map(|(key, since)| (key.clone(), now.saturating_sub(since.checkpoint.1))).collect()
    }

    /// `None`: the table was not looked at yet.
    pub(crate) fn snapshot(&self, now: Duration) -> Option<LeaseTableSnapshot> {
        let look = self.look();
        let (at, seen) = look.seen.as_ref()?;
        let mut leases: Vec<_> = seen
            .leases
            .iter()
            .filter_map(|lease| Some(present(lease, look.since.get(&lease.key)?, now)))
            .collect();
        leases.sort_by(|a, b| a.shard_id.cmp(&b.shard_id));
        let corrupt = seen
            .corrupt
            .iter()
            .map(|item| CorruptLease { key: item.key.clone(), problem: item.to_string() });
        Some(LeaseTableSnapshot {
            age: now.saturating_sub(*at),
            leases,
            corrupt: corrupt.collect(),
        })
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

    fn table(owner: &str, counter: u64) -> Arc<Snapshot> {
        let lease = Lease {
            owner: Some(owner.to_owned()),
            counter,
            ..Lease::new("shardId-1", Checkpoint::TrimHorizon)
        };
        Arc::new(Snapshot { leases: vec![lease], ..Snapshot::default() })
    }

    #[test]
    fn tells_since_when_a_lease_is_as_it_is() {
        let last = LastLook::default();
        assert!(last.snapshot(at(9)).is_none());
        last.note(&table("a", 1), at(10));
        last.note(&table("a", 2), at(13));
        last.note(&table("b", 3), at(15));
        last.note(&table("b", 3), at(16));
        let seen = last.snapshot(at(20)).unwrap();
        assert_eq!(seen.age, at(4));
        let lease = &seen.leases[0];
        assert_eq!(lease.owner.as_deref(), Some("b"));
        assert_eq!((lease.owned_for, lease.heartbeat_age), (at(5), at(5)));
        assert_eq!(lease.checkpoint_age, at(10));
        last.note(&Arc::new(Snapshot::default()), at(21));
        last.note(&table("b", 3), at(22));
        let again = last.snapshot(at(22)).unwrap();
        assert_eq!(again.leases[0].owned_for, at(0), "forgotten when it was gone");
    }

    #[test]
    fn a_pending_handoff_has_two_owners() {
        let pending = Lease {
            owner: Some("next".into()),
            checkpoint_owner: Some("now".into()),
            ..Lease::new("shardId-1", Checkpoint::TrimHorizon)
        };
        let last = LastLook::default();
        let snapshot = Snapshot { leases: vec![pending], ..Snapshot::default() };
        last.note(&Arc::new(snapshot), at(1));
        let lease = last.snapshot(at(1)).unwrap().leases.remove(0);
        assert_eq!(lease.owner.as_deref(), Some("now"));
        assert_eq!(lease.pending_owner.as_deref(), Some("next"));
    }
}
