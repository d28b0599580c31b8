//! The items of the lease table, in the encoding of the Java library.

use std::collections::{BTreeSet, HashMap};
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use bytes::Bytes;
use kinesis_aggregation::{HashKey, HashKeyRange};

use super::model::{Lease, PendingCheckpoint, Stamp, StreamIdentity};
use super::store::{LeaderLock, WorkerRow};
use crate::checkpoint::Checkpoint;
use crate::progress::Failing;

/// An item as DynamoDB holds it.
pub type Item = HashMap<String, AttributeValue>;

/// Attribute names of the lease table.
pub mod attribute {
    pub const KEY: &str = "leaseKey";
    pub const OWNER: &str = "leaseOwner";
    pub const COUNTER: &str = "leaseCounter";
    pub const CHECKPOINT: &str = "checkpoint";
    pub const CHECKPOINT_SUB: &str = "checkpointSubSequenceNumber";
    pub const PENDING: &str = "pendingCheckpoint";
    pub const PENDING_SUB: &str = "pendingCheckpointSubSequenceNumber";
    pub const PENDING_STATE: &str = "pendingCheckpointState";
    pub const OWNER_SWITCHES: &str = "ownerSwitchesSinceCheckpoint";
    /// A set, despite its name.
    pub const PARENTS: &str = "parentShardId";
    pub const CHILDREN: &str = "childShardIds";
    pub const START: &str = "startingHashKey";
    pub const END: &str = "endingHashKey";
    pub const THROUGHPUT: &str = "throughputKBps";
    pub const CHECKPOINT_OWNER: &str = "checkpointOwner";
    pub const ENTITY_TYPE: &str = "entityType";
    pub const LAST_UPDATE: &str = "lut";
    pub const MEASURES: &str = "sts";
    pub const LEGACY_WORKER_KEY: &str = "wid";
    pub const LEGACY_STATE_KEY: &str = "key";
    pub const LOCK_OWNER: &str = "ownerName";
    pub const LOCK_VERSION: &str = "recordVersionNumber";
    /// Milliseconds, as a string.
    pub const LOCK_DURATION: &str = "leaseDuration";
    pub const LOCK_RELEASED: &str = "isReleased";
    // Of this library. Java workers leave attributes alone that they do not know.
    pub const RESUME_FROM: &str = "rustResumeFrom";
    pub const READ_TO: &str = "rustReadTo";
    pub const STREAM: &str = "rustStream";
    pub const RELEASED_AT: &str = "rustReleasedAt";
    pub const STAMP: &str = "rustStamp";
    pub const FAILING: &str = "rustFailing";
    /// Attribute of the leader's lock: see `LeaderLock::is_starter`.
    pub const STARTER: &str = "rustStarter";
    pub const PROCESS: &str = "rustProcess";
}
use attribute as name;

pub(crate) const ENTITY_LEASE: &str = "LEASE";
pub(crate) const ENTITY_WORKER: &str = "WORKER_METRIC_STATS";
pub(crate) const ENTITY_LEADER: &str = "LEADER";
/// Key of the leader's lock.
pub const LEADER: &str = "Leader";

/// An item that should be a lease or a worker row, but cannot be decoded as one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "item {key:?} of the lease table is corrupt: attribute {attribute} {problem}; repair or delete the item"
)]
pub struct CorruptItem {
    pub key: String,
    pub attribute: &'static str,
    pub problem: &'static str,
}

/// An item of the lease table, or of the older tables beside it.
#[derive(Debug, Clone, PartialEq)]
pub enum TableItem {
    Lease(Box<Lease>),
    Worker(WorkerRow),
    Leader(LeaderLock),
    /// Migration state, or an item that a later version added.
    Other,
}

