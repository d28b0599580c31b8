//! The books of a memory budget: who holds how much, and who waits for room. Pure: the lock around it is `budget.rs`.
//!
//! A lane may hold at most as much as is still free, so that one hot lane gets half, two a third each, and the others
//! find room, whichever producer they belong to. Whoever waits is served in order within its lane. A lane that holds
//! nothing may take all that is free; if even that is too little, it is set aside for it: who is younger takes of the rest.
//!
//! A reservation has no lane yet and may be for any: it overtakes nobody of its account, and waits while the fullest
//! lane, with all reservations added, holds more than twice what would be left. What it waits for then is set aside, too.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashSet, VecDeque};
use std::task::{Poll, Waker};

use crate::lane::LaneId;

/// A lane of one of the producers that share the budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) account: usize,
    pub(crate) lane: LaneId,
}

/// A place in the queue for room, by the order of arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ticket(u64);

#[derive(Debug)]
pub(crate) struct Ledger<S> {
    total: usize,
    free: usize,
    peak: usize,
    /// By number; those of producers that are gone are free for others.
    accounts: Vec<Option<Account<S>>>,
    waiters: BTreeMap<Place, VecDeque<Waiter>>,
    /// Tickets whose room is taken, and whose owner has not seen it yet.
    granted: HashSet<Ticket>,
    next_ticket: u64,
    /// What waiters that hold nothing lack: who is younger takes of the rest.
    set_aside: usize,
}

/// What one producer holds.
#[derive(Debug)]
struct Account<S> {
    signal: S,
    used: usize,
    peak: usize,
    /// By lane.
    held: Vec<usize>,
    /// Lanes that were refused room since the last look.
    refused: BTreeSet<LaneId>,
    /// Somebody else's lane was refused what this account may hold.
    asked_by_others: bool,
    closed: bool,
}

#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    bytes: usize,
    waker: Option<Waker>,
}

/// Which open aggregates hold room that others wait for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pressure {
    None,
    Lanes(Vec<LaneId>),
    All,
}

/// Whom to wake once the lock is gone.
#[must_use = "somebody waits for it"]
#[derive(Debug)]
pub(crate) struct Wakes<S> {
    pub(crate) granted: Vec<Waker>,
    /// Producers whose open aggregates must make room now.
    pub(crate) pressed: Vec<S>,
}

impl<S: Clone> Ledger<S> {
    pub(crate) fn new(total: usize) -> Self {
        Self {
            total,
            free: total,
            peak: 0,
            accounts: Vec::new(),
            waiters: BTreeMap::new(),
            granted: HashSet::new(),
            next_ticket: 0,
            set_aside: 0,
        }
    }

    /// Opens an account, and returns its number. `signal` is handed back when its open aggregates must make room.
    pub(crate) fn open_account(&mut self, signal: S) -> usize {
        let account = Account {
            signal,
            used: 0,
            peak: 0,
            held: Vec::new(),
            refused: BTreeSet::new(),
            asked_by_others: false,
            closed: false,
        };
        if let Some(number) = self.accounts.iter().position(Option::is_none) {
            self.accounts[number] = Some(account);
            number
        } else {
            self.accounts.push(Some(account));
            self.accounts.len() - 1
        }
    }

    /// The producer is gone, and all it held was given back.
    pub(crate) fn remove_account(&mut self, number: usize) {
        self.accounts[number] = None;
    }

    /// Sends everybody of the account away who waits, now and later.
    pub(crate) fn close_account(&mut self, number: usize) -> Wakes<S> {
        self.account(number).closed = true;
        let mut sent_away = Vec::new();
        self.waiters.retain(|place, queue| {
            let stays = place.account != number;
            if !stays {
                sent_away.extend(queue.drain(..).filter_map(|waiter| waiter.waker));
            }
            stays
        });
        let mut wakes = self.settle();
        wakes.granted.append(&mut sent_away);
        wakes
    }

    /// Takes room now, where nobody is overtaken. `percent` is for room that gives way: how much of the budget, and of
    /// its lane's share, may be used then.
    pub(crate) fn try_take(&mut self, place: Place, bytes: usize, percent: Option<u32>) -> bool {
        let overtakes = match place.lane {
            LaneId::RESERVED => self.queues(place.account).next().is_some(),
            _ => self.waiters.contains_key(&place),
        };
        let is_free = !overtakes
            && !self.account(place.account).closed
            && self.admits(place, bytes)
            && percent.is_none_or(|percent| self.leaves_rest(place, bytes, percent));
        if is_free {
            self.take(place, bytes);
        }
        is_free
    }

