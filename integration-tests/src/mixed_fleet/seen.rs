//! The state of a fleet while it runs.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::event::{Event, What};
use super::judge::Receipt;
use super::table::Table;

#[derive(Debug, Default)]
pub(super) struct State {
    /// The workers, by number.
    names: Vec<String>,
    pub(super) events: Vec<Event>,
    pub(super) receipts: HashMap<u64, Receipt>,
    delivered: HashSet<u64>,
    /// Acknowledged, and not delivered yet.
    missing: HashSet<u64>,
    running: BTreeSet<(u32, String)>,
    /// Workers that were handed a record.
    readers: BTreeSet<u32>,
    /// Workers whose processes must not end.
    live: BTreeSet<u32>,
    /// The table, as it was last read.
    pub(super) table: Table,
    /// By shard, the worker that stopped on request, until another worker begins the shard.
    released: HashMap<String, u32>,
    /// The workers between which that happened: the one that stopped, and the one that began.
    handoffs: BTreeSet<(u32, u32)>,
    /// Shards that get more records than others.
    pub(super) heavy: HashSet<String>,
    /// Faults that were seen.
    pub(super) failure: Option<String>,
}

impl State {
    pub(super) fn note(&mut self, event: Event) {
        let running = (event.worker, event.shard.clone());
        match event.what {
            What::Began => {
                self.running.insert(running);
                if let Some(from) = self.released.remove(&event.shard) {
                    self.handoffs.insert((from, event.worker));
                }
            }
            What::Released => {
                self.running.remove(&running);
                self.released.insert(event.shard.clone(), event.worker);
            }
            What::Ended | What::Lost => drop(self.running.remove(&running)),
            What::Delivered(id) => {
                self.readers.insert(event.worker);
                self.delivered.insert(id);
                self.missing.remove(&id);
            }
        }
        self.events.push(event);
    }

    pub(super) fn acknowledged(&mut self, id: u64, receipt: Receipt) {
        self.receipts.insert(id, receipt);
        if !self.delivered.contains(&id) {
            self.missing.insert(id);
        }
    }

    /// The number of a worker that starts.
    pub(super) fn join(&mut self, worker: &str) -> u32 {
        let number = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push(worker.to_owned());
        self.live.insert(number);
        number
    }

    /// Notes that the process of a worker may end from now on.
    pub(super) fn release(&mut self, worker: u32) {
        self.live.remove(&worker);
    }

    /// Notes that the process of a worker has ended, and that all its lines were read.
    pub(super) fn gone(&mut self, worker: u32) {
        if self.live.contains(&worker) {
            let ended = format!("{} ended by itself", self.name(worker));
            self.failure.get_or_insert(ended);
        }
        self.running.retain(|(number, _)| *number != worker);
    }

    pub(super) fn name(&self, worker: u32) -> &str {
        self.names.get(worker as usize).map_or("?", String::as_str)
    }

    /// Shards that a worker is processing.
    pub(super) fn shards_of(&self, worker: &str) -> Vec<String> {
        let own = self.running.iter();
        let own = own.filter(|(number, _)| self.name(*number) == worker);
        own.map(|(_, shard)| shard.clone()).collect()
    }

    pub(super) fn runs(&self, worker: &str) -> usize {
        self.shards_of(worker).len()
    }

    /// True if a worker was given a record, and has a shard to read.
    pub(super) fn reads(&self, worker: &str) -> bool {
        let mut readers = self.readers.iter();
        self.runs(worker) > 0 && readers.any(|number| self.name(*number) == worker)
    }

    /// True if exactly these shards are processed, each by one of these workers.
    pub(super) fn all_run(&self, shards: &[String], workers: &[&str]) -> bool {
        let mut running: Vec<String> = workers.iter().flat_map(|w| self.shards_of(w)).collect();
        running.sort();
        running == shards && self.running.len() == shards.len()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.missing.is_empty()
    }

    /// True if the first worker stopped on a shard as it was told to, and the second was the next to begin.
    pub(super) fn handed_over(&self, from: &str, to: &str) -> bool {
        let mut handoffs = self.handoffs.iter();
        handoffs.any(|(old, new)| self.name(*old) == from && self.name(*new) == to)
    }

    /// The state in words.
    pub(super) fn so_far(&self) -> String {
        let missing = self.missing.len();
        let running: Vec<String> = self
            .running
            .iter()
            .map(|(worker, shard)| format!("{}:{}", self.name(*worker), short(shard)))
            .collect();
        let owners: Vec<String> = self
            .table
            .owners
            .iter()
            .map(|(shard, owner)| format!("{}={owner}", short(shard)))
            .collect();
        format!(
            "{} records, {missing} not seen; running {}; in the table {}, leader {}",
            self.receipts.len(),
            running.join(" "),
            owners.join(" "),
            self.table.leader.as_deref().unwrap_or("none"),
        )
    }
}

/// The number of a shard.
fn short(shard: &str) -> &str {
    shard.strip_prefix("shardId-").map_or(shard, |n| n.trim_start_matches('0'))
}

/// The state, shared with the tasks that read and write.
#[derive(Debug, Default)]
pub(super) struct Seen {
    state: Mutex<State>,
    changed: Notify,
}

impl Seen {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes all that wait for a change.
    pub(super) fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state());
        self.changed.notify_waiters();
        result
    }

    pub(super) fn fail(&self, failure: String) {
        self.update(|state| state.failure.get_or_insert(failure).clone());
    }

    /// Waits until `done`.
    pub(super) async fn until(
        &self,
        limit: Duration,
        done: impl Fn(&State) -> bool,
    ) -> Result<(), String> {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                {
                    let state = self.state();
                    if let Some(failure) = &state.failure {
                        return Err(failure.clone());
                    }
                    if done(&state) {
                        return Ok(());
                    }
                }
                changed.await;
            }
        };
        let over = || Err(format!("the time is over: {}", self.state().so_far()));
        tokio::time::timeout(limit, wait).await.unwrap_or_else(|_| over())
    }
}
