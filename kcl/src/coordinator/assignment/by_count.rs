//! Who should own how much, by count: pure.
//!
//! Every worker computes the whole plan from what it sees and does its own part, so that workers that
//! see the same do not get in each other's way; where they see different things, the conditions of
//! the writes decide, and the next look corrects.

use std::collections::{BTreeMap, BTreeSet};

/// A lease that counts: its shard is not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ActiveLease<'a> {
    pub(crate) key: &'a str,
    /// Who owns it, or will when the pending handoff is done. `None`: it may be taken.
    pub(crate) owner: Option<&'a str>,
    /// It is on its way already.
    pub(crate) handoff_pending: bool,
    /// Nobody took it in time: anybody may.
    pub(crate) overdue: bool,
}

/// What this worker should do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Leases to take now.
    pub(crate) take: Vec<String>,
    /// Leases to hand over, and to whom.
    pub(crate) hand_over: Vec<(String, String)>,
}

/// The workers of a fleet, by what can be expected of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Workers<'a> {
    /// All that count for the balance.
    pub(crate) live: &'a BTreeSet<String>,
    /// Those that take free leases, besides the one that plans: a worker that has no room shows no row.
    pub(crate) takers: &'a BTreeSet<String>,
    /// Those that a lease may be handed to.
    pub(crate) receivers: &'a BTreeSet<String>,
}

/// Plans for worker `me`. Free leases go to the least loaded workers that take any; after
/// that, leases move from the most to the least loaded one while they differ by two or more (a difference
/// of one stays: moving it would only turn it around).
pub(crate) fn plan(
    me: &str,
    leases: &[ActiveLease<'_>],
    workers: Workers<'_>,
    max_leases: usize,
) -> Plan {
    let live = workers.live.iter();
    let mut loads: BTreeMap<&str, usize> = live.map(|worker| (worker.as_str(), 0)).collect();
    loads.entry(me).or_default();
    // Leases that their owner could start to hand over now.
    let mut movable: BTreeMap<&str, usize> = BTreeMap::new();
    for lease in leases {
        if let Some(owner) = lease.owner {
            *loads.entry(owner).or_default() += 1;
            *movable.entry(owner).or_default() += usize::from(!lease.handoff_pending);
        }
    }
    let mut plan = Plan::default();
    let mut free: Vec<_> = leases.iter().filter(|lease| lease.owner.is_none()).collect();
    free.sort_by_key(|lease| lease.key);
    // What is overdue is this worker's, as far as it has room.
    free.retain(|lease| {
        let load = loads.entry(me).or_default();
        let mine = lease.overdue && *load < max_leases;
        if mine {
            *load += 1;
            plan.take.push(lease.key.to_owned());
        }
        !mine
    });
    // Of the others, each worker's share is one block. Whatever part of its block a worker has taken when
    // another looks, the blocks of all others stay where they are: looks that catch the table half-way
    // plan no lease twice.
    let shares = shares(me, &loads, free.len(), workers.takers, max_leases);
    let takers = shares.iter().flat_map(|(worker, share)| {
        let worker: &str = worker;
        std::iter::repeat_n(worker, *share)
    });
    for (lease, taker) in free.iter().zip(takers) {
        if taker == me {
            plan.take.push(lease.key.to_owned());
        }
    }
    for (worker, share) in shares {
        *loads.entry(worker).or_default() += share;
    }
    let mut mine: Vec<&str> = leases
        .iter()
        .filter(|lease| lease.owner == Some(me) && !lease.handoff_pending)
        .map(|lease| lease.key)
        .collect();
    mine.sort_unstable();
    while let Some((donor, receiver)) = next_move(&loads, &movable, workers.receivers) {
        *loads.entry(donor).or_default() -= 1;
        *movable.entry(donor).or_default() -= 1;
        *loads.entry(receiver).or_default() += 1;
        if donor == me
            && let Some(key) = mine.pop()
        {
            plan.hand_over.push((key.to_owned(), receiver.to_owned()));
        }
    }
    plan
}

/// How many of `free` leases each worker takes: each goes to the least loaded one that takes any.
fn shares<'a>(
    me: &str,
    loads: &BTreeMap<&'a str, usize>,
    free: usize,
    takers: &BTreeSet<String>,
    max_leases: usize,
) -> BTreeMap<&'a str, usize> {
    let takes = |worker: &str| worker == me || takers.contains(worker);
    let mut by_load: BTreeSet<(usize, &str)> = loads
        .iter()
        .filter(|(worker, _)| takes(worker))
        .map(|(worker, load)| (*load, *worker))
        .collect();
    let mut shares = BTreeMap::new();
    for _ in 0..free {
        // This worker knows its own limit; the others show by their rows whether they take any.
        let has_room = |(load, worker): &(usize, &str)| *worker != me || *load < max_leases;
        let Some((load, worker)) = by_load.pop_first() else {
            break;
        };
        if !has_room(&(load, worker)) {
            continue;
        }
        *shares.entry(worker).or_default() += 1;
        by_load.insert((load + 1, worker));
    }
    shares
}

fn next_move<'a>(
    loads: &BTreeMap<&'a str, usize>,
    movable: &BTreeMap<&'a str, usize>,
    receivers: &BTreeSet<String>,
) -> Option<(&'a str, &'a str)> {
    let (donor, most) = loads
        .iter()
        .filter(|(worker, _)| movable.get(**worker).is_some_and(|count| *count > 0))
        .max_by_key(|(worker, load)| (**load, **worker))?;
    let (receiver, least) = loads
        .iter()
        .filter(|(worker, _)| receivers.contains(**worker))
        .min_by_key(|(worker, load)| (**load, **worker))?;
    (*most >= least + 2).then_some((*donor, *receiver))
}

/// The moves that two consecutive plans agree on: a single look may have caught the table half-way.
pub(crate) fn agreed(previous: &Plan, latest: &Plan) -> Vec<(String, String)> {
    let both = latest.hand_over.iter().filter(|movement| previous.hand_over.contains(movement));
    both.cloned().collect()
}

#[cfg(test)]
mod tests;
