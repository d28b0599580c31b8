//! Leases of a stopped application: listed, and reset to another position.

mod plan;

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use self::plan::{Change, Target};
use crate::checkpoint::Checkpoint;
use crate::config::{InitialPosition, ShardPosition, StreamPosition};
use crate::lease::{Lease, LeaseWrite, Outcome, Snapshot};
use crate::lease_table::{LeaseSnapshot, LeaseTableSnapshot};
use crate::sequence::ExtendedSequenceNumber;
use crate::stream::list::Shard;
use crate::stream::{LeaseStart, NamedShardsError, ShardSync, SyncError, check_named};

/// Looks at an owner this often while it waits for the owner to fall silent.
const LOOKS: u32 = 4;

/// Lists the leases of an application, and resets them to another position: to process a stream again, or to skip
/// records.
///
/// [`SchedulerBuilder::lease_admin`](crate::SchedulerBuilder::lease_admin) creates it, with the settings of the workers.
/// Stop the workers first. A reset refuses to change a lease whose owner is alive.
///
/// ```
/// # use kcl::{ConsumerConfig, InitialPosition, LeaseAdmin, ResetTo, Scheduler};
/// # use kcl::{ProcessorError, RecordBatch, RecordProcessor, ShardContext, ShardEnd, Shutdown};
/// # struct Nothing;
/// # impl RecordProcessor for Nothing {
/// #     async fn process_records(&mut self, _: RecordBatch<'_>) -> Result<(), ProcessorError> { Ok(()) }
/// #     async fn shard_ended(&mut self, end: ShardEnd<'_>) -> Result<(), ProcessorError> { Ok(end.checkpoint().await?) }
/// #     async fn shutdown_requested(&mut self, _: Shutdown<'_>) -> Result<(), ProcessorError> { Ok(()) }
/// # }
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let aws = kinesis_testkit::LocalAws::start().await?;
/// # aws.create_stream("orders", 2).await?;
/// # let sdk_config = aws.sdk_config();
/// # Scheduler::builder("billing", "orders", &sdk_config).processor(|_: &ShardContext| Nothing).build().await?;
/// let admin = Scheduler::builder("billing", "orders", &sdk_config).lease_admin().await?;
/// let plan = admin.plan(ResetTo::Application(InitialPosition::TrimHorizon)).await?;
/// println!("{plan}"); // nothing is written yet
/// let changed = plan.apply().await?;
/// # assert_eq!(changed, 2);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct LeaseAdmin {
    sync: ShardSync,
    /// Time without a renewal after which an owner counts as stopped.
    failover: Duration,
}

/// What a reset changes, and to which position.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResetTo {
    /// All shards of the stream.
    ///
    /// Shards that ended before the position count as finished, unless they are
    /// [named](InitialPosition::PerShard). Children of other shards start after their parents, as ever.
    Application(InitialPosition),
    /// One shard, which must not be finished: the children of a finished shard may have been processed.
    Shard {
        /// Id of the shard.
        shard_id: String,
        /// Its new position.
        position: ShardPosition,
    },
    /// One shard, which must not be finished, to the user record after this one. It sets the checkpoint.
    AfterRecord {
        /// Id of the shard.
        shard_id: String,
        /// Position of the last record that counts as processed.
        last: ExtendedSequenceNumber,
    },
}

/// Error of [`LeaseAdmin`].
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseAdminError {
    /// A worker renews the lease.
    #[error("worker {owner} is alive and owns shard {shard_id}: stop all workers first")]
    OwnerAlive {
        /// The shard.
        shard_id: String,
        /// Id of the worker.
        owner: String,
    },
    /// The lease was changed since the plan was made. Leases that stand before it in the plan may be reset.
    #[error("the lease of shard {shard_id} has changed: stop all workers, and plan again")]
    Changed {
        /// The shard.
        shard_id: String,
    },
    /// The shard has no lease, or the stream does not list it.
    #[error("shard {shard_id} has no lease, or is not in the stream: check its id")]
    UnknownShard {
        /// The shard.
        shard_id: String,
    },
    /// The shard is finished.
    #[error(
        "shard {shard_id} is finished, and its children may have been processed: reset the application"
    )]
    ShardEnded {
        /// The shard.
        shard_id: String,
    },
    /// The sequence number is before the first of the shard.
    #[error("the records of shard {shard_id} begin at {first}: take a later sequence number")]
    NotInShard {
        /// The shard.
        shard_id: String,
        /// Its first sequence number.
        first: crate::SequenceNumber,
    },
    /// An item of the lease table cannot be read.
    #[error("item {key} of the lease table cannot be read ({problem}): repair or delete it")]
    CorruptLease {
        /// Key of the item.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A call to Kinesis or DynamoDB failed. Leases that stand before it in the plan may be reset.
    #[error("{cause}")]
    Failed {
        /// The call, and why it failed.
        cause: String,
        /// Whether the same call may succeed later.
        retryable: bool,
    },
}

