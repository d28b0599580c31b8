//! The queue of a shard, in two parts.
//!
//! * [`Intake`]: the part that `send` shares with the sender. `send` adds records to its open aggregate, under one
//!   short lock.
//! * [`ShardQueue`]: the part that the sender owns, with the sealed records that wait for their turn, and the limiter
//!   of the shard.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use kinesis_aggregation::{HashKey, HashKeyRange};

use crate::ack::Completer;
use crate::aggregate::builder::{AggregateLimits, OpenAggregate, SealReason, Waits, cost_of};
use crate::aggregate::kinesis_record::KinesisRecord;
use crate::buffer::{Charge, QueueId};
use crate::clock::{self, Instant};
use crate::config::ProducerConfig;
use crate::context::Context;
use crate::metrics::shard_load::LoadWindow;
use crate::record::{InvalidRecord, Priority, Record};
use crate::shard::limiter::ShardLimiter;
use crate::sync::lock;

/// The shared part of a queue: the open aggregate, and the full ones that the sender has not fetched.
pub(crate) struct Intake {
    pub(crate) id: QueueId,
    /// `None` for the unpredicted queue: it takes records whose shard is not known, and does not aggregate.
    pub(crate) shard_id: Option<Arc<str>>,
    pub(crate) range: HashKeyRange,
    pub(crate) load: LoadWindow,
    limits: AggregateLimits,
    /// Largest size of an aggregate that is opened now.
    max_size: AtomicUsize,
    /// Whether records are sent one by one for now.
    is_single: AtomicBool,
    state: Mutex<IntakeState>,
}

#[derive(Default)]
pub(super) struct IntakeState {
    open: Option<OpenAggregate>,
    full: VecDeque<OpenAggregate>,
    /// Whether the intake is in the list of intakes that the sender will fetch.
    is_marked_ready: bool,
    closed: bool,
}

/// Why a record was not accepted. The caller still has it.
#[derive(Debug)]
pub(crate) enum NotAccepted {
    /// The stream or the buffer never takes the record.
    Invalid(InvalidRecord),
    /// The budget has no room for the record now. The caller may wait for room of this queue.
    NoRoom(QueueId),
    /// The queue or the producer is closed.
    Closed,
}

/// An intake that is locked to accept records.
pub(crate) struct IntakeGuard<'a> {
    intake: &'a Intake,
    limits: AggregateLimits,
    state: MutexGuard<'a, IntakeState>,
    is_newly_ready: bool,
}

impl IntakeGuard<'_> {
    /// Accepts a record, whose member is added by `join`. The record is copied, or taken if it opens an aggregate.
    ///
    /// The record takes its room from `room`, and from the budget if `room` is too small. The caller keeps the rest of
    /// `room`, and must not drop it while the intake is locked: a drop wakes waiting tasks, which runs foreign code.
    pub(crate) fn accept<T>(
        &mut self,
        record: &mut Record<'_>,
        hash_key: HashKey,
        room: &mut Option<Charge>,
        context: &Context,
        mut join: impl FnMut(&mut Completer) -> T,
    ) -> Result<T, NotAccepted> {
        if self.state.closed {
            return Err(NotAccepted::Closed);
        }
        let (joining, opening) = cost_of(record);
        let is_droppable = record.priority == Priority::Droppable;
        let mut paid = None;
        if let Some(open) = &mut self.state.open {
            if !open.pay(joining, room, is_droppable) {
                return Err(self.no_room());
            }
            match open.try_push(record, hash_key, self.limits, &mut join) {
                Ok((joined, is_sooner)) => {
                    let full = open.full(self.limits);
                    if let Some(reason) = full {
                        self.state.close_early(reason);
                    }
                    if full.is_some() || is_sooner {
                        self.mark_ready();
                    }
                    return Ok(joined);
                }
                Err(reason) => {
                    paid = Some(open.refund(joining));
                    self.state.close_early(reason);
                }
            }
        }
        let mut charge = paid.unwrap_or_else(|| context.budget.empty_charge(self.intake.id));
        if !charge.grow(opening - charge.bytes(), room, is_droppable) {
            match room {
                Some(room) => room.absorb(charge),
                None => *room = Some(charge),
            }
            // The aggregate that was closed here is fetched with the next wake-up.
            return Err(self.no_room());
        }
        let mut completer = Completer::new(&context.outcomes);
        let joined = join(&mut completer);
        let open = OpenAggregate::new(
            record.take(),
            hash_key,
            charge,
            completer,
            self.limits,
            clock::now(),
        );
        let full = open.full(self.limits);
        self.state.open = Some(open);
        if let Some(reason) = full {
            self.state.close_early(reason);
        }
        self.mark_ready();
        Ok(joined)
    }

    /// Whether the intake became ready since the last call. The caller then adds it to the list of intakes that the sender
    /// fetches, once it is unlocked.
    pub(crate) fn became_ready(&mut self) -> bool {
        std::mem::take(&mut self.is_newly_ready)
    }

    fn mark_ready(&mut self) {
        self.is_newly_ready |= self.state.mark_ready();
    }

    /// The sender must fetch the intake: sealing its open aggregate may make the missing room.
    fn no_room(&mut self) -> NotAccepted {
        if !self.state.is_empty() {
            self.mark_ready();
        }
        NotAccepted::NoRoom(self.intake.id)
    }
}

