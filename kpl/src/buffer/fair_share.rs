//! The rules of a memory budget: how many bytes each shard of each producer may hold, and which waiter gets room next.
//! Pure: the lock around it is `budget.rs`.
//!
//! *Fair share.* A shard may hold at most as much as is still free. So one hot shard gets half of the budget, two get a
//! third each, and the other shards find room, whichever producer they belong to. A shard that holds nothing may take
//! all that is free.
//!
//! *Waiters.* A record for which there is no room waits. The waiters of one shard are served in the order of arrival.
//! Among shards the oldest waiter that fits goes first: a waiter that does not fit holds up its own shard only.
//!
//! *Reserved bytes.* A waiter whose shard holds nothing may need more than is free. Then all that is free is reserved
//! for it: younger waiters get none, and the open aggregates of all producers are flushed.
//!
//! *Permits.* Room for a permit has no shard yet and may end up with any. So a permit waits while an older waiter of
//! its producer waits, and while the fullest shard together with all permits of the producer would hold more than twice
//! the bytes that stay free. If a permit waits while its producer holds no unused permit, and no older record of that
//! producer waits, its bytes are reserved, and younger waiters get room out of the rest.
//!
//! *Cost.* A grant, a return and a new waiter each take a time that is logarithmic in the number of waiters. While
//! permits wait, each return also checks the first permit of each producer. [`FairShare::take_pressure`] takes
//! logarithmic time for each shard that it is asked about or that began to wait, whatever other shards wait.

// The paths are given because a benchmark includes this file.
#[path = "fair_share/pressure.rs"]
mod pressure;
#[path = "fair_share/usage.rs"]
mod usage;

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::task::{Poll, Waker};

pub(crate) use self::pressure::Pressure;
use self::usage::Usage;
use super::wait_index::WaitIndex;

/// Numbers the queues of a producer, in order of creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct QueueId(pub(crate) u32);

impl QueueId {
    /// The queue of records whose shard is not predicted.
    pub(crate) const UNPREDICTED: Self = Self(0);
    /// Holds the room of permits, whose queue is known only with their record.
    pub(crate) const PERMITS: Self = Self(1);
    /// The first queue of a shard.
    pub(crate) const FIRST: u32 = 2;

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A shard of one of the producers that share the budget; or the permits of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holder {
    pub(crate) producer: usize,
    pub(crate) queue_id: QueueId,
}

/// Number of a waiter, in the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(u64);

/// The state of a memory budget. `S` is what wakes a producer.
#[derive(Debug)]
pub(crate) struct FairShare<S> {
    pub(crate) total: usize,
    free: usize,
    pub(crate) peak: usize,
    /// By the number of the producer. The number of a removed producer is given to the next one.
    usages: Vec<Option<Usage<S>>>,
    waiters: BTreeMap<Holder, VecDeque<Waiter>>,
    /// Finds the waiter of a shard that fits. Only the first waiter of a shard has a need.
    index: WaitIndex,
    /// The first waiter for a permit of each producer.
    permits: BTreeSet<(Ticket, usize)>,
    /// Waiters that got their room and have not been polled since.
    granted: HashSet<Ticket>,
    next_ticket: u64,
    /// Bytes of waiters whose shard holds nothing and that do not fit: younger waiters compete for the remainder.
    reserved: usize,
    /// Number of waiters that were checked to find those that get room.
    #[cfg(test)]
    pub(crate) looked_at: usize,
    /// Shards that were reported as waiting, and have waited ever since.
    #[cfg(test)]
    reported: BTreeSet<Holder>,
}

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    bytes: usize,
    waker: Option<Waker>,
}

/// Tasks and producers to wake once the lock is released.
#[must_use = "tasks wait for it"]
#[derive(Debug)]
pub(crate) struct Wakes<S> {
    pub(crate) granted: Vec<Waker>,
    /// Producers whose open aggregates must be sealed now.
    pub(crate) pressed: Vec<S>,
}

impl<S: Clone> FairShare<S> {
    pub(crate) fn new(total: usize) -> Self {
        Self {
            total,
            free: total,
            peak: 0,
            usages: Vec::new(),
            waiters: BTreeMap::new(),
            index: WaitIndex::new(),
            permits: BTreeSet::new(),
            granted: HashSet::new(),
            next_ticket: 0,
            reserved: 0,
            #[cfg(test)]
            looked_at: 0,
            #[cfg(test)]
            reported: BTreeSet::new(),
        }
    }

