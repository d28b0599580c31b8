//! The byte budget of the buffer: what is accepted and not settled yet.
//!
//! A shard may hold at most as much as is still free, so that one hot shard gets half, two a third each, and the others
//! always find room. Whoever waits is served in order within its shard. A shard that holds nothing may take all that is
//! free; if even that is too little for its oldest waiter, nobody younger overtakes it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tokio::sync::{Notify, oneshot};

use crate::lane::LaneId;
use crate::settlement::lock;

/// What a record costs beside its data and key, in bytes: its frame in the aggregate, its rows in
/// the key tables while the aggregate is open, its waker.
///
/// Measured with a counting allocator, malloc's rounding included, a full buffer before a sink that
/// takes nothing: 2 to 22 bytes when sealed; open, up to 40 more for each distinct key.
pub(crate) const RECORD_OVERHEAD: usize = 64;

/// What a Kinesis record costs beside that: its slot, its place in the queues, its allocations.
/// Measured likewise: 560 to 820 bytes.
pub(crate) const AGGREGATE_OVERHEAD: usize = 768;

pub(crate) struct Budget {
    ledger: Mutex<Ledger>,
    /// Whether anyone waits or was refused: read without the lock.
    pressed: AtomicBool,
    /// Told when the barrier rises: then all open aggregates must make room.
    pub(crate) barrier_rose: Notify,
}

struct Ledger {
    total: usize,
    free: usize,
    peak: usize,
    held: Vec<usize>,
    waiters: BTreeMap<LaneId, VecDeque<Waiter>>,
    /// Lanes that `try_charge` refused since the last look.
    refused: BTreeSet<LaneId>,
    next_ticket: u64,
    /// A waiter of an empty lane lacks room: nobody may overtake it.
    barrier: bool,
    closed: bool,
}

struct Waiter {
    ticket: u64,
    bytes: usize,
    grant: oneshot::Sender<Charge>,
}

/// Which open aggregates hold room that others wait for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pressure {
    None,
    Lanes(Vec<LaneId>),
    All,
}

impl Budget {
    pub(crate) fn new(total: usize) -> Arc<Self> {
        let ledger = Ledger {
            total,
            free: total,
            peak: 0,
            held: Vec::new(),
            waiters: BTreeMap::new(),
            refused: BTreeSet::new(),
            next_ticket: 0,
            barrier: false,
            closed: false,
        };
        Arc::new(Self {
            ledger: Mutex::new(ledger),
            pressed: AtomicBool::new(false),
            barrier_rose: Notify::new(),
        })
    }

    /// Room for `bytes`, now or not at all.
    pub(crate) fn try_charge(self: &Arc<Self>, lane: LaneId, bytes: usize) -> Option<Charge> {
        let mut ledger = lock(&self.ledger);
        if ledger.closed
            || ledger.barrier
            || ledger.waiters.contains_key(&lane)
            || !ledger.admits(lane, bytes)
        {
            return None;
        }
        ledger.take(lane, bytes);
        drop(ledger);
        Some(self.charge(lane, bytes))
    }

    /// Notes that a lane was refused room and will not wait for it.
    pub(crate) fn note_refusal(&self, lane: LaneId) {
        lock(&self.ledger).refused.insert(lane);
        self.pressed.store(true, Ordering::Release);
    }

    /// Room for `bytes`, in turn. Resolves to `None` when the budget is closed.
    pub(crate) fn charge_in_turn(self: &Arc<Self>, lane: LaneId, bytes: usize) -> Turn {
        let (grant, granted) = oneshot::channel();
        let mut ledger = lock(&self.ledger);
        if !ledger.closed {
            let ticket = ledger.next_ticket;
            ledger.next_ticket += 1;
            ledger.waiters.entry(lane).or_default().push_back(Waiter {
                ticket,
                bytes,
                grant,
            });
            self.pressed.store(true, Ordering::Release);
            self.settle(ledger);
        }
        Turn {
            budget: Arc::clone(self),
            granted,
            done: false,
        }
    }

    /// Whom an open aggregate keeps waiting; forgets refusals.
    pub(crate) fn take_pressure(&self) -> Pressure {
        if !self.pressed.load(Ordering::Acquire) {
            return Pressure::None;
        }
        let mut ledger = lock(&self.ledger);
        let mut lanes = std::mem::take(&mut ledger.refused);
        // What a lane that holds nothing lacks, others have.
        let others_have_it = lanes.iter().any(|lane| *ledger.held(*lane) == 0);
        lanes.extend(ledger.waiters.keys());
        if ledger.waiters.is_empty() {
            self.pressed.store(false, Ordering::Release);
        }
        if ledger.barrier || others_have_it {
            Pressure::All
        } else if lanes.is_empty() {
            Pressure::None
        } else {
            Pressure::Lanes(lanes.into_iter().collect())
        }
    }

    pub(crate) fn used(&self) -> usize {
        let ledger = lock(&self.ledger);
        ledger.total - ledger.free
    }

    pub(crate) fn peak(&self) -> usize {
        lock(&self.ledger).peak
    }

    /// Sends everybody away who waits, now and later.
    pub(crate) fn close(&self) {
        let waiters = {
            let mut ledger = lock(&self.ledger);
            ledger.closed = true;
            ledger.barrier = false;
            std::mem::take(&mut ledger.waiters)
        };
        drop(waiters);
    }

