//! Why a shard is not being processed by this worker.

use std::fmt;
use std::time::Duration;

use crate::checkpoint::Checkpoint;
use crate::health::{Problem, ProblemKind, ProblemLog};
use crate::lease_table::{LeaseSnapshot, LeaseTableSnapshot};
#[cfg(feature = "serde")]
use crate::millis;
use crate::shard_state::{ShardState, ShutdownReason};
use crate::snapshot::ShardSnapshot;

/// Why a worker is not processing a shard, as far as it knows. The text says what to do, if there is
/// anything to do.
///
/// Answered by [`WorkerHandle::why_not_running`](crate::WorkerHandle::why_not_running). Times are as
/// this worker saw them: since it started, and at the grain of its looks at the lease table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum WhyNotRunning {
    /// The worker has stopped: it processes nothing and does not look at the table any more.
    WorkerStopped,
    /// The worker has not read the lease table since it started.
    NotKnownYet,
    /// The lease table cannot be read or written: the worker can neither find nor take nor keep leases. Those that it
    /// had are lost after the [`failover_time`](crate::ConsumerConfig::failover_time).
    LeaseTableUnreachable {
        /// For how long.
        since: Duration,
        /// The latest failure.
        error: String,
    },
    /// The shard has no lease, and shards cannot be compared with the lease table.
    ShardSyncFailing {
        /// For how long.
        since: Duration,
        /// The latest failure.
        error: String,
    },
    /// The lease is this worker's by name, and another live process that uses the same
    /// [`worker_id`](crate::ConsumerConfig::worker_id) has it.
    LeasedByAnotherProcess {
        /// For how long that process has been seen.
        since: Duration,
    },
    /// The shard has no lease. A shard that was split or merged from others gets one when those are
    /// finished.
    NotListed,
    /// Its lease item can not be read.
    CorruptItem {
        /// What is wrong with it.
        problem: String,
    },
    /// It was processed to its end.
    Finished {
        /// The shards that follow it, by id.
        children: Vec<String>,
    },
    /// Its parents are not finished: a child starts behind them, so that records of a key stay in
    /// order.
    WaitsForParents {
        /// The parents that are not finished, by id.
        parents: Vec<String>,
        /// The worker that waits.
        owner: Option<String>,
    },
    /// Its lease is on its way from one worker to another.
    HandoffPending {
        /// The worker that still processes it.
        from: String,
        /// The worker that gets it.
        to: String,
    },
    /// Nobody has its lease.
    Unassigned {
        /// For how long.
        #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
        since: Duration,
        /// This worker has as many leases as it may take.
        at_limit: bool,
    },
    /// Another worker processes it.
    LeasedBy {
        /// The worker.
        worker: String,
        /// For how long it has had it.
        #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
        since: Duration,
        /// How long ago it last renewed it.
        #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
        heartbeat_age: Duration,
    },
    /// Another worker has its lease and does not renew it.
    OwnerSilent {
        /// The worker.
        worker: String,
        /// How long ago it last renewed it.
        #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
        heartbeat_age: Duration,
    },
    /// The lease is this worker's, which does not process it yet: a former owner may still be at work.
    WaitsForFormerOwner,
    /// The lease is this worker's, and the runtime of its processors has run nothing for longer than
    /// the [`failover_time`](crate::ConsumerConfig::failover_time).
    RuntimeBlocked,
    /// The processor is being initialised.
    Starting,
    /// The processor fails: the same call is made again and again.
    Failing {
        /// Failures in a row.
        failures: u32,
        /// The last one.
        error: String,
    },
    /// A call of the processor takes longer than
    /// [`log_warning_for_task_after`](crate::ConsumerConfig::log_warning_for_task_after).
    SlowCall {
        /// The method of [`RecordProcessor`](crate::RecordProcessor).
        call: &'static str,
        /// Time since it was called.
        #[cfg_attr(feature = "serde", serde(serialize_with = "millis::serialize"))]
        since: Duration,
    },
    /// The shard cannot be read: the same read is made again and again.
    ReadsFailing {
        /// Failures in a row.
        failures: u32,
        /// The cause of the last one, and what to do.
        error: String,
    },
    /// Retention deleted records before they were read, and the settings say that the shard stands still.
    RecordsTrimmed {
        /// What is known of the gap.
        gap: String,
    },
    /// The shard is being given up.
    ShuttingDown {
        /// Why.
        reason: ShutdownReason,
    },
}

/// What a worker knows besides the table.
pub(crate) struct Asker<'a> {
    pub(crate) worker_id: &'a str,
    pub(crate) failover: Duration,
    pub(crate) has_stopped: bool,
    /// The runtime of its processors runs nothing.
    pub(crate) is_blocked: bool,
    /// It has as many leases as it may take.
    pub(crate) at_limit: bool,
    /// A call of a processor that takes longer is slow.
    pub(crate) slow_after: Option<Duration>,
    /// A shard stands still where retention deleted records unread.
    pub(crate) stops_at_gaps: bool,
    /// What fails at the moment.
    pub(crate) problems: &'a ProblemLog,
    /// Its own ownership of the shard.
    pub(crate) own: Option<ShardSnapshot>,
}

/// `None`: this worker is processing the shard.
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
        // At the look: since then, nobody has heard.
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

/// A parent without a lease is finished; one whose lease can not be read is waited for.
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
                "its lease item can not be read ({problem}): repair the item (deleted, it is made anew \
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
                write!(f, "nobody has had its lease for {since:.1?}: ")?;
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