impl Intake {
    pub(crate) fn new(
        id: QueueId,
        shard: Option<(Arc<str>, HashKeyRange)>,
        limits: AggregateLimits,
    ) -> Arc<Self> {
        let (shard_id, range, limits) = match shard {
            Some((shard_id, range)) => (Some(shard_id), range, limits),
            None => (None, HashKeyRange::FULL, limits.single()),
        };
        Arc::new(Self {
            id,
            shard_id,
            range,
            load: LoadWindow::new(clock::now()),
            max_size: AtomicUsize::new(limits.max_size),
            limits,
            is_single: AtomicBool::new(false),
            state: Mutex::default(),
        })
    }

    /// Locks the intake to accept records.
    pub(crate) fn lock_to_accept(&self) -> IntakeGuard<'_> {
        let limits = match self.is_single.load(Ordering::Relaxed) {
            true => self.limits.single(),
            false => self.limits.sized(self.max_size.load(Ordering::Relaxed)),
        };
        IntakeGuard { intake: self, limits, state: lock(&self.state), is_newly_ready: false }
    }

    /// Lets the next aggregates grow, if `aggregation_adaptive` is set: the queue is busy and fills its aggregates.
    pub(crate) fn grow(&self) {
        let max_size = self.max_size.load(Ordering::Relaxed);
        let larger = (max_size * 2).min(self.limits.largest);
        self.max_size.store(larger, Ordering::Relaxed);
    }

    /// Makes the next aggregates small again: the queue is idle.
    pub(crate) fn shrink(&self) {
        self.max_size.store(self.limits.max_size, Ordering::Relaxed);
    }

    /// Sets whether records are sent one by one: while it is not known which shards take them.
    pub(crate) fn set_single(&self, is_single: bool) {
        self.is_single.store(is_single, Ordering::Relaxed);
    }

    /// Takes out the full aggregates. Also returns when the open one must be checked.
    pub(crate) fn fetch(&self, now: Instant) -> (VecDeque<OpenAggregate>, Option<Waits>) {
        let mut state = lock(&self.state);
        state.is_marked_ready = false;
        let open = state.open.as_mut().map(|open| open.look(now));
        (std::mem::take(&mut state.full), open)
    }

    /// The size of the open aggregate, if its linger is over.
    pub(crate) fn overdue(&self, now: Instant) -> Option<usize> {
        let mut state = lock(&self.state);
        let waits = state.open.as_mut().map(|open| open.look(now))?;
        (waits.lingers_until <= now).then_some(waits.size)
    }

    pub(crate) fn fetch_all(&self, reason: SealReason) -> VecDeque<OpenAggregate> {
        lock(&self.state).take_all(reason)
    }

    #[cfg(test)]
    pub(crate) fn is_locked(&self) -> bool {
        self.state.try_lock().is_err()
    }

    /// Locks the intake: no record is accepted while the guard lives.
    pub(super) fn lock(&self) -> MutexGuard<'_, IntakeState> {
        lock(&self.state)
    }

    /// Closes the open aggregate. Returns whether the intake became ready to be fetched.
    pub(crate) fn close_open(&self) -> bool {
        let mut state = lock(&self.state);
        state.close_open(SealReason::Flush);
        !state.full.is_empty() && state.mark_ready()
    }

    /// Accepts no more records. The sender may still fetch the accepted ones. Returns whether it must.
    pub(crate) fn close(&self, reason: SealReason) -> bool {
        let mut state = lock(&self.state);
        state.closed = true;
        state.close_open(reason);
        // Ready even if a caller of `send` is about to say so: a record that enters a later queue must not be fetched
        // first.
        state.is_marked_ready = !state.full.is_empty();
        state.is_marked_ready
    }
}

impl IntakeState {
    fn is_empty(&self) -> bool {
        self.full.is_empty() && self.open.is_none()
    }

    pub(super) fn take_all(&mut self, reason: SealReason) -> VecDeque<OpenAggregate> {
        self.close_open(reason);
        std::mem::take(&mut self.full)
    }

