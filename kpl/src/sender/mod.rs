//! The sender of one stream: one task that wires the stages.
//!
//! ```text
//! send -> queue (open aggregate) -> sealer -> queue of the shard (limiter) -> collector -> PutRecords
//!              ^                                  ^                                          |
//!              |                                  +-- backoff <- throttled, transient -------+
//!         a sender's task                         +-- regroup <- wrong shard, fresh map -----+-> completed
//!                                                                                            |
//!                                                                PutRecords <- parts <- request failed as a whole
//! ```
//! The task owns every sealed record until it is completed; the requests it spawns hold only their bytes.

mod apart;
mod batch;
mod doubt;
mod endpoint;
mod failure;
mod fetch;
mod ordering;
mod parts;
mod request_limit;
mod request_span;
mod response;
mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tracing::Instrument;

use self::doubt::{Confirmation, Doubt};
use self::endpoint::Endpoint;
use self::parts::Parts;
use crate::aggregate::builder::Sealer;
use crate::aggregate::failed::FailedRecord;
use crate::aggregate::fill::SealReason;
use crate::aggregate::kinesis_record::KinesisRecord;
use crate::buffer::QueueId;
use crate::clock::{self, Instant};
use crate::config::InvalidConfig;
use crate::error::{FailureCause, StopReason};
use crate::logs::{LogGate, SumGate};
use crate::metrics::Meter;
use crate::sender::batch::{Batch, Collector, Queues};
use crate::sender::request_limit::RequestLimit;
use crate::sender::window::{SentRequest, Window};
use crate::service::{CallError, Entry, EntryOutcome, Service};
use crate::shard::router::Router;
use crate::shard::stream_shards::StreamShards;

/// How precisely the time to live of a waiting record is kept.
const MIN_EXPIRY_SWEEP: Duration = Duration::from_millis(5);
const MAX_EXPIRY_SWEEP: Duration = Duration::from_secs(1);

/// User records that are abandoned before other tasks of the runtime have their turn.
const ABANDONED_AT_A_TIME: usize = 1000;

pub(crate) struct Sender {
    shared: Arc<StreamShards>,
    service: Arc<dyn Service>,
    rng: fastrand::Rng,
    pub(crate) meter: Meter,
    logs: Logs,
    router: Arc<Router>,
    sealer: Sealer,
    queues: Queues,
    collector: Collector,
    /// Lanes of which nothing waits or is under way any more, since the last intake.
    freed: Vec<QueueId>,
    /// When open aggregates are looked at; at most one entry a queue.
    timers: BTreeSet<(Instant, QueueId)>,
    /// Records that back off, by the time they are due, their sequence, and a number that tells them apart.
    backing_off: BTreeMap<(Instant, u64, u64), Box<KinesisRecord>>,
    /// Parts of failed requests.
    parts: Parts,
    /// When a request was answered last.
    last_answer: Option<Instant>,
    /// Records that were written, and whose shard check waits for a fresh shard map.
    held: Vec<Held>,
    /// Records with members that have failed. These are completed some at a time.
    failed: VecDeque<FailedRecord>,
    requests: JoinSet<(u64, Result<Vec<EntryOutcome>, CallError>)>,
    in_flight: HashMap<u64, InFlight>,
    window: Window,
    request_limit: RequestLimit,
    endpoint: Endpoint,
    doubt: Doubt,
    /// The call that tells whether a stream exists that PutRecords does not find.
    confirming: JoinSet<Confirmation>,
    next_sweep: Instant,
    next_number: u64,
}

/// One gate for each kind of warning.
#[derive(Default)]
struct Logs {
    request_failed: LogGate,
    records_failed: SumGate,
    records_expired: SumGate,
    /// Code of the last failure.
    last_code: Option<Arc<str>>,
}

impl Logs {
    /// Logs the losses that are due.
    fn tell_of_losses(&mut self, now: Instant) {
        if let Some(user_records) = self.records_expired.pass(now) {
            tracing::warn!(
                user_records,
                "records expired: `record_ttl` passed before they were delivered"
            );
        }
        if let Some(user_records) = self.records_failed.pass(now) {
            tracing::warn!(
                user_records,
                code = self.last_code.as_deref(),
                "records failed: each error goes to its `Delivery`, or to `on_failure`"
            );
        }
    }

