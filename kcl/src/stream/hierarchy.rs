//! Which shards need a lease: pure, on the graph of splits and merges.
//!
//! A shard waits for its parents, so leases are made from the oldest shard that must be read on
//! downwards: below a shard that has a lease, leases come by themselves, when the parent ends.

use std::collections::{BTreeMap, BTreeSet};

use kinesis_aggregation::HashKeyRange;

use super::list::Shard;
use crate::checkpoint::Checkpoint;
use crate::config::InitialPosition;
use crate::lease::Lease;

/// A lease to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewLease<'a> {
    pub(super) shard: &'a Shard,
    pub(super) checkpoint: Checkpoint,
}

/// The sentinel of a start position.
pub(super) fn sentinel(position: InitialPosition) -> Checkpoint {
    match position {
        InitialPosition::Latest => Checkpoint::Latest,
        InitialPosition::TrimHorizon => Checkpoint::TrimHorizon,
        InitialPosition::AtTimestamp(_) => Checkpoint::AtTimestamp,
    }
}

/// Leases that are missing, oldest shard first, for a stream whose shards are all in `shards`.
///
/// `unreadable`: keys of leases that are there, and nothing more is known of them.
pub(super) fn missing_leases<'a>(
    shards: &'a [Shard],
    leases: &[Lease],
    unreadable: &[&str],
    position: InitialPosition,
) -> Vec<NewLease<'a>> {
    let shards_by_id: BTreeMap<&str, &Shard> =
        shards.iter().map(|shard| (shard.id.as_str(), shard)).collect();
    let leased = leases
        .iter()
        .map(|lease| (lease.shard_id(), lease.hash_key_range))
        .chain(unreadable.iter().map(|key| (*key, None)));
    let mut graph = Graph {
        leased: leased.clone().map(|(id, _)| id).collect(),
        left_the_stream: leased
            .filter(|(id, _)| !shards_by_id.contains_key(id))
            .map(|(_, range)| range)
            .collect(),
        shards: shards_by_id,
        from_the_start: !matches!(position, InitialPosition::Latest),
        reached: BTreeMap::new(),
        new: BTreeMap::new(),
        below: match position {
            InitialPosition::AtTimestamp(_) => Checkpoint::AtTimestamp,
            _ => Checkpoint::TrimHorizon,
        },
        initial: sentinel(position),
    };
    for shard in shards.iter().filter(|shard| shard.is_open()) {
        if !graph.leased.contains(shard.id.as_str()) && !graph.reach(shard) {
            let initial = graph.initial.clone();
            graph.new.entry(shard.id.as_str()).or_insert(initial);
        }
    }
    graph.children_of_ended_shards(leases);
    let mut new: Vec<_> = graph
        .new
        .into_iter()
        .filter_map(|(id, checkpoint)| Some(NewLease { shard: graph.shards.get(id)?, checkpoint }))
        .collect();
    new.sort_by(|a, b| a.shard.starting_sequence.cmp(&b.shard.starting_sequence));
    new
}

struct Graph<'a, 'l> {
    shards: BTreeMap<&'a str, &'a Shard>,
    leased: BTreeSet<&'l str>,
    /// Hash keys of leased shards that the stream has forgotten. `None`: not known, so any.
    left_the_stream: Vec<Option<HashKeyRange>>,
    /// The position includes what shards held before they were closed.
    from_the_start: bool,
    /// Shards seen: whether leases reach them from above.
    reached: BTreeMap<&'a str, bool>,
    new: BTreeMap<&'a str, Checkpoint>,
    /// Where a shard starts whose ancestor is processed.
    below: Checkpoint,
    initial: Checkpoint,
}

