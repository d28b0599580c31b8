//! Every interleaving of two workers and a leader on one lease, up to small counters.
//!
//! The actions are scans, writes that are held up and land late or never, answers that get lost, handoffs,
//! forced assignments, and fences that fall. Conditions of the writes, and the conclusions from a refused
//! write, are the library's own. Time is reduced to what it means: a worker that saw the counter stand
//! still for the failover time knows that the owner's fence has fallen. The rules by which a worker may
//! start are those of `FleetView::may_start`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod knowledge;
mod worker;

use std::collections::BTreeSet;
use std::sync::Mutex;

use kcl::internals::{Lease, LeaseWrite, OwnerReport, Stamp};
use kcl::{Checkpoint, ExtendedSequenceNumber};
use kcl_simulation::memory::apply;
use stateright::{Checker as _, HasDiscoveries, Model, Property};

use knowledge::Start;
use worker::Worker;

const NAMES: [&str; 2] = ["a", "b"];
const KEY: &str = "k";

/// The attributes of the item that matter here. Names are indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Item {
    owner: Option<usize>,
    checkpoint_owner: Option<usize>,
    counter: u64,
    checkpoint: u64,
    /// The lease was released to its owner.
    released: bool,
    /// The process that wrote the counter, if it was one of an owner.
    stamp: Option<usize>,
}

impl Item {
    fn lease(self) -> Lease {
        let name = |worker: usize| NAMES[worker].to_owned();
        Lease {
            owner: self.owner.map(name),
            checkpoint_owner: self.checkpoint_owner.map(name),
            counter: self.counter,
            released_at: self.released.then_some(self.counter),
            stamp: self
                .stamp
                .map(|process| Stamp { counter: self.counter, process: Some(process as u64) }),
            ..Lease::new(KEY, at(self.checkpoint))
        }
    }

    fn of(lease: &Lease) -> Self {
        let worker = |name: &Option<String>| {
            let name = name.as_deref()?;
            NAMES.iter().position(|worker| *worker == name)
        };
        let stamp = lease.stamp.filter(|stamp| stamp.counter == lease.counter);
        Self {
            owner: worker(&lease.owner),
            checkpoint_owner: worker(&lease.checkpoint_owner),
            counter: lease.counter,
            checkpoint: match &lease.checkpoint {
                Checkpoint::At(at) => at.sequence_number.as_str().parse().unwrap(),
                _ => 0,
            },
            released: lease.was_released_to_owner(),
            stamp: stamp.and_then(|stamp| Some(stamp.process? as usize)),
        }
    }

    fn is_pending(self) -> bool {
        self.checkpoint_owner.is_some()
    }
}

fn at(position: u64) -> Checkpoint {
    match position {
        0 => Checkpoint::TrimHorizon,
        n => Checkpoint::At(ExtendedSequenceNumber::new(n.to_string().parse().unwrap(), 0)),
    }
}

/// A write, with the lease as its sender knew it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Write {
    kind: Kind,
    known: Item,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Take,
    /// A renewal by which the worker begins its ownership of a lease that names it.
    Begin,
    Renew,
    Checkpoint(u64),
    StartHandoff(usize),
    /// An assignment by an owner whose processor has stopped.
    Release(usize),
    /// An assignment by an owner whose processor was told to stop and may still be at work.
    Abandon(usize),
    /// An assignment by a leader that finds the lease free, or its owner silent.
    Assign(usize),
    Evict,
}

