//! Compares the stream with the lease table, and creates and deletes leases accordingly. Every write
//! is conditional and idempotent: any number of workers may do it at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use kinesis_aggregation::{HashKey, HashKeyRange};

use super::cleanup::{FinishedSince, finished};
use super::hierarchy::{NewLease, missing_leases, sentinel};
use super::list::{ListShardsError, Shard, ShardList, ShardLister};
use crate::checkpoint::Checkpoint;
use crate::clock::Clock;
use crate::config::InitialPosition;
use crate::lease::{
    ChildShard, Lease, LeaseStore, LeaseStoreError, Outcome, ShardFacts, Snapshot, StreamIdentity,
};

/// Looks at an empty table's shards until they cover the hash key space.
const LIST_TRIES: u32 = 3;
const LIST_PAUSE: Duration = Duration::from_secs(1);
/// For how long a look at the table is good for creating leases. Shorter than finished leases are
/// kept: what was missing was never there.
const LOOK_LASTS: Duration = Duration::from_secs(30);

/// Why a shard sync failed. What it had done stays, and does no harm.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum SyncError {
    #[error(transparent)]
    Store(#[from] LeaseStoreError),
    #[error(transparent)]
    List(#[from] ListShardsError),
    /// A reshard is in progress, or the listing is broken.
    #[error("the listed shards do not cover all hash keys")]
    Incomplete,
    /// A shard came to its end, as its reader says, and the listing does not know of that yet.
    #[error("shard {shard_id} is listed as open, or not yet: list its children again later")]
    StillOpen { shard_id: String },
    /// The process was stopped since it looked: what was missing then may have come and gone.
    #[error("the table was looked at too long ago to create leases from it: sync again")]
    Stale,
}

/// What a sync did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SyncReport {
    pub(crate) created: usize,
    pub(crate) deleted: usize,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct ShardSync {
    pub(crate) lister: Arc<dyn ShardLister>,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) position: InitialPosition,
    pub(crate) stream: StreamIdentity,
    /// Items say that they are leases: not in the tables of older workers.
    pub(crate) has_entity_type: bool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) finished: Arc<Mutex<FinishedSince>>,
}

impl ShardSync {
    /// One pass: leases that are missing are created, those of finished shards deleted.
    pub(crate) async fn run(&self) -> Result<SyncReport, SyncError> {
        let is_empty = |table: &Snapshot| table.leases.is_empty() && table.corrupt.is_empty();
        let mut looked = self.clock.now();
        let mut table = self.store.list(true).await?;
        if is_empty(&table) {
            let first = self.first_shards().await?;
            // Another starter may have filled the table meanwhile, from another listing.
            looked = self.clock.now();
            table = self.store.list(true).await?;
            if is_empty(&table) {
                return self.fill(&first, looked).await;
            }
        }
        let listed = self.lister.list(None).await?;
        let mut report = SyncReport::default();
        let unreadable: Vec<&str> = table.corrupt.iter().map(|item| item.key.as_str()).collect();
        for new in missing_leases(&listed.shards, &table.leases, &unreadable, self.position) {
            report.created += usize::from(self.create(&new, listed.server_time, looked).await?);
        }
        for lease in table
            .leases
            .iter()
            .filter(|lease| lease.hash_key_range.is_none())
        {
            // Leases of old Java workers lack it.
            if let Some(shard) = listed
                .shards
                .iter()
                .find(|shard| shard.id == lease.shard_id())
            {
                let range = ShardFacts::HashKeyRange(shard.hash_key_range);
                self.store.set_shard_facts(lease.shard_id(), range).await?;
            }
        }
        let done = finished(&table.leases, &listed.shards);
        let due = self
            .finished
            .lock()
            // Its changes are single map operations.
            .unwrap_or_else(PoisonError::into_inner)
            .due(done, self.clock.now());
        for lease in due {
            let deleted = self.store.delete(lease).await?.applied().is_some();
            report.deleted += usize::from(deleted);
        }
        Ok(report)
    }

    /// The shards that were open at the position, oldest first.
    async fn first_shards(&self) -> Result<ShardList, SyncError> {
        for left in (0..LIST_TRIES).rev() {
            let mut listed = self.lister.list(Some(self.position)).await?;
            let ranges = listed.shards.iter().map(|shard| shard.hash_key_range);
            if !covers_all_hash_keys(ranges) {
                if left > 0 {
                    tokio::time::sleep(LIST_PAUSE).await;
                }
                continue;
            }
            listed
                .shards
                .sort_by(|a, b| a.starting_sequence.cmp(&b.starting_sequence));
            return Ok(listed);
        }
        Err(SyncError::Incomplete)
    }

    /// The first leases of an application.
    async fn fill(&self, first: &ShardList, looked: Duration) -> Result<SyncReport, SyncError> {
        let mut report = SyncReport::default();
        for shard in &first.shards {
            let new = NewLease {
                shard,
                checkpoint: sentinel(self.position),
            };
            report.created += usize::from(self.create(&new, first.server_time, looked).await?);
        }
        Ok(report)
    }

    /// `looked`: when its lease was found missing.
    async fn create(
        &self,
        new: &NewLease<'_>,
        now: SystemTime,
        looked: Duration,
    ) -> Result<bool, SyncError> {
        let mut lease = self.lease(&new.shard.id, new.checkpoint.clone());
        lease.parents = new.shard.parents.clone();
        lease.hash_key_range = Some(new.shard.hash_key_range);
        lease.resume_from = match (&new.checkpoint, self.position) {
            (Checkpoint::Latest, _) => Some(now),
            (Checkpoint::AtTimestamp, InitialPosition::AtTimestamp(time)) => Some(time),
            _ => None,
        };
        self.store_new(&lease, looked).await
    }

