//! Compares the stream with the lease table, and creates and deletes leases accordingly. Every write
//! is conditional and idempotent: any number of workers may do it at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use kinesis_aggregation::{HashKey, HashKeyRange};

use super::cleanup::{FinishedSince, finished};
use super::hierarchy::{NewLease, missing_leases, sentinel};
use super::list::{ListShardsError, Shard, ShardList, ShardLister};
use crate::checkpoint::Checkpoint;
use crate::clock::Clock;
use crate::config::{InitialPosition, OnRecreatedStream};
use crate::current_stream::CurrentStream;
use crate::lease::{
    ChildShard, Lease, LeaseStore, LeaseStoreError, LeaseWrite, Outcome, ShardFacts, Snapshot,
    StoreFuture, StreamIdentity,
};

/// Writes at a time: at 10 ms each, about as many as a new on-demand table takes a second.
const CONCURRENT_WRITES: usize = 32;
/// Attempts to replace a lease whose owner goes on renewing it.
const REPLACE_TRIES: u32 = 10;
/// Pause before creates that failed are tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// For how long a look at the table is good for creating leases. Shorter than finished leases are
/// kept: what was missing was never there.
const LOOK_LASTS: Duration = Duration::from_secs(30);

/// Why a shard sync failed. What it had done stays, and does no harm.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum SyncError {
    #[error(transparent)]
    Store(#[from] LeaseStoreError),
    #[error(transparent)]
    List(#[from] ListShardsError),
    /// A reshard is in progress, or the listing is broken.
    #[error("the listed shards do not cover all hash keys: a reshard may be in progress")]
    Incomplete,
    /// A shard came to its end, as its reader says, and the listing does not know of that yet.
    #[error("shard {shard_id} is listed as open, or not yet: list its children again later")]
    StillOpen { shard_id: String },
    /// The stream was deleted and created again since the leases were made, or since this worker began to
    /// read it. [`ShardSync::run`] returns this only if the settings say that it is an error; the single
    /// steps return it under any setting.
    #[error("stream {stream} was created again since the leases were made")]
    StreamRecreated { stream: String },
    /// The process was stopped since it looked: what was missing then may have come and gone.
    #[error("the table was looked at too long ago to create leases from it: sync again")]
    Stale,
}

/// What a sync did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SyncReport {
    pub(crate) created: usize,
    pub(crate) deleted: usize,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct ShardSync {
    pub(crate) lister: Arc<dyn ShardLister>,
    pub(crate) store: Arc<dyn LeaseStore>,
    pub(crate) position: InitialPosition,
    pub(crate) stream: Arc<CurrentStream>,
    /// Items say that they are leases: not in the tables of older workers.
    pub(crate) has_entity_type: bool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) finished: Arc<Mutex<FinishedSince>>,
}

/// What one reading of the table and the stream showed.
#[derive(Debug)]
pub(super) struct Survey {
    table: Snapshot,
    /// When the table was read.
    looked: Duration,
    listed: ShardList,
    /// The table is empty: `listed` are the shards that were open at the start position, and no more.
    is_first: bool,
}

impl Survey {
    /// The leases to create, oldest shard first.
    pub(super) fn missing(&self, position: InitialPosition) -> Vec<NewLease<'_>> {
        if self.is_first {
            let checkpoint = sentinel(position);
            let shards = self.listed.shards.iter();
            return shards
                .map(|shard| NewLease { shard, checkpoint: checkpoint.clone() })
                .collect();
        }
        let corrupt = self.table.corrupt.iter();
        let unreadable: Vec<&str> = corrupt.map(|item| item.key.as_str()).collect();
        missing_leases(&self.listed.shards, &self.table.leases, &unreadable, position)
    }

    /// How many leases have never had an owner.
    pub(super) fn never_owned(&self) -> usize {
        let leases = self.table.leases.iter();
        leases.filter(|lease| lease.owner.is_none() && lease.counter == 0).count()
    }

    /// The service's time when it listed the shards.
    pub(super) fn server_time(&self) -> SystemTime {
        self.listed.server_time
    }
}

/// A lease that was to be created, and whether it was missing.
type Created<'f, 's> = (&'f NewLease<'s>, Result<bool, SyncError>);

impl ShardSync {
    /// One pass: leases that are missing are created, those of finished shards deleted. If the stream is
    /// another one than the leases are of, the settings decide.
    pub(crate) async fn run(&self) -> Result<SyncReport, SyncError> {
        match self.sync().await {
            Err(SyncError::StreamRecreated { .. })
                if self.stream.on_recreated() == OnRecreatedStream::StartOver =>
            {
                self.start_over().await
            }
            result => result,
        }
    }