/// Decodes any item.
pub fn decode(item: Item) -> Result<TableItem, CorruptItem> {
    let text = |attribute: &str| item.get(attribute).and_then(|value| value.as_s().ok());
    let entity = text(name::ENTITY_TYPE).map(String::as_str);
    let worker = match entity {
        Some(ENTITY_WORKER) => text(name::KEY),
        _ if item.contains_key(name::KEY) => None,
        _ => text(name::LEGACY_WORKER_KEY),
    };
    if let Some(worker) = worker {
        return Ok(TableItem::Worker(WorkerRow {
            worker: worker.clone(),
            measures: item
                .get(name::MEASURES)
                .and_then(|measures| measures.as_m().ok())
                .is_some_and(|measures| !measures.is_empty()),
            // A row without a process is as good.
            process: text(name::PROCESS).and_then(|process| u64::from_str_radix(process, 16).ok()),
            last_update: Reader { key: worker.clone(), rest: item }.number(name::LAST_UPDATE)?,
        }));
    }
    let is_lock = text(name::KEY).map_or_else(
        || text(name::LEGACY_STATE_KEY).is_some_and(|key| key == LEADER),
        |key| key == LEADER && entity == Some(ENTITY_LEADER),
    );
    if is_lock {
        let lock = leader_lock(&item).filter(|lock| !lock.is_starter);
        return Ok(lock.map_or(TableItem::Other, TableItem::Leader));
    }
    match (text(name::KEY).cloned(), entity) {
        (Some(key), None | Some(ENTITY_LEASE)) => {
            decode_lease(key, item).map(|lease| TableItem::Lease(Box::new(lease)))
        }
        _ => Ok(TableItem::Other),
    }
}

/// The process in the rows of workers.
pub(crate) fn process_text(process: u64) -> AttributeValue {
    text(format!("{process:x}"))
}

/// Decodes the leader's lock. `None`: the lock is released, or not as the lock client writes it.
pub(super) fn leader_lock(item: &Item) -> Option<LeaderLock> {
    let text = |attribute| item.get(attribute)?.as_s().ok().cloned();
    if item.contains_key(name::LOCK_RELEASED) {
        return None;
    }
    Some(LeaderLock {
        owner: text(name::LOCK_OWNER)?,
        version: text(name::LOCK_VERSION)?,
        duration: Duration::from_millis(text(name::LOCK_DURATION)?.parse().ok()?),
        is_starter: item.contains_key(name::STARTER),
    })
}

/// Encodes the leader's lock as the lock client for Java does. `key`: the table's hash key.
pub(super) fn encode_leader_lock(lock: &LeaderLock, key: &str, has_entity_type: bool) -> Item {
    let mut item = Item::from([
        (key.to_owned(), text(LEADER)),
        (name::LOCK_OWNER.to_owned(), text(&lock.owner)),
        (name::LOCK_VERSION.to_owned(), text(&lock.version)),
        (name::LOCK_DURATION.to_owned(), text(lock.duration.as_millis().to_string())),
    ]);
    if has_entity_type {
        item.insert(name::ENTITY_TYPE.to_owned(), text(ENTITY_LEADER));
    }
    if lock.is_starter {
        item.insert(name::STARTER.to_owned(), AttributeValue::Bool(true));
    }
    item
}

fn decode_lease(key: String, item: Item) -> Result<Lease, CorruptItem> {
    let mut item = Reader { key, rest: item };
    item.take(name::KEY);
    let has_entity_type = item.take(name::ENTITY_TYPE).is_some();
    let hash_key_range = match (item.hash_key(name::START)?, item.hash_key(name::END)?) {
        (None, None) => None,
        (Some(start), Some(end)) => Some(
            HashKeyRange::new(start, end)
                .map_err(|_| item.corrupt(name::END, "lies before startingHashKey"))?,
        ),
        (Some(_), None) => return Err(item.corrupt(name::END, "is missing")),
        (None, Some(_)) => return Err(item.corrupt(name::START, "is missing")),
    };
    let checkpoint = item
        .checkpoint(name::CHECKPOINT, name::CHECKPOINT_SUB)?
        .ok_or_else(|| item.corrupt(name::CHECKPOINT, "is missing"))?;
    // The Java library creates leases with a number here by mistake, and reads it as no state.
    let state = match item.take(name::PENDING_STATE) {
        None | Some(AttributeValue::N(_)) => None,
        Some(AttributeValue::B(blob)) => Some(Bytes::from(blob.into_inner())),
        Some(_) => return Err(item.corrupt(name::PENDING_STATE, "is not binary")),
    };
    let counter = item.number(name::COUNTER)?;
    let time = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
    Ok(Lease {
        owner: item.text(name::OWNER)?,
        checkpoint_owner: item.text(name::CHECKPOINT_OWNER)?,
        counter,
        checkpoint,
        pending: item
            .checkpoint(name::PENDING, name::PENDING_SUB)?
            .map(|checkpoint| PendingCheckpoint { checkpoint, state }),
        owner_switches: item.number(name::OWNER_SWITCHES)?,
        parents: item.set(name::PARENTS)?,
        children: item.set(name::CHILDREN)?,
        hash_key_range,
        throughput: item.throughput()?,
        has_entity_type,
        resume_from: item.optional_number(name::RESUME_FROM)?.map(time),
        // An unreadable value counts as none: then the worker cannot tell whether records were trimmed unread.
        read_to: item.optional_number(name::READ_TO).unwrap_or_default().map(time),
        stream: item.stream()?,
        // Without these two, a worker waits longer before it starts. An unreadable value is no reason to leave the
        // shard alone.
        released_at: item.optional_number(name::RELEASED_AT).unwrap_or_default(),
        stamp: item.take(name::STAMP).map(|stamp| {
            let text = stamp.as_s().ok();
            text.and_then(|text| Stamp::parse(text)).unwrap_or_else(|| Stamp::unreadable(counter))
        }),
        // An unreadable value is no reason to leave the shard alone: the attempts are counted anew.
        failing: item.take(name::FAILING).and_then(|failing| Failing::parse(failing.as_s().ok()?)),
        key: item.key,
        other: item.rest,
    })
}

