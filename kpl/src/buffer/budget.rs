//! The byte budget of accepted records that are not completed.
//!
//! The rules are in [`fair_share`](super::fair_share). This file has the lock around them, the future of a waiter
//! ([`Turn`]), and the guard of the room that it gets ([`Charge`]).
//!
//! *A `send` that waits for room* is woken by [`Wakes::wake`], after the lock is released, when room is given back (a
//! [`Charge`] is dropped or shrinks), a charge moves to another queue, a waiter gives up, or the producer closes. The
//! rules say which waiters got room.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use tokio::sync::Notify;

pub(crate) use super::fair_share::Pressure;
use super::fair_share::{FairShare, Holder, QueueId, Ticket, Wakes};
use crate::sync::{AtomicBool, Mutex, lock};

/// Memory of a record beside its data and key, in bytes: its frame in the aggregate, its rows in the key tables while
/// the aggregate is open, its waker.
///
/// Measured with a counting allocator, rounding included, on a full buffer: 2 to 22 bytes when sealed, and up to 40
/// more for each distinct key while open. Aggregates whose members expire at different times take 8 to 24 bytes more
/// for each record.
pub(crate) const RECORD_OVERHEAD: usize = 64;

/// Memory of a Kinesis record beside that of its members, in bytes: its slot, its entry in the queues, its allocations.
///
/// Measured likewise: 560 to 820 bytes, and 208 more after a refused attempt, which is kept. Single records of 100
/// bytes that were refused 15 times took 1,058 bytes of resident memory each, of the 1,197 that are counted.
pub(crate) const AGGREGATE_OVERHEAD: usize = 1024;

/// One limit in bytes for the buffers of several producers.
///
/// A cheap handle: clone it into [`ProducerBuilder::memory_budget`](crate::ProducerBuilder::memory_budget) of each
/// producer. It replaces [`max_buffered_bytes`](crate::ProducerConfig::max_buffered_bytes) there, and counts the same.
/// A shard may hold at most as much as is still free, whichever producer it belongs to. So one hot shard gets half of
/// the budget, two get a third each, and the other shards of all producers go on.
///
/// They stop in one case: a record for a shard that holds nothing, or a [reservation](crate::Producer::reserve), needs
/// more than is free and not reserved for an earlier one. Then later records of all producers wait until it fits, and
/// open aggregates are sent. A `try_send` that is refused has open aggregates sent, too. If several shards are stalled,
/// the wait may last until their records expire. Make the budget many times as large as the largest record.
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
    /// Creates a budget of `bytes`, at least 64 KiB, for the records that all its producers hold from `send` to their
    /// outcome.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(FairShare::new(bytes))))
    }

    /// The limit, in bytes.
    #[must_use]
    pub fn limit(&self) -> usize {
        lock(&self.0).total
    }

    /// Bytes that all producers together hold now. Never more than the limit.
    #[must_use]
    pub fn used(&self) -> usize {
        lock(&self.0).used()
    }

    /// Most bytes that all producers together ever held.
    #[must_use]
    pub fn peak(&self) -> usize {
        lock(&self.0).peak
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

/// Tells a producer that its open aggregates hold room for which records wait.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    /// Whether a record waits or was refused. Read without the lock.
    pressed: AtomicBool,
    /// Notified when all open aggregates must be sealed.
    must_yield: Notify,
}

/// The share of one producer in a budget.
pub(crate) struct Budget {
    pool: MemoryBudget,
    /// The pool's limit in bytes, read without the lock of the pool.
    limit: usize,
    number: usize,
    signal: Arc<Signal>,
    /// Percentage of the budget, and of the fair share of a shard, that may be used after a droppable record is
    /// accepted.
    droppable_percent: u32,
}

impl Budget {
    /// Adds a producer. Droppable records are accepted up to `droppable_percent` of the budget and of the fair share of
    /// their shard.
    pub(crate) fn new(pool: MemoryBudget, droppable_percent: u32) -> Arc<Self> {
        let signal = Arc::new(Signal::default());
        let limit = pool.limit();
        let number = lock(&pool.0).add_producer(Arc::clone(&signal));
        Arc::new(Self { droppable_percent, pool, limit, number, signal })
    }

    /// Takes room for `bytes`, if there is room now.
    pub(crate) fn try_charge(self: &Arc<Self>, queue_id: QueueId, bytes: usize) -> Option<Charge> {
        self.try_take(queue_id, bytes, false).then(|| self.charge(queue_id, bytes))
    }

