//! Compares the stream with the lease table, and creates and deletes leases accordingly. Every write
//! is conditional and idempotent, so any number of workers may sync at the same time.

mod children;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use kinesis_aggregation::{HashKey, HashKeyRange};
use kinesis_common::sync::Mutex;

use super::cleanup::{FinishedSince, finished};
use super::hierarchy::NewLease;
use super::lease_start::LeaseStart;
use super::lineage::Lineage;
use super::list::{ListShardsError, Shard, ShardList, ShardLister};
use super::named::{NamedShardsError, check_named, leases_to_create, unlisted};
use crate::checkpoint::Checkpoint;
use crate::clock::Clock;
use crate::config::{InitialPosition, OnRecreatedStream, StreamPosition};
use crate::current_stream::CurrentStream;
use crate::lease::{
    Lease, LeaseStore, LeaseStoreError, LeaseWrite, Outcome, ShardFacts, Snapshot, StoreFuture,
    StreamIdentity,
};

/// Writes that are under way at the same time. At 10 ms each, they are about as many a second as a new
/// on-demand table accepts.
const CONCURRENT_WRITES: usize = 32;
/// Attempts to replace a lease whose owner goes on renewing it.
const REPLACE_TRIES: u32 = 10;
/// Pause before leases whose creation failed are created again.
const CREATE_RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Largest age of a table read from which leases are created. Finished leases are kept for longer, so a lease that is
/// missing from such a read was not finished and deleted meanwhile.
const MAX_READ_AGE: Duration = Duration::from_secs(30);

/// Why a shard sync failed. The writes that it had made stay. They do no harm.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum SyncError {
    #[error(transparent)]
    Store(#[from] LeaseStoreError),
    #[error(transparent)]
    List(#[from] ListShardsError),
    /// The settings name shards that do not fit the stream, and the application has no leases yet.
    #[error(transparent)]
    NamedShards(#[from] NamedShardsError),
    /// A reshard is in progress, or the listing is broken.
    #[error("the listed shards do not cover all hash keys: a reshard may be in progress")]
    Incomplete,
    /// The reader of a shard reached its end, and the listing does not show that yet.
    #[error("shard {shard_id} is listed as open, or not yet: list its children again later")]
    StillOpen { shard_id: String },
    /// The stream was deleted and created again since the leases were made, or since this worker began to
    /// read it. [`ShardSync::run`] returns this only if the settings say that it is an error. The single
    /// steps return it under any setting.
    #[error("stream {stream} was created again since the leases were made")]
    StreamRecreated { stream: String },
    #[error(
        "the lease of shard {shard_id} is of a former stream, and its owner goes on writing it: sync again"
    )]
    StillWritten { shard_id: String },
    /// The process was suspended after it had read the table. A lease that was missing then may have been
    /// created and deleted since.
    #[error("the table was read too long ago to create leases from it: sync again")]
    Stale,
}

/// How many leases a sync created and deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SyncReport {
    pub(crate) created: usize,
    pub(crate) deleted: usize,
}

/// Syncs the lease table with the shards of the stream.
#[derive(Debug, Clone)]
pub(crate) struct ShardSync {
    pub(crate) lister: Arc<dyn ShardLister>,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) position: InitialPosition,
    pub(crate) stream: Arc<CurrentStream>,
    /// True if each item names its type. Items in the tables of older workers do not.
    pub(crate) has_entity_type: bool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) finished: Arc<Mutex<FinishedSince>>,
}

/// The lease table and the shards of the stream, read one after the other.
#[derive(Debug)]
pub(super) struct Survey {
    table: Snapshot,
    /// When the table was read.
    read: Duration,
    pub(super) listed: ShardList,
    /// True if the table is empty, and the settings name no shard. Then `listed` has only the shards that were open at
    /// the start position.
    is_first: bool,
}