    /// Queues up for room; `None` when the account is closed.
    pub(crate) fn wait(&mut self, place: Place, bytes: usize) -> Option<(Ticket, Wakes<S>)> {
        if self.account(place.account).closed {
            return None;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.waiters.entry(place).or_default().push_back(Waiter {
            ticket,
            bytes,
            waker: None,
        });
        Some((ticket, self.settle()))
    }

    /// Whether a waiter got its room; `Ready(false)` when it was sent away. Who still waits leaves its waker, and gets
    /// the one before back, to be dropped without the lock.
    pub(crate) fn poll(
        &mut self,
        place: Place,
        ticket: Ticket,
        waker: &Waker,
    ) -> (Poll<bool>, Option<Waker>) {
        if self.granted.remove(&ticket) {
            return (Poll::Ready(true), None);
        }
        let Some(waiter) = self.waiter(place, ticket) else {
            return (Poll::Ready(false), None);
        };
        let old = match &waiter.waker {
            Some(known) if known.will_wake(waker) => None,
            _ => waiter.waker.replace(waker.clone()),
        };
        (Poll::Pending, old)
    }

    /// Leaves the queue, or gives back what was granted meanwhile: others may have waited behind.
    pub(crate) fn give_up(
        &mut self,
        place: Place,
        ticket: Ticket,
        bytes: usize,
    ) -> (Wakes<S>, Option<Waker>) {
        let mut old = None;
        if self.granted.remove(&ticket) {
            self.put(place, bytes);
        } else if let Some(queue) = self.waiters.get_mut(&place) {
            if let Ok(position) = queue.binary_search_by_key(&ticket, |waiter| waiter.ticket) {
                old = queue.remove(position).and_then(|waiter| waiter.waker);
            }
            if queue.is_empty() {
                self.waiters.remove(&place);
            }
        }
        (self.settle(), old)
    }

    /// Gives room back.
    pub(crate) fn give_back(&mut self, place: Place, bytes: usize) -> Wakes<S> {
        self.put(place, bytes);
        self.settle()
    }

    /// Room changes its lane, whether or not the new one has a share left.
    pub(crate) fn move_room(
        &mut self,
        account: usize,
        from: LaneId,
        to: LaneId,
        bytes: usize,
    ) -> Wakes<S> {
        let account = self.account(account);
        *account.held(from) -= bytes;
        *account.held(to) += bytes;
        // The lane it leaves may now hold little enough.
        self.settle()
    }

    /// Notes that a lane was refused room and will not wait for it.
    pub(crate) fn note_refusal(&mut self, place: Place) -> Vec<S> {
        let account = self.account(place.account);
        if *account.held(place.lane) > 0 {
            account.refused.insert(place.lane);
            return vec![account.signal.clone()];
        }
        // What a lane that holds nothing lacks, others have.
        let accounts = self.accounts.iter_mut().flatten();
        accounts
            .map(|account| {
                account.asked_by_others = true;
                account.signal.clone()
            })
            .collect()
    }

    /// Whom the open aggregates of an account keep waiting; forgets refusals. The second says whether to look again.
    pub(crate) fn take_pressure(&mut self, number: usize) -> (Pressure, bool) {
        let is_short = self.is_short();
        let mut waiting: BTreeSet<_> = self.queues(number).map(|place| place.lane).collect();
        let stays = is_short || !waiting.is_empty();
        let account = self.account(number);
        waiting.append(&mut account.refused);
        if waiting.remove(&LaneId::RESERVED) {
            // Permits wait for the lane they would take too much of.
            waiting.extend(account.fullest().0);
        }
        let pressure = if std::mem::take(&mut account.asked_by_others) || is_short {
            Pressure::All
        } else if waiting.is_empty() {
            Pressure::None
        } else {
            Pressure::Lanes(waiting.into_iter().collect())
        };
        (pressure, stays)
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    pub(crate) fn used(&self) -> usize {
        self.total - self.free
    }

    pub(crate) fn peak(&self) -> usize {
        self.peak
    }

    /// What one account uses, and the most it ever used.
    pub(crate) fn used_by(&self, number: usize) -> (usize, usize) {
        let account = self.accounts[number].as_ref();
        account.map_or((0, 0), |account| (account.used, account.peak))
    }

    fn account(&mut self, number: usize) -> &mut Account<S> {
        self.accounts[number]
            .as_mut()
            .expect("its producer holds it open")
    }

    /// Where somebody of an account waits.
    fn queues(&self, account: usize) -> impl Iterator<Item = &Place> {
        let [first, last] = [0, u32::MAX].map(|lane| Place {
            account,
            lane: LaneId(lane),
        });
        self.waiters.range(first..=last).map(|(place, _)| place)
    }

    /// Whether somebody lacks more than is free, so that nobody younger gets anything.
    fn is_short(&self) -> bool {
        self.set_aside > self.free
    }

    fn waiter(&mut self, place: Place, ticket: Ticket) -> Option<&mut Waiter> {
        let queue = self.waiters.get_mut(&place)?;
        let position = queue
            .binary_search_by_key(&ticket, |waiter| waiter.ticket)
            .ok()?;
        queue.get_mut(position)
    }

    fn admits(&mut self, place: Place, bytes: usize) -> bool {
        let others = bytes.saturating_add(self.set_aside);
        let Some(rest) = self.free.checked_sub(others) else {
            return false;
        };
        let account = self.account(place.account);
        let held = *account.held(place.lane);
        if place.lane == LaneId::RESERVED {
            // Not more than what is set aside while it waits gets it its room: lanes do not grow above `rest` meanwhile.
            held + account.fullest().1 <= rest.saturating_mul(2)
        } else {
            held == 0 || held + bytes <= rest
        }
    }

    /// Whether so much of the budget, and of what the lane could hold if only it grew, is left to records that do not
    /// give way.
    fn leaves_rest(&mut self, place: Place, bytes: usize, percent: u32) -> bool {
        let (used, free, total) = (self.used(), self.free, self.total);
        let held = *self.account(place.account).held(place.lane);
        let is_within = |part: usize, whole: usize, share: u128| {
            part as u128 * 100 * share <= whole as u128 * u128::from(percent)
        };
        is_within(used + bytes, total, 1) && (held == 0 || is_within(held + bytes, held + free, 2))
    }

    fn take(&mut self, place: Place, bytes: usize) {
        self.free -= bytes;
        self.peak = self.peak.max(self.total - self.free);
        let account = self.account(place.account);
        account.used += bytes;
        account.peak = account.peak.max(account.used);
        *account.held(place.lane) += bytes;
    }

    fn put(&mut self, place: Place, bytes: usize) {
        self.free += bytes;
        let account = self.account(place.account);
        account.used -= bytes;
        *account.held(place.lane) -= bytes;
    }

    /// Serves who can be served.
    fn settle(&mut self) -> Wakes<S> {
        let was_short = self.is_short();
        self.set_aside = 0;
        let granted = self.grant();
        let pressed = if self.is_short() && !was_short {
            let accounts = self.accounts.iter().flatten();
            accounts.map(|account| account.signal.clone()).collect()
        } else {
            Vec::new()
        };
        Wakes { granted, pressed }
    }

    /// Walks the waiters in order of arrival, lane by lane.
    fn grant(&mut self) -> Vec<Waker> {
        let mut granted = Vec::new();
        if self.waiters.is_empty() {
            return granted;
        }
        let mut heads: BinaryHeap<_> = self
            .waiters
            .iter()
            .filter_map(|(place, queue)| {
                queue.front().map(|waiter| Reverse((waiter.ticket, *place)))
            })
            .collect();
        // Accounts where somebody older waits on.
        let mut waiting = BTreeSet::new();
        while let Some(Reverse((ticket, place))) = heads.pop() {
            let Some(bytes) = self.waiter(place, ticket).map(|waiter| waiter.bytes) else {
                continue;
            };
            let overtakes = place.lane == LaneId::RESERVED && waiting.contains(&place.account);
            if overtakes || !self.admits(place, bytes) {
                waiting.insert(place.account);
                if !overtakes && *self.account(place.account).held(place.lane) == 0 {
                    self.set_aside = self.set_aside.saturating_add(bytes);
                    if self.is_short() {
                        break;
                    }
                }
                continue;
            }
            self.take(place, bytes);
            self.granted.insert(ticket);
            let Some(queue) = self.waiters.get_mut(&place) else {
                continue;
            };
            granted.extend(queue.pop_front().and_then(|waiter| waiter.waker));
            match queue.front() {
                Some(next) => heads.push(Reverse((next.ticket, place))),
                None => drop(self.waiters.remove(&place)),
            }
        }
        granted
    }
}

impl<S> Account<S> {
    fn held(&mut self, lane: LaneId) -> &mut usize {
        let index = lane.index();
        if self.held.len() <= index {
            self.held.resize(index + 1, 0);
        }
        &mut self.held[index]
    }

    /// The lane that holds most, and how much; room that is reserved has no lane yet.
    fn fullest(&self) -> (Option<LaneId>, usize) {
        let lanes = (0..).map(LaneId).zip(self.held.iter().copied());
        lanes
            .filter(|(lane, held)| *lane != LaneId::RESERVED && *held > 0)
            .max_by_key(|(_, held)| *held)
            .map_or((None, 0), |(lane, held)| (Some(lane), held))
    }
}