/// Encodes a lease as the Java library does when it creates one.
pub fn encode(lease: &Lease) -> Item {
    let mut item = lease.other.clone();
    let mut put = |name: &str, value: Option<AttributeValue>| {
        if let Some(value) = value {
            item.insert(name.to_owned(), value);
        }
    };
    put(name::KEY, Some(text(&lease.key)));
    put(name::ENTITY_TYPE, lease.has_entity_type.then(|| text(ENTITY_LEASE)));
    put(name::OWNER, lease.owner.as_ref().map(text));
    put(name::CHECKPOINT_OWNER, lease.checkpoint_owner.as_ref().map(text));
    put(name::COUNTER, Some(number(lease.counter)));
    put(name::CHECKPOINT, Some(text(lease.checkpoint.as_str())));
    put(name::CHECKPOINT_SUB, Some(number(lease.checkpoint.sub_sequence_number())));
    put(name::OWNER_SWITCHES, Some(number(lease.owner_switches)));
    if let Some(pending) = &lease.pending {
        put(name::PENDING, Some(text(pending.checkpoint.as_str())));
        put(name::PENDING_SUB, Some(number(pending.checkpoint.sub_sequence_number())));
        put(name::PENDING_STATE, pending.state.as_ref().map(binary));
    }
    put(name::PARENTS, set(&lease.parents));
    put(name::CHILDREN, set(&lease.children));
    if let Some(range) = lease.hash_key_range {
        put(name::START, Some(text(range.start().to_string())));
        put(name::END, Some(text(range.end().to_string())));
    }
    put(name::THROUGHPUT, lease.throughput.map(throughput));
    put(name::RESUME_FROM, lease.resume_from.map(epoch_millis).map(number));
    put(name::READ_TO, lease.read_to.map(epoch_millis).map(number));
    put(name::STREAM, lease.stream.as_ref().map(|stream| text(stream.to_string())));
    put(name::RELEASED_AT, lease.released_at.map(number));
    put(name::STAMP, lease.stamp.map(|stamp| text(stamp.to_string())));
    put(name::FAILING, lease.failing.as_ref().map(|failing| text(failing.to_string())));
    item
}

pub fn text(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

pub fn number(value: impl Into<i128>) -> AttributeValue {
    AttributeValue::N(value.into().to_string())
}

pub(crate) fn binary(value: &Bytes) -> AttributeValue {
    AttributeValue::B(Blob::new(value.to_vec()))
}

/// A set of strings. `None` if it is empty, because DynamoDB has no empty set.
pub(crate) fn set<'a>(values: impl IntoIterator<Item = &'a String>) -> Option<AttributeValue> {
    let values: Vec<String> = values.into_iter().cloned().collect();
    (!values.is_empty()).then_some(AttributeValue::Ss(values))
}

pub fn throughput(kib_per_second: f64) -> AttributeValue {
    AttributeValue::N(six_decimals(kib_per_second))
}

