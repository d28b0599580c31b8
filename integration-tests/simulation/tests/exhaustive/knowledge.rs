//! What a worker's looks at the lease tell it.

use super::Item;

/// Why a worker may begin an ownership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Start {
    Taken,
    /// A renewal, or a take, was refused, but the item is as it leaves it.
    Again,
    Released,
    Untouched,
    WasFree,
    InTime,
    Silence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Knowledge {
    pub(super) item: Item,
    /// The counter stood still for the failover time.
    pub(super) silent: bool,
    /// The counter before this one, if that is one less.
    pub(super) before: Option<u64>,
    /// So did that one.
    pub(super) silent_before: bool,
    was_free: bool,
    /// A handoff to this worker was seen pending. True: not long ago, a look did not show it.
    handoff: Option<bool>,
    /// That long ago was the last look.
    old: bool,
    /// The one that was pending was completed soon.
    in_time: bool,
    pub(super) again: bool,
}

impl Knowledge {
    /// The first look, or one more.
    pub(super) fn of(item: Item, last: Option<Self>, me: usize) -> Self {
        let pending = item.is_pending() && item.owner == Some(me);
        let known = last.and_then(|last| last.handoff);
        let handoff = pending.then(|| known.unwrap_or(last.is_some_and(|last| !last.old)));
        if let Some(last) = last
            && last.item.counter == item.counter
        {
            return Self { item, handoff: handoff.or(last.handoff), old: false, ..last };
        }
        let next = last.filter(|last| last.item.counter + 1 == item.counter);
        Self {
            item,
            silent: false,
            before: next.map(|last| last.item.counter),
            silent_before: false,
            was_free: next.is_some_and(|last| last.item.owner.is_none()),
            handoff,
            old: false,
            in_time: known == Some(true),
            again: false,
        }
    }

    /// Too much time has passed.
    pub(super) fn distrust(&mut self) {
        self.handoff = self.handoff.map(|_| false);
        self.old = true;
    }

    /// What makes no difference unless a handoff is overdue.
    pub(super) fn forget(&mut self, overdue: bool) {
        self.old &= overdue;
    }

    /// As `FleetView::may_start`. `process`: its own; `past`: the counter of its last ownership.
    pub(super) fn starts(&self, me: usize, process: usize, past: Option<u64>) -> Vec<Start> {
        let item = self.item;
        if item.owner != Some(me) || item.is_pending() {
            return Vec::new();
        }
        let anothers = item.stamp.is_some_and(|stamp| stamp != process);
        let untouched = past.is_some_and(|past| (past..=past + 1).contains(&item.counter));
        [
            (self.again, Start::Again),
            (item.released, Start::Released),
            (untouched && !anothers, Start::Untouched),
            (self.was_free && !anothers, Start::WasFree),
            (self.in_time && !anothers, Start::InTime),
            (self.silent || self.silent_before && !anothers, Start::Silence),
        ]
        .into_iter()
        .filter_map(|(may, start)| may.then_some(start))
        .collect()
    }
}
