//! The future of one record, and the result slot that all records of an aggregate share.
//!
//! There is one allocation for each aggregate. The producer's side of a slot is its [`Completer`]. When it is dropped,
//! even by a panic, the open members are abandoned, so that each `Delivery` resolves.

use std::collections::BTreeMap;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::Outcomes;
use super::failed::{FailedMembers, Room};
use crate::clock;
use crate::error::{DeliveryError, StopReason};
use crate::sync::{Mutex, OnceLock, lock};

/// Where a record lies in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Receipt {
    /// The shard that took the record.
    pub shard_id: Arc<str>,
    /// The sequence number of the Kinesis record; all members of an aggregate share it.
    pub sequence_number: Arc<str>,
    /// The position inside the aggregate; 0 for a record that travelled alone.
    pub sub_sequence_number: u64,
    /// How often the record was put, the last time included.
    pub attempts: u32,
    may_be_duplicate: bool,
}

impl Receipt {
    /// The receipt of a Kinesis record, and of its first member.
    pub(crate) fn new(
        shard_id: Arc<str>,
        sequence_number: Arc<str>,
        attempts: u32,
        may_be_duplicate: bool,
    ) -> Self {
        Self { shard_id, sequence_number, sub_sequence_number: 0, attempts, may_be_duplicate }
    }

    /// The receipt of the member at `index`.
    pub(crate) fn of_member(&self, index: u64) -> Self {
        Self { sub_sequence_number: index, ..self.clone() }
    }

    /// Whether an earlier attempt may have been written too: after a timeout, a lost response, or an aggregate that a
    /// reshard sent to the wrong shard.
    #[must_use]
    pub fn may_be_duplicate(&self) -> bool {
        self.may_be_duplicate
    }
}

/// The outcome of one accepted record.
///
/// Resolves once, to a [`Receipt`] when the record is durable in Kinesis, or to a [`DeliveryError`]. It always
/// resolves: also when the producer is closed or dropped, when one of its tasks panics, and when the runtime shuts
/// down.
///
/// # Cancel safety
/// Dropping a `Delivery` cancels nothing: the record is sent all the same. If it fails, the failure goes to
/// [`ProducerBuilder::on_failure`](crate::ProducerBuilder::on_failure). A `Delivery` may be awaited by reference, in
/// `select!` for instance, any number of times until it resolves.
#[must_use = "only a `Delivery` tells whether its record was delivered: await it, or `drop` it to leave failures to `on_failure`"]
#[derive(Debug)]
pub struct Delivery {
    slot: Arc<Slot>,
    index: u32,
    taken: bool,
}

impl Delivery {
    pub(super) fn new(slot: Arc<Slot>, index: u32) -> Self {
        Self { slot, index, taken: false }
    }
}

impl Future for Delivery {
    type Output = Result<Receipt, DeliveryError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(!self.taken, "`Delivery` polled after it resolved");
        let outcome = self.slot.poll(self.index, context.waker());
        self.taken = outcome.is_ready();
        outcome
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if !self.taken {
            self.slot.forget(self.index..self.index + 1);
        }
    }
}

/// The outcomes of the members of one aggregate.
pub(crate) struct Slot {
    outcomes: Arc<Outcomes>,
    /// Set once if all members were written in one Kinesis record: the receipt of the first. Read without the lock.
    receipt: OnceLock<Receipt>,
    state: Mutex<SlotState>,
}

impl Slot {
    /// Whether all members were written in one Kinesis record.
    pub(super) fn is_delivered(&self) -> bool {
        self.receipt.get().is_some()
    }

    /// Takes the outcome of a member, or leaves the waker.
    pub(super) fn poll(&self, index: u32, waker: &Waker) -> Poll<Result<Receipt, DeliveryError>> {
        if let Some(receipt) = self.receipt.get() {
            return Poll::Ready(Ok(receipt.of_member(index.into())));
        }
        let mut state = lock(&self.state);
        let (outcome, room) = self.take(&mut state, index);
        let Some(outcome) = outcome else {
            let old_waker = state.wakers.watch(index as usize, waker);
            drop(state);
            drop(old_waker);
            return Poll::Pending;
        };
        drop(state);
        // A task that sees the failure finds its room free.
        drop(room);
        Poll::Ready(outcome)
    }

