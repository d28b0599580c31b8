//! Shard check: whether the shard that took a Kinesis record may keep it.
//!
//! A KCL drops a whole aggregate when one member's hash key is outside the shard's range, so an aggregate succeeds if and
//! only if every member is inside. Data without a frame is never filtered, so it is never in the wrong shard.

use kinesis_aggregation::{HashKey, HashKeyRange};

/// The lowest and the highest hash key of the members. Ranges have no holes, so the two stand for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HashKeySpan {
    pub(crate) low: HashKey,
    pub(crate) high: HashKey,
}

impl HashKeySpan {
    pub(crate) fn of(hash_key: HashKey) -> Self {
        Self { low: hash_key, high: hash_key }
    }

    pub(crate) fn include(&mut self, hash_key: HashKey) {
        self.low = self.low.min(hash_key);
        self.high = self.high.max(hash_key);
    }

    pub(crate) fn union(mut self, other: Self) -> Self {
        self.include(other.low);
        self.include(other.high);
        self
    }

    pub(crate) fn is_within(self, range: HashKeyRange) -> bool {
        range.contains(self.low) && range.contains(self.high)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShardCheck {
    /// Consumers see every member.
    Delivered,
    /// Consumers drop it: all members must be sent again, under a fresh map.
    WrongShard,
    /// The map does not know the shard: ask again after a refresh.
    UnknownShard,
}

/// `range` is what the map knows of the shard that took the record; `is_framed` says whether it is an aggregate, perhaps of one.
pub(crate) fn check_shard(
    is_framed: bool,
    span: HashKeySpan,
    range: Option<HashKeyRange>,
) -> ShardCheck {
    match range {
        _ if !is_framed => ShardCheck::Delivered,
        None => ShardCheck::UnknownShard,
        Some(range) if span.is_within(range) => ShardCheck::Delivered,
        Some(_) => ShardCheck::WrongShard,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_aggregate_succeeds_if_and_only_if_every_member_is_in_range(
            start in any::<u128>(),
            length in any::<u128>(),
            offsets in proptest::collection::vec(-3_i128..=3, 1..12),
            at_end in any::<bool>(),
            is_framed in any::<bool>(),
        ) {
            let end = start.saturating_add(length);
            let range = HashKeyRange::new(HashKey::new(start), HashKey::new(end)).unwrap();
            let edge = if at_end { end } else { start };
            let keys: Vec<_> = offsets.iter().map(|&o| HashKey::new(edge.saturating_add_signed(o))).collect();
            let mut span = HashKeySpan::of(keys[0]);
            keys.iter().for_each(|&key| span.include(key));
            let expected = if !is_framed || keys.iter().all(|&key| range.contains(key)) {
                ShardCheck::Delivered
            } else {
                ShardCheck::WrongShard
            };
            prop_assert_eq!(check_shard(is_framed, span, Some(range)), expected);
        }
    }

    #[test]
    fn an_unknown_shard_holds_an_aggregate_but_not_plain_data() {
        let span = HashKeySpan::of(HashKey::MIN);
        assert_eq!(check_shard(true, span, None), ShardCheck::UnknownShard);
        assert_eq!(check_shard(false, span, None), ShardCheck::Delivered);
    }
}
