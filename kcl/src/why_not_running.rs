//! Diagnosis of a shard that this worker does not process.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_smithy_types::DateTime;

use crate::checkpoint::Checkpoint;
#[cfg(feature = "serde")]
use crate::config::timestamp;
use crate::health::{Problem, ProblemKind, ProblemLog};
use crate::lease_table::{LeaseSnapshot, LeaseTableSnapshot};
#[cfg(feature = "serde")]
use crate::millis;
use crate::shard_state::{ShardState, ShutdownReason};

/// Reason for which a worker does not process a shard, as far as the worker knows. [`Display`](fmt::Display) also says
/// what to do, if anything can be done.
///
/// [`WorkerHandle::why_not_running`](crate::WorkerHandle::why_not_running) returns it. Durations are those that this
/// worker observed: they begin at its start at the earliest, and are as precise as its scans of the lease table are
/// frequent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum WhyNotRunning {
    /// The worker has stopped. It processes nothing and no longer scans the lease table.
    WorkerStopped,
    /// The worker has not read the lease table since it started.
    NotKnownYet,
    /// Something fails, and the worker repeats it: a call to the lease table, the shard sync, the reads or the
    /// processor of the shard. [`kind`](Problem::kind) tells what. [`health`](crate::WorkerHandle::health) reports the
    /// same problem.
    Problem(Problem),
    /// The shard has no lease. A child shard gets its lease when its parents are finished.
    NotListed,
    /// The shard was processed to its end.
    Finished {
        /// Ids of its child shards.
        children: Vec<String>,
    },
    /// Its parents are not finished. A child starts after its parents, so that the records of a key stay in order.
    WaitsForParents {
        /// Ids of the parents that are not finished.
        parents: Vec<String>,
        /// Worker that holds the lease and waits.
        owner: Option<String>,
    },
    /// This worker processed all its records up to [`until`](crate::ConsumerConfig::until), and keeps its lease.
    ReachedUntil,
    /// This worker holds its lease and waits, because the shard starts at a time in the future.
    WaitsForStart {
        /// That time.
        #[cfg_attr(feature = "serde", serde(with = "timestamp"))]
        time: SystemTime,
    },
    /// A handoff of its lease from one worker to another is pending.
    HandoffPending {
        /// Worker that still processes the shard.
        from: String,
        /// Worker that gets the lease.
        to: String,
    },
    /// No worker holds its lease.
    Unassigned {
        /// Time for which no worker held it.
        #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
        since: Duration,
        /// Whether this worker holds as many leases as it may.
        at_limit: bool,
    },
    /// Another worker processes the shard.
    LeasedBy {
        /// Id of that worker.
        worker: String,
        /// Time for which that worker has held the lease.
        #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
        since: Duration,
        /// Time since its last renewal of the lease.
        #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
        heartbeat_age: Duration,
    },
    /// Another worker holds the lease and does not renew it.
    OwnerSilent {
        /// Id of that worker.
        worker: String,
        /// Time since its last renewal of the lease.
        #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
        heartbeat_age: Duration,
    },
    /// The lease names this worker, which does not process the shard yet because a former owner may still be at work.
    WaitsForFormerOwner,
    /// The processor is being initialised.
    Starting,
    /// The application has [paused](crate::WorkerHandle::pause) the shard.
    Paused,
    /// The worker is giving the shard up.
    ShuttingDown {
        /// Reason.
        reason: ShutdownReason,
    },
}

/// What the worker knows besides its last scan of the lease table.
pub(crate) struct Asker<'a> {
    pub(crate) worker_id: &'a str,
    pub(crate) failover: Duration,
    pub(crate) has_stopped: bool,
    /// Whether it holds as many leases as it may.
    pub(crate) at_limit: bool,
    /// Whether a shard whose records expired unread stops.
    pub(crate) stops_at_gaps: bool,
    /// The present problems.
    pub(crate) problems: &'a ProblemLog,
    /// State of its own consumer of the shard.
    pub(crate) own: Option<ShardState>,
    /// Whether the application has paused it.
    pub(crate) is_paused: bool,
    /// The time in the future at which the shard starts.
    pub(crate) starts_at: Option<SystemTime>,
}

/// Returns why this worker does not process a shard, or `None` if it does.
pub(crate) fn why_not_running(
    shard_id: &str,
    asker: &Asker<'_>,
    table: Option<&LeaseTableSnapshot>,
) -> Option<WhyNotRunning> {
    if asker.has_stopped {
        return Some(WhyNotRunning::WorkerStopped);
    }
    match asker.own {
        Some(state) if state != ShardState::Done => within(shard_id, state, asker, table),
        _ => Some(elsewhere(shard_id, asker, table)),
    }
}

