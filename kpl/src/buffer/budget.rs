//! The byte budget of the buffer: what is accepted and not completed yet. The rules are `fair_share.rs`; here is the lock
//! around them, the future of a waiter, and the guard of the room that it gets.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::sync::Notify;

pub(crate) use super::fair_share::Pressure;
use super::fair_share::{FairShare, Holder, QueueId, Ticket, Wakes};
use crate::sync::{AtomicBool, Mutex, lock};

/// What a record costs beside its data and key, in bytes: its frame in the aggregate, its rows in
/// the key tables while the aggregate is open, its waker.
///
/// Measured with a counting allocator, malloc's rounding included, a full buffer before a sink that
/// takes nothing: 2 to 22 bytes when sealed; open, up to 40 more for each distinct key. By their types, 8 to 24 more for a
/// record of an aggregate whose members expire at different times.
pub(crate) const RECORD_OVERHEAD: usize = 64;

/// What a Kinesis record costs beside that: its slot, its place in the queues, its allocations.
/// Measured likewise: 560 to 820 bytes; and 208 once it is refused, for the attempts it keeps.
/// In resident memory, single records of 100 bytes that were refused 15 times each: 1,058 bytes a record of 1,197.
pub(crate) const AGGREGATE_OVERHEAD: usize = 1024;

/// One bound in bytes for the buffers of several producers.
///
/// A cheap handle: clone it into [`ProducerBuilder::memory_budget`](crate::ProducerBuilder::memory_budget) of each. It
/// takes the place of [`max_buffered_bytes`](crate::ProducerConfig::max_buffered_bytes) there, and counts the same.
/// A shard may hold at most as much as is still free, whichever producer it belongs to: one hot shard gets half, two a
/// third each, and the other shards of its own producer or of another go on.
///
/// They stop in one case: a record for a shard that holds nothing, or a [reservation](crate::Producer::reserve), needs more
/// than is free and not reserved for an older one. Then later records wait behind it, at all shards of all producers, and
/// open aggregates are sent, until it has its room. A `try_send` that is refused for it has open aggregates sent, too. Where
/// several shards stand still, that may last until their records expire: make the budget many times as large as the largest
/// record.
///
/// ```
/// use kpl::MemoryBudget;
///
/// let budget = MemoryBudget::new(256 * 1024 * 1024);
/// assert_eq!((budget.used(), budget.limit()), (0, 256 * 1024 * 1024));
/// ```
#[derive(Clone)]
pub struct MemoryBudget(Arc<Mutex<FairShare<Arc<Signal>>>>);

impl MemoryBudget {
    /// A budget of `bytes`, for the records that all its producers hold from `send` to completion. At least 64 KiB.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(FairShare::new(bytes))))
    }

    /// The bound, in bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        lock(&self.0).total()
    }

    /// The bytes that all producers together hold now. Never more than the limit.
    #[must_use]
    pub fn used(&self) -> usize {
        lock(&self.0).used()
    }

    /// The most bytes they ever held together.
    #[must_use]
    pub fn peak(&self) -> usize {
        lock(&self.0).peak()
    }
}

impl std::fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryBudget")
            .field("used", &self.used())
            .field("limit", &self.limit())
            .finish()
    }
}

/// How a producer hears that its open aggregates hold room for which records wait.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    /// Whether a record waits or was refused: read without the lock.
    pressed: AtomicBool,
    /// Told when all open aggregates must make room.
    must_yield: Notify,
}

/// The part of one producer in a budget.
pub(crate) struct Budget {
    pool: MemoryBudget,
    number: usize,
    signal: Arc<Signal>,
    /// How much of the budget, and of the fair share of its shard, may be used after a droppable record.
    droppable_percent: u32,
}

impl Budget {
    /// Adds a producer. Droppable records are taken up to `droppable_percent` of the budget, and of their shard's fair share.
    pub(crate) fn new(pool: MemoryBudget, droppable_percent: u32) -> Arc<Self> {
        let signal = Arc::new(Signal::default());
        let number = lock(&pool.0).add_producer(Arc::clone(&signal));
        Arc::new(Self { droppable_percent, pool, number, signal })
    }

    /// Room for `bytes`, now or not at all.
    pub(crate) fn try_charge(self: &Arc<Self>, queue_id: QueueId, bytes: usize) -> Option<Charge> {
        let taken = lock(&self.pool.0).try_take(self.holder(queue_id), bytes, None);
        taken.then(|| self.charge(queue_id, bytes))
    }

    /// Room for a droppable record: only while the buffer is not too full.
    pub(crate) fn try_charge_droppable(
        self: &Arc<Self>,
        queue_id: QueueId,
        bytes: usize,
    ) -> Option<Charge> {
        let percent = Some(self.droppable_percent);
        let taken = lock(&self.pool.0).try_take(self.holder(queue_id), bytes, percent);
        taken.then(|| self.charge(queue_id, bytes))
    }

    /// Notes that a shard was refused room, without a waiter.
    pub(crate) fn note_refusal(&self, queue_id: QueueId) {
        let pressed = lock(&self.pool.0).note_refusal(self.holder(queue_id));
        pressed.iter().for_each(|signal| signal.raise());
    }

