//! A lease: the right to process one shard, with the progress in the shard.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::SystemTime;

use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use kinesis_aggregation::HashKeyRange;

use crate::checkpoint::Checkpoint;
use crate::progress::Failing;

/// One lease item, as it was last read.
#[derive(Debug, Clone, PartialEq)]
pub struct Lease {
    /// The shard's id (one stream per application).
    pub key: String,
    /// The worker that processes the shard. While a handoff is pending, the worker that will process it. `None`: the
    /// lease is unassigned.
    pub owner: Option<String>,
    /// The worker that still processes, renews and checkpoints while a handoff is pending.
    pub checkpoint_owner: Option<String>,
    /// Heartbeat and version. Each write that proves or moves ownership adds one.
    pub counter: u64,
    pub checkpoint: Checkpoint,
    pub pending: Option<PendingCheckpoint>,
    pub owner_switches: u64,
    pub parents: BTreeSet<String>,
    pub children: BTreeSet<String>,
    pub hash_key_range: Option<HashKeyRange>,
    /// Moving average in KiB per second.
    pub throughput: Option<f64>,
    /// The item says that it is a lease. Items of Java workers before 3.5 do not.
    pub has_entity_type: bool,
    /// Server time at which a shard starts while its checkpoint is a sentinel. Only this library writes it.
    pub resume_from: Option<SystemTime>,
    /// Everything that arrived before this time was checkpointed. Only this library writes it. `None`: not known, because
    /// no worker of this library has read the shard to its tip since a worker of another library owned the lease.
    pub read_to: Option<SystemTime>,
    /// The stream of this shard. Only this library writes it.
    pub stream: Option<StreamIdentity>,
    /// The counter of the write by which the owner transferred or released the lease on purpose. While it equals
    /// `counter`, the new owner may start at once. Only this library writes it.
    pub released_at: Option<u64>,
    /// The process that wrote a counter to prove or to take ownership. Only this library writes it.
    pub stamp: Option<Stamp>,
    /// The record on which the processor failed last. Only this library writes it. It says nothing if that record is not
    /// the next one.
    pub failing: Option<Failing>,
    /// Attributes that this version does not know. They are written back as they are.
    pub other: HashMap<String, AttributeValue>,
}

/// The first phase of a two-phase checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingCheckpoint {
    pub checkpoint: Checkpoint,
    pub state: Option<Bytes>,
}

/// Most writes without a stamp that a lease can have while no worker of another library owns it: a release, and a few
/// assignments by other workers or by a leader. An owner of another library renews the lease at least three times in
/// each failover time, so it soon makes more.
const UNSTAMPED_WRITES: u64 = 10;

impl Lease {
    /// A new lease, unassigned and never renewed.
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
            failing: None,
            other: HashMap::new(),
        }
    }

    /// This lease in the place of `former`, by a write of `process`: see
    /// [`LeaseWrite::Replace`](super::LeaseWrite::Replace).
    pub fn in_place_of(&self, former: &Self, process: u64) -> Self {
        let counter = former.counter.wrapping_add(2);
        // An ended lease still names its owner, but has no processor.
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

    /// The worker that processes the shard now: the checkpoint owner while a handoff is pending.
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

    /// True if the previous owner transferred or released the lease to the present one. Then no other worker can still
    /// be processing the shard.
    pub fn was_released_to_owner(&self) -> bool {
        self.released_at == Some(self.counter)
    }

    /// True if a process of this library, which owned the lease or took it, wrote the counter.
    pub fn is_stamped(&self) -> bool {
        let stamp = self.stamp.filter(|stamp| stamp.counter == self.counter);
        stamp.is_some_and(|stamp| stamp.process.is_some())
    }

    /// True if another process of this library than `process` wrote the counter, or may have written it. The two may have
    /// the same worker id.
    pub fn is_anothers(&self, process: u64) -> bool {
        let stamp = self.stamp.filter(|stamp| stamp.counter == self.counter);
        stamp.is_some_and(|stamp| stamp.process != Some(process))
    }

    /// Whether a worker of another library, such as the Java KCL, may have owned the lease since a worker of this library
    /// last did. Such a worker moves the counter and leaves the stamp and `read_to` alone. Then `read_to` says nothing
    /// about what that worker has read.
    pub fn was_owned_by_another_library(&self) -> bool {
        let stamped = match self.stamp {
            // No worker of this library owned it yet. It was created with the counter 0.
            None => 0,
            Some(Stamp { counter, process: Some(_) }) => counter,
            Some(Stamp { process: None, .. }) => return true,
        };
        // If the counter is before the stamp, the item was restored or edited.
        let unstamped = self.counter.checked_sub(stamped);
        unstamped.is_none_or(|writes| writes > UNSTAMPED_WRITES)
    }
}

/// The process that wrote a counter. By it, two processes with one worker id tell their writes apart. A stamp of an
/// earlier counter says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    pub counter: u64,
    /// A number that each process draws at random. `None`: the stamp could not be read.
    pub process: Option<u64>,
}

impl Stamp {
    /// The stamp of a write by `process` to an item at `counter`.
    pub fn after(counter: u64, process: u64) -> Self {
        Self { counter: counter.wrapping_add(1), process: Some(process) }
    }

    /// The stamp of an item at `counter` that cannot be read, for example because a later version writes another form.
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

/// The stream that a lease belongs to. A stream that is deleted and created again under the same name is another
/// stream, to which old checkpoints do not apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamIdentity {
    pub arn: String,
    /// Creation time of the stream, in milliseconds since 1970.
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
