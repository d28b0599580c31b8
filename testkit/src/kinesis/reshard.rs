//! Splits, merges, and the uniform change of the shard count, which is made of them.

use super::error::ApiError;
use super::hash_key;
use super::shard::{Shard, ShardId};
use super::stream::Stream;
use crate::clock::Timestamp;

impl Stream {
    /// Whether `shard` can be split or merged at all.
    pub(crate) fn check_open(&self, shard: ShardId) -> Result<(), ApiError> {
        if self.shard(shard).closed.is_none() {
            return Ok(());
        }
        Err(ApiError::invalid_argument(format!(
            "Shard {shard} in stream {} has already been merged or split, and thus is not eligible \
             for merging or splitting.",
            self.name
        )))
    }

    /// Whether `shard` can be split so that the upper child starts at `at`.
    pub(crate) fn check_split(&self, shard: ShardId, at: u128) -> Result<(), ApiError> {
        self.check_open(shard)?;
        let (start, end) = self.shard(shard).range;
        if at > start.saturating_add(1) && at < end {
            return Ok(());
        }
        Err(ApiError::invalid_argument(format!(
            "NewStartingHashKey {at} used in SplitShard() on shard {shard} in stream {} is not both \
             greater than one plus the shard's StartingHashKey {start} and less than the shard's \
             EndingHashKey {end}.",
            self.name
        )))
    }

    /// Whether the two shards lie side by side and are open.
    pub(crate) fn check_merge(&self, shard: ShardId, adjacent: ShardId) -> Result<(), ApiError> {
        self.check_open(shard)?;
        self.check_open(adjacent)?;
        let (a, b) = (self.shard(shard).range, self.shard(adjacent).range);
        if a.1.checked_add(1) == Some(b.0) || b.1.checked_add(1) == Some(a.0) {
            return Ok(());
        }
        Err(ApiError::invalid_argument(format!(
            "Shards {shard} and {adjacent} in stream {} are not adjacent.",
            self.name
        )))
    }

    /// Splits an open shard; the upper child starts at `at`, which lies inside its range.
    pub(crate) fn split(&mut self, now: Timestamp, shard: ShardId, at: u128) {
        let (start, end) = self.shard(shard).range;
        self.replace(now, &[shard], &[(start, at - 1), (at, end)]);
    }

    /// Merges two open, adjacent shards.
    pub(crate) fn merge(&mut self, now: Timestamp, shard: ShardId, adjacent: ShardId) {
        let (a, b) = (self.shard(shard).range, self.shard(adjacent).range);
        self.replace(now, &[shard, adjacent], &[(a.0.min(b.0), a.1.max(b.1))]);
    }

    /// Divides the hash space evenly: shards are split at every boundary that is missing, then
    /// merged until none is left that should not be there. Lineage is kept throughout.
    pub(crate) fn reshard_uniformly(&mut self, now: Timestamp, target: u32) {
        let starts = hash_key::uniform_starts(target);
        for start in &starts {
            let shard = self.route(*start);
            if self.shard(shard).range.0 != *start {
                self.split(now, shard, *start);
            }
        }
        let mut nth = 0;
        while nth + 1 < self.open.len() {
            let next = self.open[nth + 1];
            if starts.binary_search(&self.shard(next).range.0).is_ok() {
                nth += 1;
            } else {
                self.merge(now, self.open[nth], next);
            }
        }
    }

    /// Closes `parents` and opens children over `ranges`, which cover the same hash keys.
    fn replace(&mut self, now: Timestamp, parents: &[ShardId], ranges: &[(u128, u128)]) {
        let children: Vec<ShardId> =
            (self.shards.len() as u32..).take(ranges.len()).map(ShardId).collect();
        for parent in parents {
            self.shard_mut(*parent).close(now, children.clone());
        }
        let kin: Vec<&Shard> = parents.iter().map(|parent| self.shard(*parent)).collect();
        // Not before its parents closed, which is their last arrival if the clock went back.
        let opened = kin.iter().filter_map(|parent| parent.closed).max().unwrap_or(now);
        let opened: Vec<Shard> = children
            .iter()
            .zip(ranges)
            .map(|(id, range)| Shard::open(*id, *range, &kin, opened))
            .collect();
        self.shards.extend(opened);
        self.open.retain(|id| !parents.contains(id));
        self.open.extend(children);
        let mut open = std::mem::take(&mut self.open);
        open.sort_unstable_by_key(|id| self.shard(*id).range.0);
        self.open = open;
    }
}
