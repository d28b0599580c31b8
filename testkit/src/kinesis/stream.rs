//! One stream: its shards, which of them are open, and a change under way.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::consumers::Consumer;
use super::error::ApiError;
use super::hash_key;
use super::mode::Distribution;
use super::shard::{Shard, ShardId};
use super::tags::Tags;
use crate::clock::Timestamp;

/// How a stream's capacity is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StreamMode {
    Provisioned,
    OnDemand,
}

impl StreamMode {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Provisioned => "PROVISIONED",
            Self::OnDemand => "ON_DEMAND",
        }
    }
}

/// A change that has been accepted and takes effect when its time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Change {
    Create { shards: u32 },
    Delete,
    Split { shard: ShardId, at: u128 },
    Merge { shard: ShardId, adjacent: ShardId },
    UpdateShardCount { target: u32 },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stream {
    pub(crate) name: String,
    pub(crate) arn: String,
    /// Tells streams apart that had the same name.
    pub(crate) incarnation: u64,
    pub(crate) created: Timestamp,
    pub(crate) mode: StreamMode,
    pub(crate) retention_hours: u64,
    pub(crate) max_record_kib: usize,
    /// Every shard ever, by its index.
    pub(crate) shards: Vec<Shard>,
    /// The open shards, in the order of their ranges.
    pub(crate) open: Vec<ShardId>,
    pub(crate) distribution: Distribution,
    /// Counts the records that were placed without their keys.
    pub(crate) placed: usize,
    /// When the mode was changed, as far as that limits further changes.
    pub(crate) mode_changes: Vec<Timestamp>,
    pub(crate) encryption_key: Option<String>,
    /// What enhanced monitoring measures, in the order of names.
    pub(crate) metrics: Vec<String>,
    /// In the order in which they were registered.
    pub(crate) consumers: Vec<Consumer>,
    pub(crate) tags: Tags,
    pending: Option<(Timestamp, Change)>,
    deleted: bool,
    /// What was past retention when the retention period changed stays lost.
    forgotten: Timestamp,
    /// The horizon up to which every shard has been freed.
    freed: Timestamp,
}

impl Stream {
    pub(crate) fn new(
        name: String,
        arn: String,
        incarnation: u64,
        created: Timestamp,
        mode: StreamMode,
        max_record_kib: usize,
    ) -> Self {
        Self {
            name,
            arn,
            incarnation,
            created,
            mode,
            retention_hours: 24,
            max_record_kib,
            shards: Vec::new(),
            open: Vec::new(),
            distribution: Distribution::default(),
            placed: 0,
            mode_changes: Vec::new(),
            encryption_key: None,
            metrics: Vec::new(),
            consumers: Vec::new(),
            tags: Tags::new(),
            pending: None,
            deleted: false,
            forgotten: Timestamp::default(),
            freed: Timestamp::default(),
        }
    }

    /// Accepts a change: it takes effect `after` that long, at once if that is zero.
    pub(crate) fn begin(&mut self, now: Timestamp, after: Duration, change: Change) {
        self.pending = Some((now.plus(after), change));
        self.settle(now);
    }

    /// Makes the change effective whose time has come. Called before anything looks at the stream.
    pub(crate) fn settle(&mut self, now: Timestamp) {
        if let Some((due, change)) = self.pending.filter(|(due, _)| *due <= now) {
            self.pending = None;
            self.apply(due, change);
        }
        self.consumers.retain(|consumer| !consumer.is_gone(now));
    }

    fn apply(&mut self, at: Timestamp, change: Change) {
        match change {
            Change::Create { shards } => self.open_first_shards(at, shards),
            Change::Delete => self.deleted = true,
            Change::Split { shard, at: hash_key } => self.split(at, shard, hash_key),
            Change::Merge { shard, adjacent } => self.merge(at, shard, adjacent),
            Change::UpdateShardCount { target } => self.reshard_uniformly(at, target),
        }
    }

    fn open_first_shards(&mut self, now: Timestamp, count: u32) {
        let starts = hash_key::uniform_starts(count);
        for (index, start) in starts.iter().enumerate() {
            let end = starts.get(index + 1).map_or(u128::MAX, |next| next - 1);
            let id = ShardId(index as u32);
            self.shards.push(Shard::open(id, (*start, end), &[], now));
            self.open.push(id);
        }
    }

    pub(crate) fn is_deleted(&self) -> bool {
        self.deleted
    }

    pub(crate) fn status(&self) -> &'static str {
        match self.pending {
            None => "ACTIVE",
            Some((_, Change::Create { .. })) => "CREATING",
            Some((_, Change::Delete)) => "DELETING",
            Some(_) => "UPDATING",
        }
    }

    pub(crate) fn is_active(&self) -> bool {
        self.pending.is_none()
    }

    pub(crate) fn is_being_deleted(&self) -> bool {
        matches!(self.pending, Some((_, Change::Delete)))
    }

    /// Whether records can be put and read: while it is active or updating.
    pub(crate) fn serves_data(&self) -> bool {
        !matches!(self.pending, Some((_, Change::Create { .. } | Change::Delete)))
    }

    /// Records that arrived before this moment are past retention.
    pub(crate) fn horizon(&self, now: Timestamp) -> Timestamp {
        now.minus(Duration::from_secs(self.retention_hours * 3600)).max(self.forgotten)
    }

    /// Frees what is past retention in every shard, also those no one reads or writes any more.
    pub(crate) fn free_expired(&mut self, now: Timestamp) {
        let horizon = self.horizon(now);
        // There may be thousands of shards: not at every call.
        if horizon < self.freed.plus(Duration::from_secs(1)) {
            return;
        }
        self.freed = horizon;
        for shard in &mut self.shards {
            shard.free_before(horizon);
        }
    }

    /// How records are encrypted, if they are.
    pub(crate) fn encryption_type(&self) -> Option<&'static str> {
        self.encryption_key.is_some().then_some("KMS")
    }

    pub(crate) fn set_retention(&mut self, now: Timestamp, hours: u64) {
        self.forgotten = self.horizon(now);
        self.retention_hours = hours;
    }

    pub(crate) fn shard(&self, id: ShardId) -> &Shard {
        &self.shards[id.0 as usize]
    }

    pub(crate) fn shard_mut(&mut self, id: ShardId) -> &mut Shard {
        &mut self.shards[id.0 as usize]
    }

    /// The shard called `text`, unless it has vanished with its retention.
    pub(crate) fn find_shard(&self, now: Timestamp, text: &str) -> Result<ShardId, ApiError> {
        let horizon = self.horizon(now);
        ShardId::parse(text)
            .filter(|id| (id.0 as usize) < self.shards.len())
            .filter(|id| self.shard(*id).is_retained(horizon))
            .ok_or_else(|| {
                ApiError::not_found(format!("Shard {text} in stream {} does not exist", self.name))
            })
    }

    /// The open shard that owns a hash key. A stream that serves data always has one.
    pub(crate) fn route(&self, hash_key: u128) -> ShardId {
        let after = self.open.partition_point(|id| self.shard(*id).range.0 <= hash_key);
        self.open[after - 1]
    }
}
