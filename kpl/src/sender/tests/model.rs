//! A model of Kinesis that misbehaves by chance: throttles, lost responses, late commits, refusals, splits and merges.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use kinesis_aggregation::{Decoded, Decoder, HashKey, HashKeyRange};

use super::{Listing, listed};
use super::{Reply, hash_key, refused, unreachable};
use crate::service::Shard;
use crate::service::{CallError, CallErrorKind, Entry, EntryOutcome, Service, StreamDescription};
use crate::sync::lock;

/// Data with this prefix is refused, with its whole request or for good.
pub(super) const POISON: &[u8] = b"poison";
pub(super) const CURSED: &[u8] = b"cursed";

pub(super) struct Model {
    state: Arc<Mutex<State>>,
    /// How often something goes wrong, of a hundred requests or entries.
    trouble: u32,
}

struct State {
    rng: fastrand::Rng,
    /// In order of creation: parents before children.
    shards: Vec<Taker>,
    /// Whether keys are ignored.
    is_auto: bool,
    may_describe: bool,
    /// Whether shards can be listed after the first record.
    lists: bool,
}

struct Taker {
    shard: Shard,
    records: Vec<Entry>,
}

impl State {
    fn chance(&mut self, percent: u32) -> bool {
        self.rng.u32(0..100) < percent
    }

    fn pause(&mut self) -> Duration {
        Duration::from_millis(self.rng.u64(1..60))
    }

    fn open(&mut self, range: HashKeyRange) {
        let id = format!("shard-{}", self.shards.len()).into();
        let shard = Shard { id, range, is_open: true };
        let records = Vec::new();
        self.shards.push(Taker { shard, records });
    }

    fn commit(&mut self, entry: &Entry) -> EntryOutcome {
        let key = hash_key(entry);
        let takes = |taker: &Taker| {
            taker.shard.is_open && (self.is_auto || taker.shard.range.contains(key))
        };
        let takers: Vec<_> =
            (0..self.shards.len()).filter(|&nth| takes(&self.shards[nth])).collect();
        let taker = takers[self.rng.usize(0..takers.len())];
        let taker = &mut self.shards[taker];
        taker.records.push(entry.clone());
        EntryOutcome::Written {
            shard_id: taker.shard.id.to_string(),
            sequence_number: taker.records.len().to_string(),
        }
    }

    fn put(&mut self, entry: &Entry, trouble: u32) -> EntryOutcome {
        if holds(entry, CURSED) {
            return refused("ValidationException");
        }
        if self.chance(trouble) {
            return EntryOutcome::Refused {
                code: "ProvisionedThroughputExceededException".into(),
                message: "Rate exceeded for shard 0 in stream s".into(),
            };
        }
        if self.chance(trouble) {
            if self.chance(50) {
                self.commit(entry);
            }
            return refused("InternalFailure");
        }
        self.commit(entry)
    }
}

impl Model {
    pub(super) fn new(seed: u64, shards: u128, trouble: u32) -> Arc<Self> {
        let mut state = State {
            rng: fastrand::Rng::with_seed(seed),
            shards: Vec::new(),
            is_auto: false,
            may_describe: true,
            lists: true,
        };
        let width = u128::MAX / shards;
        for nth in 0..shards {
            let end = if nth + 1 == shards { u128::MAX } else { width * (nth + 1) - 1 };
            state.open(range(width * nth, end));
        }
        let state = Arc::new(Mutex::new(state));
        Arc::new(Self { state, trouble })
    }

    /// Lets the service choose the shards, or the keys again.
    pub(super) fn set_auto(&self, is_auto: bool) {
        lock(&self.state).is_auto = is_auto;
    }

    /// Refuses to describe the stream.
    pub(super) fn deny_describe(&self) {
        lock(&self.state).may_describe = false;
    }

    /// Fails to list the shards once a record is written.
    pub(super) fn deny_lists(&self) {
        lock(&self.state).lists = false;
    }

    /// Splits a shard somewhere, or merges it with its neighbour.
    pub(super) fn reshard(&self) {
        let mut state = lock(&self.state);
        let open: Vec<_> =
            (0..state.shards.len()).filter(|&nth| state.shards[nth].shard.is_open).collect();
        let one = open[state.rng.usize(0..open.len())];
        let old = state.shards[one].shard.range;
        let next = open.iter().copied().find(|&other| {
            Some(state.shards[other].shard.range.start().get()) == old.end().get().checked_add(1)
        });
        state.shards[one].shard.is_open = false;
        match next {
            Some(next) if state.chance(50) => {
                state.shards[next].shard.is_open = false;
                let end = state.shards[next].shard.range.end().get();
                state.open(range(old.start().get(), end));
            }
            _ => {
                let cut = state.rng.u128(old.start().get()..old.end().get());
                state.open(range(old.start().get(), cut));
                state.open(range(cut + 1, old.end().get()));
            }
        }
    }

