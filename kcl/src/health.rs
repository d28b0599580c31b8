//! Health of a worker, and the problems that it has.

mod activity;
mod problem_log;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

pub(crate) use self::activity::{Facts, STUCK_AFTER, judge};
pub use self::activity::{HeldUpBy, ShardActivity, ShardHealth};
pub(crate) use self::problem_log::{Failed, ProblemLog};

/// Health of a worker at one moment, for readiness and liveness probes.
///
/// [`WorkerHandle::health`](crate::WorkerHandle::health) returns it, without a call to AWS.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Health {
    /// Status to which the worst problem amounts.
    pub status: HealthStatus,
    /// Present problems, the oldest first.
    pub problems: Vec<Problem>,
    /// What each shard of the worker does, by its id.
    pub shards: Vec<ShardHealth>,
}

/// Status of a worker. The order is from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum HealthStatus {
    /// The worker has no problem.
    Healthy,
    /// Something fails, and the worker repeats it. Shards may stand still.
    Degraded,
    /// The worker has ended, cannot run its processors, or has had no answer from the lease table for longer than
    /// the [`failover_time`](crate::ConsumerConfig::failover_time). It processes nothing, or will soon process
    /// nothing.
    Unhealthy,
}

/// A problem of a worker. [`Display`](fmt::Display) also says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Problem {
    /// Kind of the problem.
    pub kind: ProblemKind,
    /// Id of the shard, or key of the lease item, that it concerns. `None`: the whole worker.
    pub shard_id: Option<String>,
    /// Cause of the latest failure, without payload or keys of records.
    pub cause: String,
    /// Time since the first failure in a row.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::millis::serialize"))]
    pub since: Duration,
    /// Failures in a row.
    pub failures: u32,
}

/// Kind of a [`Problem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ProblemKind {
    /// The worker has ended or is ending because of an error.
    WorkerFailed,
    /// The worker has ended as asked.
    WorkerStopped,
    /// Blocking code has all threads of the processors' runtime.
    RuntimeBlocked,
    /// The lease table cannot be read, so leases cannot be found or taken.
    LeaseTableFailing,
    /// The index of the lease table cannot be read, so leases that were assigned to this worker are found late.
    LeaseDiscoveryFailing,
    /// A lease cannot be taken, or a lease that was assigned to this worker cannot be started on.
    LeaseAcquisitionFailing,
    /// A lease cannot be renewed. It is lost after the failover time.
    LeaseRenewalFailing,
    /// The heartbeat cannot be written: the worker's row in the table, by which other workers know that it is alive.
    HeartbeatFailing,
    /// The stream's shards cannot be compared with the lease table.
    ShardSyncFailing,
    /// An item of the lease table cannot be read.
    CorruptLease,
    /// Another live process uses the same worker id.
    DuplicateWorkerId,
    /// A shard cannot be read.
    ReadsFailing,
    /// The worker polls instead of enhanced fan-out, as the settings allow.
    FanOutUnavailable,
    /// Records were deleted by retention before this application read them.
    RecordsTrimmed,
    /// A checkpoint cannot be written.
    CheckpointFailing,
    /// The processor of a shard returns errors.
    ProcessorFailing,
    /// A shard has stopped at records that cannot be processed, as the
    /// [failure policy](crate::AfterRetries::StopShard) says.
    ShardStopped,
    /// Dead letters cannot be written, and their shard waits.
    DeadLettersFailing,
    /// A call of the processor of a shard does not return.
    ProcessorStuck,
    /// Metrics cannot be put to CloudWatch. Processing goes on.
    MetricsUploadFailing,
}