    /// A charge that holds nothing. It can [grow](Charge::grow).
    pub(crate) fn empty_charge(self: &Arc<Self>, queue_id: QueueId) -> Charge {
        self.charge(queue_id, 0)
    }

    fn try_take(&self, queue_id: QueueId, bytes: usize, is_droppable: bool) -> bool {
        let percent = is_droppable.then_some(self.droppable_percent);
        lock(&self.pool.0).try_take(self.holder(queue_id), bytes, percent)
    }

    /// Notes that `try_send` found no room. Open aggregates are sealed to make room.
    pub(crate) fn note_refusal(&self, queue_id: QueueId) {
        let pressed = lock(&self.pool.0).note_refusal(self.holder(queue_id));
        pressed.iter().for_each(|signal| signal.raise());
    }

    /// Waits in turn for room for `bytes`. Resolves to `None` when the producer is closed.
    pub(crate) fn charge_in_turn(self: &Arc<Self>, queue_id: QueueId, bytes: usize) -> Turn {
        let waits = lock(&self.pool.0).wait(self.holder(queue_id), bytes);
        let ticket = waits.map(|(ticket, wakes)| {
            self.signal.pressed.store(true, Ordering::Release);
            wakes.wake();
            ticket
        });
        Turn { budget: Arc::clone(self), queue_id, bytes, ticket }
    }

    /// The queues whose open aggregates must be sealed to make room: those that were refused room or got a waiter since
    /// the last call, and those of `asked` that have waiters.
    pub(crate) fn take_pressure(&self, asked: &[QueueId]) -> Pressure {
        if !self.signal.pressed.load(Ordering::Acquire) {
            return Pressure::None;
        }
        let mut fair_share = lock(&self.pool.0);
        let (pressure, stays) = fair_share.take_pressure(self.number, asked);
        // Stored under the lock, so that no refusal is lost that comes now.
        self.signal.pressed.store(stays, Ordering::Release);
        pressure
    }

    pub(crate) async fn must_yield(&self) {
        self.signal.must_yield.notified().await;
    }

    pub(crate) fn used(&self) -> usize {
        lock(&self.pool.0).used_by(self.number).0
    }

    pub(crate) fn peak(&self) -> usize {
        lock(&self.pool.0).used_by(self.number).1
    }

    /// The limit of the whole budget, in bytes.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// Ends all waits, the later ones included, without room.
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
    /// Wakes the tasks. Call it after the lock is released, because a waker runs foreign code.
    fn wake(self) {
        self.pressed.iter().for_each(|signal| signal.raise());
        self.granted.into_iter().for_each(|waker| waker.wake());
    }
}

/// A waiter for room: a future of its charge.
#[derive(Debug)]
pub(crate) struct Turn {
    budget: Arc<Budget>,
    queue_id: QueueId,
    bytes: usize,
    /// `None` after the wait has ended.
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
    /// Gives up the wait. Later waiters may fit now.
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

/// Room that is taken. Given back on drop, which may wake waiters.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    queue_id: QueueId,
    bytes: usize,
}

impl Charge {
    /// Takes `bytes` more: from `room`, a charge of the same queue, and what is missing there from the budget. A droppable
    /// record gets nothing from the budget if the buffer is too full. Returns `false` if there is no room; nothing is
    /// taken then.
    pub(crate) fn grow(
        &mut self,
        bytes: usize,
        room: &mut Option<Self>,
        is_droppable: bool,
    ) -> bool {
        let given = room.as_ref().map_or(0, |room| room.bytes.min(bytes));
        let missing = bytes - given;
        if missing > 0 && !self.budget.try_take(self.queue_id, missing, is_droppable) {
            return false;
        }
        if let Some(room) = room {
            debug_assert_eq!(room.queue_id, self.queue_id);
            room.bytes -= given;
        }
        self.bytes += bytes;
        true
    }

    /// Adds another charge, of the same queue or of one that the records moved away from.
    pub(crate) fn absorb(&mut self, mut other: Self) {
        other.move_to(self.queue_id);
        self.bytes += std::mem::take(&mut other.bytes);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Keeps `bytes`, and returns the rest. Do not drop the rest under a lock: that runs foreign code.
    pub(crate) fn keep(&mut self, bytes: usize) -> Option<Self> {
        (self.bytes > bytes).then(|| self.split(self.bytes - bytes))
    }

    /// Splits off `bytes`, or all if there are fewer.
    pub(crate) fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        self.budget.charge(self.queue_id, bytes)
    }

    /// Moves the charge to another queue, even if that exceeds its fair share.
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
