//! Decides which shards need a lease if the settings name positions of single shards. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::hierarchy::{NewLease, missing_leases};
use super::lease_start::LeaseStart;
use super::lineage::Lineage;
use super::list::Shard;
use crate::checkpoint::Checkpoint;
use crate::config::{InitialPosition, ShardPosition};
use crate::lease::Lease;
use crate::sequence::SequenceNumber;

/// Named shards that do not fit the stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NamedShardsError {
    #[error("the stream does not list these shards: {}", .shard_ids.join(", "))]
    Unknown { shard_ids: Vec<String> },
    #[error("the records of shard {shard_id} begin at {first}, after {position}")]
    NotInShard { shard_id: String, position: SequenceNumber, first: SequenceNumber },
}

/// Checks that the stream lists all named shards, and that their sequence numbers can be of these shards.
pub(crate) fn check_named(
    position: &InitialPosition,
    shards: &[Shard],
) -> Result<(), NamedShardsError> {
    let lineage = Lineage::new(shards);
    let unknown = unlisted(position, &lineage);
    if !unknown.is_empty() {
        return Err(NamedShardsError::Unknown { shard_ids: unknown });
    }
    for (shard_id, position) in position.named() {
        if let ShardPosition::AtSequenceNumber(number) | ShardPosition::AfterSequenceNumber(number) =
            position
            && let Some(shard) = lineage.shard(shard_id)
            && *number < shard.starting_sequence
        {
            return Err(NamedShardsError::NotInShard {
                shard_id: shard_id.to_owned(),
                position: number.clone(),
                first: shard.starting_sequence.clone(),
            });
        }
    }
    Ok(())
}

/// The named shards that the stream does not list.
pub(super) fn unlisted(position: &InitialPosition, lineage: &Lineage<'_>) -> Vec<String> {
    let named = position.named().map(|(shard_id, _)| shard_id);
    named.filter(|id| lineage.shard(id).is_none()).map(str::to_owned).collect()
}

/// Returns the leases that are missing, oldest shard first: those that [`missing_leases`] returns for the shards that are
/// not named, and those of the named shards.
///
/// A named shard has no lease, and no descendant of it has one. Otherwise it is finished, or it goes on at its
/// checkpoint.
pub(super) fn leases_to_create<'a>(
    shards: &'a [Shard],
    leases: &[Lease],
    unreadable: &[&str],
    position: &InitialPosition,
) -> Vec<NewLease<'a>> {
    let others = position.of_others();
    let by_others = missing_leases(shards, leases, unreadable, others);
    if position.named().next().is_none() {
        return by_others;
    }
    let lineage = Lineage::new(shards);
    let leased: BTreeSet<&str> =
        leases.iter().map(Lease::shard_id).chain(unreadable.iter().copied()).collect();
    let finished = lineage.ancestors(leased.iter().copied());
    let mut named = BTreeMap::new();
    for (id, position) in position.named() {
        if let Some(shard) = lineage.shard(id)
            && !leased.contains(id)
            && !finished.contains(id)
        {
            let start = LeaseStart::in_shard(position, shard);
            named.insert(shard.id.as_str(), NewLease { shard, start });
        }
    }
    let after_named = lineage.descendants(named.keys().copied());
    let with_id = |new: NewLease<'a>| (new.shard.id.as_str(), new);
    // The end of a named shard creates the leases of its children.
    let beside = by_others.into_iter().map(with_id).filter(|(id, _)| !after_named.contains(id));
    let mut new: BTreeMap<&str, NewLease<'a>> = beside.collect();
    // A child of a merge waits for both parents. If only one of them follows a named shard, the other one needs a lease.
    let leads: Vec<&str> = unreadable.iter().copied().chain(named.keys().copied()).collect();
    for (id, lease) in missing_leases(shards, leases, &leads, others).into_iter().map(with_id) {
        new.entry(id).or_insert(lease);
    }
    let above_named = lineage.ancestors(named.keys().copied());
    new.extend(named);
    // A shard without a lease counts as processed. So a named shard would start before those between it and another
    // shard that is read.
    let is_read = |id: &str| leased.contains(id) || new.contains_key(id);
    let read = leased.iter().chain(new.keys()).copied();
    let below = lineage.descendants(read);
    let between = above_named.intersection(&below).copied();
    let between: Vec<_> = between.filter(|id| !is_read(id) && !finished.contains(id)).collect();
    for id in between {
        let start = match after_named.contains(id) {
            true => LeaseStart::new(Checkpoint::TrimHorizon),
            false => LeaseStart::below(others),
        };
        if let Some(shard) = lineage.shard(id) {
            new.insert(id, NewLease { shard, start });
        }
    }
    let mut new: Vec<_> = new.into_values().collect();
    new.sort_by(|a, b| a.shard.starting_sequence.cmp(&b.shard.starting_sequence));
    new
}

#[cfg(test)]
mod tests;