pub(super) fn epoch_millis(time: SystemTime) -> u64 {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// A number with at most six decimals, as the Java library writes it: it rounds the shortest decimal text of the number,
/// halves up.
fn six_decimals(value: f64) -> String {
    let value = if value.is_finite() { value.clamp(0.0, 1e15) } else { 0.0 };
    let shortest = value.to_string();
    let (whole, fraction) = shortest.split_once('.').unwrap_or((&shortest, ""));
    let kept: String = fraction.chars().chain(std::iter::repeat('0')).take(6).collect();
    let round_up = fraction.as_bytes().get(6).is_some_and(|digit| *digit >= b'5');
    let millionths = format!("{whole}{kept}").parse::<u128>().unwrap_or(0) + u128::from(round_up);
    let text = format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Takes attributes out of an item.
struct Reader {
    key: String,
    /// The attributes that were not taken yet.
    rest: Item,
}

impl Reader {
    fn corrupt(&self, attribute: &'static str, problem: &'static str) -> CorruptItem {
        CorruptItem { key: self.key.clone(), attribute, problem }
    }

    fn take(&mut self, attribute: &'static str) -> Option<AttributeValue> {
        self.rest.remove(attribute)
    }

    fn text(&mut self, attribute: &'static str) -> Result<Option<String>, CorruptItem> {
        match self.take(attribute) {
            None => Ok(None),
            Some(AttributeValue::S(text)) if !text.is_empty() => Ok(Some(text)),
            Some(AttributeValue::S(_)) => Err(self.corrupt(attribute, "is an empty string")),
            Some(_) => Err(self.corrupt(attribute, "is not a string")),
        }
    }

    fn parsed<T: FromStr>(
        &mut self,
        attribute: &'static str,
        problem: &'static str,
    ) -> Result<Option<T>, CorruptItem> {
        match self.take(attribute) {
            None => Ok(None),
            Some(AttributeValue::N(text)) => {
                text.parse().map(Some).map_err(|_| self.corrupt(attribute, problem))
            }
            Some(_) => Err(self.corrupt(attribute, "is not a number")),
        }
    }

    fn optional_number(&mut self, attribute: &'static str) -> Result<Option<u64>, CorruptItem> {
        self.parsed(attribute, "is not an integer from 0 to 2^64-1")
    }

    fn number(&mut self, attribute: &'static str) -> Result<u64, CorruptItem> {
        self.optional_number(attribute)?.ok_or_else(|| self.corrupt(attribute, "is missing"))
    }

    fn set(&mut self, attribute: &'static str) -> Result<BTreeSet<String>, CorruptItem> {
        match self.take(attribute) {
            None => Ok(BTreeSet::new()),
            Some(AttributeValue::Ss(values)) => Ok(values.into_iter().collect()),
            Some(_) => Err(self.corrupt(attribute, "is not a string set")),
        }
    }

    fn hash_key(&mut self, attribute: &'static str) -> Result<Option<HashKey>, CorruptItem> {
        let key = self.text(attribute)?.map(|text| text.parse()).transpose();
        key.map_err(|_| self.corrupt(attribute, "is not an integer from 0 to 2^128-1"))
    }

    fn stream(&mut self) -> Result<Option<StreamIdentity>, CorruptItem> {
        let stream = self.text(name::STREAM)?.map(|text| StreamIdentity::parse(&text).ok_or(()));
        stream.transpose().map_err(|()| self.corrupt(name::STREAM, "is not ARN@creation time"))
    }

    fn checkpoint(
        &mut self,
        attribute: &'static str,
        sub: &'static str,
    ) -> Result<Option<Checkpoint>, CorruptItem> {
        let Some(text) = self.text(attribute)? else {
            self.take(sub);
            return Ok(None);
        };
        let sub_sequence_number = self
            .parsed(sub, "is not an integer from -1 to 2^64-1")?
            .ok_or_else(|| self.corrupt(sub, "is missing"))?;
        let checkpoint = Checkpoint::parse(&text, sub_sequence_number);
        let problem = "is neither a sentinel nor a sequence number";
        checkpoint.map(Some).ok_or_else(|| self.corrupt(attribute, problem))
    }

    fn throughput(&mut self) -> Result<Option<f64>, CorruptItem> {
        let problem = "is not a number from 0";
        let found = self.parsed(name::THROUGHPUT, problem)?;
        let is_valid = found.is_none_or(|found: f64| found.is_finite() && found >= 0.0);
        if is_valid { Ok(found) } else { Err(self.corrupt(name::THROUGHPUT, problem)) }
    }
}

#[cfg(test)]
mod tests;