impl LeaseAdminError {
    /// Whether the same call may succeed later, without a change by the operator.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Failed { retryable: true, .. })
    }
}

/// Not a `From`, which would be public, as the type of the error is not.
fn failed(error: impl Into<SyncError>) -> LeaseAdminError {
    let error = error.into();
    let retryable = match &error {
        SyncError::Store(error) => error.is_retryable(),
        SyncError::List(_) | SyncError::Incomplete => true,
        _ => false,
    };
    LeaseAdminError::Failed { cause: error.to_string(), retryable }
}

fn not_in_stream(error: NamedShardsError) -> LeaseAdminError {
    match error {
        NamedShardsError::Unknown { shard_ids } => {
            LeaseAdminError::UnknownShard { shard_id: shard_ids.join(", ") }
        }
        NamedShardsError::NotInShard { shard_id, first, .. } => {
            LeaseAdminError::NotInShard { shard_id, first }
        }
    }
}

impl LeaseAdmin {
    pub(crate) fn new(sync: ShardSync, failover: Duration) -> Self {
        Self { sync, failover }
    }

    /// Reads the lease table. The ages in it are zero, because they count from the first read.
    ///
    /// # Errors
    /// [`LeaseAdminError::Failed`]: the table could not be read.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn list(&self) -> Result<LeaseTableSnapshot, LeaseAdminError> {
        let table = self.sync.store.list(true).await.map_err(failed)?;
        let leases = table.leases.iter().map(LeaseSnapshot::new).collect();
        Ok(LeaseTableSnapshot::new(Duration::ZERO, &table, leases))
    }

    /// Finds out which leases a reset changes. Writes nothing: [`ResetPlan::apply`] does.
    ///
    /// A reset to [`Latest`](InitialPosition::Latest) starts at the time of this call.
    ///
    /// # Errors
    /// [`LeaseAdminError`], for example for a shard that is finished or unknown.
    ///
    /// # Cancel safety
    /// Dropping the future has no effect.
    pub async fn plan(&self, to: ResetTo) -> Result<ResetPlan<'_>, LeaseAdminError> {
        let position = match &to {
            ResetTo::Application(position) => position.of_others(),
            // The stream lists all shards in any case.
            ResetTo::Shard { .. } | ResetTo::AfterRecord { .. } => StreamPosition::TrimHorizon,
        };
        let table = self.readable_table().await?;
        let (first, listed) = self.sync.shards_at(position).await.map_err(failed)?;
        let mut others = Vec::new();
        let targets = match to {
            ResetTo::Application(position) => {
                check_named(&position, &listed.shards).map_err(not_in_stream)?;
                // A lease that already is as it should be has no change, but it may have an owner.
                others.extend(table.leases.iter().filter(|it| plan::has_processor(it)).cloned());
                plan::of_application(&table.leases, &listed.shards, &first, &position)
            }
            ResetTo::Shard { shard_id, position } => {
                let start = |shard: &Shard| LeaseStart::in_shard(&position, shard);
                plan::of_shard(&table.leases, &listed.shards, &shard_id, start)?
            }
            ResetTo::AfterRecord { shard_id, last } => {
                let start = |_: &Shard| LeaseStart::new(Checkpoint::At(last.clone()));
                plan::of_shard(&table.leases, &listed.shards, &shard_id, start)?
            }
        };
        let to_change = |target: Target| self.change(target, listed.server_time);
        let changes = targets.into_iter().map(to_change).collect();
        Ok(ResetPlan { admin: self, changes, others })
    }

    fn change(&self, target: Target, now: SystemTime) -> Change {
        let Target { former, shard, start } = target;
        let key = match (&former, &shard) {
            (_, Some(shard)) => &shard.id,
            (Some(former), None) => &former.key,
            (None, None) => {
                unreachable!("a lease is reset that is there, or one of a shard that is")
            }
        };
        let mut new = self.sync.lease_at(key, start, now);
        if let Some(shard) = shard {
            (new.parents, new.hash_key_range) = (shard.parents, Some(shard.hash_key_range));
            new.children = shard.children;
        }
        if let Some(former) = &former {
            new = plan::keeping_facts(new, former);
        }
        Change { former, new }
    }

    async fn readable_table(&self) -> Result<Snapshot, LeaseAdminError> {
        let table = self.sync.store.list(true).await.map_err(failed)?;
        match table.corrupt.first() {
            None => Ok(table),
            Some(item) => Err(LeaseAdminError::CorruptLease {
                key: item.key.clone(),
                problem: item.to_string(),
            }),
        }
    }

    /// Waits until no owner has renewed any of the leases for the failover time.
    async fn wait_for_silence(&self, plan: &ResetPlan<'_>) -> Result<(), LeaseAdminError> {
        let began = self.sync.clock.now();
        let changed = plan.changes.iter().filter_map(|change| change.former.as_ref());
        let is_owned = changed.chain(&plan.others).any(plan::has_processor);
        if is_owned {
            tracing::info!(
                wait = ?self.failover,
                "leases have owners: waiting whether they are alive"
            );
        }
        loop {
            let table = self.readable_table().await?;
            let found: BTreeMap<&str, &Lease> =
                table.leases.iter().map(|lease| (lease.shard_id(), lease)).collect();
            let changed = plan.changes.iter().map(|it| (it.new.shard_id(), it.former.as_ref()));
            let others = plan.others.iter().map(|lease| (lease.shard_id(), Some(lease)));
            for (shard_id, planned) in changed.chain(others) {
                plan::check_unchanged(shard_id, planned, found.get(shard_id).copied())?;
            }
            let waited = self.sync.clock.now().saturating_sub(began);
            if !is_owned || waited >= self.failover {
                return Ok(());
            }
            tokio::time::sleep((self.failover / LOOKS).min(self.failover - waited)).await;
        }
    }
}