impl Survey {
    /// The leases to create, oldest shard first.
    pub(super) fn missing(&self, position: &InitialPosition) -> Vec<NewLease<'_>> {
        if self.is_first {
            let start = LeaseStart::from(position.of_others());
            let shards = self.listed.shards.iter();
            return shards.map(|shard| NewLease { shard, start: start.clone() }).collect();
        }
        let corrupt = self.table.corrupt.iter();
        let unreadable: Vec<&str> = corrupt.map(|item| item.key.as_str()).collect();
        leases_to_create(&self.listed.shards, &self.table.leases, &unreadable, position)
    }

    /// Logs which named shards the stream does not list.
    pub(super) fn report_unlisted(&self, position: &InitialPosition) {
        if self.is_first {
            return;
        }
        let shard_ids = unlisted(position, &Lineage::new(&self.listed.shards));
        if !shard_ids.is_empty() {
            tracing::warn!(
                ?shard_ids,
                "initial_position names shards that the stream does not list: their positions have no effect"
            );
        }
    }

    /// The number of leases that have never had an owner.
    pub(super) fn never_owned(&self) -> usize {
        let leases = self.table.leases.iter();
        leases.filter(|lease| lease.owner.is_none() && lease.counter == 0).count()
    }
}

impl ShardSync {
    /// Creates missing leases, and deletes those of finished shards. If the leases are of a former stream of
    /// the same name, the settings decide.
    pub(crate) async fn run(&self) -> Result<SyncReport, SyncError> {
        match self.sync().await {
            Err(SyncError::StreamRecreated { .. })
                if self.stream.on_recreated == OnRecreatedStream::StartOver =>
            {
                self.start_over().await
            }
            result => result,
        }
    }

    async fn sync(&self) -> Result<SyncReport, SyncError> {
        let survey = self.survey().await?;
        let missing = survey.missing(&self.position);
        let created = self.create_all(&survey, &missing, survey.listed.server_time).await?;
        let deleted = self.tidy(&survey).await?;
        Ok(SyncReport { created, deleted })
    }

    /// Reads the table, and then lists the shards, so that no lease in the table is newer than the listing.
    pub(super) async fn survey(&self) -> Result<Survey, SyncError> {
        // An earlier pass failed after the stream was replaced. Leases that it left may not name the former stream.
        if self.stream.is_starting_over() {
            return Err(recreated(&self.stream.identity()));
        }
        let is_empty = |table: &Snapshot| table.leases.is_empty() && table.corrupt.is_empty();
        let mut read = self.clock.now();
        let mut table = self.store.list(true).await?;
        if is_empty(&table) {
            let names_shards = self.position.named().next().is_some();
            let first = if names_shards {
                let listed = self.covering(None).await?;
                check_named(&self.position, &listed.shards)?;
                listed
            } else {
                self.first_shards(self.position.of_others()).await?
            };
            // Another worker that starts may have filled the table meanwhile, from another listing.
            read = self.clock.now();
            table = self.store.list(true).await?;
            if is_empty(&table) {
                return Ok(Survey { table, read, listed: first, is_first: !names_shards });
            }
        }
        let listed = self.list(None).await?;
        let identity = self.stream.identity();
        if table.leases.iter().any(|lease| is_former(lease, &identity)) {
            return Err(recreated(&identity));
        }
        Ok(Survey { listed, table, read, is_first: false })
    }