impl Write {
    /// The write as the store knows it, of the owner `me`.
    fn of(self, me: &str) -> LeaseWrite {
        let owner = me.to_owned();
        let name = |worker: usize| NAMES[worker].to_owned();
        match self.kind {
            Kind::Take => LeaseWrite::Take { owner },
            Kind::Begin | Kind::Renew => {
                LeaseWrite::Renew { owner, report: OwnerReport::default() }
            }
            Kind::Checkpoint(position) => LeaseWrite::Checkpoint {
                owner,
                checkpoint: at(position),
                pending: None,
                report: OwnerReport::default(),
            },
            Kind::StartHandoff(to) => LeaseWrite::StartHandoff { to: name(to) },
            Kind::Release(to) => LeaseWrite::Assign { to: name(to), released: true },
            Kind::Abandon(to) => LeaseWrite::Take { owner: name(to) },
            Kind::Assign(to) => LeaseWrite::Assign { to: name(to), released: false },
            Kind::Evict => LeaseWrite::Evict,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    item: Item,
    workers: [Worker; 2],
    /// A write whose sender has given up: it lands some time, or never.
    held_up: Option<(usize, Write)>,
    /// A handoff has been pending for longer than its owner allows and a receiver trusts.
    overdue: bool,
    delivered: u64,
    /// A checkpoint went back, or passed the delivered records.
    wrong: bool,
}

impl State {
    /// Forgets what makes no difference any more.
    fn forget(&mut self) {
        self.overdue &= self.item.is_pending();
        for worker in &mut self.workers {
            worker.forget(self.item.counter, self.overdue);
        }
    }

    /// The failover time after the write of this counter has passed: the fences of it, and of earlier ones,
    /// fall.
    fn fences_fall(&mut self, counter: u64) {
        for worker in &mut self.workers {
            if worker.proven <= counter {
                worker.lose();
                worker.haunts = false;
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Action {
    Scan(usize),
    /// The failover time has passed since the worker first saw the counter.
    Silence(usize),
    /// The failover time has passed since the worker first saw the counter before this one.
    SilenceBefore(usize),
    Deliver(usize),
    /// A write is done and answered.
    Write(usize, Kind),
    /// A write gets no answer.
    HoldUp(usize, Kind),
    Land,
    /// A handoff takes too long, and its owner gives up.
    Outlast,
    /// A leader assigns the lease by force, whichever worker is at work.
    Force(usize),
}

struct OneLease {
    /// The worker id of each process.
    names: [usize; 2],
    counters: u64,
    records: u64,
    /// The rules by which ownerships began.
    begun: Mutex<BTreeSet<Start>>,
}

impl OneLease {
    fn land(&self, state: &mut State, by: usize, write: Write) -> bool {
        let me = NAMES[self.names[by]];
        let (known, item) = (write.known.lease(), state.item.lease());
        let after = apply(&write.of(me), by as u64, &known, Some(&item));
        let Some(after) = after.flatten() else {
            return false;
        };
        let after = Item::of(&after);
        state.wrong |=
            after.checkpoint < state.item.checkpoint || after.checkpoint > state.delivered;
        state.item = after;
        true
    }

    /// True if a refused write was done: the item is as the write leaves it.
    fn is_done(&self, state: &State, by: usize, write: Write) -> bool {
        let me = NAMES[self.names[by]];
        let (known, seen) = (write.known.lease(), state.item.lease());
        write.of(me).is_done(by as u64, &known, &seen)
    }
}

impl Model for OneLease {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let item = Item { counter: 1, ..Item::default() };
        let free = State {
            item,
            workers: Default::default(),
            held_up: None,
            overdue: false,
            delivered: 0,
            wrong: false,
        };
        // The lease was free at the scan of the second worker. Then the first worker took it.
        let mut held = free.clone();
        held.workers[1].scan(Item::default(), self.names[1]);
        held.item.owner = Some(self.names[0]);
        held.item.stamp = Some(0);
        held.workers[0].held = Some(held.item);
        held.workers[0].proven = held.item.counter;
        vec![free, held]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (me, worker) in state.workers.iter().enumerate() {
            if worker.held.is_none() && !worker.haunts {
                match worker.knowledge {
                    Some(known) if known.item == state.item => {
                        if !known.silent {
                            actions.push(Action::Silence(me));
                        }
                        if known.before.is_some() && !known.silent_before {
                            actions.push(Action::SilenceBefore(me));
                        }
                    }
                    _ => actions.push(Action::Scan(me)),
                }
            }
            if worker.held.is_some() && worker.position < self.records {
                actions.push(Action::Deliver(me));
            }
            for kind in worker.sends(me, self.names) {
                // Otherwise it is the same as `Force`.
                if !matches!(kind, Kind::Assign(_)) {
                    actions.push(Action::Write(me, kind));
                }
                if state.held_up.is_none() {
                    actions.push(Action::HoldUp(me, kind));
                }
            }
        }
        if state.held_up.is_some() {
            actions.push(Action::Land);
        }
        if state.item.is_pending() && !state.overdue {
            actions.push(Action::Outlast);
        } else {
            let to = &self.names[..if self.names[0] == self.names[1] { 1 } else { 2 }];
            actions.extend(to.iter().map(|to| Action::Force(*to)));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Scan(me) => state.workers[me].scan(last.item, self.names[me]),
            Action::Silence(me) => {
                let known = state.workers[me].knowledge.as_mut()?;
                known.silent = true;
                known.silent_before = true;
                state.fences_fall(last.item.counter);
            }
            Action::SilenceBefore(me) => {
                let known = state.workers[me].knowledge.as_mut()?;
                known.silent_before = true;
                let before = known.before?;
                state.fences_fall(before);
            }
            Action::Deliver(me) => {
                state.workers[me].position += 1;
                state.delivered = state.delivered.max(state.workers[me].position);
            }
            Action::Write(me, kind) => {
                let write = state.workers[me].send(kind)?;
                let applied = self.land(&mut state, me, write);
                if applied {
                    let begun = state.workers[me].begins(kind, me, self.names);
                    self.begun.lock().unwrap().extend(begun);
                }
                let done = applied || self.is_done(&state, me, write);
                let (item, name) = (state.item, NAMES[self.names[me]]);
                state.workers[me].answered(write, item, applied, done, (name, me as u64));
            }
            Action::HoldUp(me, kind) => {
                let write = state.workers[me].send(kind)?;
                state.held_up = Some((me, write));
                state.workers[me].unclear = true;
            }
            Action::Land => {
                let (me, write) = state.held_up.take()?;
                self.land(&mut state, me, write);
            }
            Action::Force(to) => {
                let lease = last.item.lease();
                let force = LeaseWrite::Assign { to: NAMES[to].to_owned(), released: false };
                state.item = Item::of(&apply(&force, 9, &lease, Some(&lease))??);
            }
            Action::Outlast => {
                state.overdue = true;
                for worker in &mut state.workers {
                    worker.outlast_handoff();
                }
            }
        }
        state.forget();
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one at work", |_, state: &State| {
                let at_work = |worker: &&Worker| worker.held.is_some() || worker.haunts;
                state.workers.iter().filter(at_work).count() <= 1
            }),
            Property::always("progress", |_, state: &State| !state.wrong),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.item.counter <= self.counters
    }
}

#[track_caller]
fn check(names: [usize; 2], counters: u64, records: u64, rules: &[Start]) {
    let model = OneLease { names, counters, records, begun: Mutex::default() };
    let checked =
        model.checker().finish_when(HasDiscoveries::AnyFailures).threads(2).spawn_bfs().join();
    checked.assert_properties();
    let states = checked.unique_state_count();
    println!("{states} states");
    assert!(states > 100_000, "only {states} states");
    let begun = checked.model().begun.lock().unwrap();
    assert_eq!(*begun, rules.iter().copied().collect(), "each rule is tried");
}

const TWO_WORKERS: [usize; 2] = [0, 1];
/// Under one id.
const TWO_PROCESSES: [usize; 2] = [0, 0];

/// The rules by which both begin on a lease.
const COMMON: [Start; 6] =
    [Start::Taken, Start::Again, Start::Released, Start::Untouched, Start::WasFree, Start::Silence];

#[test]
fn two_workers_never_have_one_lease() {
    let rules = [&COMMON[..], &[Start::InTime]].concat();
    check(TWO_WORKERS, 3, 0, &rules);
}

/// No handoffs are explored: a worker hands no lease to its own id.
#[test]
fn two_processes_of_one_worker_id_never_have_one_lease_nor_take_progress_back() {
    check(TWO_PROCESSES, 3, 2, &COMMON);
}
