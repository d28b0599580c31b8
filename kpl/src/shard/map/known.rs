//! The shards that listings have shown. Pure: time is passed in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kinesis_aggregation::HashKeyRange;

use crate::clock::{self, Instant};
use crate::service::Shard;

/// The open shards of the last listing, and closed shards seen before. The ranges of the closed ones check the
/// aggregates that they took.
#[derive(Debug)]
pub(super) struct KnownShards {
    by_id: BTreeMap<Arc<str>, Known>,
    /// Time for which a closed shard is remembered.
    closed_for: Duration,
}

#[derive(Debug)]
struct Known {
    range: HashKeyRange,
    /// When the shard was first found closed. `None`: it is open.
    closed_since: Option<Instant>,
}

impl KnownShards {
    /// Closed shards are remembered for several times the time to live of records, and for an hour at least.
    pub(super) fn new(time_to_live: Duration) -> Self {
        Self {
            by_id: BTreeMap::new(),
            closed_for: time_to_live.saturating_mul(4).max(Duration::from_secs(3600)),
        }
    }

    pub(super) fn forget_all(&mut self) {
        self.by_id.clear();
    }

    /// Notes a listing of the open shards: all others are closed now. If the listing contradicts the known shards, they
    /// belong to a deleted stream: they are forgotten, and `false` is returned.
    pub(super) fn note_open(&mut self, open: Vec<Shard>, now: Instant) -> bool {
        // The range of a shard never changes, and a closed shard never opens again.
        let is_same_stream = open.iter().all(|shard| {
            self.by_id.get(&shard.id).is_none_or(|known| {
                known.range == shard.range && (known.closed_since.is_none() || !shard.is_open)
            })
        });
        if !is_same_stream {
            self.forget_all();
        }
        for known in self.by_id.values_mut() {
            known.closed_since.get_or_insert(now);
        }
        for shard in open {
            let closed_since = (!shard.is_open).then_some(now);
            let range = shard.range;
            let known = Known { range, closed_since };
            self.by_id.insert(shard.id, known);
        }
        self.by_id.retain(|_, known| {
            let closed_since = known.closed_since;
            closed_since.is_none_or(|since| clock::after(since, self.closed_for) > now)
        });
        is_same_stream
    }

    /// Adds the unknown shards of a listing of all shards. It changes no known shard, because it may be older than the
    /// listing of the open ones.
    pub(super) fn note_all(&mut self, all: Vec<Shard>, now: Instant) {
        for shard in all {
            self.by_id
                .entry(shard.id)
                .or_insert(Known { range: shard.range, closed_since: Some(now) });
        }
    }

    /// Whether one of these shards opened and closed between two listings of the open ones. Shard ids ascend. So an
    /// unknown id above all known ones belongs to a new shard, which the next listing of the open shards shows.
    pub(super) fn has_missed(&self, ids: &BTreeSet<Arc<str>>) -> bool {
        let highest = self.by_id.keys().next_back();
        ids.iter().any(|id| Some(id) < highest && !self.by_id.contains_key(id))
    }

    pub(super) fn shards(&self) -> Vec<Shard> {
        let shard = |(id, known): (&Arc<str>, &Known)| Shard {
            id: Arc::clone(id),
            range: known.range,
            is_open: known.closed_since.is_none(),
        };
        self.by_id.iter().map(shard).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::map::tests::shard;

    fn known(shards: &KnownShards) -> Vec<(String, bool)> {
        let shards = shards.shards().into_iter();
        shards.map(|shard| (shard.id.to_string(), shard.is_open)).collect()
    }

    fn open(ids: &[&str]) -> Vec<Shard> {
        ids.iter().map(|id| shard(id, 0, 9, true)).collect()
    }

    fn expect(shards: &KnownShards, expected: &[(&str, bool)]) {
        let expected: Vec<_> =
            expected.iter().map(|(id, is_open)| ((*id).to_owned(), *is_open)).collect();
        assert_eq!(known(shards), expected);
    }

    #[test]
    fn a_shard_that_is_not_listed_any_more_is_closed() {
        let (mut shards, now) = (KnownShards::new(Duration::ZERO), clock::now());
        assert!(shards.note_open(open(&["0"]), now));
        assert!(shards.note_open(open(&["1", "2"]), now));
        expect(&shards, &[("0", false), ("1", true), ("2", true)]);
    }

    #[test]
    fn a_shard_that_opens_again_is_of_another_stream() {
        let (mut shards, now) = (KnownShards::new(Duration::ZERO), clock::now());
        assert!(shards.note_open(open(&["0"]), now));
        assert!(shards.note_open(open(&["1", "2"]), now));
        assert!(!shards.note_open(open(&["0"]), now));
        expect(&shards, &[("0", true)]);
    }

    #[test]
    fn a_shard_with_another_range_is_of_another_stream() {
        let (mut shards, now) = (KnownShards::new(Duration::ZERO), clock::now());
        assert!(shards.note_open(open(&["0"]), now));
        assert!(shards.note_open(open(&["1", "2"]), now));
        assert!(!shards.note_open(vec![shard("2", 0, 4, true)], now));
        expect(&shards, &[("2", true)]);
    }

    #[test]
    fn a_listing_of_all_shards_adds_closed_ones_and_changes_none() {
        let (mut shards, now) = (KnownShards::new(Duration::ZERO), clock::now());
        assert!(shards.note_open(open(&["2", "3"]), now));
        // It is older than the listing of the open ones: shard 1 is open in it, shard 3 is not there.
        shards.note_all(
            vec![shard("0", 0, 9, false), shard("1", 0, 9, true), shard("2", 0, 9, false)],
            now,
        );
        let expected = [("0", false), ("1", false), ("2", true), ("3", true)];
        expect(&shards, &expected);
    }

    #[test]
    fn a_shard_that_closed_long_ago_is_forgotten() {
        let begin = clock::now();
        let mut shards = KnownShards::new(Duration::from_secs(3600));
        assert!(shards.note_open(open(&["0"]), begin));
        for hours in 1..=4 {
            let now = begin + Duration::from_secs(3600 * hours);
            assert!(shards.note_open(open(&["1", "2"]), now));
            expect(&shards, &[("0", false), ("1", true), ("2", true)]);
        }
        let now = begin + Duration::from_secs(3600 * 5);
        assert!(shards.note_open(open(&["1", "2"]), now));
        expect(&shards, &[("1", true), ("2", true)]);
    }

    #[test]
    fn a_shard_above_all_known_ones_is_new() {
        let mut shards = KnownShards::new(Duration::ZERO);
        assert!(shards.note_open(open(&["0", "2"]), clock::now()));
        let has_missed = |id: &str| shards.has_missed(&BTreeSet::from([id.into()]));
        assert!(has_missed("1"));
        assert!(!has_missed("2"));
        assert!(!has_missed("3"));
    }
}
