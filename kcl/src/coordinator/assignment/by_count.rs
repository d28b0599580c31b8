//! Assigns leases by their number. Pure.
//!
//! Every worker computes the plan of the whole fleet and carries out its own part. Workers that see
//! the same table then do not take the same leases. Workers that see it differently may: then the
//! conditions of the writes decide, and the next scan corrects the plan.

use std::collections::{BTreeMap, BTreeSet};

use super::{AssignmentInput, Plan};

/// Plans for the worker `input.me`. Free leases go to the workers with the fewest leases. Then
/// leases move from the worker with the most to the one with the fewest, while these differ by two
/// or more. A difference of one stays, because a move would only reverse it.
pub(super) fn plan(input: AssignmentInput<'_>) -> Plan {
    let AssignmentInput { me, max_leases, leases, workers } = input;
    let live = workers.live.iter();
    let mut loads: BTreeMap<&str, usize> = live.map(|worker| (worker.as_str(), 0)).collect();
    loads.entry(me).or_default();
    // Leases of each worker that it could begin to hand over now.
    let mut movable: BTreeMap<&str, usize> = BTreeMap::new();
    for lease in leases {
        if let Some(owner) = lease.owner {
            *loads.entry(owner).or_default() += 1;
            *movable.entry(owner).or_default() += usize::from(!lease.is_handoff_pending);
        }
    }
    let mut plan = Plan::default();
    let mut free: Vec<_> = leases.iter().filter(|lease| lease.owner.is_none()).collect();
    free.sort_by_key(|lease| lease.key);
    // This worker takes overdue leases as far as it has room.
    free.retain(|lease| {
        let load = loads.entry(me).or_default();
        let is_mine = lease.is_overdue && *load < max_leases;
        if is_mine {
            *load += 1;
            plan.take.push(lease.key.to_owned());
        }
        !is_mine
    });
    // Each worker's share of the rest is one block, in the order of the workers. When a scan shows
    // that another worker has taken a part of its block, the blocks of all other workers stay where
    // they are. So no two workers plan the same lease.
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
        .filter(|lease| lease.owner == Some(me) && !lease.is_handoff_pending)
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

/// How many of `free` leases each worker takes. Each lease goes to the worker with the fewest that
/// takes any.
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
    let mut free = free;
    while free > 0
        && let Some((load, worker)) = by_load.pop_first()
    {
        // This worker knows its own limit. The other workers show by their heartbeats whether they
        // have room.
        if worker == me && load >= max_leases {
            continue;
        }
        free -= 1;
        *shares.entry(worker).or_default() += 1;
        by_load.insert((load + 1, worker));
    }
    shares
}

/// The donor and the receiver of the next lease that moves. `None`: the loads differ by one at
/// most.
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

#[cfg(test)]
mod tests;
