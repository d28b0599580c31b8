//! Which leases this worker should take, and which it should hand over.
//!
//! With a live leader, free leases and the balance of the fleet are the leader's: a worker takes a
//! free lease only after the leader has missed two of its passes. What does a worker do when the
//! leader is silent, or when there is none? It assigns for itself, from its own scan: it takes its
//! share of the free leases, and hands over what it holds too much. All workers compute the same
//! plan for the whole fleet, and each carries out its own part.
//!
//! Where would a second way to assign leases go? Beside [`by_count`], as another function from
//! [`AssignmentInput`] to [`Plan`]. [`Assignment::plan`](task::Assignment::plan) calls
//! `by_count::plan` today, and would choose. A way that assigns by load needs the load of leases and
//! workers in the input. Taking and handing over stay the same. `next_receiver` of the fleet view's workers chooses
//! the worker that gets a lease which is passed on, and counts leases too: it changes with the plan.

mod by_count;
mod task;

use std::collections::BTreeSet;
use std::time::Duration;

pub(super) use self::task::Assignment;

/// What a way to assign leases knows of the fleet.
#[derive(Debug, Clone, Copy)]
struct AssignmentInput<'a> {
    /// The worker that plans.
    me: &'a str,
    /// The most leases that it may hold.
    max_leases: usize,
    leases: &'a [ActiveLease<'a>],
    workers: FleetWorkers<'a>,
}

/// A lease whose shard is not finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ActiveLease<'a> {
    key: &'a str,
    /// The owner; in a pending handoff, the next owner. `None`: the lease may be taken.
    owner: Option<&'a str>,
    is_handoff_pending: bool,
    /// The worker whose share it is part of did not take it in time, so any worker may.
    is_overdue: bool,
}

/// The workers of the fleet, by what they can do with a lease.
#[derive(Debug, Clone, Copy)]
struct FleetWorkers<'a> {
    /// Workers that count for the balance.
    live: &'a BTreeSet<String>,
    /// Workers that take free leases, besides the one that plans. A worker without room shows no
    /// heartbeat.
    takers: &'a BTreeSet<String>,
    /// Workers that a lease may be handed to.
    receivers: &'a BTreeSet<String>,
}

/// What this worker should do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Leases to take now, by key.
    pub(super) take: Vec<String>,
    /// Leases to hand over, and the worker to hand each to.
    pub(super) hand_over: Vec<(String, String)>,
}

impl Plan {
    /// The handoffs that the plan before this one contains, too. A single scan may show the table
    /// while it changes.
    fn handoffs_agreed_with(&self, previous: &Self) -> Vec<(String, String)> {
        let both = self.hand_over.iter().filter(|handoff| previous.hand_over.contains(handoff));
        both.cloned().collect()
    }
}

/// Time for which a free lease is left to the worker whose share it is part of. Then any worker
/// takes it.
const OVERDUE: Duration = Duration::from_secs(3);

/// Time for which a free lease is left to a live Java leader: the longer of three failover times
/// and two of the leader's assignment intervals, and up to half an interval more.
///
/// The interval is not stored in the table, so Java's default is assumed: two failover times. Two
/// intervals let the leader miss a pass. `jitter`, from 0 to 1, is each worker's own, so that
/// workers do not take at the same time leases that became free at the same time.
fn left_to_leader(failover: Duration, jitter: f64) -> Duration {
    let interval = failover * 2;
    (failover * 3).max(interval * 2) + interval.mul_f64(jitter / 2.0)
}
