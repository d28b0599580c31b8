//! Every interleaving of two workers on one lease, as far as small counters go: looks, writes that are
//! held up, land late or never, answers that get lost, handoffs, and fences that fall. The writes are
//! those of the store, condition by condition; time is reduced to what it means: a worker that saw the
//! counter stand still for the failover time knows that the owner's fence has fallen.

use stateright::{Checker as _, Model, Property};

use crate::checkpoint::Checkpoint;
use crate::lease::model::Lease;
use crate::lease::readback::{Intent, Verdict, judge};
use crate::lease::store::Progress;

const WORKERS: [&str; 2] = ["a", "b"];
const KEY: &str = "k";

/// What matters of the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Item {
    owner: Option<usize>,
    checkpoint_owner: Option<usize>,
    counter: u64,
    checkpoint: u64,
    released_at: Option<u64>,
}

impl Item {
    fn lease(self) -> Lease {
        let name = |worker: usize| WORKERS[worker].to_owned();
        Lease {
            owner: self.owner.map(name),
            checkpoint_owner: self.checkpoint_owner.map(name),
            counter: self.counter,
            released_at: self.released_at,
            ..Lease::new(KEY, at(self.checkpoint))
        }
    }

    fn of(lease: &Lease) -> Self {
        let worker = |name: &Option<String>| {
            let name = name.as_deref()?;
            WORKERS.iter().position(|worker| *worker == name)
        };
        Self {
            owner: worker(&lease.owner),
            checkpoint_owner: worker(&lease.checkpoint_owner),
            counter: lease.counter,
            checkpoint: match &lease.checkpoint {
                Checkpoint::At(at) => at.sequence_number.as_str().parse().unwrap(),
                _ => 0,
            },
            released_at: lease.released_at,
        }
    }
}

