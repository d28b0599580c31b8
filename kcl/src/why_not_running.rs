//! Diagnosis of a shard that this worker does not process.

use std::fmt;
use std::time::Duration;

use crate::checkpoint::Checkpoint;
use crate::health::{Problem, ProblemKind, ProblemLog};
use crate::lease_table::{LeaseSnapshot, LeaseTableSnapshot};
#[cfg(feature = "serde")]
use crate::millis;
use crate::shard_state::{ShardState, ShutdownReason};
use crate::snapshot::ShardSnapshot;

/// Reason for which a worker does not process a shard, as far as the worker knows. [`Display`](fmt::Display) also says what to do,
/// if anything can be done.
///
/// [`WorkerHandle::why_not_running`](crate::WorkerHandle::why_not_running) returns it. Durations are those that this worker
/// observed: they begin at its start at the earliest, and are as precise as its scans of the lease table are frequent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum WhyNotRunning {
    /// The worker has stopped. It processes nothing and no longer scans the lease table.
    WorkerStopped,
    /// The worker has not read the lease table since it started.
    NotKnownYet,
    /// The lease table cannot be read or written, so the worker cannot find, take or renew leases. Leases that it holds are lost
    /// after the [`failover_time`](crate::ConsumerConfig::failover_time).
    LeaseTableUnreachable {
        /// Time since the first failure.
        #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
        since: Duration,
        /// The latest failure.
        error: String,
    },
    /// The shard has no lease, and the stream's shards cannot be compared with the lease table.
    ShardSyncFailing {
        /// Time since the first failure.
        #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
        since: Duration,
        /// The latest failure.
        error: String,
    },
    /// The lease names this worker, but another live process with the same
    /// [`worker_id`](crate::ConsumerConfig::worker_id) holds it.
    LeasedByAnotherProcess {
        /// Time since that process was first seen.
        #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
        since: Duration,
    },
    /// The shard has no lease. A child shard gets its lease when its parents are finished.
    NotListed,
    /// The item of its lease cannot be read.
    CorruptItem {
        /// What is wrong with the item.
        problem: String,
    },
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
    /// This worker holds the lease, and the runtime of its processors has run nothing for longer than the
    /// [`failover_time`](crate::ConsumerConfig::failover_time).
    RuntimeBlocked,
    /// The processor is being initialised.
    Starting,
    /// The processor returns errors, and the worker repeats the same call.
    Failing {
        /// Failures in a row.
        failures: u32,
        /// Last error.
        error: String,
    },
    /// A call of the processor takes longer than
    /// [`log_warning_for_task_after`](crate::ConsumerConfig::log_warning_for_task_after).
    SlowCall {
        /// Method of [`RecordProcessor`](crate::RecordProcessor).
        call: &'static str,
        /// Time since the call began.
        #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
        since: Duration,
    },
    /// The shard cannot be read, and the worker repeats the read.
    ReadsFailing {
        /// Failures in a row.
        failures: u32,
        /// Cause of the last failure, and what to do.
        error: String,
    },
    /// Records expired before they were read, and [`on_trimmed_gap`](crate::ConsumerConfig::on_trimmed_gap) stops the shard.
    RecordsTrimmed {
        /// What is known of the gap.
        gap: String,
    },
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
    /// Whether the runtime of its processors runs nothing.
    pub(crate) is_blocked: bool,
    /// Whether it holds as many leases as it may.
    pub(crate) at_limit: bool,
    /// Duration above which a processor call is slow.
    pub(crate) slow_after: Option<Duration>,
    /// Whether a shard whose records expired unread stops.
    pub(crate) stops_at_gaps: bool,
    /// Problems that are there now.
    pub(crate) problems: &'a ProblemLog,
    /// Its own ownership of the shard.
    pub(crate) own: Option<ShardSnapshot>,
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
    match &asker.own {
        Some(own) if own.state != ShardState::Done && asker.is_blocked => {
            Some(WhyNotRunning::RuntimeBlocked)
        }
        Some(own) if own.state != ShardState::Done => within(own, asker, table),
        _ => Some(elsewhere(shard_id, asker, table)),
    }
}

/// The worker has the lease, and a consumer runs.
fn within(
    own: &ShardSnapshot,
    asker: &Asker<'_>,
    table: Option<&LeaseTableSnapshot>,
) -> Option<WhyNotRunning> {
    let slow = |running_for| asker.slow_after.is_some_and(|limit| running_for >= limit);
    if let Some(call) = own.call.as_ref().filter(|call| slow(call.running_for)) {
        return Some(WhyNotRunning::SlowCall { call: call.name, since: call.running_for });
    }
    if let ShardState::ShuttingDown(reason) = own.state
        && (own.failures == 0 || reason == ShutdownReason::LeaseLost)
    {
        return Some(WhyNotRunning::ShuttingDown { reason });
    }
    if own.failures > 0 {
        return Some(WhyNotRunning::Failing {
            failures: own.failures,
            error: own.last_failure.clone().unwrap_or_default(),
        });
    }
    match own.state {
        ShardState::WaitingOnParents => {
            let lease = table.and_then(|table| find(table, &own.shard_id));
            let parents = lease.zip(table);
            Some(WhyNotRunning::WaitsForParents {
                parents: parents
                    .map(|(lease, table)| unfinished_parents(lease, table))
                    .unwrap_or_default(),
                owner: Some(asker.worker_id.to_owned()),
            })
        }
        ShardState::Initializing => Some(WhyNotRunning::Starting),
        ShardState::Processing if asker.stops_at_gaps && own.records_trimmed.is_some() => {
            Some(WhyNotRunning::RecordsTrimmed {
                gap: own.records_trimmed.clone().unwrap_or_default(),
            })
        }
        ShardState::Processing if own.read_failures > 0 => Some(WhyNotRunning::ReadsFailing {
            failures: own.read_failures,
            error: own.last_read_failure.clone().unwrap_or_default(),
        }),
        _ => None,
    }
}