    /// Adds facts that leases lack, and deletes the leases of finished shards. Returns the number of leases
    /// deleted.
    pub(super) async fn tidy(&self, survey: &Survey) -> Result<usize, SyncError> {
        let table = &survey.table;
        if survey.is_first {
            return Ok(0);
        }
        let listed = &survey.listed.shards;
        let shards: BTreeMap<&str, &Shard> =
            listed.iter().map(|shard| (shard.id.as_str(), shard)).collect();
        let mut facts: Vec<StoreFuture<'_, Outcome>> = Vec::new();
        for lease in &table.leases {
            // Leases of old Java workers have no hash key range.
            if lease.hash_key_range.is_none()
                && let Some(shard) = shards.get(lease.shard_id())
            {
                let range = ShardFacts::HashKeyRange(shard.hash_key_range);
                facts.push(self.store.write(lease, LeaseWrite::SetFacts(range)));
            }
            // Leases of Java workers do not name their stream. The stream was compared after the table was
            // read, so they are of this one.
            if lease.stream.is_none() {
                let named = ShardFacts::Stream(self.stream.identity());
                facts.push(self.store.write(lease, LeaseWrite::SetFacts(named)));
            }
        }
        let facts = stream::iter(facts).buffer_unordered(CONCURRENT_WRITES);
        facts.try_for_each(|_| std::future::ready(Ok(()))).await?;
        let done = finished(&table.leases, listed);
        let due = self.finished.lock().due(done, self.clock.now());
        let deletes = due.into_iter().map(|lease| self.store.write(lease, LeaseWrite::Delete));
        let deletes: Vec<StoreFuture<'_, Outcome>> = deletes.collect();
        let deletes = stream::iter(deletes).buffer_unordered(CONCURRENT_WRITES);
        let deleted: Vec<Outcome> = deletes.try_collect().await?;
        Ok(deleted.into_iter().filter_map(Outcome::applied).count())
    }

    /// Lists the shards of the stream that the leases are of. The stream is compared after the listing. A
    /// stream is never replaced by an older one, so the listing was of this stream, too.
    async fn list(&self, position: Option<StreamPosition>) -> Result<ShardList, SyncError> {
        let listed = self.lister.list(position).await?;
        if !self.stream.is_fresh()
            && let Some(found) = self.lister.identity().await?
            && self.stream.is_replaced_by(&found)
        {
            return Err(recreated(&found));
        }
        Ok(listed)
    }

    /// Replaces the leases of a former stream by leases of the present one, at its beginning.
    ///
    /// Each write is conditional, and shards that are new get their leases first. As long as a lease of the
    /// former stream is left, any worker sees that the work is not done, and does the rest.
    async fn start_over(&self) -> Result<SyncReport, SyncError> {
        if let Some(found) = self.lister.identity().await?
            && self.stream.is_replaced_by(&found)
        {
            self.stream.replace(found);
        }
        let identity = self.stream.identity();
        tracing::warn!(
            stream = identity.arn,
            "the stream was deleted and created again: its leases start over"
        );
        // Every record of the new stream was put after this application had started.
        let position = match self.position.of_others() {
            StreamPosition::AtTimestamp(time) => StreamPosition::AtTimestamp(time),
            StreamPosition::Latest | StreamPosition::TrimHorizon => StreamPosition::TrimHorizon,
        };
        let first = self.first_shards(position).await?;
        let read = self.clock.now();
        let table = self.store.list(true).await?;
        let mut report = SyncReport::default();
        let new_lease = |shard: &Shard| {
            let start = LeaseStart::from(position);
            self.new_lease(&NewLease { shard, start }, first.server_time)
        };
        for shard in &first.shards {
            if !table.leases.iter().any(|lease| lease.key == shard.id) {
                let created = self.store_new(&new_lease(shard), read).await?;
                report.created += usize::from(created);
            }
        }
        // A lease that does not name its stream counts as one of the former stream if it holds more than a start position.
        // It may be of the new stream, if a Java worker has begun to read that. Then records come again, and none is
        // skipped. Such leases are replaced first: as long as a lease that names the former stream is left, every worker
        // sees that the replacement is not complete.
        let unnamed = |lease: &&Lease| lease.stream.is_none() && !lease.checkpoint.is_initial();
        let named = |lease: &&Lease| is_former(lease, &identity);
        let first_unnamed = table.leases.iter().filter(unnamed);
        for lease in first_unnamed.chain(table.leases.iter().filter(named)) {
            let shard = first.shards.iter().find(|shard| shard.id == lease.key);
            let mut lease = lease.clone();
            let mut tries = 0;
            let outcome = loop {
                let write = match shard {
                    Some(shard) => LeaseWrite::Replace { new: Box::new(new_lease(shard)) },
                    // The shard was not open at the position. If it exists again, it gets its lease at the end
                    // of its parents.
                    None => LeaseWrite::Delete,
                };
                let outcome = self.store.write(&lease, write).await?;
                tries += 1;
                match outcome {
                    // Its owner, which does not know of the new stream, wrote it meanwhile. A lease that
                    // does not name its stream must not be left, because a later pass would take it for a
                    // lease of the new stream.
                    Outcome::ConditionFailed(Some(found)) if named(&&found) || unnamed(&&found) => {
                        if tries == REPLACE_TRIES {
                            return Err(SyncError::StillWritten { shard_id: found.key });
                        }
                        lease = found;
                    }
                    outcome => break outcome,
                }
            };
            if outcome.applied().is_some() {
                match shard {
                    Some(_) => report.created += 1,
                    None => report.deleted += 1,
                }
                tracing::info!(shard = lease.shard_id(), "lease of the former stream replaced");
            }
        }
        self.stream.started_over();
        Ok(report)
    }

