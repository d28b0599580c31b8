//! A lease: the right to process one shard, and how far that has come.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::SystemTime;

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use kinesis_aggregation::HashKeyRange;

use crate::checkpoint::Checkpoint;

/// One lease item, as it was last read.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// The shard's id (one stream per application).
    pub key: String,
    /// Who processes the shard; while a handoff is pending, who will. `None`: unassigned.
    pub owner: Option<String>,
    /// While a handoff is pending: who still processes, renews and checkpoints.
    pub checkpoint_owner: Option<String>,
    /// Heartbeat and version: each write that proves or moves ownership adds one.
    pub counter: u64,
    pub checkpoint: Checkpoint,
    pub pending: Option<PendingCheckpoint>,
    pub owner_switches: u64,
    pub parents: BTreeSet<String>,
    pub children: BTreeSet<String>,
    pub hash_key_range: Option<HashKeyRange>,
    /// KiB per second, a moving average.
    pub throughput: Option<f64>,
    /// The item says that it is a lease (Java 3.5 and later); older items do not.
    pub has_entity_type: bool,
    /// Ours: server time at which a shard whose checkpoint is still a sentinel starts.
    pub resume_from: Option<SystemTime>,
    /// Ours: everything that arrived before this time was checkpointed. `None`: not known, because no
    /// worker of this library has read the shard to its tip since a worker of another library owned it.
    pub read_to: Option<SystemTime>,
    /// Ours: the stream of this shard.
    pub stream: Option<StreamIdentity>,
    /// Ours: the counter of the write by which its owner gave the lease away on purpose. While it
    /// equals `counter`, the new owner may start at once.
    pub released_at: Option<u64>,
    /// Ours: which process wrote a counter to prove or to take ownership.
    pub stamp: Option<Stamp>,
    /// Attributes that this version does not know; written back as they are.
    pub other: HashMap<String, AttributeValue>,
}

/// The first phase of a two-phase checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingCheckpoint {
    pub checkpoint: Checkpoint,
    pub state: Option<Bytes>,
}

/// Writes that move the counter without a stamp, while no worker of another library owns the lease: a
/// release, and a few assignments by other workers or by a leader. An owner of another library renews the
/// lease at least three times in each failover time, so it has soon made more.
const UNSTAMPED_WRITES: u64 = 10;

impl Lease {
    /// A lease as it is created: unassigned, never renewed.
    pub fn new(shard_id: impl Into<String>, checkpoint: Checkpoint) -> Self {
        Self {
            key: shard_id.into(),
            owner: None,
            checkpoint_owner: None,
            counter: 0,
            checkpoint,
            pending: None,
            owner_switches: 0,
            parents: BTreeSet::new(),
            children: BTreeSet::new(),
            hash_key_range: None,
            throughput: None,
            has_entity_type: true,
            resume_from: None,
            read_to: None,
            stream: None,
            released_at: None,
            stamp: None,
            other: HashMap::new(),
        }
    }

    /// This lease as it takes the place of one of a former stream, by a write of `process`: see
    /// [`LeaseStore::replace`](super::LeaseStore::replace).
    pub fn in_place_of(&self, former: &Self, process: u64) -> Self {
        let counter = former.counter.wrapping_add(2);
        // An ended lease keeps its owner's name, and has no processor.
        let owner = former.actual_owner().filter(|_| !former.has_ended());
        Self {
            owner: owner.map(str::to_owned),
            counter,
            stamp: Some(Stamp { counter, process: Some(process) }),
            ..self.clone()
        }
    }

    pub fn shard_id(&self) -> &str {
        &self.key
    }

    /// Who processes the shard now: the checkpoint owner while a handoff is pending.
    pub fn actual_owner(&self) -> Option<&str> {
        self.checkpoint_owner.as_deref().or(self.owner.as_deref())
    }

    pub fn is_owned_by(&self, worker: &str) -> bool {
        self.actual_owner() == Some(worker)
    }

    pub fn is_handoff_pending(&self) -> bool {
        self.checkpoint_owner.is_some()
    }

    pub fn has_ended(&self) -> bool {
        self.checkpoint == Checkpoint::ShardEnd
    }

    /// Its last owner gave it to the present one: nobody else may still be processing.
    pub fn was_released_to_owner(&self) -> bool {
        self.released_at == Some(self.counter)
    }

    /// The counter was written by a process of ours that owned the lease or took it.
    pub fn is_stamped(&self) -> bool {
        let stamp = self.stamp.filter(|stamp| stamp.counter == self.counter);
        stamp.is_some_and(|stamp| stamp.process.is_some())
    }

    /// The counter was written by another process than `process`, whatever the names of their workers,
    /// or may have been.
    pub fn is_anothers(&self, process: u64) -> bool {
        let stamp = self.stamp.filter(|stamp| stamp.counter == self.counter);
        stamp.is_some_and(|stamp| stamp.process != Some(process))
    }

    /// Whether a worker of another library, such as the Java KCL, may have owned the lease since a worker of
    /// this library last did. Such a worker moves the counter and leaves the stamp and `read_to` alone:
    /// `read_to` then says nothing about what it has read.
    pub fn was_owned_by_another_library(&self) -> bool {
        let stamped = match self.stamp {
            // Not owned by this library yet, and created at 0.
            None => 0,
            Some(Stamp { counter, process: Some(_) }) => counter,
            Some(Stamp { process: None, .. }) => return true,
        };
        // A counter before the stamp: the item was restored or edited.
        let unstamped = self.counter.checked_sub(stamped);
        unstamped.is_none_or(|writes| writes > UNSTAMPED_WRITES)
    }
}

/// Two processes may run under one worker id. They tell their writes apart by this; it says nothing
/// once the counter has moved on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    pub counter: u64,
    /// Drawn at random by each process. `None`: nobody knows, the stamp could not be read.
    pub process: Option<u64>,
}

impl Stamp {
    /// Of a write by `process` to an item at `counter`.
    pub fn after(counter: u64, process: u64) -> Self {
        Self { counter: counter.wrapping_add(1), process: Some(process) }
    }

    /// One that cannot be read, of an item at `counter`: a later version may write another form. It may
    /// be anybody's.
    pub fn unreadable(counter: u64) -> Self {
        Self { counter, process: None }
    }

    pub fn parse(text: &str) -> Option<Self> {
        let (counter, process) = text.split_once('@')?;
        Some(Self {
            counter: counter.parse().ok()?,
            process: Some(u64::from_str_radix(process, 16).ok()?),
        })
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.process {
            Some(process) => write!(f, "{}@{process:x}", self.counter),
            None => write!(f, "{}@?", self.counter),
        }
    }
}

/// Which stream a lease belongs to. A stream that is deleted and created again under its name is
/// another stream, to which old checkpoints mean nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamIdentity {
    pub arn: String,
    /// When the stream was created, in milliseconds since 1970.
    pub created: u64,
}

impl StreamIdentity {
    pub fn parse(text: &str) -> Option<Self> {
        let (arn, created) = text.rsplit_once('@')?;
        Some(Self { arn: arn.to_owned(), created: created.parse().ok()? })
    }
}

impl fmt::Display for StreamIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.arn, self.created)
    }
}
