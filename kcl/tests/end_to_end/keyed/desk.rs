//! A handler that a test directs: which records it keeps in hand, and which fail.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};

use kcl::{ProcessorError, SchedulerBuilder, ShardRecord};
use tokio::sync::watch;

use crate::probe::Probe;
use crate::setup::id_of;

/// How a record fails.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Failing {
    Error,
    Panic,
    /// When the shard is to be given up.
    AtStop,
}

#[derive(Debug, Default)]
struct State {
    /// Ids of the records in hand, with their keys.
    in_hand: HashMap<u64, Option<String>>,
    /// Ids in the order in which their handlers began.
    begun: Vec<u64>,
    done: Vec<u64>,
    /// Number of the attempt in which a record was done.
    attempts: HashMap<u64, u32>,
    /// Handlers that were dropped.
    dropped: BTreeSet<u64>,
    /// Handlers that were told to give their shard up.
    told: BTreeSet<u64>,
    failing: HashMap<u64, Failing>,
    /// Records of one key that were in hand at one time.
    overlaps: usize,
    most_in_hand: usize,
    /// The number of each key of each ownership.
    ownerships: HashMap<(String, u64, Option<String>), u64>,
}

/// All handlers of a test.
#[derive(Clone)]
pub(crate) struct Desk {
    pub(crate) probe: Probe,
    state: Arc<Mutex<State>>,
    /// Ids of the records that stay in hand.
    kept: watch::Sender<BTreeSet<u64>>,
}

impl Desk {
    pub(crate) fn new() -> Self {
        let (kept, _) = watch::channel(BTreeSet::new());
        Self { probe: Probe::new(), state: Arc::default(), kept }
    }

    /// Keeps these records in hand until they are released.
    pub(crate) fn keep(&self, ids: impl IntoIterator<Item = u64>) {
        self.kept.send_modify(|kept| kept.extend(ids));
    }

    pub(crate) fn release(&self, id: u64) {
        self.kept.send_if_modified(|kept| kept.remove(&id));
    }

    pub(crate) fn release_all(&self) {
        self.kept.send_modify(BTreeSet::clear);
    }

    /// Lets a record fail until [`mend`](Self::mend).
    pub(crate) fn fail(&self, id: u64, how: Failing) {
        self.with(|state| state.failing.insert(id, how));
    }

    pub(crate) fn mend(&self, id: u64) {
        self.with(|state| state.failing.remove(&id));
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap())
    }

    /// Ids of the records in hand.
    pub(crate) fn in_hand(&self) -> BTreeSet<u64> {
        self.with(|state| state.in_hand.keys().copied().collect())
    }

    pub(crate) fn begun(&self) -> Vec<u64> {
        self.with(|state| state.begun.clone())
    }

    /// Ids of the records that were done, in order.
    pub(crate) fn done(&self) -> Vec<u64> {
        self.with(|state| state.done.clone())
    }

    pub(crate) fn attempts(&self, id: u64) -> Option<u32> {
        self.with(|state| state.attempts.get(&id).copied())
    }

    pub(crate) fn dropped(&self) -> BTreeSet<u64> {
        self.with(|state| state.dropped.clone())
    }

    /// Ids of the records whose handlers know that the shard is to be given up.
    pub(crate) fn told(&self) -> BTreeSet<u64> {
        self.with(|state| state.told.clone())
    }

    pub(crate) fn most_in_hand(&self) -> usize {
        self.with(|state| state.most_in_hand)
    }

    /// Nothing lost, nothing twice, each key in order and never twice in hand.
    pub(crate) fn assert_exact(&self) {
        self.assert_order();
        self.probe.assert_exact();
    }

    /// Nothing lost, and each key in order and never twice in hand.
    pub(crate) fn assert_order(&self) {
        let verdict = self.probe.verdict();
        assert_eq!((verdict.lost, verdict.out_of_order), (0, 0), "{verdict:?}");
        assert_eq!(self.with(|state| state.overlaps), 0);
    }

    pub(crate) fn handle_for(&self, builder: SchedulerBuilder) -> SchedulerBuilder {
        let desk = self.clone();
        builder.handler(move |record| desk.clone().handle(record))
    }

    async fn handle(self, record: ShardRecord) -> Result<(), ProcessorError> {
        let Some(id) = id_of(record.data()) else { return Ok(()) };
        let mut kept = self.kept.subscribe();
        let key = record.partition_key().map(str::to_owned);
        let mut in_hand = self.begin(id, key.clone());
        let wait = async {
            kept.wait_for(|kept| !kept.contains(&id)).await.unwrap();
        };
        let mut wait = std::pin::pin!(wait);
        tokio::select! {
            biased;
            () = &mut wait => {}
            () = record.shutdown_token().cancelled() => {
                self.with(|state| state.told.insert(id));
                if !matches!(self.with(|state| state.failing.get(&id).copied()), Some(Failing::AtStop)) {
                    wait.await;
                }
            }
        }
        in_hand.is_over = true;
        drop(in_hand);
        match self.with(|state| state.failing.get(&id).copied()) {
            None => {}
            Some(Failing::Panic) => panic!("told to panic"),
            Some(Failing::Error | Failing::AtStop) => return Err("told to fail".into()),
        }
        self.done_with(id, key, &record);
        Ok(())
    }

    fn begin(&self, id: u64, key: Option<String>) -> InHand {
        self.with(|state| {
            let same = key.is_some() && state.in_hand.values().any(|other| *other == key);
            state.overlaps += usize::from(same);
            state.begun.push(id);
            state.in_hand.insert(id, key);
            state.most_in_hand = state.most_in_hand.max(state.in_hand.len());
        });
        InHand { desk: self.clone(), id, is_over: false }
    }

    fn done_with(&self, id: u64, key: Option<String>, record: &ShardRecord) {
        let (shard, token) = (record.shard(), record.shard().fencing_token());
        let ownership = self.with(|state| {
            state.done.push(id);
            state.attempts.insert(id, record.attempt());
            let key = (token.lease_key.clone(), token.counter, key.or(Some(format!("{id}"))));
            *state.ownerships.entry(key).or_insert_with(|| self.probe.new_ownership())
        });
        self.probe.took(shard.worker_id(), ownership, shard.shard_id(), [record.as_record()]);
    }
}

/// A record in hand.
struct InHand {
    desk: Desk,
    id: u64,
    is_over: bool,
}

impl Drop for InHand {
    fn drop(&mut self) {
        self.desk.with(|state| {
            state.in_hand.remove(&self.id);
            if !self.is_over {
                state.dropped.insert(self.id);
            }
        });
    }
}