    /// Adds a producer, and returns its number. `signal` is handed back when its open aggregates must make room.
    pub(crate) fn add_producer(&mut self, signal: S) -> usize {
        let usage = Usage::new(signal);
        if let Some(number) = self.usages.iter().position(Option::is_none) {
            self.usages[number] = Some(usage);
            number
        } else {
            self.usages.push(Some(usage));
            self.usages.len() - 1
        }
    }

    /// Removes a producer, once all that it held was given back.
    pub(crate) fn remove_producer(&mut self, number: usize) {
        self.usages[number] = None;
    }

    /// Ends all waits of a producer, the later ones included, without room.
    pub(crate) fn close_producer(&mut self, number: usize) -> Wakes<S> {
        self.usage(number).closed = true;
        let holders: Vec<_> = self.queues(number).copied().collect();
        let mut ended = Vec::new();
        for holder in holders {
            for waiter in self.waiters.remove(&holder).into_iter().flatten() {
                self.forget(holder, waiter.ticket);
                ended.extend(waiter.waker);
            }
        }
        let mut wakes = self.grant_room();
        wakes.granted.append(&mut ended);
        wakes
    }

    /// Takes room now, if no waiter is overtaken. `percent` is for droppable records: how much of the budget, and of
    /// the fair share of the shard, may be used then.
    pub(crate) fn try_take(&mut self, holder: Holder, bytes: usize, percent: Option<u32>) -> bool {
        let overtakes = match holder.queue_id {
            QueueId::PERMITS => self.queues(holder.producer).next().is_some(),
            _ => self.waiters.contains_key(&holder),
        };
        let is_free = !overtakes
            && !self.usage(holder.producer).closed
            && self.admits(holder, bytes)
            && percent.is_none_or(|percent| self.leaves_rest(holder, bytes, percent));
        if is_free {
            self.take(holder, bytes);
        }
        is_free
    }