    /// When losses are to be logged that happened while the log was closed for their like.
    fn due(&self) -> Option<Instant> {
        let due = [self.records_expired.due(), self.records_failed.due()];
        due.into_iter().flatten().min()
    }
}

/// A request that is not answered yet.
struct InFlight {
    batch: Batch,
    sent: SentRequest,
}

struct Held {
    record: KinesisRecord,
    shard_id: Arc<str>,
    sequence_number: String,
    /// The first generation of the router that may judge it.
    generation: u64,
}

impl Held {
    /// When it waits no longer: an aggregate when half of the time it had is over, so that its members may go alone.
    fn gives_up(&self) -> Instant {
        let began = self.record.history.started();
        let left = self.record.expires().saturating_duration_since(began);
        match self.record.members.len() {
            1 => self.record.expires(),
            _ => began + left / 2,
        }
    }
}

type Answered = Result<(u64, Result<Vec<EntryOutcome>, CallError>), JoinError>;

impl Sender {
    pub(crate) fn new(
        shared: Arc<StreamShards>,
        service: Arc<dyn Service>,
        seed: u64,
    ) -> Result<Self, InvalidConfig> {
        let config = &shared.config;
        Ok(Self {
            service,
            rng: fastrand::Rng::with_seed(seed),
            meter: Meter::new(Arc::clone(&shared.telemetry)),
            logs: Logs::default(),
            router: shared.router(),
            sealer: Sealer::new(config)?,
            queues: Queues::new(),
            collector: Collector::new(config),
            freed: Vec::new(),
            timers: BTreeSet::new(),
            backing_off: BTreeMap::new(),
            parts: Parts::default(),
            last_answer: None,
            held: Vec::new(),
            failed: VecDeque::new(),
            requests: JoinSet::new(),
            in_flight: HashMap::new(),
            window: Window::new(config),
            request_limit: RequestLimit::new(config.collection_max_size),
            endpoint: Endpoint::default(),
            doubt: Doubt::default(),
            confirming: JoinSet::new(),
            next_sweep: clock::now(),
            next_number: 0,
            shared,
        })
    }

    /// Runs until the producer is stopped; what is left then fails as abandoned.
    pub(crate) async fn run(&mut self) {
        let cancel = self.shared.cancel.clone();
        loop {
            let now = clock::now();
            self.intake(now);
            let next = self.advance(now);
            if !self.failed.is_empty() {
                tokio::task::yield_now().await;
            }
            let next = next.into_iter().chain(self.measure(now)).min();
            tokio::select! {
                biased;
                () = cancel.cancelled() => break,
                Some(answer) = self.requests.join_next() => self.on_answer(answer),
                Some(Ok(confirmation)) = self.confirming.join_next() => {
                    self.on_confirmation(confirmation);
                }
                Some(()) = self.sealer.compressors.finished() => {}
                () = self.shared.wake.notified() => {}
                () = self.shared.budget.must_yield() => {}
                () = tokio::time::sleep_until(next.unwrap_or(now)), if next.is_some() => {}
            }
            while let Some(answer) = self.requests.try_join_next() {
                self.on_answer(answer);
            }
        }
        self.abandon_all().await;
        self.logs.records_expired.open();
        self.logs.records_failed.open();
        self.logs.tell_of_losses(clock::now());
        self.meter.end();
        self.measure(clock::now());
    }

    fn measure(&mut self, now: Instant) -> Option<Instant> {
        let shared = &self.shared;
        self.meter.turn(
            now,
            &shared.outcomes.counters,
            shared.budget.used(),
            self.window.in_flight(),
        )
    }