fn at(position: u64) -> Checkpoint {
    match position {
        0 => Checkpoint::TrimHorizon,
        n => Checkpoint::parse(&n.to_string(), 0).unwrap(),
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
    /// `start`: of a lease that names the worker, which begins its tenure by it.
    Renew {
        start: bool,
    },
    Checkpoint(u64),
    StartHandoff(usize),
    Assign {
        to: usize,
        released: bool,
    },
    Evict,
}

impl Write {
    fn apply(self, by: usize, item: Item) -> Option<Item> {
        let (owner, known, item) = (WORKERS[by], self.known.lease(), item.lease());
        let progress;
        let intent = match self.kind {
            Kind::Take => Intent::Take { owner },
            Kind::Renew { .. } => Intent::Renew {
                owner,
                throughput: None,
            },
            Kind::Checkpoint(position) => {
                progress = Progress {
                    checkpoint: at(position),
                    pending: None,
                    throughput: None,
                };
                Intent::Checkpoint {
                    owner,
                    progress: &progress,
                }
            }
            Kind::StartHandoff(to) => Intent::StartHandoff { to: WORKERS[to] },
            Kind::Assign { to, released } => Intent::Assign {
                to: WORKERS[to],
                released,
            },
            Kind::Evict => Intent::Evict,
        };
        intent.apply(&known, &item).map(|lease| Item::of(&lease))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Worker {
    /// The last look at the item.
    seen: Option<Item>,
    /// The counter stood still since that look for the failover time.
    silent: bool,
    /// The lease as the tenure knows it, while no fence has fallen.
    held: Option<Item>,
    /// A write of this tenure may have been done.
    unclear: bool,
    position: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct State {
    item: Item,
    workers: [Worker; 2],
    /// A write that nobody waits for any more: it lands some time, or never.
    held_up: Option<(usize, Write)>,
    delivered: u64,
    /// A checkpoint was taken back, or lies past what was delivered.
    wrong: bool,
}

impl Worker {
    fn send(&mut self, kind: Kind) -> Option<Write> {
        let known = self.held.or(self.seen)?;
        // The processor stops before its lease goes.
        if matches!(kind, Kind::Assign { released: true, .. } | Kind::Evict) {
            self.held = None;
        }
        Some(Write { kind, known })
    }
}

impl State {
    /// The item as the write leaves it, if its condition holds.
    fn land(&mut self, by: usize, write: Write) -> Option<Item> {
        let after = write.apply(by, self.item)?;
        self.wrong |= after.checkpoint < self.item.checkpoint || after.checkpoint > self.delivered;
        self.item = after;
        Some(after)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Action {
    Look(usize),
    Silence(usize),
    Deliver(usize),
    /// A write is done and answered.
    Write(usize, Kind),
    /// A write gets no answer.
    HoldUp(usize, Kind),
    Land,
}

struct OneLease {
    counters: u64,
    records: u64,
}

impl OneLease {
    fn sends(&self, me: usize, worker: &Worker) -> Vec<Kind> {
        let other = 1 - me;
        let mut kinds = Vec::new();
        if let Some(held) = worker.held {
            kinds.push(Kind::Renew { start: false });
            if worker.position > held.checkpoint {
                kinds.push(Kind::Checkpoint(worker.position));
            }
            match (held.checkpoint_owner, held.owner) {
                // The processor has stopped; the lease goes where it is wanted, or is let go.
                (Some(_), Some(to)) => kinds.push(Kind::Assign { to, released: true }),
                _ => {
                    kinds.push(Kind::StartHandoff(other));
                    kinds.push(Kind::Assign {
                        to: other,
                        released: true,
                    });
                    kinds.push(Kind::Evict);
                }
            }
        } else if let Some(seen) = worker.seen {
            if seen.owner.is_none() || worker.silent {
                kinds.push(Kind::Take);
                // As a leader would.
                kinds.push(Kind::Assign {
                    to: other,
                    released: false,
                });
            }
            let mine = seen.owner == Some(me) && seen.checkpoint_owner.is_none();
            let released = seen.released_at == Some(seen.counter);
            if mine && (released || worker.silent) {
                kinds.push(Kind::Renew { start: true });
            }
            // Of a leader that looks at the other's lease.
            if seen.owner == Some(other) {
                kinds.push(Kind::StartHandoff(me));
            }
        }
        kinds
    }

    /// What the answer means to the worker that waits for it.
    fn answered(state: &mut State, me: usize, write: Write, after: Option<Item>) {
        let found = state.item;
        let worker = &mut state.workers[me];
        match (write.kind, after) {
            (Kind::Take | Kind::Renew { start: true }, Some(item)) => {
                worker.held = Some(item);
                worker.position = item.checkpoint;
                worker.unclear = false;
            }
            (Kind::Renew { start: false } | Kind::Checkpoint(_), Some(item))
                if worker.held.is_some() =>
            {
                worker.held = Some(item);
                worker.unclear = false;
            }
            (Kind::Renew { start: false } | Kind::Checkpoint(_), None) => {
                if let Some(held) = worker.held {
                    let seen = Some(found.lease());
                    match judge(WORKERS[me], &held.lease(), seen, worker.unclear) {
                        Verdict::Adopt(lease) => worker.held = Some(Item::of(&lease)),
                        Verdict::Lost => worker.held = None,
                    }
                }
            }
            // Its own start of a handoff, or somebody else's business.
            (Kind::StartHandoff(_), Some(item)) if worker.held.is_some() => {
                worker.held = Some(item);
            }
            _ => {}
        }
        worker.seen = None;
        worker.silent = false;
    }
}

impl Model for OneLease {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let item = Item {
            owner: None,
            checkpoint_owner: None,
            counter: 0,
            checkpoint: 0,
            released_at: None,
        };
        vec![State {
            item,
            workers: Default::default(),
            held_up: None,
            delivered: 0,
            wrong: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (me, worker) in state.workers.iter().enumerate() {
            if worker.held.is_none() && worker.seen != Some(state.item) {
                actions.push(Action::Look(me));
            }
            if let Some(seen) = worker.seen
                && !worker.silent
                && seen.counter == state.item.counter
            {
                actions.push(Action::Silence(me));
            }
            if worker.held.is_some() && worker.position < self.records {
                actions.push(Action::Deliver(me));
            }
            for kind in self.sends(me, worker) {
                actions.push(Action::Write(me, kind));
                if state.held_up.is_none() {
                    actions.push(Action::HoldUp(me, kind));
                }
            }
        }
        if state.held_up.is_some() {
            actions.push(Action::Land);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Look(me) => {
                state.workers[me].seen = Some(state.item);
                state.workers[me].silent = false;
            }
            // The fences of others count from before the counter was first seen so.
            Action::Silence(me) => {
                state.workers[me].silent = true;
                state.workers[1 - me].held = None;
            }
            Action::Deliver(me) => {
                state.workers[me].position += 1;
                state.delivered = state.delivered.max(state.workers[me].position);
            }
            Action::Write(me, kind) => {
                let write = state.workers[me].send(kind)?;
                let after = state.land(me, write);
                Self::answered(&mut state, me, write, after);
            }
            Action::HoldUp(me, kind) => {
                let write = state.workers[me].send(kind)?;
                state.held_up = Some((me, write));
                state.workers[me].unclear = true;
            }
            Action::Land => {
                let (me, write) = state.held_up.take()?;
                state.land(me, write);
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("one owner", |_, state: &State| {
                state.workers.iter().filter(|w| w.held.is_some()).count() <= 1
            }),
            Property::always("progress", |_, state: &State| !state.wrong),
            Property::sometimes("handed over", |_, state: &State| {
                let handed = state.item.released_at == Some(state.item.counter.wrapping_sub(1));
                handed && state.workers[1].held.is_some()
            }),
            Property::sometimes("taken after silence", |_, state: &State| {
                state.item.owner == Some(1)
                    && state.item.released_at.is_none()
                    && state.workers[1].held.is_some()
            }),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.item.counter <= self.counters
    }
}

#[track_caller]
fn check(counters: u64, records: u64) {
    let model = OneLease { counters, records };
    let checked = model.checker().threads(2).spawn_bfs().join();
    checked.assert_properties();
    let states = checked.unique_state_count();
    assert!(states > 100_000, "{states} states: it hardly moves");
}

#[test]
fn no_interleaving_gives_a_lease_two_owners() {
    check(4, 0);
}

#[test]
fn no_interleaving_takes_progress_back() {
    check(3, 1);
}