    /// Adds a waiter for room; `None` when the producer is closed.
    pub(crate) fn wait(&mut self, holder: Holder, bytes: usize) -> Option<(Ticket, Wakes<S>)> {
        if self.usage(holder.producer).closed {
            return None;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let queue = self.waiters.entry(holder).or_default();
        queue.push_back(Waiter { ticket, bytes, waker: None });
        if holder.queue_id != QueueId::PERMITS {
            self.index.push(ticket, holder);
        }
        self.note_first(holder);
        let wakes = self.grant_room();
        if self.waiters.contains_key(&holder) {
            self.usage(holder.producer).got_waiter.insert(holder.queue_id);
        }
        Some((ticket, wakes))
    }

    /// Whether a waiter got its room; `Ready(false)` when its wait ended without. A waiter that still waits leaves its
    /// waker. The waker before is returned, to be dropped after the lock is released.
    pub(crate) fn poll(
        &mut self,
        holder: Holder,
        ticket: Ticket,
        waker: &Waker,
    ) -> (Poll<bool>, Option<Waker>) {
        if self.granted.remove(&ticket) {
            return (Poll::Ready(true), None);
        }
        let Some(waiter) = self.waiter(holder, ticket) else {
            return (Poll::Ready(false), None);
        };
        let old = match &waiter.waker {
            Some(known) if known.will_wake(waker) => None,
            _ => waiter.waker.replace(waker.clone()),
        };
        (Poll::Pending, old)
    }

    /// Ends a wait, and gives back room that was granted meanwhile. Later waiters may fit then.
    pub(crate) fn give_up(
        &mut self,
        holder: Holder,
        ticket: Ticket,
        bytes: usize,
    ) -> (Wakes<S>, Option<Waker>) {
        let mut old = None;
        if self.granted.remove(&ticket) {
            self.put(holder, bytes);
        } else if let Some(queue) = self.waiters.get_mut(&holder)
            && let Ok(position) = queue.binary_search_by_key(&ticket, |waiter| waiter.ticket)
        {
            old = queue.remove(position).and_then(|waiter| waiter.waker);
            self.left_queue(holder, ticket);
        }
        (self.grant_room(), old)
    }

    pub(crate) fn give_back(&mut self, holder: Holder, bytes: usize) -> Wakes<S> {
        self.put(holder, bytes);
        self.grant_room()
    }

    /// Moves bytes to another shard, even if that then holds more than its fair share.
    pub(crate) fn move_room(
        &mut self,
        producer: usize,
        from: QueueId,
        to: QueueId,
        bytes: usize,
    ) -> Wakes<S> {
        let holders = [from, to].map(|queue_id| Holder { producer, queue_id });
        let usage = self.usage(producer);
        usage.set_held(from, usage.held(from) - bytes);
        usage.set_held(to, usage.held(to) + bytes);
        holders.into_iter().for_each(|holder| self.note_first(holder));
        // The shard that they leave may now hold little enough.
        self.grant_room()
    }

    pub(crate) fn used(&self) -> usize {
        self.total - self.free
    }

    /// Bytes that one producer holds, and the most that it ever held.
    pub(crate) fn used_by(&self, number: usize) -> (usize, usize) {
        let usage = self.usages[number].as_ref();
        usage.map_or((0, 0), |usage| (usage.used, usage.peak))
    }

    fn usage(&mut self, number: usize) -> &mut Usage<S> {
        self.usages[number].as_mut().expect("its producer holds it open")
    }

    fn queues(&self, producer: usize) -> impl Iterator<Item = &Holder> {
        let [first, last] =
            [0, u32::MAX].map(|queue_id| Holder { producer, queue_id: QueueId(queue_id) });
        self.waiters.range(first..=last).map(|(holder, _)| holder)
    }

    /// Whether more is reserved than is free, so that no younger waiter gets room.
    fn is_short(&self) -> bool {
        self.reserved > self.free
    }

    fn waiter(&mut self, holder: Holder, ticket: Ticket) -> Option<&mut Waiter> {
        let queue = self.waiters.get_mut(&holder)?;
        let position = queue.binary_search_by_key(&ticket, |waiter| waiter.ticket).ok()?;
        queue.get_mut(position)
    }

    fn admits(&mut self, holder: Holder, bytes: usize) -> bool {
        let others = bytes.saturating_add(self.reserved);
        let Some(rest) = self.free.checked_sub(others) else {
            return false;
        };
        let usage = self.usage(holder.producer);
        let held = usage.held(holder.queue_id);
        if holder.queue_id == QueueId::PERMITS {
            // A permit that waits gets its room in the end: meanwhile no shard grows above `rest`.
            held + usage.fullest().1 <= rest.saturating_mul(2)
        } else {
            held == 0 || held + bytes <= rest
        }
    }

    /// Whether enough of the budget, and of what the shard could hold if it alone grew, is left to records that are not
    /// droppable.
    fn leaves_rest(&mut self, holder: Holder, bytes: usize, percent: u32) -> bool {
        let (used, free, total) = (self.used(), self.free, self.total);
        let held = self.usage(holder.producer).held(holder.queue_id);
        let is_within = |part: usize, whole: usize, ways: u128| {
            part as u128 * 100 * ways <= whole as u128 * u128::from(percent)
        };
        is_within(used + bytes, total, 1) && (held == 0 || is_within(held + bytes, held + free, 2))
    }

    fn take(&mut self, holder: Holder, bytes: usize) {
        self.free -= bytes;
        self.peak = self.peak.max(self.total - self.free);
        let usage = self.usage(holder.producer);
        usage.used += bytes;
        usage.peak = usage.peak.max(usage.used);
        usage.set_held(holder.queue_id, usage.held(holder.queue_id) + bytes);
        self.note_first(holder);
    }

    fn put(&mut self, holder: Holder, bytes: usize) {
        self.free += bytes;
        let usage = self.usage(holder.producer);
        usage.used -= bytes;
        usage.set_held(holder.queue_id, usage.held(holder.queue_id) - bytes);
        self.note_first(holder);
    }

    /// Sets the need of the first waiter of a shard, after it became the first or the shard holds more or less.
    fn note_first(&mut self, holder: Holder) {
        let Some(first) = self.waiters.get(&holder).and_then(VecDeque::front) else {
            return;
        };
        let (ticket, bytes) = (first.ticket, first.bytes);
        if holder.queue_id == QueueId::PERMITS {
            self.permits.insert((ticket, holder.producer));
            return;
        }
        let usage = self.usage(holder.producer);
        usage.first_waiters.insert(ticket);
        let need = match usage.held(holder.queue_id) {
            0 => bytes,
            // As much must be free afterwards as the shard then holds.
            held => bytes.saturating_mul(2).saturating_add(held),
        };
        let holds_nothing = usage.held(holder.queue_id) == 0;
        self.index.set_need(ticket, need, holds_nothing);
    }

    /// Updates the indexes after a waiter left its queue.
    fn left_queue(&mut self, holder: Holder, ticket: Ticket) {
        self.forget(holder, ticket);
        match self.waiters.get(&holder) {
            Some(queue) if queue.is_empty() => drop(self.waiters.remove(&holder)),
            _ => self.note_first(holder),
        }
    }

    fn forget(&mut self, holder: Holder, ticket: Ticket) {
        if holder.queue_id == QueueId::PERMITS {
            self.permits.remove(&(ticket, holder.producer));
        } else {
            self.usage(holder.producer).first_waiters.remove(&ticket);
            self.index.remove(ticket);
        }
    }

    fn grant_room(&mut self) -> Wakes<S> {
        // Not in a benchmark, which is built without debug assertions.
        #[cfg(all(test, debug_assertions))]
        let expected = self.expected_grants();
        let was_short = self.is_short();
        self.reserved = 0;
        let granted = self.grant();
        #[cfg(all(test, debug_assertions))]
        {
            let tickets = granted.iter().map(|(ticket, _)| *ticket).collect();
            assert_eq!((tickets, self.reserved), expected);
        }
        let pressed = if self.is_short() && !was_short {
            let usages = self.usages.iter().flatten();
            usages.map(|usage| usage.signal.clone()).collect()
        } else {
            Vec::new()
        };
        Wakes { granted: granted.into_iter().filter_map(|(_, waker)| waker).collect(), pressed }
    }

    /// Gives room in the order of arrival. The available room only shrinks on the way, so a waiter that did not fit
    /// does not fit later.
    fn grant(&mut self) -> Vec<(Ticket, Option<Waker>)> {
        let mut granted = Vec::new();
        let mut past_permits = None;
        while !self.is_short() {
            #[cfg(test)]
            {
                self.looked_at += 1;
            }
            let available = self.free - self.reserved;
            let fitting = self.index.first_fitting(available);
            let holding_nothing = self.index.first_holding_nothing();
            let permit = match past_permits {
                None => self.permits.first(),
                Some(past) => {
                    let after = (std::ops::Bound::Excluded(past), std::ops::Bound::Unbounded);
                    self.permits.range(after).next()
                }
            }
            .copied();
            let permit_holder = permit.map(|(ticket, producer)| {
                let queue_id = QueueId::PERMITS;
                (ticket, Holder { producer, queue_id })
            });
            let next = [fitting, holding_nothing, permit_holder];
            let Some((ticket, holder)) = next.into_iter().flatten().min() else {
                break;
            };
            let bytes = self.waiter(holder, ticket).map_or(0, |waiter| waiter.bytes);
            if permit_holder == Some((ticket, holder)) {
                past_permits = permit;
                let firsts = &self.usage(holder.producer).first_waiters;
                if firsts.first().is_some_and(|first| *first < ticket) {
                    continue;
                }
            }
            if self.admits(holder, bytes) {
                self.take(holder, bytes);
                let queue = self.waiters.get_mut(&holder);
                let waiter = queue.and_then(VecDeque::pop_front);
                self.left_queue(holder, ticket);
                self.granted.insert(ticket);
                granted.push((ticket, waiter.and_then(|waiter| waiter.waker)));
            } else if self.usage(holder.producer).held(holder.queue_id) == 0 {
                // The waiter's bytes are reserved. A waiter of a shard needs more than is available, so nothing
                // remains.
                self.reserved = self.reserved.saturating_add(bytes);
            }
        }
        granted
    }
}

#[cfg(test)]
#[path = "fair_share/tests.rs"]
mod tests;