    fn close_open(&mut self, reason: SealReason) {
        self.full.extend(self.open.take().map(|open| open.close(reason)));
    }

    /// Closes the open aggregate, and gives back the memory that it does not need until the sender fetches it.
    fn close_early(&mut self, reason: SealReason) {
        self.close_open(reason);
        if let Some(closed) = self.full.back_mut() {
            closed.shrink_to_fit();
        }
    }

    fn mark_ready(&mut self) -> bool {
        !std::mem::replace(&mut self.is_marked_ready, true)
    }
}

/// The sender's part of a queue: the sealed records of one shard, in order, and whether they may be sent.
pub(crate) struct ShardQueue {
    pub(crate) intake: Arc<Intake>,
    /// In boxes, because the queue keeps its slots while its records back off elsewhere.
    pub(crate) waiting: VecDeque<Box<KinesisRecord>>,
    /// No waiting record expires before this time.
    pub(crate) earliest_expiry: Option<Instant>,
    /// Number of records that left `waiting` and are not completed: in a batch, in flight, backing off, or unconfirmed.
    pub(crate) under_way: usize,
    /// Whether the stream or the account throttled a record, and the shard has written none since.
    pub(crate) is_throttled: bool,
    /// `None` for the unpredicted queue.
    pub(crate) limiter: Option<ShardLimiter>,
    /// When the open aggregate must be checked.
    pub(crate) timer: Option<Instant>,
    pub(crate) in_rotation: bool,
}

impl ShardQueue {
    pub(crate) fn new(intake: Arc<Intake>, config: &ProducerConfig, now: Instant) -> Self {
        let limiter = intake
            .shard_id
            .is_some()
            .then(|| ShardLimiter::new(config.rate_limit, config.record_ttl, now));
        if let Some(limiter) = &limiter {
            intake.load.set_rate(limiter.rate());
        }
        Self {
            intake,
            waiting: VecDeque::new(),
            earliest_expiry: None,
            under_way: 0,
            is_throttled: false,
            limiter,
            timer: None,
            in_rotation: false,
        }
    }

    /// Whether no record waits or is under way.
    pub(crate) fn is_free(&self) -> bool {
        self.under_way == 0 && self.waiting.is_empty()
    }

    /// Inserts a record by its sequence: a record that is sent again goes before those that were sealed after it.
    pub(crate) fn insert(&mut self, record: KinesisRecord) {
        let earliest = self.earliest_expiry.get_or_insert(record.expires());
        *earliest = record.expires().min(*earliest);
        let place = match self.waiting.back() {
            Some(last) if last.sequence > record.sequence => {
                self.waiting.partition_point(|waiting| waiting.sequence <= record.sequence)
            }
            _ => self.waiting.len(),
        };
        self.waiting.insert(place, Box::new(record));
    }

    /// Notes that the shard throttled a record of a request that began at `sent`. Returns `false` if the shard is not
    /// known.
    pub(crate) fn throttled(
        &mut self,
        sent: Instant,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> bool {
        let Some(limiter) = &mut self.limiter else {
            return false;
        };
        limiter.throttled(sent, now, rng);
        self.intake.load.throttled(now);
        self.intake.load.set_rate(limiter.rate());
        true
    }

    /// Notes that the shard wrote a record of `bytes`.
    pub(crate) fn served(&mut self, bytes: usize, now: Instant) {
        self.is_throttled = false;
        self.intake.load.wrote(bytes, now);
        if let Some(limiter) = &mut self.limiter {
            limiter.served(now);
            self.intake.load.set_rate(limiter.rate());
        }
    }

    /// Whether the first record is an aggregate that must be split, because its shard is not known.
    pub(crate) fn must_split(&self) -> bool {
        self.intake.shard_id.is_none()
            && (self.waiting.front()).is_some_and(|first| first.members.len() > 1)
    }

    /// Puts the parts of the first record back at the head.
    pub(crate) fn put_first(&mut self, records: Vec<KinesisRecord>) {
        for record in records.into_iter().rev() {
            self.waiting.push_front(Box::new(record));
        }
    }

    pub(crate) fn expired(&mut self, now: Instant) -> VecDeque<Box<KinesisRecord>> {
        if self.earliest_expiry.is_none_or(|earliest| earliest > now) {
            return VecDeque::new();
        }
        let all = std::mem::take(&mut self.waiting);
        let (expired, rest) = all.into_iter().partition(|record| record.expires() <= now);
        self.waiting = rest;
        self.earliest_expiry = self.waiting.iter().map(|record| record.expires()).min();
        expired
    }
}