    fn charge(self: &Arc<Self>, lane: LaneId, bytes: usize) -> Charge {
        Charge {
            budget: Arc::clone(self),
            lane,
            bytes,
        }
    }

    fn release(self: &Arc<Self>, lane: LaneId, bytes: usize) {
        let mut ledger = lock(&self.ledger);
        ledger.give_back(lane, bytes);
        self.settle(ledger);
    }

    /// Serves who can be served. Grants are handed over after the lock is gone: one that nobody takes comes back here.
    fn settle(self: &Arc<Self>, mut ledger: std::sync::MutexGuard<'_, Ledger>) {
        let was_up = ledger.barrier;
        let granted = ledger.grant();
        if ledger.barrier && !was_up {
            self.barrier_rose.notify_one();
        }
        drop(ledger);
        for (lane, waiter) in granted {
            let _ = waiter.grant.send(self.charge(lane, waiter.bytes));
        }
    }
}

impl Ledger {
    fn held(&mut self, lane: LaneId) -> &mut usize {
        let index = lane.index();
        if self.held.len() <= index {
            self.held.resize(index + 1, 0);
        }
        &mut self.held[index]
    }

    fn admits(&mut self, lane: LaneId, bytes: usize) -> bool {
        let held = *self.held(lane);
        match self.free.checked_sub(bytes) {
            None => false,
            Some(rest) => held == 0 || held + bytes <= rest,
        }
    }

    fn take(&mut self, lane: LaneId, bytes: usize) {
        self.free -= bytes;
        *self.held(lane) += bytes;
        self.peak = self.peak.max(self.total - self.free);
    }

    fn give_back(&mut self, lane: LaneId, bytes: usize) {
        self.free += bytes;
        *self.held(lane) -= bytes;
    }

    /// Walks the waiters in order of arrival, lane by lane.
    fn grant(&mut self) -> Vec<(LaneId, Waiter)> {
        let mut granted = Vec::new();
        self.barrier = false;
        if self.waiters.is_empty() {
            return granted;
        }
        self.waiters.retain(|_, queue| next_ticket(queue).is_some());
        let mut heads: BinaryHeap<_> = self
            .waiters
            .iter()
            .filter_map(|(lane, queue)| queue.front().map(|waiter| Reverse((waiter.ticket, *lane))))
            .collect();
        while let Some(Reverse((_, lane))) = heads.pop() {
            let Some(queue) = self.waiters.get_mut(&lane) else {
                continue;
            };
            let Some(bytes) = queue.front().map(|waiter| waiter.bytes) else {
                continue;
            };
            if !self.admits(lane, bytes) {
                if *self.held(lane) == 0 {
                    self.barrier = true;
                    break;
                }
                continue;
            }
            self.take(lane, bytes);
            let Some(queue) = self.waiters.get_mut(&lane) else {
                continue;
            };
            granted.extend(queue.pop_front().map(|waiter| (lane, waiter)));
            match next_ticket(queue) {
                Some(ticket) => heads.push(Reverse((ticket, lane))),
                None => drop(self.waiters.remove(&lane)),
            }
        }
        granted
    }
}

/// The ticket of the first who still waits.
fn next_ticket(queue: &mut VecDeque<Waiter>) -> Option<u64> {
    while queue.front().is_some_and(|waiter| waiter.grant.is_closed()) {
        queue.pop_front();
    }
    queue.front().map(|waiter| waiter.ticket)
}

/// A place in the queue for room.
pub(crate) struct Turn {
    budget: Arc<Budget>,
    granted: oneshot::Receiver<Charge>,
    done: bool,
}

impl Future for Turn {
    type Output = Option<Charge>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.granted).poll(context).map(|granted| {
            self.done = true;
            granted.ok()
        })
    }
}

impl Drop for Turn {
    /// Who leaves the queue may have been the one that others waited behind.
    fn drop(&mut self) {
        if !self.done {
            self.granted.close();
            let ledger = lock(&self.budget.ledger);
            self.budget.settle(ledger);
        }
    }
}

/// Room that is taken; given back on drop.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    lane: LaneId,
    bytes: usize,
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget")
            .field("used", &self.used())
            .finish_non_exhaustive()
    }
}

impl Charge {
    /// Adds another charge of the same lane, or of one that the records moved away from.
    pub(crate) fn absorb(&mut self, mut other: Self) {
        other.move_to(self.lane);
        self.bytes += std::mem::take(&mut other.bytes);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what is above `bytes`.
    pub(crate) fn keep(&mut self, bytes: usize) {
        if self.bytes > bytes {
            drop(self.split(self.bytes - bytes));
        }
    }

    /// Splits `bytes` off, as far as they are there.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.charge(self.lane, bytes)
    }

    /// The records go to another shard: what they hold counts there, whether or not it has room left.
    pub(crate) fn move_to(&mut self, lane: LaneId) {
        if self.lane != lane {
            let mut ledger = lock(&self.budget.ledger);
            *ledger.held(self.lane) -= self.bytes;
            *ledger.held(lane) += self.bytes;
            self.lane = lane;
            // The lane it leaves may now hold little enough.
            self.budget.settle(ledger);
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.release(self.lane, self.bytes);
        }
    }
}

#[cfg(test)]
mod tests;