    async fn store_new(&self, lease: &Lease, looked: Duration) -> Result<bool, SyncError> {
        if self.clock.now().saturating_sub(looked) > LOOK_LASTS {
            return Err(SyncError::Stale);
        }
        let created = matches!(self.store.create(lease).await?, Outcome::Applied(_));
        if created {
            tracing::info!(shard = lease.shard_id(), checkpoint = %lease.checkpoint, "lease created");
        }
        Ok(created)
    }

    fn lease(&self, shard_id: &str, checkpoint: Checkpoint) -> Lease {
        let mut lease = Lease::new(shard_id, checkpoint);
        lease.stream = Some(self.stream.clone());
        lease.has_entity_type = self.has_entity_type;
        lease
    }

    /// Creates the leases of a finished shard's children, at the trim horizon, where they are
    /// missing, and notes them in the parent's item. No children given: those that the stream lists.
    pub(crate) async fn create_children(
        &self,
        parent: &Lease,
        children: Vec<ChildShard>,
    ) -> Result<Vec<String>, SyncError> {
        // The parent is unfinished now, so no child of it is.
        let looked = self.clock.now();
        let children = if children.is_empty() {
            let listed = self.list_after_end(parent).await?.shards;
            let is_child = |shard: &Shard| shard.parents.contains(parent.shard_id());
            listed.into_iter().filter(is_child).map(as_child).collect()
        } else {
            children
        };
        for child in &children {
            self.create_child(parent, child, looked).await?;
        }
        let ids: Vec<String> = children.into_iter().map(|child| child.shard_id).collect();
        if !ids.is_empty() {
            self.store
                .set_shard_facts(parent.shard_id(), ShardFacts::Children(ids.clone()))
                .await?;
        }
        Ok(ids)
    }

    async fn create_child(
        &self,
        parent: &Lease,
        child: &ChildShard,
        looked: Duration,
    ) -> Result<(), SyncError> {
        // The child of a merge waits for both parents by their leases, so a missing one would let it
        // start early. Once the child's own lease exists, a missing parent was cleaned up.
        for other in child.parents.iter().filter(|id| *id != parent.shard_id()) {
            let missing = self.store.get(other).await?.is_none()
                && self.store.get(&child.shard_id).await?.is_none();
            if missing {
                Box::pin(self.run()).await?;
                self.lease_line(parent, other).await?;
            }
        }
        let mut lease = self.lease(&child.shard_id, Checkpoint::TrimHorizon);
        lease.parents = child.parents.iter().cloned().collect::<BTreeSet<_>>();
        lease.parents.insert(parent.shard_id().to_owned());
        lease.hash_key_range = Some(child.hash_key_range);
        self.store_new(&lease, looked).await?;
        Ok(())
    }

    /// Creates the leases, at the trim horizon, that a shard and its ancestors lack up to those that
    /// have one: a sync leaves them to the ends of these, and each waits for its own parents.
    async fn lease_line(&self, ended: &Lease, shard_id: &str) -> Result<(), SyncError> {
        let looked = self.clock.now();
        let listed = self.list_after_end(ended).await?;
        let by_id: BTreeMap<&str, &Shard> = listed
            .shards
            .iter()
            .map(|shard| (shard.id.as_str(), shard))
            .collect();
        let mut missing = BTreeMap::new();
        let mut path = vec![shard_id];
        while let Some(id) = path.pop() {
            let Some(shard) = by_id.get(id) else { continue };
            if !missing.contains_key(id) && self.store.get(id).await?.is_none() {
                missing.insert(id, *shard);
                path.extend(shard.parents.iter().map(String::as_str));
            }
        }
        // A shard whose lease comes before its parents' could start before them.
        let mut missing: Vec<&Shard> = missing.into_values().collect();
        missing.sort_by_key(|shard| &shard.starting_sequence);
        for shard in missing {
            let new = NewLease {
                shard,
                checkpoint: Checkpoint::TrimHorizon,
            };
            self.create(&new, listed.server_time, looked).await?;
        }
        Ok(())
    }

    /// The shards that the stream lists, the end of `ended` among them. A listing may lag.
    async fn list_after_end(&self, ended: &Lease) -> Result<ShardList, SyncError> {
        let listed = self.lister.list(None).await?;
        let find = |id: &str| listed.shards.iter().find(|shard| shard.id == id);
        let behind = match find(ended.shard_id()) {
            Some(shard) => shard.is_open(),
            // Shards leave the stream after their parents.
            None => ended.parents.iter().any(|parent| find(parent).is_some()),
        };
        if behind {
            return Err(SyncError::StillOpen {
                shard_id: ended.shard_id().to_owned(),
            });
        }
        Ok(listed)
    }
}

fn as_child(shard: Shard) -> ChildShard {
    ChildShard {
        shard_id: shard.id,
        parents: shard.parents.into_iter().collect(),
        hash_key_range: shard.hash_key_range,
    }
}

/// True if every hash key lies in one of the ranges. Overlaps do not matter.
fn covers_all_hash_keys(ranges: impl Iterator<Item = HashKeyRange>) -> bool {
    let mut ranges: Vec<_> = ranges.collect();
    ranges.sort_by_key(|range| range.start());
    // The first key that is not covered yet; `None`: all are.
    let mut open_from = Some(HashKey::MIN.get());
    for range in ranges {
        match open_from {
            Some(from) if range.start().get() > from => return false,
            Some(from) if range.end().get() >= from => open_from = range.end().get().checked_add(1),
            _ => {}
        }
    }
    open_from.is_none()
}

#[cfg(test)]
mod tests;