    /// Room for `bytes`, in turn. Resolves to `None` when the producer is closed.
    pub(crate) fn charge_in_turn(self: &Arc<Self>, queue_id: QueueId, bytes: usize) -> Turn {
        let waits = lock(&self.pool.0).wait(self.holder(queue_id), bytes);
        let ticket = waits.map(|(ticket, wakes)| {
            self.signal.pressed.store(true, Ordering::Release);
            wakes.wake();
            ticket
        });
        Turn { budget: Arc::clone(self), queue_id, bytes, ticket }
    }

    /// The shards that wait for room which open aggregates of this producer hold: those that were refused room or got a waiter
    /// since the last call, and those of `asked` that have waiters.
    pub(crate) fn take_pressure(&self, asked: &[QueueId]) -> Pressure {
        if !self.signal.pressed.load(Ordering::Acquire) {
            return Pressure::None;
        }
        let mut fair_share = lock(&self.pool.0);
        let (pressure, stays) = fair_share.take_pressure(self.number, asked);
        // Under the lock, or a refusal that comes now would be forgotten.
        self.signal.pressed.store(stays, Ordering::Release);
        pressure
    }

    /// Waits until all open aggregates must make room.
    pub(crate) async fn must_yield(&self) {
        self.signal.must_yield.notified().await;
    }

    /// What this producer holds.
    pub(crate) fn used(&self) -> usize {
        lock(&self.pool.0).used_by(self.number).0
    }

    /// The most this producer ever held.
    pub(crate) fn peak(&self) -> usize {
        lock(&self.pool.0).used_by(self.number).1
    }

    /// The whole budget.
    pub(crate) fn limit(&self) -> usize {
        self.pool.limit()
    }

    /// Ends all waits, those of now and of later, without room.
    pub(crate) fn close(&self) {
        let wakes = lock(&self.pool.0).close_producer(self.number);
        wakes.wake();
    }

    fn holder(&self, queue_id: QueueId) -> Holder {
        Holder { producer: self.number, queue_id }
    }

    fn charge(self: &Arc<Self>, queue_id: QueueId, bytes: usize) -> Charge {
        Charge { budget: Arc::clone(self), queue_id, bytes }
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        lock(&self.pool.0).remove_producer(self.number);
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Budget").field("used", &self.used()).finish_non_exhaustive()
    }
}

impl Signal {
    fn raise(&self) {
        self.pressed.store(true, Ordering::Release);
        self.must_yield.notify_one();
    }
}

impl Wakes<Arc<Signal>> {
    /// After the lock is released: a waker runs code of the application.
    fn wake(self) {
        self.pressed.iter().for_each(|signal| signal.raise());
        self.granted.into_iter().for_each(|waker| waker.wake());
    }
}

/// A waiter for room.
#[derive(Debug)]
pub(crate) struct Turn {
    budget: Arc<Budget>,
    queue_id: QueueId,
    bytes: usize,
    /// `None` once it is over.
    ticket: Option<Ticket>,
}

impl Future for Turn {
    type Output = Option<Charge>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(ticket) = self.ticket else {
            return Poll::Ready(None);
        };
        let holder = self.budget.holder(self.queue_id);
        let (granted, old_waker) = {
            let mut fair_share = lock(&self.budget.pool.0);
            fair_share.poll(holder, ticket, context.waker())
        };
        drop(old_waker);
        granted.map(|granted| {
            self.ticket = None;
            granted.then(|| self.budget.charge(self.queue_id, self.bytes))
        })
    }
}

impl Drop for Turn {
    /// Others may have waited behind it.
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            let holder = self.budget.holder(self.queue_id);
            let (wakes, old_waker) = {
                let mut fair_share = lock(&self.budget.pool.0);
                fair_share.give_up(holder, ticket, self.bytes)
            };
            drop(old_waker);
            wakes.wake();
        }
    }
}

/// Room that is taken; given back on drop.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    queue_id: QueueId,
    bytes: usize,
}

impl Charge {
    /// Adds another charge of the same queue, or of one that the records moved away from.
    pub(crate) fn absorb(&mut self, mut other: Self) {
        other.move_to(self.queue_id);
        self.bytes += std::mem::take(&mut other.bytes);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps `bytes` of it, and hands out what is above. The drop of that runs the code of others: not under a lock.
    pub(crate) fn keep(&mut self, bytes: usize) -> Option<Self> {
        (self.bytes > bytes).then(|| self.split(self.bytes - bytes))
    }

    /// Splits `bytes` off, as far as they are there.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.charge(self.queue_id, bytes)
    }

    /// The records go to another shard: what they hold counts there, whether or not it has room left.
    pub(crate) fn move_to(&mut self, queue_id: QueueId) {
        if self.queue_id != queue_id {
            let number = self.budget.number;
            let wakes = {
                let mut fair_share = lock(&self.budget.pool.0);
                fair_share.move_room(number, self.queue_id, queue_id, self.bytes)
            };
            self.queue_id = queue_id;
            wakes.wake();
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if self.bytes > 0 {
            let holder = self.budget.holder(self.queue_id);
            let wakes = lock(&self.budget.pool.0).give_back(holder, self.bytes);
            wakes.wake();
        }
    }
}

#[cfg(test)]
mod tests;
