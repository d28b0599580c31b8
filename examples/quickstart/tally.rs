//! What was acknowledged and what was seen, by id: one tally for all workers.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kinesis_testkit::{Delivery, Ledger, Verdict};
use tokio::sync::Notify;

/// What one worker saw of one shard.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Share {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) batches: u64,
    pub(crate) ended: bool,
}

#[derive(Debug, Default)]
struct State {
    ledger: Ledger,
    /// By worker and shard; a shard appears when its processor starts.
    shares: BTreeMap<(u16, String), Share>,
    ownerships: u64,
}

/// Shared by the producer and every record processor.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    state: Mutex<State>,
    changed: Notify,
}

impl Tally {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a processor starts on a shard. Returns the number of its ownership.
    pub(crate) fn shard_started(&self, worker: u16, shard: &str) -> u64 {
        let mut state = self.state();
        state.shares.entry((worker, shard.to_owned())).or_default();
        state.ownerships += 1;
        self.changed.notify_waiters();
        state.ownerships
    }

    pub(crate) fn shard_ended(&self, worker: u16, shard: &str) {
        self.state().shares.entry((worker, shard.to_owned())).or_default().ended = true;
    }

    pub(crate) fn acknowledged(&self, id: u64) {
        self.state().ledger.acknowledged(id);
        self.changed.notify_waiters();
    }

    /// Notes one batch of one shard.
    pub(crate) fn delivered<'a>(
        &self,
        worker: u16,
        shard: &str,
        bytes: u64,
        records: impl Iterator<Item = Delivery<'a>>,
    ) {
        let mut state = self.state();
        let mut count = 0;
        for record in records {
            state.ledger.delivered(record);
            count += 1;
        }
        let share = state.shares.entry((worker, shard.to_owned())).or_default();
        share.records += count;
        share.bytes += bytes;
        share.batches += 1;
        self.changed.notify_waiters();
    }

    pub(crate) fn verdict(&self) -> Verdict {
        self.state().ledger.verdict()
    }

    pub(crate) fn shares(&self) -> BTreeMap<(u16, String), Share> {
        self.state().shares.clone()
    }

    fn started_workers(&self) -> usize {
        let state = self.state();
        let mut workers: Vec<u16> = state.shares.keys().map(|(worker, _)| *worker).collect();
        workers.dedup();
        workers.len()
    }

    /// Waits until each of `workers` has started on a shard.
    pub(crate) async fn all_workers_started(&self, workers: u16) {
        self.until(|| self.started_workers() >= usize::from(workers)).await;
    }

    /// Waits until every acknowledged record was seen.
    pub(crate) async fn settled(&self) {
        self.until(|| self.state().ledger.is_settled()).await;
    }

    /// Waits until something changes.
    pub(crate) async fn progress(&self) {
        self.changed.notified().await;
    }

    async fn until(&self, done: impl Fn() -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if done() {
                return;
            }
            changed.await;
        }
    }
}