    /// Gives up the outcomes of members: their failures go to the failure hook.
    pub(super) fn forget(&self, members: Range<u32>) {
        if members.is_empty() || self.is_delivered() {
            return;
        }
        let (mut rooms, mut failures) = (Vec::new(), Vec::new());
        let mut state = lock(&self.state);
        for index in members {
            let (outcome, room) = self.take(&mut state, index);
            match outcome {
                None => state.unobserved.insert(index as usize),
                Some(outcome) => failures.extend(outcome.err()),
            }
            rooms.extend(room);
        }
        drop(state);
        drop(rooms);
        failures.iter().for_each(|failure| self.report(failure));
    }

    /// Reports a failure that no caller will see.
    pub(super) fn report(&self, failure: &DeliveryError) {
        self.outcomes.unobserved(failure);
    }

    /// Takes the outcome of a member, and room that must be returned before it is seen.
    fn take(
        &self,
        state: &mut SlotState,
        index: u32,
    ) -> (Option<Result<Receipt, DeliveryError>>, Option<Room>) {
        // The receipt may have been set after the check without the lock.
        if matches!(state.outcome, Outcome::Together)
            && let Some(receipt) = self.receipt.get()
        {
            return (Some(Ok(receipt.of_member(index.into()))), None);
        }
        state.take(index)
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct SlotState {
    outcome: Outcome,
    /// Members that have failed and are not completed yet, by the index of the first. Each `Delivery` already resolves.
    failed: BTreeMap<u32, FailedMembers>,
    /// Set when the completer was dropped with open members.
    abandoned: Option<StopReason>,
    wakers: Wakers,
    unobserved: BitSet,
}

#[derive(Default)]
enum Outcome {
    #[default]
    Pending,
    /// The slot has the receipt.
    Together,
    Each {
        /// Outcomes of completed members whose `Delivery` has not taken them yet, by index.
        outcomes: BTreeMap<usize, Result<Receipt, DeliveryError>>,
        completed: usize,
    },
}

/// The wakers of the members that are awaited.
enum Wakers {
    /// By index, up to the last member that was awaited. The smallest form if most members are awaited.
    All(Vec<Option<Waker>>),
    /// By index, after members were completed one by one: a completed member holds no memory while others are open.
    Some(BTreeMap<usize, Waker>),
}

impl Default for Wakers {
    fn default() -> Self {
        Self::All(Vec::new())
    }
}

impl Wakers {
    /// Keeps `waker` and returns the previous one, whose drop runs foreign code.
    fn watch(&mut self, index: usize, waker: &Waker) -> Option<Waker> {
        match self {
            Self::All(wakers) => {
                if wakers.len() <= index {
                    wakers.resize_with(index + 1, || None);
                }
                match &mut wakers[index] {
                    Some(known) if known.will_wake(waker) => None,
                    place => place.replace(waker.clone()),
                }
            }
            Self::Some(wakers) => match wakers.get(&index) {
                Some(known) if known.will_wake(waker) => None,
                _ => wakers.insert(index, waker.clone()),
            },
        }
    }

    /// Takes out the waker of a member that is completed alone.
    fn take(&mut self, index: usize) -> Option<Waker> {
        if let Self::All(wakers) = self {
            let wakers = std::mem::take(wakers).into_iter().enumerate();
            let awaited = wakers.filter_map(|(index, waker)| Some((index, waker?)));
            *self = Self::Some(awaited.collect());
        }
        match self {
            Self::All(_) => None,
            Self::Some(wakers) => wakers.remove(&index),
        }
    }

    fn wake_all(self) {
        match self {
            Self::All(wakers) => wakers.into_iter().flatten().for_each(Waker::wake),
            Self::Some(wakers) => wakers.into_values().for_each(Waker::wake),
        }
    }
}

impl SlotState {
    /// Number of members that it holds memory for.
    #[cfg(test)]
    fn members_held(&self) -> usize {
        let outcomes = match &self.outcome {
            Outcome::Each { outcomes, .. } => outcomes.len(),
            _ => 0,
        };
        let wakers = match &self.wakers {
            Wakers::All(wakers) => wakers.len(),
            Wakers::Some(wakers) => wakers.len(),
        };
        outcomes.max(wakers)
    }

    fn take(&mut self, index: u32) -> (Option<Result<Receipt, DeliveryError>>, Option<Room>) {
        let completed = match &mut self.outcome {
            Outcome::Pending | Outcome::Together => None,
            Outcome::Each { outcomes, .. } => outcomes.remove(&(index as usize)),
        };
        if completed.is_none()
            && let Some((error, room)) = self.take_failed(index)
        {
            return (Some(Err(error)), room);
        }
        let abandoned =
            || self.abandoned.clone().map(|reason| Err(DeliveryError::abandoned(reason)));
        (completed.or_else(abandoned), None)
    }

    /// Completes a member that has failed, for its own `Delivery`.
    fn take_failed(&mut self, index: u32) -> Option<(DeliveryError, Option<Room>)> {
        let mut before = self.failed.range_mut(..=index).rev();
        let taken =
            before.find_map(|(_, failed)| Some((failed.take(index)?, failed.room.take())))?;
        self.complete(index as usize, None);
        Some(taken)
    }
}

/// The producer's side of a slot: completes each member once.
#[derive(Debug)]
pub(crate) struct Completer {
    slot: Arc<Slot>,
    members: u32,
    epoch: u64,
}

impl Completer {
    pub(crate) fn new(outcomes: &Arc<Outcomes>) -> Self {
        let slot = Slot {
            outcomes: Arc::clone(outcomes),
            receipt: OnceLock::new(),
            state: Mutex::default(),
        };
        Self { slot: Arc::new(slot), members: 0, epoch: outcomes.epochs.enter(clock::now()) }
    }

    /// Adds a member: the future of the next index.
    pub(crate) fn add_member(&mut self) -> Delivery {
        let (slot, index) = self.add();
        Delivery::new(Arc::clone(slot), index)
    }

    /// Adds a member. Returns the slot, and the index of the member in it.
    pub(super) fn add(&mut self) -> (&Arc<Slot>, u32) {
        let index = self.members;
        self.members += 1;
        (&self.slot, index)
    }

    pub(crate) fn members(&self) -> usize {
        self.members as usize
    }

    /// Completes all members: they were written in one Kinesis record, each at its own index.
    pub(crate) fn complete_together(&self, receipt: Receipt) {
        // First, so that a task that has seen the receipt finds it counted.
        self.slot.outcomes.counters.user_records_delivered.add(self.members());
        let wakers = {
            // Under the lock: a task that found no receipt has left its waker.
            let mut state = lock(&self.slot.state);
            let _ = self.slot.receipt.set(receipt);
            state.outcome = Outcome::Together;
            std::mem::take(&mut state.wakers)
        };
        wakers.wake_all();
    }

    /// Completes one member, if the members were split or failed.
    pub(crate) fn complete_one(&self, index: u32, outcome: Result<Receipt, DeliveryError>) {
        match &outcome {
            Ok(_) => self.slot.outcomes.counters.user_records_delivered.add(1),
            Err(error) => self.slot.outcomes.count_failed(error.cause(), 1),
        }
        let mut state = lock(&self.slot.state);
        let notification = self.set_outcome(&mut state, index as usize, outcome);
        drop(state);
        notification.send();
    }

    /// The outcome is visible at once, and the caller sends the notification.
    #[must_use = "a task may wait for the outcome"]
    fn set_outcome(
        &self,
        state: &mut SlotState,
        index: usize,
        outcome: Result<Receipt, DeliveryError>,
    ) -> Notification {
        if state.unobserved.contains(index)
            && let Err(error) = outcome
        {
            state.complete(index, None);
            return Notification::Unobserved(error, Arc::clone(&self.slot));
        }
        state.complete(index, Some(outcome));
        let waker = state.wakers.take(index);
        waker.map_or(Notification::None, Notification::Awaited)
    }

    /// Fails members: each `Delivery` resolves from now on. Builds no error and wakes no task:
    /// [`complete_failed`](Self::complete_failed) does that later, for the index of the first of them.
    pub(crate) fn fail(&self, failed: FailedMembers) {
        self.slot.outcomes.count_failed(&failed.failure.cause, failed.indexes.len());
        lock(&self.slot.state).failed.insert(failed.first(), failed);
    }

    /// Completes the members that failed together with the member `first`.
    #[must_use = "tasks may wait for the outcomes"]
    pub(crate) fn complete_failed(&self, first: u32) -> Vec<Notification> {
        // Room first: a task that awaits a failure finds it free.
        let room = lock(&self.slot.state).failed.get_mut(&first).and_then(|f| f.room.take());
        drop(room);
        let next = || {
            // Locks once for each member, so that a polling task does not wait for all of them.
            let mut state = lock(&self.slot.state);
            let Some((index, error)) = state.failed.get_mut(&first)?.next() else {
                state.failed.remove(&first);
                return None;
            };
            Some(self.set_outcome(&mut state, index as usize, Err(error)))
        };
        std::iter::from_fn(next).collect()
    }
}

/// Who must be notified of an outcome.
pub(crate) enum Notification {
    None,
    Awaited(Waker),
    /// A failure that no `Delivery` will see.
    Unobserved(DeliveryError, Arc<Slot>),
}

impl Notification {
    /// Wakes the task or calls the failure hook. Do not call it under a lock: it runs foreign code.
    pub(crate) fn send(self) {
        match self {
            Self::None => {}
            Self::Awaited(waker) => waker.wake(),
            Self::Unobserved(error, slot) => slot.outcomes.unobserved(&error),
        }
    }
}

impl SlotState {
    fn complete(&mut self, index: usize, outcome: Option<Result<Receipt, DeliveryError>>) {
        if matches!(self.outcome, Outcome::Pending) {
            self.outcome = Outcome::Each { outcomes: BTreeMap::new(), completed: 0 };
        }
        if let Outcome::Each { outcomes, completed } = &mut self.outcome {
            outcomes.extend(outcome.map(|outcome| (index, outcome)));
            *completed += 1;
            self.unobserved.remove(index);
        }
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        let failed: Vec<_> = lock(&self.slot.state).failed.keys().copied().collect();
        failed
            .into_iter()
            .flat_map(|first| self.complete_failed(first))
            .for_each(Notification::send);
        let outcomes = &self.slot.outcomes;
        let mut state = lock(&self.slot.state);
        let open = match &state.outcome {
            Outcome::Together => 0,
            Outcome::Pending => self.members(),
            Outcome::Each { completed, .. } => self.members() - completed,
        };
        if open > 0 {
            let reason = outcomes.stop_reason().cloned().unwrap_or(StopReason::RuntimeShutDown);
            state.abandoned = Some(reason.clone());
            let wakers = std::mem::take(&mut state.wakers);
            let unobserved =
                (0..self.members()).filter(|&index| state.unobserved.contains(index)).count();
            drop(state);
            outcomes.counters.user_records_abandoned.add(open);
            wakers.wake_all();
            for _ in 0..unobserved {
                outcomes.unobserved(&DeliveryError::abandoned(reason.clone()));
            }
        } else {
            drop(state);
        }
        outcomes.epochs.leave(self.epoch);
    }
}

/// A set of members, by index. Takes no memory while it is empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct BitSet(Vec<u64>);

impl BitSet {
    pub(crate) fn insert(&mut self, index: usize) {
        if self.0.len() <= index / 64 {
            self.0.resize(index / 64 + 1, 0);
        }
        self.0[index / 64] |= 1 << (index % 64);
    }

    fn remove(&mut self, index: usize) {
        if let Some(word) = self.0.get_mut(index / 64) {
            *word &= !(1 << (index % 64));
        }
    }

    pub(crate) fn contains(&self, index: usize) -> bool {
        self.0.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests;
