//! Creates the leases of the children of a finished shard.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::{ShardSync, SyncError};
use crate::checkpoint::Checkpoint;
use crate::config::StreamPosition;
use crate::lease::{ChildShard, Lease, LeaseWrite, ShardFacts};
use crate::stream::hierarchy::NewLease;
use crate::stream::lease_start::LeaseStart;
use crate::stream::list::{Shard, ShardList};

impl ShardSync {
    /// Creates the missing leases of a finished shard's children, and notes the children in the parent's item. If
    /// `children` is empty, they are taken from the listing.
    pub(crate) async fn create_children(
        &self,
        parent: &Lease,
        children: Vec<ChildShard>,
    ) -> Result<Vec<String>, SyncError> {
        // The parent is not finished yet, so no child of it was finished and deleted before.
        let read = self.clock.now();
        let children = if children.is_empty() {
            let listed = self.list_after_end(parent).await?.shards;
            let is_child = |shard: &Shard| shard.parents.contains(parent.shard_id());
            listed.into_iter().filter(is_child).map(as_child).collect()
        } else {
            children
        };
        for child in &children {
            self.create_child(parent, child, read).await?;
        }
        let ids: Vec<String> = children.into_iter().map(|child| child.shard_id).collect();
        if !ids.is_empty() {
            let children = ShardFacts::Children(ids.clone());
            self.store.write(parent, LeaseWrite::SetFacts(children)).await?;
        }
        Ok(ids)
    }

    async fn create_child(
        &self,
        parent: &Lease,
        child: &ChildShard,
        read: Duration,
    ) -> Result<(), SyncError> {
        // The child of a merge waits for the leases of both parents. If one of them is missing, the child
        // would start early. If the child's own lease exists, the missing parent was finished and deleted.
        for other in child.parents.iter().filter(|id| *id != parent.shard_id()) {
            let missing = self.store.get(other).await?.is_none()
                && self.store.get(&child.shard_id).await?.is_none();
            if missing {
                Box::pin(self.run()).await?;
                self.create_ancestor_leases(parent, other).await?;
            }
        }
        // A shard may have been split before the time at which its lease starts. Then it has no record from that time
        // on, and its children may have records from before.
        let is_at_time = parent.checkpoint == Checkpoint::AtTimestamp;
        let start = match parent.resume_from.filter(|_| is_at_time) {
            Some(time) => LeaseStart::from(StreamPosition::AtTimestamp(time)),
            None => LeaseStart::new(Checkpoint::TrimHorizon),
        };
        let mut lease = self.lease_at(&child.shard_id, start, SystemTime::UNIX_EPOCH);
        lease.parents = child.parents.iter().cloned().collect::<BTreeSet<_>>();
        lease.parents.insert(parent.shard_id().to_owned());
        lease.hash_key_range = Some(child.hash_key_range);
        self.store_new(&lease, read).await?;
        Ok(())
    }

    /// Creates the missing leases, at the trim horizon, of a shard and of its ancestors up to those that have
    /// one. A sync does not create them: they get their leases when those ancestors end.
    async fn create_ancestor_leases(&self, ended: &Lease, shard_id: &str) -> Result<(), SyncError> {
        let read = self.clock.now();
        let listed = self.list_after_end(ended).await?;
        let by_id: BTreeMap<&str, &Shard> =
            listed.shards.iter().map(|shard| (shard.id.as_str(), shard)).collect();
        let mut missing = BTreeMap::new();
        let mut path = vec![shard_id];
        while let Some(id) = path.pop() {
            let Some(shard) = by_id.get(id) else { continue };
            if !missing.contains_key(id) && self.store.get(id).await?.is_none() {
                missing.insert(id, *shard);
                path.extend(shard.parents.iter().map(String::as_str));
            }
        }
        // A shard whose lease exists before its parents' could start before them.
        let mut missing: Vec<&Shard> = missing.into_values().collect();
        missing.sort_by_key(|shard| &shard.starting_sequence);
        for shard in missing {
            let new = NewLease { shard, start: LeaseStart::new(Checkpoint::TrimHorizon) };
            self.store_new(&self.new_lease(&new, listed.server_time), read).await?;
        }
        Ok(())
    }

    /// Lists the shards. Fails if the listing lags and does not show the end of `ended` yet.
    async fn list_after_end(&self, ended: &Lease) -> Result<ShardList, SyncError> {
        let listed = self.list(None).await?;
        let find = |id: &str| listed.shards.iter().find(|shard| shard.id == id);
        let lags = match find(ended.shard_id()) {
            Some(shard) => shard.open,
            // The shard has left the stream, or is not listed yet. Shards leave the stream after their parents,
            // so it has left if no parent is listed.
            None => ended.parents.iter().any(|parent| find(parent).is_some()),
        };
        if lags {
            return Err(SyncError::StillOpen { shard_id: ended.shard_id().to_owned() });
        }
        Ok(listed)
    }
}

pub(super) fn as_child(shard: Shard) -> ChildShard {
    ChildShard {
        shard_id: shard.id,
        parents: shard.parents.into_iter().collect(),
        hash_key_range: shard.hash_key_range,
    }
}