    async fn sync(&self) -> Result<SyncReport, SyncError> {
        let survey = self.survey().await?;
        let missing = survey.missing(self.position);
        let created = self.create_all(&survey, &missing, survey.server_time()).await?;
        let deleted = self.tidy(&survey).await?;
        Ok(SyncReport { created, deleted })
    }

    /// Reads the table, and then the stream: what the table shows is no newer than the listing.
    pub(super) async fn survey(&self) -> Result<Survey, SyncError> {
        let is_empty = |table: &Snapshot| table.leases.is_empty() && table.corrupt.is_empty();
        let mut looked = self.clock.now();
        let mut table = self.store.list(true).await?;
        if is_empty(&table) {
            let first = self.first_shards(self.position).await?;
            // Another starter may have filled the table meanwhile, from another listing.
            looked = self.clock.now();
            table = self.store.list(true).await?;
            if is_empty(&table) {
                return Ok(Survey { table, looked, listed: first, is_first: true });
            }
        }
        let listed = self.list(None).await?;
        let identity = self.stream.identity();
        if table.leases.iter().any(|lease| is_former(lease, &identity)) {
            return Err(recreated(&identity));
        }
        Ok(Survey { listed, table, looked, is_first: false })
    }

    /// Adds to the leases what they lack, and deletes those of finished shards; how many of these.
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
            // Leases of Java workers do not name their stream. It was compared after the table was read.
            if lease.stream.is_none() {
                let named = ShardFacts::Stream(self.stream.identity());
                facts.push(self.store.write(lease, LeaseWrite::SetFacts(named)));
            }
        }
        let mut facts = stream::iter(facts).buffer_unordered(CONCURRENT_WRITES);
        while let Some(noted) = facts.next().await {
            noted?;
        }
        let done = finished(&table.leases, listed);
        let due = self
            .finished
            .lock()
            // Its changes are single map operations.
            .unwrap_or_else(PoisonError::into_inner)
            .due(done, self.clock.now());
        let mut deleted = 0;
        let mut deletes: Vec<StoreFuture<'_, Outcome>> = Vec::new();
        deletes.extend(due.into_iter().map(|lease| self.store.write(lease, LeaseWrite::Delete)));
        let mut deletes = stream::iter(deletes).buffer_unordered(CONCURRENT_WRITES);
        while let Some(outcome) = deletes.next().await {
            deleted += usize::from(outcome?.applied().is_some());
        }
        Ok(deleted)
    }

    /// The shards of the stream that the leases are of. The comparison comes after the listing: no stream
    /// is replaced by an older one, so the listing was of this stream too.
    async fn list(&self, position: Option<InitialPosition>) -> Result<ShardList, SyncError> {
        let listed = self.lister.list(position).await?;
        if !self.stream.is_fresh()
            && let Some(found) = self.lister.identity().await?
            && self.stream.compare(&found)
        {
            return Err(recreated(&found));
        }
        Ok(listed)
    }

    /// Replaces the leases of a former stream by leases of the present one, at its beginning.
    ///
    /// Each write is conditional, and shards that are new get their leases first: as long as a lease of
    /// the former stream is left, any worker can see that this is not done, and do the rest.
    async fn start_over(&self) -> Result<SyncReport, SyncError> {
        let was = self.stream.identity();
        if let Some(found) = self.lister.identity().await?
            && self.stream.compare(&found)
        {
            self.stream.replace(found);
        }
        let identity = self.stream.identity();
        tracing::warn!(
            stream = identity.arn,
            "the stream was deleted and created again: its leases start over"
        );
        // All that is in the new stream was put after this application had started.
        let position = match self.position {
            InitialPosition::AtTimestamp(time) => InitialPosition::AtTimestamp(time),
            InitialPosition::Latest | InitialPosition::TrimHorizon => InitialPosition::TrimHorizon,
        };
        let first = self.first_shards(position).await?;
        let looked = self.clock.now();
        let table = self.store.list(true).await?;
        let mut report = SyncReport::default();
        let new_lease = |shard: &Shard| {
            let checkpoint = sentinel(position);
            self.new_lease(&NewLease { shard, checkpoint }, first.server_time)
        };
        for shard in &first.shards {
            if !table.leases.iter().any(|lease| lease.key == shard.id) {
                let created = self.store_new(&new_lease(shard), looked).await?;
                report.created += usize::from(created);
            }
        }
        // A lease that does not name its stream is taken for one of the former stream if the stream was
        // replaced just now and the lease holds more than a start position. These go first: the others
        // show that this is not done.
        let unnamed = |lease: &&Lease| {
            was != identity && lease.stream.is_none() && !lease.checkpoint.is_initial()
        };
        let named = |lease: &&Lease| is_former(lease, &identity);
        let first_unnamed = table.leases.iter().filter(unnamed);
        for lease in first_unnamed.chain(table.leases.iter().filter(named)) {
            let shard = first.shards.iter().find(|shard| shard.id == lease.key);
            let mut lease = lease.clone();
            let mut tries = 0;
            let outcome = loop {
                let write = match shard {
                    Some(shard) => LeaseWrite::Replace { new: Box::new(new_lease(shard)) },
                    // Not one of the first: if it exists again, its parents' end brings its lease.
                    None => LeaseWrite::Delete,
                };
                let outcome = self.store.write(&lease, write).await?;
                tries += 1;
                match outcome {
                    // Its owner wrote it meanwhile, and knows nothing of the new stream. A lease that
                    // does not name its stream must not be left: a later pass would take it for new.
                    Outcome::ConditionFailed(Some(found))
                        if tries < REPLACE_TRIES && (named(&&found) || unnamed(&&found)) =>
                    {
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
        Ok(report)
    }

    /// The shards that were open at the position, oldest first.
    async fn first_shards(&self, position: InitialPosition) -> Result<ShardList, SyncError> {
        let mut listed = self.list(Some(position)).await?;
        let ranges = listed.shards.iter().map(|shard| shard.hash_key_range);
        if !covers_all_hash_keys(ranges) {
            return Err(SyncError::Incomplete);
        }
        listed.shards.sort_by(|a, b| a.starting_sequence.cmp(&b.starting_sequence));
        Ok(listed)
    }

    /// Creates leases, many at a time, but each after those of its parents: a shard whose lease comes
    /// before its parents' could start before them. A create that fails for a passing reason is tried
    /// again as long as others succeed.
    ///
    /// `now`: the service's time at which a lease at `LATEST` starts. Answers how many were created.
    pub(super) async fn create_all(
        &self,
        survey: &Survey,
        new: &[NewLease<'_>],
        now: SystemTime,
    ) -> Result<usize, SyncError> {
        let mut created = 0;
        for mut left in generations(new) {
            while !left.is_empty() {
                let creates = self.creates(&left, now, survey.looked);
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
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
        Ok(created)
    }

    /// One future for each lease; none has begun.
    fn creates<'f, 's>(
        &'f self,
        new: &[&'f NewLease<'s>],
        now: SystemTime,
        looked: Duration,
    ) -> Vec<BoxFuture<'f, Created<'f, 's>>> {
        let create = |new: &&'f NewLease<'s>| {
            let new = *new;
            async move { (new, self.create(new, now, looked).await) }.boxed()
        };
        new.iter().map(create).collect()
    }

    /// `looked`: when its lease was found missing.
    async fn create(
        &self,
        new: &NewLease<'_>,
        now: SystemTime,
        looked: Duration,
    ) -> Result<bool, SyncError> {
        self.store_new(&self.new_lease(new, now), looked).await
    }

    fn new_lease(&self, new: &NewLease<'_>, now: SystemTime) -> Lease {
        let mut lease = self.lease(&new.shard.id, new.checkpoint.clone());
        lease.parents = new.shard.parents.clone();
        lease.hash_key_range = Some(new.shard.hash_key_range);
        lease.resume_from = match (&new.checkpoint, self.position) {
            (Checkpoint::Latest, _) => Some(now),
            (Checkpoint::AtTimestamp, InitialPosition::AtTimestamp(time)) => Some(time),
            _ => None,
        };
        lease
    }

    async fn store_new(&self, lease: &Lease, looked: Duration) -> Result<bool, SyncError> {
        if self.clock.now().saturating_sub(looked) > LOOK_LASTS {
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
        // Nothing was read yet; from here on, workers of this library note how far they are.
        lease.read_to = Some(SystemTime::UNIX_EPOCH);
        lease
    }

    /// Creates the leases of a finished shard's children, at the trim horizon, where they are
    /// missing, and notes them in the parent's item. No children given: those that the stream lists.
    pub(crate) async fn create_children(
        &self,
        parent: &Lease,
        children: Vec<ChildShard>,
    ) -> Result<Vec<String>, SyncError> {
        // The parent is unfinished now, so no child of it is.
        let looked = self.clock.now();
        let children = if children.is_empty() {
            let listed = self.list_after_end(parent).await?.shards;
            let is_child = |shard: &Shard| shard.parents.contains(parent.shard_id());
            listed.into_iter().filter(is_child).map(as_child).collect()
        } else {
            children
        };
        for child in &children {
            self.create_child(parent, child, looked).await?;
        }
        let ids: Vec<String> = children.into_iter().map(|child| child.shard_id).collect();
        if !ids.is_empty() {
            let children = ShardFacts::Children(ids.clone());
            self.store.write(parent, LeaseWrite::SetFacts(children)).await?;
        }
        Ok(ids)
    }

    async fn create_child(
        &self,
        parent: &Lease,
        child: &ChildShard,
        looked: Duration,
    ) -> Result<(), SyncError> {
        // The child of a merge waits for both parents by their leases, so a missing one would let it
        // start early. Once the child's own lease exists, a missing parent was cleaned up.
        for other in child.parents.iter().filter(|id| *id != parent.shard_id()) {
            let missing = self.store.get(other).await?.is_none()
                && self.store.get(&child.shard_id).await?.is_none();
            if missing {
                Box::pin(self.run()).await?;
                self.lease_line(parent, other).await?;
            }
        }
        let mut lease = self.lease(&child.shard_id, Checkpoint::TrimHorizon);
        lease.parents = child.parents.iter().cloned().collect::<BTreeSet<_>>();
        lease.parents.insert(parent.shard_id().to_owned());
        lease.hash_key_range = Some(child.hash_key_range);
        self.store_new(&lease, looked).await?;
        Ok(())
    }

    /// Creates the leases, at the trim horizon, that a shard and its ancestors lack up to those that
    /// have one: a sync leaves them to the ends of these, and each waits for its own parents.
    async fn lease_line(&self, ended: &Lease, shard_id: &str) -> Result<(), SyncError> {
        let looked = self.clock.now();
        let listed = self.list_after_end(ended).await?;
        let by_id: BTreeMap<&str, &Shard> =
            listed.shards.iter().map(|shard| (shard.id.as_str(), shard)).collect();
        let mut missing = BTreeMap::new();
        let mut path = vec![shard_id];
        while let Some(id) = path.pop() {
            let Some(shard) = by_id.get(id) else { continue };
            if !missing.contains_key(id) && self.store.get(id).await?.is_none() {
                missing.insert(id, *shard);
                path.extend(shard.parents.iter().map(String::as_str));
            }
        }
        // A shard whose lease comes before its parents' could start before them.
        let mut missing: Vec<&Shard> = missing.into_values().collect();
        missing.sort_by_key(|shard| &shard.starting_sequence);
        for shard in missing {
            let new = NewLease { shard, checkpoint: Checkpoint::TrimHorizon };
            self.create(&new, listed.server_time, looked).await?;
        }
        Ok(())
    }

    /// The shards that the stream lists, the end of `ended` among them. A listing may lag.
    async fn list_after_end(&self, ended: &Lease) -> Result<ShardList, SyncError> {
        let listed = self.list(None).await?;
        let find = |id: &str| listed.shards.iter().find(|shard| shard.id == id);
        let behind = match find(ended.shard_id()) {
            Some(shard) => shard.is_open(),
            // Shards leave the stream after their parents.
            None => ended.parents.iter().any(|parent| find(parent).is_some()),
        };
        if behind {
            return Err(SyncError::StillOpen { shard_id: ended.shard_id().to_owned() });
        }
        Ok(listed)
    }
}

/// New leases, oldest shard first, by how many ancestors in a line they have among them.
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

/// Whether a lease says that it is of an earlier stream of the name.
fn is_former(lease: &Lease, identity: &StreamIdentity) -> bool {
    let earlier = |stream: &StreamIdentity| stream.created < identity.created;
    lease.stream.as_ref().is_some_and(earlier)
}

fn recreated(identity: &StreamIdentity) -> SyncError {
    SyncError::StreamRecreated { stream: identity.arn.clone() }
}

fn as_child(shard: Shard) -> ChildShard {
    ChildShard {
        shard_id: shard.id,
        parents: shard.parents.into_iter().collect(),
        hash_key_range: shard.hash_key_range,
    }
}

/// True if every hash key lies in one of the ranges. Overlaps do not matter.
fn covers_all_hash_keys(ranges: impl Iterator<Item = HashKeyRange>) -> bool {
    let mut ranges: Vec<_> = ranges.collect();
    ranges.sort_by_key(|range| range.start());
    // The first key that is not covered yet; `None`: all are.
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