    /// What a KCL delivers, parents before children: the data of each key's records, in order.
    pub(super) fn delivered(&self) -> HashMap<HashKey, Vec<Bytes>> {
        let state = lock(&self.state);
        let mut delivered: HashMap<_, Vec<_>> = HashMap::new();
        for taker in &state.shards {
            for entry in &taker.records {
                match decode(entry) {
                    Decoded::Aggregate(aggregate) => {
                        let range = taker.shard.range;
                        if aggregate.iter().all(|member| range.contains(member.hash_key())) {
                            for member in aggregate.iter() {
                                let key = delivered.entry(member.hash_key()).or_default();
                                key.push(member.data_bytes());
                            }
                        }
                    }
                    _ => delivered.entry(hash_key(entry)).or_default().push(entry.data.clone()),
                }
            }
        }
        delivered
    }
}

fn range(start: u128, end: u128) -> HashKeyRange {
    HashKeyRange::new(HashKey::new(start), HashKey::new(end)).unwrap()
}

fn decode(entry: &Entry) -> Decoded {
    Decoder::new(1 << 24).decode(entry.data.clone()).unwrap()
}

fn holds(entry: &Entry, mark: &[u8]) -> bool {
    match decode(entry) {
        Decoded::Aggregate(aggregate) => aggregate.iter().any(|m| m.data().starts_with(mark)),
        _ => entry.data.starts_with(mark),
    }
}

fn service_error(code: &str) -> CallError {
    CallError {
        kind: CallErrorKind::Service,
        code: code.into(),
        message: "the model refuses it".into(),
        may_have_been_written: false,
        source: None,
    }
}

impl Service for Model {
    fn put_records(&self, entries: Vec<Entry>, _limit: Duration) -> BoxFuture<'static, Reply> {
        let (state, trouble) = (Arc::clone(&self.state), self.trouble);
        async move {
            let before = lock(&state).pause();
            tokio::time::sleep(before).await;
            if entries.iter().any(|entry| holds(entry, POISON)) {
                return Err(service_error("ValidationException"));
            }
            if lock(&state).chance(trouble) {
                return Err(unreachable());
            }
            if lock(&state).chance(trouble) {
                // The caller gives up, and the service commits later all the same.
                tokio::spawn(async move {
                    let late = lock(&state).pause() * 10;
                    tokio::time::sleep(late).await;
                    let mut state = lock(&state);
                    entries.iter().for_each(|entry| drop(state.commit(entry)));
                });
                return Err(unreachable());
            }
            let (answer, is_lost, after) = {
                let mut state = lock(&state);
                let answer = entries.iter().map(|entry| state.put(entry, trouble));
                (answer.collect(), state.chance(trouble), state.pause())
            };
            tokio::time::sleep(after).await;
            if is_lost { Err(unreachable()) } else { Ok(answer) }
        }
        .boxed()
    }

    fn list_shards(&self, listing: Listing) -> BoxFuture<'static, Result<Vec<Shard>, CallError>> {
        let (state, trouble) = (Arc::clone(&self.state), self.trouble);
        async move {
            let (fails, before, after) = {
                let mut state = lock(&state);
                let is_running = state.shards.iter().any(|taker| !taker.records.is_empty());
                (
                    is_running && (!state.lists || state.chance(trouble)),
                    state.pause(),
                    state.pause(),
                )
            };
            tokio::time::sleep(before).await;
            let shards: Vec<_> =
                lock(&state).shards.iter().map(|taker| taker.shard.clone()).collect();
            let shards = listed(&shards, listing);
            tokio::time::sleep(after).await;
            if fails { Err(unreachable()) } else { Ok(shards) }
        }
        .boxed()
    }

    fn describe(&self) -> BoxFuture<'static, Result<StreamDescription, CallError>> {
        let state = lock(&self.state);
        let description = StreamDescription {
            status: "ACTIVE".into(),
            is_usable: true,
            max_record_size: None,
            service_places_records: state.is_auto,
            incarnation: String::new(),
        };
        let answer = match state.may_describe {
            true => Ok(description),
            false => Err(service_error("AccessDeniedException")),
        };
        async move { answer }.boxed()
    }
}