    /// Does what is due, starts what may start, and tells when to look again.
    fn advance(&mut self, now: Instant) -> Option<Instant> {
        self.look_at_open(now);
        self.end_backoffs(now);
        self.sweep_expired(now);
        self.complete_some_failed();
        self.logs.tell_of_losses(now);
        let blocked = self.start_requests(now);
        self.sealer.compressors.start();
        let must_sweep = self.collector.is_waiting()
            || self.collector.batch().is_some()
            || !self.parts.is_empty()
            || !self.held.is_empty();
        [
            blocked,
            self.timers.first().map(|(due, _)| *due),
            self.backing_off.first_key_value().map(|((due, ..), _)| *due),
            must_sweep.then_some(self.next_sweep),
            (!self.failed.is_empty()).then_some(now),
            self.logs.due(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn look_at_open(&mut self, now: Instant) {
        while let Some((_, id)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.pop_first();
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.timer = None;
                let intake = Arc::clone(&queue.intake);
                self.look_at(&intake, now);
            }
        }
    }

    /// Has the open aggregate of a queue looked at, at `due` at the latest.
    fn set_timer(&mut self, id: QueueId, due: Instant) {
        if let Some(queue) = self.queues.get_mut(&id)
            && queue.timer.is_none_or(|set| due < set)
        {
            if let Some(set) = queue.timer.replace(due) {
                self.timers.remove(&(set, id));
            }
            self.timers.insert((due, id));
        }
    }

    fn end_backoffs(&mut self, now: Instant) {
        while let Some(entry) = self.backing_off.first_entry().filter(|entry| entry.key().0 <= now)
        {
            let record = entry.remove();
            self.put_back(*record, now);
        }
    }

    /// Fails what has waited too long. Not on every turn: it looks at every queue.
    fn sweep_expired(&mut self, now: Instant) {
        if now < self.next_sweep {
            return;
        }
        let ttl = self.shared.config.record_ttl;
        let pause = (ttl / 20).clamp(MIN_EXPIRY_SWEEP, MAX_EXPIRY_SWEEP);
        let (mut expired, next) = self.collector.expired(&mut self.queues, now);
        self.next_sweep =
            next.map_or(now + pause, |next| next.min(now + pause)).max(now + MIN_EXPIRY_SWEEP);
        expired.iter().for_each(|record| self.freed(record.queue_id));
        // What is collected already waits for room in flight, or for the end of a pause.
        let mut collected = self.collector.expired_in_batch(now);
        for part in self.parts.batches().filter(|part| part.has_expired(now)) {
            collected.extend(part.take_expired(now));
        }
        self.parts.drop_empty();
        let parts = self.parts.batches().filter_map(|part| part.expires()).min();
        collected.iter().for_each(|record| self.leave(record.queue_id));
        expired.extend(collected);
        expired.extend(self.give_up_held(now));
        let held = self.held.iter().map(Held::gives_up).min();
        let others = parts.into_iter().chain(held).min();
        self.next_sweep = others
            .map_or(self.next_sweep, |next| next.min(self.next_sweep))
            .max(now + MIN_EXPIRY_SWEEP);
        self.expire(expired);
    }

    /// Starts requests as far as records, limits and the endpoint allow; returns when to try again.
    fn start_requests(&mut self, now: Instant) -> Option<Instant> {
        if let Some(until) = self.endpoint.paused_until(now) {
            return Some(until);
        }
        // They take turns: with one request at a time, neither must wait for the other for ever.
        let [first, second] = match self.parts.went_last {
            false => [Self::start_parts, Self::start_batches],
            true => [Self::start_batches, Self::start_parts],
        };
        let (first, second) = (first(self, now), second(self, now));
        first.into_iter().chain(second).min()
    }

    /// How many parts may be in flight.
    fn max_parts(&self) -> usize {
        // Half of the requests at most: parts that hang until they time out must leave room for the others. Only one where
        // no other request succeeds: the service may be away.
        match self.parts.endpoint.is_failing() {
            true => 1,
            false => (self.shared.config.max_requests_in_flight / 2).max(1),
        }
    }

    /// Bytes that batches leave free for the part that starts next.
    fn reserved_for_parts(&self, now: Instant) -> usize {
        let may_start = self.parts.in_flight < self.max_parts()
            && self.parts.endpoint.paused_until(now).is_none();
        if may_start { self.parts.next_bytes(now) } else { 0 }
    }

    /// Starts parts of failed requests; returns when to try again.
    fn start_parts(&mut self, now: Instant) -> Option<Instant> {
        if self.parts.is_empty() {
            return None;
        }
        if let Some(until) = self.parts.endpoint.paused_until(now) {
            return Some(until);
        }
        while self.parts.in_flight < self.max_parts() {
            let Some(part) = self.parts.pop(now) else {
                return self.parts.next_due(now);
            };
            if part.records.len() > 1 && part.bytes > self.max_request(now) {
                for half in part.halve() {
                    self.parts.push(half, now);
                }
            } else if !(self.has_slot() && self.window.has_room_for_part(part.bytes)) {
                self.parts.push(part, now);
                return None;
            } else if (part.records.iter()).any(|record| !self.router.has(record.queue_id)) {
                // The stream was resharded: the records go to the shards of now.
                for record in part.records {
                    self.put_back(record, now);
                }
            } else {
                self.start(part, now);
            }
        }
        None
    }

    /// Starts requests of what waits; returns when to try again.
    fn start_batches(&mut self, now: Instant) -> Option<Instant> {
        loop {
            let max_request = self.max_request(now);
            self.collector.limit_size(max_request);
            // The limit is smaller than when these records were collected.
            if self.collector.is_oversized()
                && let Some(batch) = self.collector.take_batch()
            {
                for record in batch.records {
                    self.put_back(record, now);
                }
            }
            // Without room in flight, records wait in their queues, where open aggregates go on to grow.
            let collected = self.collector.batch().map_or(0, |(batch, _)| batch.bytes);
            if !self.has_room_in_flight(collected, now) {
                return None;
            }
            let blocked = self.fill(now);
            let (batch, is_full) = match self.collector.batch() {
                None => return blocked,
                Some(batch) => batch,
            };
            let due = batch.opened + self.shared.config.collection_linger();
            if !self.has_room_in_flight(batch.bytes, now) {
                return blocked;
            }
            if !is_full && !self.in_flight.is_empty() && due > now {
                return Some(blocked.map_or(due, |blocked| blocked.min(due)));
            }
            let batch = self.collector.take_batch()?;
            self.start(batch, now);
        }
    }

    /// The bytes that a request of several records may have: as the link carries them, and as a proxy accepts them.
    fn max_request(&mut self, now: Instant) -> usize {
        self.window.max_request().min(self.request_limit.bytes(now))
    }

    /// Whether one more request may be in flight.
    fn has_slot(&self) -> bool {
        self.in_flight.len() < self.shared.config.max_requests_in_flight
    }

    fn has_room_in_flight(&self, bytes: usize, now: Instant) -> bool {
        self.has_slot() && self.window.has_room(bytes, self.reserved_for_parts(now))
    }

    fn start(&mut self, batch: Batch, now: Instant) {
        let mut batch = self.without_expired(batch, now);
        if batch.records.is_empty() {
            return;
        }
        let counters = &self.shared.outcomes.counters;
        counters.put_records_calls.add(1);
        counters.put_records_entries.add(batch.records.len());
        counters.put_records_bytes.add(batch.bytes);
        let mut entries = Vec::with_capacity(batch.records.len());
        for record in &mut batch.records {
            record.history.begin(now);
            counters.retries.add(usize::from(record.history.attempts > 1));
            entries.push(Entry {
                data: record.data.bytes(),
                partition_key: record.partition_key.clone().into_text(),
                explicit_hash_key: record.explicit_hash_key,
            });
        }
        let number = self.next_number;
        self.next_number += 1;
        let span = request_span::request_span(number, &batch);
        let config = &self.shared.config;
        let largest = (batch.records.iter()).max_by_key(|record| record.size());
        let limit = largest.map_or(config.request_timeout, |largest| {
            let left = largest.expires().saturating_duration_since(now);
            config.request_limit(largest.size(), left)
        });
        let sent = self.window.start(batch.bytes, batch.is_part, now);
        self.parts.in_flight += usize::from(batch.is_part);
        self.parts.went_last = batch.is_part;
        self.in_flight.insert(number, InFlight { batch, sent });
        let answer = self.service.put_records(entries, limit);
        let noted = span.clone();
        let request = async move {
            let answer = answer.await;
            request_span::note(&noted, &answer);
            (number, answer)
        };
        self.requests.spawn(request.instrument(span));
    }

    /// Fails what expired while its request waited to start.
    fn without_expired(&mut self, mut batch: Batch, now: Instant) -> Batch {
        if batch.has_expired(now) {
            let expired = batch.take_expired(now);
            expired.iter().for_each(|record| self.leave(record.queue_id));
            self.expire(expired);
        }
        batch
    }

    /// A record comes back to its queue.
    fn put_back(&mut self, record: KinesisRecord, now: Instant) {
        let id = record.queue_id;
        if record.expires() <= now {
            self.leave(id);
            self.expire(vec![record]);
        } else if self.router.has(id) {
            // It waits before anybody takes its queue for free.
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.under_way -= 1;
            }
            self.enqueue(record);
            self.freed(id);
        } else {
            self.leave(id);
            self.enqueue(record);
        }
    }

    /// A record of a queue is under way no more.
    fn leave(&mut self, id: QueueId) {
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.under_way -= 1;
            self.freed(id);
        }
    }

