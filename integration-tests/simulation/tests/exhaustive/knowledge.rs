//! What a worker concludes from its scans of the lease.

use super::Item;

/// Rule by which a worker may begin an ownership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Start {
    Taken,
    /// A renewal or a take was refused, but the item is as that write leaves it.
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
    /// The worker has seen this counter for the failover time.
    pub(super) silent: bool,
    /// The counter before this one, if that is one less.
    pub(super) before: Option<u64>,
    /// That counter stood still for the failover time, too.
    pub(super) silent_before: bool,
    was_free: bool,
    /// A scan showed a pending handoff to this worker. True if a recent scan did not show it yet.
    handoff: Option<bool>,
    /// The last scan is not recent any more.
    old: bool,
    /// The handoff was completed in time.
    in_time: bool,
    pub(super) again: bool,
}

impl Knowledge {
    /// The knowledge after a scan that showed `item`. `last`: the knowledge before it.
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

    /// Notes that too much time has passed to trust a handoff that is pending.
    pub(super) fn distrust(&mut self) {
        self.handoff = self.handoff.map(|_| false);
        self.old = true;
    }

    /// Forgets what makes no difference unless a handoff is overdue.
    pub(super) fn forget(&mut self, overdue: bool) {
        self.old &= overdue;
    }

    /// The rules of `FleetView::may_start` by which the worker may start. `process`: its own number. `past`: the
    /// counter at the end of its last ownership.
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
