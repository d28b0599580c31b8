//! Shard map: the shard of a hash key, and the range of a shard. Open shards predict where a record goes, closed ones
//! check where an aggregate went.

mod known;
mod refresh;
mod requests;

use std::collections::HashMap;
use std::sync::Arc;

use kinesis_aggregation::{HashKey, HashKeyRange};

use crate::service::Shard;

pub(crate) use refresh::Refresher;
pub(crate) use requests::RefreshRequests;

/// The shards of a stream at one moment.
///
/// The range of a shard never changes. So an old map has the right range for each id that it knows, unless the stream
/// was deleted and created again.
#[derive(Debug, Default)]
pub(crate) struct ShardMap {
    /// Open shards, sorted by ending hash key, each with the keys that it takes. A listing during a reshard may show
    /// shards that overlap. Each key belongs to one of them here.
    pub(crate) open: Vec<Shard>,
    ranges: HashMap<Arc<str>, HashKeyRange>,
    /// Whether the service chooses the shard of each record, whatever its key. Then no shard is predicted.
    pub(crate) is_service_placed: bool,
}

impl ShardMap {
    pub(crate) fn new(shards: Vec<Shard>) -> Self {
        let ranges = shards.iter().map(|shard| (Arc::clone(&shard.id), shard.range)).collect();
        let mut open: Vec<_> = shards.into_iter().filter(|shard| shard.is_open).collect();
        open.sort_by(|a, b| {
            a.range.end().cmp(&b.range.end()).then_with(|| b.range.start().cmp(&a.range.start()))
        });
        let mut free = Some(HashKey::MIN);
        open.retain_mut(|shard| {
            let range = free.and_then(|free| {
                let start = shard.range.start().max(free);
                HashKeyRange::new(start, shard.range.end()).ok()
            });
            if let Some(range) = range {
                shard.range = range;
                free = next(range.end());
            }
            range.is_some()
        });
        Self { open, ranges, is_service_placed: false }
    }

    /// Makes it the map of a stream that places records itself: with the ranges, without prediction.
    pub(crate) fn without_prediction(self) -> Self {
        Self { open: Vec::new(), is_service_placed: true, ..self }
    }

    /// Whether no shard is known, open or closed.
    pub(crate) fn is_blank(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(crate) fn gaps(&self) -> Vec<HashKeyRange> {
        let mut gaps = Vec::new();
        let mut free = Some(HashKey::MIN);
        for shard in &self.open {
            if let Some(start) = free
                && let Some(end) = shard.range.start().get().checked_sub(1).map(HashKey::new)
            {
                gaps.extend(HashKeyRange::new(start, end));
            }
            free = next(shard.range.end());
        }
        gaps.extend(free.and_then(|start| HashKeyRange::new(start, HashKey::MAX).ok()));
        gaps
    }

    /// Position of the open shard that takes `hash_key`. `None`: no open shard takes it.
    pub(crate) fn lookup(&self, hash_key: HashKey) -> Option<usize> {
        let position = self.open.partition_point(|shard| shard.range.end() < hash_key);
        self.open.get(position).filter(|shard| shard.range.contains(hash_key)).map(|_| position)
    }

    pub(crate) fn is_open(&self, shard_id: &str) -> bool {
        self.open.iter().any(|shard| *shard.id == *shard_id)
    }

    /// The range of a shard, open or closed.
    pub(crate) fn range_of(&self, shard_id: &str) -> Option<HashKeyRange> {
        self.ranges.get(shard_id).copied()
    }
}

fn next(hash_key: HashKey) -> Option<HashKey> {
    hash_key.get().checked_add(1).map(HashKey::new)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn shard(id: &str, start: u128, end: u128, is_open: bool) -> Shard {
        let range = HashKeyRange::new(HashKey::new(start), HashKey::new(end)).unwrap();
        Shard { id: id.into(), range, is_open }
    }

    #[test]
    fn a_closed_shard_has_a_range_but_takes_nothing() {
        let map = ShardMap::new(vec![
            shard("parent", 0, u128::MAX, false),
            shard("high", 100, u128::MAX, true),
            shard("low", 0, 99, true),
        ]);
        let taker = |hash_key| &*map.open[map.lookup(HashKey::new(hash_key)).unwrap()].id;
        assert_eq!(
            (taker(0), taker(99), taker(100), taker(u128::MAX)),
            ("low", "low", "high", "high")
        );
        assert_eq!(map.range_of("parent"), Some(HashKeyRange::FULL));
        assert_eq!(map.range_of("unknown"), None);
    }

    #[test]
    fn where_shards_overlap_each_key_belongs_to_one() {
        let map = ShardMap::new(vec![
            shard("parent", 0, 99, true),
            shard("low", 0, 49, true),
            shard("high", 50, 99, true),
            shard("wide", 40, 119, true),
        ]);
        let open: Vec<_> =
            map.open.iter().map(|s| (&*s.id, s.range.start().get(), s.range.end().get())).collect();
        assert_eq!(open, [("low", 0, 49), ("high", 50, 99), ("wide", 100, 119)]);
        assert_eq!(map.range_of("wide").map(|range| range.start().get()), Some(40));
        assert_eq!(map.gaps(), [HashKeyRange::new(HashKey::new(120), HashKey::MAX).unwrap()]);
    }

    proptest! {
        #[test]
        fn lookup_is_what_a_linear_scan_finds(
            cuts in proptest::collection::btree_set(1..u128::MAX, 0..40),
            gaps in any::<u64>(),
            probes in proptest::collection::vec(any::<u128>(), 20),
        ) {
            let mut starts: Vec<u128> = vec![0];
            starts.extend(&cuts);
            let mut shards = vec![shard("closed", 0, u128::MAX, false)];
            for (position, &start) in starts.iter().enumerate() {
                let end = starts.get(position + 1).map_or(u128::MAX, |next| next - 1);
                shards.push(shard(&format!("s{position}"), start, end, gaps >> (position % 64) & 1 == 0));
            }
            let map = ShardMap::new(shards.clone());
            let edges = shards.iter().flat_map(|s| [s.range.start(), s.range.end()]);
            for hash_key in probes.into_iter().map(HashKey::new).chain(edges) {
                let scanned = shards.iter().find(|s| s.is_open && s.range.contains(hash_key)).map(|s| &s.id);
                let found = map.lookup(hash_key).map(|position| &map.open[position].id);
                prop_assert_eq!(found, scanned);
                prop_assert_eq!(scanned.is_none(), map.gaps().iter().any(|gap| gap.contains(hash_key)));
            }
        }
    }
}