impl<'a, 'l> Graph<'a, 'l> {
    fn listed_parents(&self, shard: &'a Shard) -> Vec<&'a Shard> {
        shard.parents.iter().filter_map(|id| self.shards.get(id.as_str()).copied()).collect()
    }

    /// True if the shard will get its lease when an ancestor ends: it, or an ancestor, has one or
    /// gets one here. Adds the leases that the ancestors on the way lack.
    fn reach(&mut self, shard: &'a Shard) -> bool {
        // Parents first, without recursion: lineages grow with the age of the stream.
        let mut path = vec![(shard, false)];
        while let Some((shard, parents_done)) = path.pop() {
            let id = shard.id.as_str();
            if self.reached.contains_key(id) {
                continue;
            }
            if self.leased.contains(id) {
                self.reached.insert(id, true);
            } else if parents_done {
                self.judge(shard);
            } else {
                path.push((shard, true));
                path.extend(self.listed_parents(shard).into_iter().map(|parent| (parent, false)));
            }
        }
        self.reached.get(shard.id.as_str()).copied().unwrap_or(false)
    }

    /// A shard without a lease, whose parents are judged.
    fn judge(&mut self, shard: &'a Shard) {
        let parents = self.listed_parents(shard);
        // Reading from the start, an unreached shard is itself where its line begins.
        let begins_a_line =
            |graph: &Self, id: &str| graph.from_the_start && graph.reached.get(id) == Some(&false);
        let covered = |graph: &Self, id: &str| {
            graph.reached.get(id) == Some(&true) || begins_a_line(graph, id)
        };
        // A parent that has a lease counts, whether the stream still lists it or not.
        let mut reached =
            shard.parents.iter().any(|id| self.leased.contains(id.as_str()) || covered(self, id));
        if !reached && self.follows_a_forgotten_lease(shard) {
            // No lease's end leads here any more.
            self.new.insert(shard.id.as_str(), self.below.clone());
            reached = true;
        }
        self.reached.insert(shard.id.as_str(), reached);
        if !reached {
            return;
        }
        for parent in parents {
            let id = parent.id.as_str();
            if self.leased.contains(id) {
                continue;
            }
            let checkpoint = if covered(self, id) { &self.below } else { &self.initial }.clone();
            if begins_a_line(self, id) || !covered(self, id) {
                self.new.insert(id, checkpoint);
            }
        }
    }

    /// True if an ancestor has a lease, and the shards between have left the stream with it: what
    /// the stream still keeps of that line was not read.
    fn follows_a_forgotten_lease(&self, shard: &Shard) -> bool {
        let listed = |id: &String| self.shards.contains_key(id.as_str());
        let overlaps = |range: &Option<HashKeyRange>| {
            let keys = shard.hash_key_range;
            range.is_none_or(|range| range.start() <= keys.end() && keys.start() <= range.end())
        };
        !shard.parents.iter().all(listed) && self.left_the_stream.iter().any(overlaps)
    }

    /// A finished shard's children must have leases while its own is there: clean-up waits for that.
    /// They are missing if the owner learned of no children when it finished. The child of a merge
    /// waits for both parents by their leases, so it comes after these.
    fn children_of_ended_shards(&mut self, leases: &'l [Lease]) {
        let outlived = self.outlived();
        let ended: BTreeSet<&str> =
            leases.iter().filter(|lease| lease.has_ended()).map(Lease::shard_id).collect();
        for (id, shard) in &self.shards {
            let after_an_end = shard.parents.iter().any(|parent| ended.contains(parent.as_str()));
            let has_lease = |id: &str| self.leased.contains(id) || self.new.contains_key(id);
            let parents_have = shard
                .parents
                .iter()
                .all(|id| has_lease(id) || !self.shards.contains_key(id.as_str()));
            let was_there = self.leased.contains(id) || outlived.contains(id);
            if after_an_end && parents_have && !was_there {
                self.new.insert(id, Checkpoint::TrimHorizon);
            }
        }
    }

    /// Shards with a lease below them. Without one of their own they are done, even where a parent's
    /// lease is left: Java deletes that of a finished shard before its parents'.
    fn outlived(&self) -> BTreeSet<&'a str> {
        let mut outlived = BTreeSet::new();
        let leased = self.leased.iter().filter_map(|id| self.shards.get(id));
        let mut path: Vec<&Shard> = leased.copied().collect();
        while let Some(shard) = path.pop() {
            for parent in self.listed_parents(shard) {
                if outlived.insert(parent.id.as_str()) {
                    path.push(parent);
                }
            }
        }
        outlived
    }
}

#[cfg(test)]
mod tests;