impl ProblemKind {
    /// What fails, as a sentence, and what to do about it.
    fn texts(self) -> (&'static str, &'static str) {
        match self {
            Self::WorkerFailed => ("the worker cannot go on", "fix the cause, then start it again"),
            Self::WorkerStopped => ("the worker has stopped", "start it again if it should run"),
            Self::RuntimeBlocked => (
                "the runtime of the processors runs nothing",
                "move blocking code to spawn_blocking, or drive the runtime",
            ),
            Self::LeaseTableFailing => (
                "the lease table cannot be read",
                "check DynamoDB, the network, and the permissions on the lease table",
            ),
            Self::LeaseDiscoveryFailing => (
                "the index of the lease table cannot be read",
                "check DynamoDB, the network, and the permission dynamodb:Query on the table's indexes",
            ),
            Self::LeaseAcquisitionFailing => (
                "a lease cannot be taken or started on",
                "check DynamoDB, its capacity, and the permissions on the lease table",
            ),
            Self::LeaseRenewalFailing => (
                "the lease cannot be renewed",
                "check DynamoDB, its capacity and the network; another worker takes the lease after the \
                 failover time",
            ),
            Self::HeartbeatFailing => (
                "the heartbeat of the worker cannot be written",
                "check DynamoDB, its capacity, and the permissions on the table of the rows",
            ),
            Self::ShardSyncFailing => (
                "the stream's shards cannot be compared with the lease table",
                "check the permission kinesis:ListShards, and DynamoDB",
            ),
            Self::CorruptLease => (
                "an item of the lease table cannot be read",
                "repair the item; a deleted item is created again without a checkpoint",
            ),
            Self::DuplicateWorkerId => (
                "another live process uses the same worker id",
                "give each process a worker_id of its own",
            ),
            Self::ReadsFailing => (
                "the shard cannot be read",
                "check the permissions kinesis:GetRecords and kinesis:GetShardIterator, or \
                 kinesis:SubscribeToShard, the key of an encrypted stream, and the network",
            ),
            Self::FanOutUnavailable => (
                "the worker polls instead of enhanced fan-out",
                "deregister a consumer of the stream that is not used, then start the worker again",
            ),
            Self::RecordsTrimmed => (
                "records were deleted by retention before they were read",
                "raise the stream's retention or the speed of the processors; the deleted records are lost",
            ),
            Self::CheckpointFailing => (
                "a checkpoint cannot be written",
                "check DynamoDB and its capacity; records since the last checkpoint are delivered again after \
                 a restart",
            ),
            Self::ProcessorFailing => {
                ("the processor returns errors and gets the same call again", "fix the cause")
            }
            Self::ShardStopped => (
                "the shard has stopped at records that cannot be processed",
                "fix the cause and call resume_shard, or call skip_failed to skip them",
            ),
            Self::DeadLettersFailing => (
                "dead letters cannot be written, and the shard waits",
                "check the sink; the shard goes on when it has confirmed them",
            ),
            Self::ProcessorStuck => {
                ("a call of the processor does not return", "find out what it waits for")
            }
            Self::MetricsUploadFailing => (
                "metrics cannot be put to CloudWatch",
                "check the permission cloudwatch:PutMetricData, and the network; processing goes on",
            ),
        }
    }

    /// Age of the problem from which on the worker is unhealthy. `None`: the worker stays degraded.
    fn unhealthy_after(self, failover_time: Duration) -> Option<Duration> {
        match self {
            Self::WorkerFailed | Self::WorkerStopped | Self::RuntimeBlocked => Some(Duration::ZERO),
            Self::LeaseTableFailing | Self::LeaseDiscoveryFailing | Self::LeaseRenewalFailing => {
                Some(failover_time)
            }
            _ => None,
        }
    }
}

impl Health {
    /// Judges the problems, and sorts them by age.
    pub(crate) fn new(
        mut problems: Vec<Problem>,
        mut shards: Vec<ShardHealth>,
        failover_time: Duration,
    ) -> Self {
        shards.sort_by(|a, b| a.shard_id.cmp(&b.shard_id));
        problems.sort_by(|a, b| {
            let by_age = b.since.cmp(&a.since);
            by_age.then_with(|| (a.kind, &a.shard_id).cmp(&(b.kind, &b.shard_id)))
        });
        let severity = |problem: &Problem| match problem.kind.unhealthy_after(failover_time) {
            Some(limit) if problem.since >= limit => HealthStatus::Unhealthy,
            _ => HealthStatus::Degraded,
        };
        let worst = problems.iter().map(severity).max();
        Self { status: worst.unwrap_or(HealthStatus::Healthy), problems, shards }
    }

