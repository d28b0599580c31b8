//! A stream in memory: records, splits and merges, and listings that lag.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use kcl::internals::{ChildShard, ListShardsError, RawRecord, Shard, ShardList, ShardLister};
use kcl::{Clock, ExtendedSequenceNumber, SequenceNumber, StreamPosition};
use kinesis_aggregation::{AggregateBuilder, HashKey, HashKeyRange};

/// A shard and its records.
#[derive(Debug, Clone)]
pub(super) struct SimShard {
    pub(super) parents: BTreeSet<String>,
    pub(super) range: HashKeyRange,
    created: Duration,
    closed: Option<Duration>,
    /// User records, in order; see [`position_of`].
    pub(super) records: Vec<u64>,
    /// The sequence number at which it starts.
    pub(super) first: u64,
}

/// Records that a Java worker reads.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) records: Vec<u64>,
    /// The shard is closed, and there is nothing after these records.
    pub(super) ended: bool,
}

/// A page as our library reads it.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) records: Vec<RawRecord>,
    /// The user record to go on from.
    pub(super) next: u64,
    /// No record follows these now.
    pub(super) is_last: bool,
    /// As [`Read::ended`].
    pub(super) ended: bool,
}

#[derive(Debug)]
struct State {
    shards: BTreeMap<String, SimShard>,
    next_sequence: u64,
    next_shard: u32,
    random: Rng,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Stream {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

/// User records in one Kinesis record, at most.
pub(super) const MOST_MEMBERS: u64 = 4;

/// The sequence number of the Kinesis record of a user record.
pub(super) fn sequence_of(record: u64) -> u64 {
    record / MOST_MEMBERS
}

/// Position of a user record. Records are numbers, so that one `u64` holds sequence and sub-sequence number.
pub(super) fn position_of(record: u64) -> ExtendedSequenceNumber {
    ExtendedSequenceNumber::new(number(sequence_of(record)), record % MOST_MEMBERS)
}

/// The user record at a position.
pub(super) fn record_at(position: &ExtendedSequenceNumber) -> u64 {
    first_of(&position.sequence_number) + position.sub_sequence_number
}

/// The first user record of a Kinesis record.
pub(super) fn first_of(sequence: &SequenceNumber) -> u64 {
    sequence.as_str().parse().unwrap_or(u64::MAX / MOST_MEMBERS) * MOST_MEMBERS
}

fn number(sequence: u64) -> SequenceNumber {
    let number = sequence.to_string().parse();
    number.expect("digits are a sequence number")
}

/// The data of a user record.
pub(super) fn payload(record: u64) -> [u8; 8] {
    record.to_be_bytes()
}

/// A Kinesis record with these user records, all with the hash key `key`.
fn raw(members: &[u64], key: HashKey) -> RawRecord {
    let data = match members {
        [record] => Bytes::copy_from_slice(&payload(*record)),
        members => {
            let mut aggregate = AggregateBuilder::new(1 << 10);
            for record in members {
                let pushed = aggregate.push("key", Some(key), &payload(*record));
                pushed.expect("a few small records fit");
            }
            aggregate.seal().into_bytes()
        }
    };
    RawRecord {
        sequence_number: number(sequence_of(members[0])),
        partition_key: Some("key".to_owned()),
        data,
        arrival: None,
    }
}

fn range(start: u128, end: u128) -> HashKeyRange {
    HashKeyRange::new(HashKey::new(start), HashKey::new(end)).unwrap_or(HashKeyRange::FULL)
}

impl Stream {
    pub(super) fn new(clock: Arc<dyn Clock>, shards: u32, seed: u64) -> Self {
        let stream = Self {
            clock,
            state: Mutex::new(State {
                shards: BTreeMap::new(),
                next_sequence: 1,
                next_shard: 0,
                random: Rng::with_seed(seed),
            }),
        };
        let width = u128::MAX / u128::from(shards);
        for shard in 0..u128::from(shards) {
            let start = shard * width;
            let last = shard + 1 == u128::from(shards);
            let end = if last { u128::MAX } else { start + width - 1 };
            stream.add(&[], range(start, end));
        }
        stream
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, parents: &[&str], range: HashKeyRange) -> String {
        let created = self.clock.now();
        let mut state = self.state();
        let id = format!("shardId-{:03}", state.next_shard);
        state.next_shard += 1;
        let first = state.next_sequence;
        state.next_sequence += 1;
        for parent in parents {
            if let Some(parent) = state.shards.get_mut(*parent) {
                parent.closed = Some(created);
            }
        }
        state.shards.insert(
            id.clone(),
            SimShard {
                parents: parents.iter().map(|id| (*id).to_owned()).collect(),
                range,
                created,
                closed: None,
                records: Vec::new(),
                first,
            },
        );
        id
    }

    /// Puts one Kinesis record into a random shard: a user record or an aggregate.
    pub(super) fn put(&self) {
        let mut state = self.state();
        let key = HashKey::new(state.random.u128(..));
        let sequence = state.next_sequence;
        state.next_sequence += 1;
        let members = match state.random.u32(..4) {
            0 => state.random.u64(2..=MOST_MEMBERS),
            _ => 1,
        };
        let open = state.shards.values_mut();
        let mut open = open.filter(|shard| shard.closed.is_none() && shard.range.contains(key));
        if let Some(shard) = open.next() {
            let first = sequence * MOST_MEMBERS;
            shard.records.extend(first..first + members);
        }
    }

    /// Puts one record into each open shard. A fleet that delivers them all reads every shard.
    pub(super) fn put_everywhere(&self) {
        let state = &mut *self.state();
        for shard in state.shards.values_mut() {
            if shard.closed.is_none() {
                shard.records.push(state.next_sequence * MOST_MEMBERS);
                state.next_sequence += 1;
            }
        }
    }

    /// Splits or merges random open shards. Returns a text that names them.
    pub(super) fn reshard(&self, merge: bool, random: &mut Rng) -> Option<String> {
        let mut open: Vec<_> = self.shards().into_iter().collect();
        open.retain(|(_, shard)| shard.closed.is_none());
        open.sort_by_key(|(_, shard)| shard.range.start());
        let at = random.usize(..open.len());
        let (id, shard) = &open[at];
        let (start, end) = (shard.range.start().get(), shard.range.end().get());
        if merge {
            let (other, next) = open.get(at + 1)?;
            let child = self.add(&[id, other], range(start, next.range.end().get()));
            return Some(format!("merge {id} + {other} -> {child}"));
        }
        let middle = start + (end - start) / 2;
        let a = self.add(&[id], range(start, middle));
        let b = self.add(&[id], range(middle + 1, end));
        Some(format!("split {id} -> {a} + {b}"))
    }

    pub(super) fn shards(&self) -> BTreeMap<String, SimShard> {
        self.state().shards.clone()
    }

    pub(super) fn with<T>(&self, id: &str, look: impl FnOnce(&SimShard) -> T) -> Option<T> {
        self.state().shards.get(id).map(look)
    }

    /// At most `most` records after a sequence number.
    pub(super) fn read(&self, id: &str, after: u64, most: usize) -> Read {
        let read = self.with(id, |shard| {
            let from = shard.records.partition_point(|sequence| *sequence <= after);
            let to = shard.records.len().min(from + most);
            Read {
                records: shard.records[from..to].to_vec(),
                ended: shard.closed.is_some() && to == shard.records.len(),
            }
        });
        // A shard that the stream does not know counts as one that has ended.
        read.unwrap_or(Read { records: Vec::new(), ended: true })
    }

    /// At most `most` Kinesis records, from a user record on.
    pub(super) fn fetch(&self, id: &str, from: u64, most: usize) -> Fetched {
        let fetched = self.with(id, |shard| {
            let start = shard.records.partition_point(|record| *record < from);
            let unread = shard.records[start..].chunk_by(|a, b| sequence_of(*a) == sequence_of(*b));
            let taken: Vec<&[u64]> = unread.take(most).collect();
            let read: usize = taken.iter().map(|members| members.len()).sum();
            let key = shard.range.start();
            let is_last = start + read == shard.records.len();
            Fetched {
                records: taken.into_iter().map(|members| raw(members, key)).collect(),
                next: shard.records[..start + read]
                    .last()
                    .map_or(from, |last| from.max((sequence_of(*last) + 1) * MOST_MEMBERS)),
                is_last,
                ended: is_last && shard.closed.is_some(),
            }
        });
        // A shard that the stream does not know counts as one that has ended.
        fetched.unwrap_or(Fetched { records: Vec::new(), next: from, is_last: true, ended: true })
    }

    /// The user record to begin from at the trim horizon of a shard. `None`: there is no such shard.
    pub(super) fn horizon(&self, id: &str) -> Option<u64> {
        self.with(id, |shard| (shard.first + 1) * MOST_MEMBERS)
    }

    /// The last sequence number of the stream.
    pub(super) fn last_sequence(&self) -> u64 {
        self.state().next_sequence - 1
    }

    /// The children of a closed shard, as the end of its records names them.
    pub(super) fn children(&self, id: &str) -> Vec<ChildShard> {
        let shards = self.shards();
        let children = shards.into_iter().filter(|(_, c)| c.parents.contains(id));
        children
            .map(|(shard_id, child)| ChildShard {
                shard_id,
                parents: child.parents.into_iter().collect(),
                hash_key_range: child.range,
            })
            .collect()
    }
}

impl SimShard {
    pub(super) fn is_open(&self) -> bool {
        self.closed.is_none()
    }

    fn as_listed(&self, id: &str, at: Duration) -> Option<Shard> {
        Some(Shard {
            id: id.to_owned(),
            parents: self.parents.clone(),
            hash_key_range: self.range,
            starting_sequence: self.first.to_string().parse().ok()?,
            open: self.closed.is_none_or(|closed| closed > at),
        })
    }
}

impl ShardLister for Stream {
    fn list(
        &self,
        position: Option<StreamPosition>,
    ) -> BoxFuture<'_, Result<ShardList, ListShardsError>> {
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let lag = Duration::from_millis(self.state().random.u64(..2000));
            let at = self.clock.now().saturating_sub(lag);
            let shards = self.shards();
            let listed = shards.iter().filter(|(_, shard)| shard.created <= at);
            // At the trim horizon: the oldest ones, for nothing is trimmed.
            let listed = listed.filter(|(_, shard)| position.is_none() || shard.parents.is_empty());
            Ok(ShardList {
                shards: listed.filter_map(|(id, shard)| shard.as_listed(id, at)).collect(),
                server_time: self.clock.wall(),
            })
        }
        .boxed()
    }
}
