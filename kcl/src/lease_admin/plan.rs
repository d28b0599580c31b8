//! Which leases a reset changes, and how. Pure.

use std::collections::{BTreeMap, BTreeSet};

use kinesis_aggregation::HashKeyRange;

use super::LeaseAdminError;
use crate::checkpoint::Checkpoint;
use crate::config::InitialPosition;
use crate::lease::Lease;
use crate::sequence::ExtendedSequenceNumber;
use crate::stream::list::Shard;
use crate::stream::{LeaseStart, Lineage};

/// A lease as it was read, and as it is to be.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Change {
    /// `None`: there is no lease yet.
    pub(super) former: Option<Lease>,
    pub(super) new: Lease,
}

/// The start that a lease is to have.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    pub(super) former: Option<Lease>,
    /// `None`: the stream does not list the shard any more.
    pub(super) shard: Option<Facts>,
    pub(super) start: LeaseStart,
}

/// What the stream says about a shard.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Facts {
    pub(super) id: String,
    pub(super) parents: BTreeSet<String>,
    pub(super) children: BTreeSet<String>,
    pub(super) hash_key_range: HashKeyRange,
}

/// Checks that no worker has written a lease since the plan was made. `found`: the lease now.
pub(super) fn check_unchanged(
    shard_id: &str,
    planned: Option<&Lease>,
    found: Option<&Lease>,
) -> Result<(), LeaseAdminError> {
    let version = |lease: &Lease| {
        let Lease { counter, owner, checkpoint_owner, .. } = lease.clone();
        (counter, owner, checkpoint_owner)
    };
    if planned.map(version) == found.map(version) {
        return Ok(());
    }
    let shard_id = shard_id.to_owned();
    Err(match found.and_then(Lease::actual_owner) {
        Some(owner) => LeaseAdminError::OwnerAlive { shard_id, owner: owner.to_owned() },
        None => LeaseAdminError::Changed { shard_id },
    })
}

/// Whether a processor may be at work on the shard.
pub(super) fn has_processor(lease: &Lease) -> bool {
    lease.actual_owner().is_some() && !lease.has_ended()
}

/// The reset of one shard.
pub(super) fn of_shard(
    leases: &[Lease],
    listed: &[Shard],
    shard_id: &str,
    start: impl Fn(&Shard) -> LeaseStart,
) -> Result<Vec<Target>, LeaseAdminError> {
    let former = leases.iter().find(|lease| lease.shard_id() == shard_id);
    let shard = listed.iter().find(|shard| shard.id == shard_id);
    let (Some(former), Some(shard)) = (former, shard) else {
        return Err(LeaseAdminError::UnknownShard { shard_id: shard_id.to_owned() });
    };
    if former.has_ended() {
        return Err(LeaseAdminError::ShardEnded { shard_id: shard_id.to_owned() });
    }
    let start = start(shard);
    if let Checkpoint::Before(number)
    | Checkpoint::At(ExtendedSequenceNumber { sequence_number: number, .. }) = &start.checkpoint
        && *number < shard.starting_sequence
    {
        let (shard_id, first) = (shard_id.to_owned(), shard.starting_sequence.clone());
        return Err(LeaseAdminError::NotInShard { shard_id, first });
    }
    let shard = Some(facts(shard, &Lineage::new(listed)));
    Ok(vec![Target { former: Some(former.clone()), shard, start }])
}

/// The reset of all shards. `first`: ids of the shards that were open at the position of the shards that are not named.
///
/// * Named shards start at their positions.
/// * The shards of `first` start at the position, unless they follow a named shard.
/// * The descendants of both start at their beginning, after their parents. Those without a lease get it when their
///   parents end.
/// * All other shards ended before the position, so they count as finished.
pub(super) fn of_application(
    leases: &[Lease],
    listed: &[Shard],
    first: &BTreeSet<String>,
    position: &InitialPosition,
) -> Vec<Target> {
    let lineage = Lineage::new(listed);
    let others = position.of_others();
    let named: BTreeMap<&str, _> = position.named().collect();
    let after_named = lineage.descendants(named.keys().copied());
    let after_others = lineage.descendants(first.iter().map(String::as_str));
    // A child of a merge waits for both parents. So the end of its named parent would create a lease of the other one,
    // at its beginning, if there were none.
    let beside_named: BTreeSet<&str> =
        after_named.iter().flat_map(|id| lineage.parents(id)).collect();
    let mut leases: BTreeMap<&str, &Lease> =
        leases.iter().map(|lease| (lease.shard_id(), lease)).collect();
    let mut listed: Vec<&Shard> = listed.iter().collect();
    listed.sort_by(|a, b| a.starting_sequence.cmp(&b.starting_sequence));
    let above_named = lineage.ancestors(named.keys().copied());
    let mut targets = Vec::new();
    for shard in listed {
        let id = shard.id.as_str();
        let former = leases.remove(id);
        let (start, is_needed) = if let Some(position) = named.get(id) {
            (LeaseStart::in_shard(position, shard), true)
        } else if after_named.contains(id) {
            // Between two named shards: the second one waits for this one.
            (LeaseStart::new(Checkpoint::TrimHorizon), above_named.contains(id))
        } else if first.contains(id) {
            (LeaseStart::from(others), true)
        } else if after_others.contains(id) {
            (LeaseStart::below(others), above_named.contains(id))
        } else {
            (LeaseStart::new(Checkpoint::ShardEnd), beside_named.contains(id))
        };
        if former.is_some() || is_needed {
            targets.push(Target {
                former: former.cloned(),
                shard: Some(facts(shard, &lineage)),
                start,
            });
        }
    }
    // The stream deleted these shards after their retention.
    targets.extend(leases.into_values().map(|lease| Target {
        former: Some(lease.clone()),
        shard: None,
        start: LeaseStart::new(Checkpoint::ShardEnd),
    }));
    targets.retain(|target| !target.is_reached());
    targets
}

impl Target {
    /// Whether the lease already is as it should be. A lease with a start time gets the new one in any case.
    fn is_reached(&self) -> bool {
        let checkpoint = &self.start.checkpoint;
        let has_no_time = matches!(checkpoint, Checkpoint::TrimHorizon | Checkpoint::ShardEnd);
        let former = self.former.as_ref();
        has_no_time && former.is_some_and(|it| it.checkpoint == *checkpoint && it.pending.is_none())
    }
}

/// The new lease with the attributes of the former one that a reset does not change.
pub(super) fn keeping_facts(mut new: Lease, former: &Lease) -> Lease {
    if new.hash_key_range.is_none() {
        new.hash_key_range = former.hash_key_range;
        new.parents = former.parents.clone();
    }
    if new.children.is_empty() {
        new.children = former.children.clone();
    }
    new.has_entity_type = former.has_entity_type;
    new.other = former.other.clone();
    new
}

fn facts(shard: &Shard, lineage: &Lineage<'_>) -> Facts {
    Facts {
        id: shard.id.clone(),
        parents: shard.parents.clone(),
        children: lineage.children(&shard.id).iter().map(|child| (*child).to_owned()).collect(),
        hash_key_range: shard.hash_key_range,
    }
}

#[cfg(test)]
mod tests;