    /// Lists the ids of the shards that were open at the position, and then all shards. The time is that of the first
    /// list.
    pub(crate) async fn shards_at(
        &self,
        position: StreamPosition,
    ) -> Result<(BTreeSet<String>, ShardList), SyncError> {
        let first = self.first_shards(position).await?;
        let listed = self.list(None).await?;
        let ids = first.shards.into_iter().map(|shard| shard.id).collect();
        Ok((ids, ShardList { server_time: first.server_time, ..listed }))
    }

    /// Lists the shards that were open at the position, oldest first.
    async fn first_shards(&self, position: StreamPosition) -> Result<ShardList, SyncError> {
        let mut listed = self.covering(Some(position)).await?;
        listed.shards.sort_by(|a, b| a.starting_sequence.cmp(&b.starting_sequence));
        Ok(listed)
    }

    /// Lists shards as [`list`](Self::list) does. Those that were open at the position, or else those that are open now,
    /// must cover all hash keys.
    async fn covering(&self, position: Option<StreamPosition>) -> Result<ShardList, SyncError> {
        let listed = self.list(position).await?;
        let counted = listed.shards.iter().filter(|shard| position.is_some() || shard.open);
        if !covers_all_hash_keys(counted.map(|shard| shard.hash_key_range)) {
            return Err(SyncError::Incomplete);
        }
        Ok(listed)
    }

