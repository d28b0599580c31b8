//! Decides which shards need a lease, by the graph of splits and merges. Pure.
//!
//! A shard waits for its parents, so leases are created for the oldest shards that must be read. The
//! descendants of a shard with a lease get theirs when their parents end.

use std::collections::{BTreeMap, BTreeSet};

use kinesis_aggregation::HashKeyRange;

use super::lease_start::LeaseStart;
use super::list::Shard;
use crate::checkpoint::Checkpoint;
use crate::config::StreamPosition;
use crate::lease::Lease;

/// A lease to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewLease<'a> {
    pub(super) shard: &'a Shard,
    pub(super) start: LeaseStart,
}

/// Returns the leases that are missing, oldest shard first. `shards` are all that the stream lists.
///
/// `unreadable`: keys of lease items that exist and cannot be read.
pub(super) fn missing_leases<'a>(
    shards: &'a [Shard],
    leases: &[Lease],
    unreadable: &[&str],
    position: StreamPosition,
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
        from_the_start: !matches!(position, StreamPosition::Latest),
        reached: BTreeMap::new(),
        new: BTreeMap::new(),
        below: LeaseStart::below(position),
        initial: LeaseStart::from(position),
    };
    for shard in shards.iter().filter(|shard| shard.open) {
        if !graph.leased.contains(shard.id.as_str()) && !graph.reach(shard) {
            let initial = graph.initial.clone();
            graph.new.entry(shard.id.as_str()).or_insert(initial);
        }
    }
    graph.children_of_ended_shards(leases);
    let mut new: Vec<_> = graph
        .new
        .into_iter()
        .filter_map(|(id, start)| Some(NewLease { shard: graph.shards.get(id)?, start }))
        .collect();
    new.sort_by(|a, b| a.shard.starting_sequence.cmp(&b.shard.starting_sequence));
    new
}

struct Graph<'a, 'l> {
    shards: BTreeMap<&'a str, &'a Shard>,
    leased: BTreeSet<&'l str>,
    /// Hash keys of shards that have a lease and that the stream lists no more. `None`: unknown, so any.
    left_the_stream: Vec<Option<HashKeyRange>>,
    /// True if the start position covers records of closed shards.
    from_the_start: bool,
    /// For each shard visited, whether the lease of an ancestor leads to it.
    reached: BTreeMap<&'a str, bool>,
    new: BTreeMap<&'a str, LeaseStart>,
    /// Start of a shard whose ancestor is processed first.
    below: LeaseStart,
    initial: LeaseStart,
}

impl<'a, 'l> Graph<'a, 'l> {
    fn listed_parents(&self, shard: &'a Shard) -> Vec<&'a Shard> {
        shard.parents.iter().filter_map(|id| self.shards.get(id.as_str()).copied()).collect()
    }

    /// Returns whether the shard will get its lease when an ancestor ends: the shard or an ancestor has a
    /// lease, or gets one here. Adds the missing leases of the ancestors in between.
    fn reach(&mut self, shard: &'a Shard) -> bool {
        // Parents come first. There is no recursion, because lineages grow with the age of the stream.
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

    /// Judges a shard without a lease, after its parents.
    fn judge(&mut self, shard: &'a Shard) {
        let parents = self.listed_parents(shard);
        // If reading starts at the trim horizon, a line begins at a shard to which no lease leads.
        let begins_a_line =
            |graph: &Self, id: &str| graph.from_the_start && graph.reached.get(id) == Some(&false);
        let covered = |graph: &Self, id: &str| {
            graph.reached.get(id) == Some(&true) || begins_a_line(graph, id)
        };
        // A parent that has a lease counts, even if the stream does not list it any more.
        let mut reached =
            shard.parents.iter().any(|id| self.leased.contains(id.as_str()) || covered(self, id));
        if !reached && self.follows_a_forgotten_lease(shard) {
            // The end of no lease creates this one any more.
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
            let start = if covered(self, id) { &self.below } else { &self.initial }.clone();
            if begins_a_line(self, id) || !covered(self, id) {
                self.new.insert(id, start);
            }
        }
    }

    /// Returns whether an ancestor has a lease, and has left the stream together with the shards in between.
    /// Then the records of that line that the stream still keeps were not read.
    fn follows_a_forgotten_lease(&self, shard: &Shard) -> bool {
        let listed = |id: &String| self.shards.contains_key(id.as_str());
        let overlaps = |range: &Option<HashKeyRange>| {
            let keys = shard.hash_key_range;
            range.is_none_or(|range| range.start() <= keys.end() && keys.start() <= range.end())
        };
        !shard.parents.iter().all(listed) && self.left_the_stream.iter().any(overlaps)
    }

    /// Adds the missing leases of the children of finished shards. A finished lease is not deleted before its
    /// children have leases. They are missing if the owner of the parent learned of no children at its end. The
    /// child of a merge waits for the leases of both parents, so its own is created after them.
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
                self.new.insert(id, LeaseStart::new(Checkpoint::TrimHorizon));
            }
        }
    }

    /// Returns the shards of which a descendant has a lease. Without a lease of their own they are finished, even
    /// if a parent has a lease, because Java deletes the lease of a finished shard before those of its parents.
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