    /// True if the worker has no problem.
    pub fn is_healthy(&self) -> bool {
        self.status == HealthStatus::Healthy
    }
}

impl fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        })
    }
}

/// Writes the status, then on lines of their own: each problem, how many shards do what, and each slow or stuck shard.
impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n{problem}"))?;
        let mut counts = BTreeMap::new();
        for shard in &self.shards {
            *counts.entry(shard.activity).or_insert(0) += 1;
        }
        let counts = counts.into_iter().map(|(activity, count)| format!("{count} {activity}"));
        let counts: Vec<_> = counts.collect();
        if !counts.is_empty() {
            write!(f, "\nshards: {}", counts.join(", "))?;
        }
        let held_up = self.shards.iter().filter(|shard| shard.held_up_by.is_some());
        held_up.into_iter().try_for_each(|shard| write!(f, "\n{shard}"))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, advice) = self.kind.texts();
        if let Some(shard_id) = &self.shard_id {
            write!(f, "{shard_id}: ")?;
        }
        write!(f, "{what}, for {:.1?}", self.since)?;
        if self.failures > 1 {
            write!(f, " and {} times in a row", self.failures)?;
        }
        write!(f, " ({}): {advice}", self.cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILOVER: Duration = Duration::from_secs(10);

    fn problem(kind: ProblemKind, since: u64) -> Problem {
        Problem {
            kind,
            shard_id: None,
            cause: "why".into(),
            since: Duration::from_secs(since),
            failures: 2,
        }
    }

    #[test]
    fn the_worst_problem_counts_and_the_oldest_comes_first() {
        let health = Health::new(Vec::new(), Vec::new(), FAILOVER);
        assert!(health.is_healthy());

        let reads = problem(ProblemKind::ReadsFailing, 3_600);
        let young = problem(ProblemKind::LeaseTableFailing, 9);
        let health = Health::new(vec![young, reads.clone()], Vec::new(), FAILOVER);
        assert_eq!(health.status, HealthStatus::Degraded);
        assert_eq!(health.problems[0], reads);

        let old = problem(ProblemKind::LeaseTableFailing, 10);
        let health = Health::new(vec![old, reads], Vec::new(), FAILOVER);
        assert_eq!(health.status, HealthStatus::Unhealthy);
    }

    #[test]
    fn a_stopped_worker_is_unhealthy_at_once() {
        for kind in
            [ProblemKind::WorkerStopped, ProblemKind::WorkerFailed, ProblemKind::RuntimeBlocked]
        {
            let health = Health::new(vec![problem(kind, 0)], Vec::new(), FAILOVER);
            assert_eq!(health.status, HealthStatus::Unhealthy, "{kind:?}");
        }
    }

    #[test]
    fn the_text_names_the_shard_the_cause_and_what_to_do() {
        let problem = Problem {
            shard_id: Some("shardId-000000000001".into()),
            ..problem(ProblemKind::ReadsFailing, 12)
        };
        assert_eq!(
            problem.to_string(),
            "shardId-000000000001: the shard cannot be read, for 12.0s and 2 times in a row (why): check \
             the permissions kinesis:GetRecords and kinesis:GetShardIterator, or kinesis:SubscribeToShard, \
             the key of an encrypted stream, and the network"
        );
    }

    #[test]
    fn the_text_counts_the_shards_and_names_those_that_are_held_up() {
        let shard = |shard_id: &str, activity, held_up_by| ShardHealth {
            shard_id: shard_id.into(),
            activity,
            held_up_by,
            lag: None,
            millis_behind_latest: None,
            since_checkpoint: None,
        };
        let shards = vec![
            shard("c", ShardActivity::Idle, None),
            shard("b", ShardActivity::Stuck, Some(HeldUpBy::Processor)),
            shard("a", ShardActivity::Idle, None),
        ];
        let health = Health::new(Vec::new(), shards, FAILOVER);
        let text =
            "healthy\nshards: 2 idle, 1 stuck\nb: stuck: the processor does not return or fails";
        assert_eq!(health.to_string(), text);
    }
}