/// The worker has the lease, and a consumer runs.
fn within(
    shard_id: &str,
    state: ShardState,
    asker: &Asker<'_>,
    table: Option<&LeaseTableSnapshot>,
) -> Option<WhyNotRunning> {
    let of_shard = |kind| asker.problems.find(kind, Some(shard_id)).map(WhyNotRunning::Problem);
    let blocked = asker.problems.find(ProblemKind::RuntimeBlocked, None);
    let stuck = || of_shard(ProblemKind::ProcessorStuck);
    if let Some(problem) = blocked.map(WhyNotRunning::Problem).or_else(stuck) {
        return Some(problem);
    }
    let waits_for_sink = || of_shard(ProblemKind::DeadLettersFailing);
    let stopped = of_shard(ProblemKind::ShardStopped).or_else(waits_for_sink);
    let failing = of_shard(ProblemKind::ProcessorFailing).filter(|_| stopped.is_none());
    match state {
        ShardState::ShuttingDown(reason @ ShutdownReason::LeaseLost) => {
            Some(WhyNotRunning::ShuttingDown { reason })
        }
        _ if failing.is_some() => failing,
        ShardState::ShuttingDown(reason) => Some(WhyNotRunning::ShuttingDown { reason }),
        ShardState::WaitingOnParents => {
            let lease = table.and_then(|table| Some((find(table, shard_id)?, table)));
            Some(WhyNotRunning::WaitsForParents {
                parents: lease
                    .map(|(lease, table)| unfinished_parents(lease, table))
                    .unwrap_or_default(),
                owner: Some(asker.worker_id.to_owned()),
            })
        }
        ShardState::WaitingForStart => Some(match asker.starts_at {
            Some(time) => WhyNotRunning::WaitsForStart { time },
            None => WhyNotRunning::Starting,
        }),
        ShardState::Initializing => Some(WhyNotRunning::Starting),
        ShardState::Processing if asker.is_paused => Some(WhyNotRunning::Paused),
        ShardState::Processing if stopped.is_some() => stopped,
        ShardState::Processing => {
            let gap = asker.stops_at_gaps.then(|| of_shard(ProblemKind::RecordsTrimmed)).flatten();
            gap.or_else(|| of_shard(ProblemKind::ReadsFailing))
        }
        ShardState::Finished => Some(WhyNotRunning::ReachedUntil),
        ShardState::Done => None,
    }
}

fn elsewhere(
    shard_id: &str,
    asker: &Asker<'_>,
    table: Option<&LeaseTableSnapshot>,
) -> WhyNotRunning {
    let problem = |kind| asker.problems.find(kind, None).map(WhyNotRunning::Problem);
    let unreachable = problem(ProblemKind::LeaseTableFailing);
    let Some(table) = table else {
        return unreachable.unwrap_or(WhyNotRunning::NotKnownYet);
    };
    if let Some(corrupt) = asker.problems.find(ProblemKind::CorruptLease, Some(shard_id)) {
        return WhyNotRunning::Problem(corrupt);
    }
    let Some(lease) = find(table, shard_id) else {
        return unreachable
            .or_else(|| problem(ProblemKind::ShardSyncFailing))
            .unwrap_or(WhyNotRunning::NotListed);
    };
    if lease.checkpoint == Checkpoint::ShardEnd {
        return WhyNotRunning::Finished { children: lease.children.clone() };
    }
    // The owner may have changed since the table could last be read.
    if let Some(unreachable) = unreachable {
        return unreachable;
    }
    if let (Some(from), Some(to)) = (&lease.owner, &lease.pending_owner) {
        return WhyNotRunning::HandoffPending { from: from.clone(), to: to.clone() };
    }
    let heartbeat_age = lease.heartbeat_age;
    let is_own = lease.owner.as_deref().is_none_or(|owner| owner == asker.worker_id);
    if is_own
        && !asker.at_limit
        && let Some(failing) = problem(ProblemKind::LeaseAcquisitionFailing)
    {
        return failing;
    }
    match &lease.owner {
        None => WhyNotRunning::Unassigned { since: lease.owned_for, at_limit: asker.at_limit },
        Some(owner) if owner == asker.worker_id => problem(ProblemKind::RuntimeBlocked)
            .or_else(|| problem(ProblemKind::DuplicateWorkerId))
            .unwrap_or(WhyNotRunning::WaitsForFormerOwner),
        // The age at the last scan. The worker has learned nothing since.
        Some(worker) if heartbeat_age.saturating_sub(table.age) > asker.failover => {
            WhyNotRunning::OwnerSilent { worker: worker.clone(), heartbeat_age }
        }
        Some(worker) => {
            let parents = unfinished_parents(lease, table);
            if parents.is_empty() {
                WhyNotRunning::LeasedBy {
                    worker: worker.clone(),
                    since: lease.owned_for,
                    heartbeat_age,
                }
            } else {
                WhyNotRunning::WaitsForParents { parents, owner: lease.owner.clone() }
            }
        }
    }
}

