//! The process of a worker, with at most one ownership.

use kcl::internals::adopt;

use super::knowledge::{Knowledge, Start};
use super::{Item, Kind, Write};

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Worker {
    pub(super) knowledge: Option<Knowledge>,
    /// The lease as its owner knows it, until the fence falls.
    pub(super) held: Option<Item>,
    /// The last counter that this worker is known to have written.
    pub(super) proven: u64,
    /// A write of this ownership may have been done.
    pub(super) unclear: bool,
    /// The ownership has ended, and its processor may be at work until the fence falls.
    pub(super) haunts: bool,
    /// The counter at the end of the last ownership.
    past: Option<u64>,
    pub(super) position: u64,
}

impl Worker {
    pub(super) fn scan(&mut self, item: Item, me: usize) {
        self.knowledge = Some(Knowledge::of(item, self.knowledge, me));
    }

    pub(super) fn lose(&mut self) {
        if let Some(held) = self.held.take() {
            self.past = Some(held.counter);
        }
    }

    /// Notes that a handoff has lasted longer than the owner allows and a receiver trusts.
    pub(super) fn outlast_handoff(&mut self) {
        self.haunts |= self.held.is_some();
        self.lose();
        if let Some(known) = &mut self.knowledge {
            known.distrust();
        }
    }

    /// The writes that the worker may send. `names`: the worker ids of both processes, its own at `me`.
    pub(super) fn sends(&self, me: usize, names: [usize; 2]) -> Vec<Kind> {
        let (name, other) = (names[me], names[1 - me]);
        if let Some(held) = self.held {
            return self.sends_of_owner(held, name, other);
        }
        let Some(known) = self.knowledge.filter(|_| !self.haunts) else {
            return Vec::new();
        };
        let mut kinds = Vec::new();
        if !known.starts(name, me, self.past).is_empty() {
            kinds.push(Kind::Begin);
        }
        if known.item.owner.is_none() || known.silent {
            kinds.push(Kind::Take);
            kinds.push(Kind::Assign(other));
        }
        // A leader hands a lease of the other worker over.
        if known.item.owner == Some(other) && other != name {
            kinds.push(Kind::StartHandoff(name));
        }
        kinds
    }

    fn sends_of_owner(&self, held: Item, name: usize, other: usize) -> Vec<Kind> {
        let mut kinds = vec![Kind::Renew];
        if self.position > held.checkpoint {
            kinds.push(Kind::Checkpoint(self.position));
        }
        match (held.checkpoint_owner, held.owner) {
            // The receiver of the handoff gets the lease.
            (Some(_), Some(to)) => kinds.extend([Kind::Release(to), Kind::Abandon(to)]),
            _ => {
                // Released to the next process of its id, or to no owner.
                kinds.extend([Kind::Release(name), Kind::Evict]);
                if other != name {
                    kinds.extend([
                        Kind::StartHandoff(other),
                        Kind::Release(other),
                        Kind::Abandon(other),
                    ]);
                }
            }
        }
        kinds
    }

    pub(super) fn send(&mut self, kind: Kind) -> Option<Write> {
        let known = self.held.or(self.knowledge.map(|known| known.item))?;
        match kind {
            // The processor has stopped before the lease is released.
            Kind::Release(_) | Kind::Evict => self.lose(),
            // The processor is told to stop, and may still be at work.
            Kind::Abandon(_) => {
                self.lose();
                self.haunts = true;
            }
            _ => {}
        }
        Some(Write { kind, known })
    }

    /// The rules by which an ownership begins with this write, sent by the process at `me`.
    pub(super) fn begins(&self, kind: Kind, me: usize, names: [usize; 2]) -> Vec<Start> {
        match (kind, self.knowledge) {
            (Kind::Begin, Some(known)) => known.starts(names[me], me, self.past),
            (Kind::Take, _) => vec![Start::Taken],
            _ => Vec::new(),
        }
    }

    /// Forgets what makes no difference any more at this counter of the lease. `overdue`: its handoff is.
    pub(super) fn forget(&mut self, counter: u64, overdue: bool) {
        if let Some(known) = &mut self.knowledge {
            known.forget(overdue);
        }
        self.past = self.past.filter(|past| past + 1 >= counter);
        if self.held.is_none() {
            self.unclear = false;
            self.position = 0;
            if !self.haunts {
                self.proven = 0;
            }
        }
    }

    /// Takes in the answer to a write. `item`: the item after it. `applied`: the write passed its condition.
    /// `done`: it was applied now or before.
    pub(super) fn answered(
        &mut self,
        write: Write,
        item: Item,
        applied: bool,
        done: bool,
        (name, process): (&str, u64),
    ) {
        match write.kind {
            Kind::Take | Kind::Begin if applied => {
                self.held = Some(item);
                self.proven = item.counter;
                self.position = item.checkpoint;
                self.unclear = false;
                self.knowledge = None;
            }
            // The time of the write is unknown: one more renewal sets the fence.
            Kind::Take | Kind::Begin if done && !item.is_pending() => {
                let mut known = Knowledge::of(item, None, usize::MAX);
                known.again = true;
                self.knowledge = Some(known);
            }
            Kind::Renew | Kind::Checkpoint(_) if done => {
                self.held = Some(item);
                self.unclear = false;
                if applied {
                    self.proven = item.counter;
                }
            }
            Kind::Renew | Kind::Checkpoint(_) => {
                if let Some(held) = self.held {
                    let seen = Some(item.lease());
                    match adopt(name, process, &held.lease(), seen, self.unclear) {
                        Some(lease) => self.held = Some(Item::of(&lease)),
                        None => self.lose(),
                    }
                }
            }
            // The owner itself has started a handoff.
            Kind::StartHandoff(_) if done && self.held.is_some() => self.held = Some(item),
            _ => {}
        }
    }
}
