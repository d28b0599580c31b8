//! The part of the hash space that leases cover.

use kcl::internals::Lease;
use kinesis_aggregation::HashKeyRange;

/// The first hash key that no active lease covers.
pub(crate) fn first_hole<'a>(leases: impl Iterator<Item = &'a Lease>) -> Option<u128> {
    let active = leases.filter(|lease| !lease.has_ended());
    let mut ranges: Vec<HashKeyRange> = active.filter_map(|lease| lease.hash_key_range).collect();
    ranges.sort_by_key(|range| range.start());
    let mut next = 0;
    for range in ranges {
        if range.start().get() <= next && range.end().get() >= next {
            next = range.end().get().checked_add(1)?;
        }
    }
    Some(next)
}

#[cfg(test)]
mod tests {
    use kinesis_aggregation::HashKey;

    use super::*;
    use kcl::Checkpoint;

    fn lease(start: u128, end: u128, checkpoint: Checkpoint) -> Lease {
        let mut lease = Lease::new("shard", checkpoint);
        lease.hash_key_range = HashKeyRange::new(HashKey::new(start), HashKey::new(end)).ok();
        lease
    }

    #[test]
    fn ended_leases_cover_nothing() {
        let low = lease(0, 9, Checkpoint::TrimHorizon);
        let ended = lease(10, 19, Checkpoint::ShardEnd);
        let high = lease(20, u128::MAX, Checkpoint::TrimHorizon);
        assert_eq!(first_hole([].iter()), Some(0));
        assert_eq!(first_hole([&high, &ended, &low].into_iter()), Some(10));
        let middle = lease(5, 30, Checkpoint::TrimHorizon);
        assert_eq!(first_hole([&high, &low, &middle].into_iter()), None);
    }
}
