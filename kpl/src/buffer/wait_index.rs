//! Index of waiters: finds the oldest waiter that fits into the free room, in logarithmic time. Pure.

use super::fair_share::{Holder, Ticket};
use super::tournament::{Node, Tournament};

/// Waiters by age, each with the bytes that must be available before it gets its room.
#[derive(Debug)]
pub(crate) struct WaitIndex {
    /// Sorted by ticket, oldest first. `None` for a waiter that has left.
    slots: Vec<(Ticket, Option<Holder>)>,
    waiting: usize,
    tree: Tournament<Need>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Need {
    /// Smallest need of the waiters below.
    bytes: usize,
    /// Whether one of them waits for a shard that holds nothing.
    holds_nothing: bool,
}

impl Node for Need {
    const NONE: Self = Self { bytes: usize::MAX, holds_nothing: false };

    fn join(left: Self, right: Self) -> Self {
        Self {
            bytes: left.bytes.min(right.bytes),
            holds_nothing: left.holds_nothing || right.holds_nothing,
        }
    }
}

impl WaitIndex {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), waiting: 0, tree: Tournament::new() }
    }

    /// Adds the youngest waiter. It is found once its need is set.
    pub(crate) fn push(&mut self, ticket: Ticket, holder: Holder) {
        if self.slots.len() == self.tree.capacity() {
            self.make_room();
        }
        self.slots.push((ticket, Some(holder)));
        self.waiting += 1;
    }

    /// Sets the need of a waiter that is the first of its shard.
    pub(crate) fn set_need(&mut self, ticket: Ticket, bytes: usize, holds_nothing: bool) {
        if let Some(slot) = self.slot(ticket) {
            let need = Need { bytes, holds_nothing };
            self.tree.set(slot, need);
        }
    }

    pub(crate) fn remove(&mut self, ticket: Ticket) {
        if let Some(slot) = self.slot(ticket)
            && self.slots[slot].1.take().is_some()
        {
            self.tree.set(slot, Need::NONE);
            self.waiting -= 1;
            if self.waiting == 0 {
                self.slots.clear();
            }
        }
    }

    /// The oldest waiter that needs no more than is `available`.
    pub(crate) fn first_fitting(&self, available: usize) -> Option<(Ticket, Holder)> {
        // The maximum stands for a waiter without a need.
        let available = available.min(usize::MAX - 1);
        self.waiter(self.tree.first(|need| need.bytes <= available)?)
    }

    /// The oldest waiter whose shard holds nothing.
    pub(crate) fn first_holding_nothing(&self) -> Option<(Ticket, Holder)> {
        self.waiter(self.tree.first(|need| need.holds_nothing)?)
    }

    fn waiter(&self, slot: usize) -> Option<(Ticket, Holder)> {
        let (ticket, holder) = self.slots.get(slot)?;
        holder.map(|holder| (*ticket, holder))
    }

    fn slot(&self, ticket: Ticket) -> Option<usize> {
        self.slots.binary_search_by_key(&ticket, |(ticket, _)| *ticket).ok()
    }

    /// Drops the slots of waiters that have left. At least half of the slots are free then, so a new waiter costs a few
    /// steps on average.
    fn make_room(&mut self) {
        let kept: Vec<_> =
            (0..self.slots.len()).filter(|slot| self.slots[*slot].1.is_some()).collect();
        let needs = kept.iter().map(|slot| self.tree.get(*slot));
        let tree = Tournament::build(needs, 2 * kept.len().max(8));
        self.slots = kept.into_iter().map(|slot| self.slots[slot]).collect();
        self.tree = tree;
    }
}