    /// Creates leases, many at the same time, but each after those of its parents. A shard whose lease exists
    /// before its parents' could start before them. A creation that fails for a transient reason is repeated
    /// as long as others succeed.
    ///
    /// `now`: the time by the service's clock at which a lease at `LATEST` starts. Returns the number of leases
    /// created.
    pub(super) async fn create_all(
        &self,
        survey: &Survey,
        new: &[NewLease<'_>],
        now: SystemTime,
    ) -> Result<usize, SyncError> {
        let mut created = 0;
        for mut left in generations(new) {
            while !left.is_empty() {
                let creates = left.iter().map(|new| {
                    let create = async move {
                        (*new, self.store_new(&self.new_lease(new, now), survey.read).await)
                    };
                    create.boxed()
                });
                let creates: Vec<BoxFuture<'_, _>> = creates.collect();
                let mut creates = stream::iter(creates).buffer_unordered(CONCURRENT_WRITES);
                let (mut failed, mut done) = (Vec::new(), 0);
                while let Some((new, result)) = creates.next().await {
                    match result {
                        Ok(was_missing) => {
                            created += usize::from(was_missing);
                            done += 1;
                        }
                        Err(SyncError::Store(error))
                            if error.is_retryable()
                                && (done > 0 || failed.len() < CONCURRENT_WRITES) =>
                        {
                            failed.push((new, error));
                        }
                        Err(error) => return Err(error),
                    }
                }
                drop(creates);
                if let (0, Some((_, error))) = (done, failed.first()) {
                    return Err(error.clone().into());
                }
                left = failed.into_iter().map(|(new, _)| new).collect();
                if !left.is_empty() {
                    tracing::debug!(left = left.len(), "leases that could not be created now");
                    tokio::time::sleep(CREATE_RETRY_PAUSE).await;
                }
            }
        }
        Ok(created)
    }

    fn new_lease(&self, new: &NewLease<'_>, now: SystemTime) -> Lease {
        let mut lease = self.lease_at(&new.shard.id, new.start.clone(), now);
        lease.parents = new.shard.parents.clone();
        lease.hash_key_range = Some(new.shard.hash_key_range);
        lease
    }

    /// A lease at this start. `now`: the time from which on a lease at `LATEST` reads.
    pub(crate) fn lease_at(&self, shard_id: &str, start: LeaseStart, now: SystemTime) -> Lease {
        let LeaseStart { checkpoint, time } = start;
        let mut lease = self.lease(shard_id, checkpoint);
        lease.resume_from = match &lease.checkpoint {
            Checkpoint::Latest => Some(now),
            _ => time,
        };
        lease
    }

    /// Creates a lease that was missing when the table was read at `read`. Returns whether it was still missing.
    async fn store_new(&self, lease: &Lease, read: Duration) -> Result<bool, SyncError> {
        if self.clock.now().saturating_sub(read) > MAX_READ_AGE {
            return Err(SyncError::Stale);
        }
        let created = self.store.write(lease, LeaseWrite::Create).await?.applied().is_some();
        if created {
            tracing::info!(shard = lease.shard_id(), checkpoint = %lease.checkpoint, "lease created");
        }
        Ok(created)
    }

    fn lease(&self, shard_id: &str, checkpoint: Checkpoint) -> Lease {
        let mut lease = Lease::new(shard_id, checkpoint);
        lease.stream = Some(self.stream.identity());
        lease.has_entity_type = self.has_entity_type;
        // Nothing was read yet. From here on, workers of this library note up to when they have read.
        lease.read_to = Some(SystemTime::UNIX_EPOCH);
        lease
    }
}

/// Groups new leases by generation: the length of the longest line of ancestors that are new, too. `new` has the
/// oldest shard first.
fn generations<'n, 's>(new: &'n [NewLease<'s>]) -> Vec<Vec<&'n NewLease<'s>>> {
    let mut depths: BTreeMap<&str, usize> = BTreeMap::new();
    let mut generations: Vec<Vec<&NewLease<'_>>> = Vec::new();
    for new in new {
        let parents = new.shard.parents.iter();
        let depth = parents
            .filter_map(|parent| depths.get(parent.as_str()))
            .map(|depth| depth + 1)
            .max()
            .unwrap_or(0);
        depths.insert(&new.shard.id, depth);
        if generations.len() <= depth {
            generations.resize_with(depth + 1, Vec::new);
        }
        generations[depth].push(new);
    }
    generations
}

/// True if the lease names an earlier stream of the same name.
fn is_former(lease: &Lease, identity: &StreamIdentity) -> bool {
    let earlier = |stream: &StreamIdentity| stream.created < identity.created;
    lease.stream.as_ref().is_some_and(earlier)
}

fn recreated(identity: &StreamIdentity) -> SyncError {
    SyncError::StreamRecreated { stream: identity.arn.clone() }
}

/// True if every hash key lies in one of the ranges. Overlaps do not matter.
fn covers_all_hash_keys(ranges: impl Iterator<Item = HashKeyRange>) -> bool {
    let mut ranges: Vec<_> = ranges.collect();
    ranges.sort_by_key(|range| range.start());
    // The first key that is not covered yet. `None`: all keys are covered.
    let mut open_from = Some(HashKey::MIN.get());
    for range in ranges {
        match open_from {
            Some(from) if range.start().get() > from => return false,
            Some(from) if range.end().get() >= from => open_from = range.end().get().checked_add(1),
            _ => {}
        }
    }
    open_from.is_none()
}

#[cfg(test)]
mod tests;