/// The leases that a reset will change. Its text has a line for each.
#[must_use = "nothing is written before apply()"]
#[derive(Debug)]
pub struct ResetPlan<'a> {
    admin: &'a LeaseAdmin,
    changes: Vec<Change>,
    /// Other leases whose owners must not be alive.
    others: Vec<Lease>,
}

/// Change of one lease by a reset.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseChange {
    /// Id of the shard.
    pub shard_id: String,
    /// Checkpoint now. `None`: there is no lease, and the reset creates it.
    pub from: Option<Checkpoint>,
    /// Checkpoint after the reset.
    pub to: Checkpoint,
    /// Id of the worker that owns the lease, perhaps one that was killed.
    pub owner: Option<String>,
}

impl ResetPlan<'_> {
    /// The changes. Leases that already are as they should be are left out.
    pub fn changes(&self) -> impl ExactSizeIterator<Item = LeaseChange> {
        self.changes.iter().map(|Change { former, new }| LeaseChange {
            shard_id: new.shard_id().to_owned(),
            from: former.as_ref().map(|former| former.checkpoint.clone()),
            to: new.checkpoint.clone(),
            owner: former.as_ref().and_then(Lease::actual_owner).map(str::to_owned),
        })
    }

    /// Writes the changes. Returns their number.
    ///
    /// If a lease has an owner, it first waits for the [`failover_time`](crate::ConsumerConfig::failover_time). An owner
    /// that renews its lease meanwhile is alive. So the failover time in the settings must be that of the workers, or
    /// longer. A reset of the application looks at the owners of all leases, and a reset of one shard at that of its lease.
    ///
    /// Each write is conditional: a lease that a worker has taken or changed since the plan is not touched.
    ///
    /// # Errors
    /// [`OwnerAlive`](LeaseAdminError::OwnerAlive), and no lease was changed. After any other error, the first of the
    /// planned leases may be changed, and one may have lost its owner. Plan again before a worker starts.
    ///
    /// # Cancel safety
    /// If the future is dropped, some of the planned leases may be changed. Plan again before a worker starts.
    pub async fn apply(self) -> Result<usize, LeaseAdminError> {
        self.admin.wait_for_silence(&self).await?;
        let Self { admin, changes, .. } = self;
        let store = &admin.sync.store;
        let count = changes.len();
        for Change { former, new } in changes {
            let (shard_id, checkpoint) = (new.key.clone(), new.checkpoint.clone());
            let changed = || LeaseAdminError::Changed { shard_id: shard_id.clone() };
            let outcome = match former {
                None => store.write(&new, LeaseWrite::Create).await,
                Some(mut former) => {
                    // Without an owner, the next worker need not wait for this one.
                    if former.actual_owner().is_some() {
                        let evicted =
                            store.write(&former, LeaseWrite::Evict).await.map_err(failed)?;
                        former = evicted.applied().ok_or_else(changed)?;
                    }
                    // After a pending handoff, the next owner is left, which never began.
                    let new = Box::new(new);
                    store.write(&former, LeaseWrite::Replace { new }).await
                }
            };
            if let Outcome::ConditionFailed(_) = outcome.map_err(failed)? {
                return Err(changed());
            }
            tracing::info!(shard_id, %checkpoint, "lease reset");
        }
        Ok(count)
    }
}

impl fmt::Display for ResetPlan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes.is_empty() {
            return f.write_str("no lease is to be changed");
        }
        for (nth, change) in self.changes().enumerate() {
            let LeaseChange { shard_id, from, to, owner } = change;
            if nth > 0 {
                writeln!(f)?;
            }
            match from {
                Some(from) => write!(f, "{shard_id}: {from} -> {to}")?,
                None => write!(f, "{shard_id}: no lease -> {to}")?,
            }
            if let Some(owner) = owner {
                write!(f, ", owned by {owner}")?;
            }
        }
        Ok(())
    }
}