    /// A queue may be free now.
    fn freed(&mut self, id: QueueId) {
        let Some(queue) = self.queues.get(&id).filter(|queue| queue.is_free()) else {
            return;
        };
        if queue.intake.overdue(clock::now()).is_none() {
            queue.intake.shrink();
        }
        if self.router.has(id) {
            self.freed.push(id);
        } else {
            self.queues.remove(&id);
            self.collector.succession.completed(id);
        }
    }

    async fn abandon_all(&mut self) {
        let reason = self.shared.stop_reason();
        self.sealer.compressors.stop();
        while !self.failed.is_empty() {
            self.complete_some_failed();
            tokio::task::yield_now().await;
        }
        let intakes: Vec<_> =
            self.shared.router().intakes().cloned().chain(self.shared.take_ready()).collect();
        let mut left: Vec<KinesisRecord> = Vec::new();
        for intake in intakes.iter().chain(self.queues.values().map(|queue| &queue.intake)) {
            left.extend(
                intake
                    .fetch_all(SealReason::Flush)
                    .into_iter()
                    .map(|open| self.sealer.seal(open, intake.id)),
            );
        }
        let batches = self.in_flight.drain().map(|(_, InFlight { mut batch, .. })| {
            batch.records.iter_mut().for_each(|record| record.history.may_have_been_written = true);
            batch
        });
        left.extend(
            batches
                .chain(self.parts.drain())
                .chain(self.collector.take_batch())
                .flat_map(|b| b.records),
        );
        let backing_off = std::mem::take(&mut self.backing_off);
        left.extend(backing_off.into_values().map(|record| *record));
        left.extend(self.held.drain(..).map(|mut held| {
            held.record.history.may_have_been_written = true;
            held.record
        }));
        for queue in self.queues.values_mut() {
            left.extend(self.collector.drain(queue));
        }
        let mut abandoned = 0;
        for record in left {
            abandoned += record.members.len();
            if abandoned >= ABANDONED_AT_A_TIME {
                abandoned = 0;
                tokio::task::yield_now().await;
            }
            let shard = self.predicted(&record);
            let (users, attempts) = (record.members.len(), record.history.attempts);
            let cause = FailureCause::Abandoned(reason.clone());
            self.meter.failed(users, attempts, shard.as_ref(), &cause);
            let mut failed = FailedRecord::new(record);
            let places: Vec<_> = (0..users as u32).collect();
            failed.fail(&places, cause, None);
            failed.complete(&mut self.sealer);
        }
    }
}

impl Drop for Sender {
    /// However it ends, nobody waits for it any more: senders are sent away, and what the queues hold is completed.
    fn drop(&mut self) {
        self.shared.stop(StopReason::RuntimeShutDown);
        for intake in self.shared.router().intakes().cloned().chain(self.shared.take_ready()) {
            drop(intake.fetch_all(SealReason::Flush));
        }
    }
}

#[cfg(test)]
mod tests;