fn elsewhere(
    shard_id: &str,
    asker: &Asker<'_>,
    table: Option<&LeaseTableSnapshot>,
) -> WhyNotRunning {
    let problem = |kind| asker.problems.find(kind, None);
    let unreachable = problem(ProblemKind::LeaseTableFailing).map(unreachable);
    let Some(table) = table else {
        return unreachable.unwrap_or(WhyNotRunning::NotKnownYet);
    };
    if let Some(item) = table.corrupt.iter().find(|item| item.key == shard_id) {
        return WhyNotRunning::CorruptItem { problem: item.problem.clone() };
    }
    let Some(lease) = find(table, shard_id) else {
        let failing = problem(ProblemKind::ShardSyncFailing);
        return unreachable
            .or_else(|| failing.map(sync_failing))
            .unwrap_or(WhyNotRunning::NotListed);
    };
    if lease.checkpoint == Checkpoint::ShardEnd {
        return WhyNotRunning::Finished { children: lease.children.clone() };
    }
    // What the table said of the owner before it could not be read any more need not be so now.
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
        return self::unreachable(failing);
    }
    match &lease.owner {
        None => WhyNotRunning::Unassigned { since: lease.owned_for, at_limit: asker.at_limit },
        Some(owner) if owner == asker.worker_id && asker.is_blocked => {
            WhyNotRunning::RuntimeBlocked
        }
        Some(owner) if owner == asker.worker_id => match problem(ProblemKind::DuplicateWorkerId) {
            Some(other) => WhyNotRunning::LeasedByAnotherProcess { since: other.since },
            None => WhyNotRunning::WaitsForFormerOwner,
        },
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

fn unreachable(problem: Problem) -> WhyNotRunning {
    WhyNotRunning::LeaseTableUnreachable { since: problem.since, error: problem.cause }
}

fn sync_failing(problem: Problem) -> WhyNotRunning {
    WhyNotRunning::ShardSyncFailing { since: problem.since, error: problem.cause }
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
            Self::LeaseTableUnreachable { since, error } => write!(
                f,
                "this worker has not been able to read or write the lease table for {since:.1?} \
                 ({error}): check DynamoDB, the network and the permissions; it goes on by itself"
            ),
            Self::ShardSyncFailing { since, error } => write!(
                f,
                "it has no lease, and the stream's shards could not be compared with the lease table \
                 for {since:.1?} ({error}): check the permission kinesis:ListShards, and DynamoDB"
            ),
            Self::LeasedByAnotherProcess { since } => write!(
                f,
                "another live process uses this worker's id and has it, as seen for {since:.1?}: give \
                 each process a worker_id of its own"
            ),
            Self::NotListed => f.write_str(
                "it has no lease: a shard that was split or merged from others gets one when those are \
                 finished, any other with the next shard sync (shard_sync_interval), and a finished one \
                 is cleaned up; if none of these, check the shard's id",
            ),
            Self::CorruptItem { problem } => write!(
                f,
                "its lease item cannot be read ({problem}): repair the item (deleted, it is made anew \
                 without a checkpoint)"
            ),
            Self::Finished { children } if children.is_empty() => {
                f.write_str("it was processed to its end: there is nothing to do")
            }
            Self::Finished { children } => write!(
                f,
                "it was processed to its end and goes on in {}: there is nothing to do",
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
                "it was given to this worker, which starts on it as soon as no former owner can be at \
                 work: within the failover time",
            ),
            Self::RuntimeBlocked => f.write_str(
                "this worker has it, and the runtime of its processors runs nothing: blocking code has \
                 all threads; move it to spawn_blocking, or drive a current-thread runtime",
            ),
            Self::Starting => f.write_str(
                "its processor is being made and initialised: if it stays so, initialize() does not \
                 return",
            ),
            Self::Failing { failures, error } => write!(
                f,
                "its processor has failed {failures} times in a row and gets the same call again: \
                 mend the cause ({error})"
            ),
            Self::SlowCall { call, since } => write!(
                f,
                "its processor has not returned from {call} for {since:.1?}: look for what it waits for"
            ),
            Self::ReadsFailing { failures, error } => write!(
                f,
                "it cannot be read: {failures} reads in a row have failed ({error}); they are tried again"
            ),
            Self::RecordsTrimmed { gap } => write!(
                f,
                "it stands still: {gap}; to go on behind the gap, set on_trimmed_gap to continue and restart \
                 the worker"
            ),
            Self::ShuttingDown { reason } => write!(
                f,
                "this worker is giving it up ({reason:?}): if it stays so, the processor does not \
                 return"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