fn find<'a>(table: &'a LeaseTableSnapshot, shard_id: &str) -> Option<&'a LeaseSnapshot> {
    table.leases.iter().find(|lease| lease.shard_id == shard_id)
}

/// A parent without a lease is finished. A parent whose lease cannot be read counts as not finished.
fn unfinished_parents(lease: &LeaseSnapshot, table: &LeaseTableSnapshot) -> Vec<String> {
    let unfinished = |parent: &&String| {
        find(table, parent).is_some_and(|lease| lease.checkpoint != Checkpoint::ShardEnd)
            || table.corrupt.iter().any(|item| item.key == **parent)
    };
    lease.parents.iter().filter(unfinished).cloned().collect()
}

impl fmt::Display for WhyNotRunning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WorkerStopped => f.write_str(
                "this worker has stopped: start one, or ask a worker that runs",
            ),
            Self::NotKnownYet => f.write_str(
                "this worker has not read the lease table yet: ask again in a second; if it stays so, \
                 look at the log for errors of DynamoDB",
            ),
            Self::Problem(problem) => problem.fmt(f),
            Self::NotListed => f.write_str(
                "it has no lease: the child of a split or merge gets one when its parents are finished, any \
                 other shard with the next shard sync (shard_sync_interval), and the lease of a finished shard \
                 is deleted; if none of these applies, check the shard's id",
            ),
            Self::Finished { children } if children.is_empty() => {
                f.write_str("it was processed to its end, so there is nothing to do")
            }
            Self::Finished { children } => write!(
                f,
                "it was processed to its end and continues in {}, so there is nothing to do",
                children.join(" and ")
            ),
            Self::WaitsForParents { parents, owner } => {
                match owner {
                    Some(owner) => write!(f, "worker {owner} has it and waits")?,
                    None => f.write_str("it waits")?,
                }
                if parents.is_empty() {
                    return f.write_str(" for its parents to be looked up");
                }
                write!(
                    f,
                    " until its parents are finished ({0}): ask why {0} is not, if that takes long",
                    parents.join(" and ")
                )
            }
            Self::ReachedUntil => f.write_str(
                "this worker processed it up to the bound of the replay (until), so there is nothing to do",
            ),
            Self::WaitsForStart { time } => write!(
                f,
                "this worker has it and waits until {}, when it starts: if that is too late, correct \
                 initial_position, and reset the lease",
                DateTime::from(*time)
            ),
            Self::HandoffPending { from, to } => write!(
                f,
                "it is on its way from worker {from} to worker {to}: it starts there when {from} has \
                 checkpointed, within half a minute"
            ),
            Self::Unassigned { since, at_limit } => {
                write!(f, "no worker has held its lease for {since:.1?}: ")?;
                f.write_str(if *at_limit {
                    "this worker has max_leases already; raise that, or add a worker"
                } else {
                    "a worker takes it within seconds; if not, check max_leases, and the log for \
                     errors of DynamoDB"
                })
            }
            Self::LeasedBy {
                worker,
                since,
                heartbeat_age,
            } => write!(
                f,
                "worker {worker} has had it for {since:.1?} and renewed it {heartbeat_age:.1?} ago: \
                 ask that worker"
            ),
            Self::OwnerSilent {
                worker,
                heartbeat_age,
            } => write!(
                f,
                "worker {worker} has it and has not renewed it for {heartbeat_age:.1?}: another takes \
                 it over within seconds; if not, check that failover_time is the same in all workers"
            ),
            Self::WaitsForFormerOwner => f.write_str(
                "it was assigned to this worker, which starts on it as soon as no former owner can be at \
                 work: within the failover time",
            ),
            Self::Starting => f.write_str(
                "its processor is being created and initialised: if that lasts, initialize() does not \
                 return",
            ),
            Self::Paused => f.write_str("the application has paused it: resume it"),
            Self::ShuttingDown { reason } => write!(
                f,
                "this worker is giving it up ({reason:?}): if that lasts, the processor does not \
                 return"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
