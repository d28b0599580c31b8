//! How PutRecords requests start: when, with which records, and how large.
//!
//! A request starts if all of these allow it:
//! * the pause after a failed request is over: [`RequestBackoff`],
//! * a request slot is free, and the bytes fit into the [`Window`](super::window::Window),
//! * the request is full, or its records have waited for `collection_linger`, or nothing is in flight.
//!
//! The bytes of a request of several records are limited by the configuration, the window and a learned
//! [`RequestLimit`](super::request_limit::RequestLimit).

use std::sync::Arc;

use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::{InFlight, Sender};
use crate::aggregate::builder::SealReason;
use crate::aggregate::data::Data;
use crate::clock::Instant;
use crate::error::FailureCause;
use crate::retry::PUT_BACKOFF;
use crate::sender::batch::Batch;
use crate::service::{CallError, Entry, EntryOutcome};

/// Number of members that are split off an aggregate at a time: a full request.
const MEMBERS_AT_A_TIME: usize = 500;

/// Number of records under way in the unpredicted queue above which no further aggregate is split.
const MOST_UNDER_WAY: usize = 5000;

/// The pause after requests that failed as a whole, so that an unavailable service is not called again at once.
#[derive(Debug, Default)]
pub(super) struct RequestBackoff {
    failures_in_a_row: u32,
    paused_until: Option<Instant>,
    /// Number of the first request that started after the last counted failure.
    counts_from: u64,
}

impl RequestBackoff {
    pub(super) fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| *until > now)
    }

    /// Notes that request `number` failed, where `next` is the number of the next request. The pause starts at `since`.
    /// Returns whether this is the first failure in a row.
    ///
    /// Requests that were in flight together fail for the same reason. So only one of them counts and lengthens the
    /// pause.
    pub(super) fn failed(
        &mut self,
        number: u64,
        next: u64,
        since: Instant,
        rng: &mut fastrand::Rng,
    ) -> bool {
        if self.failures_in_a_row > 0 && number < self.counts_from {
            return false;
        }
        self.failures_in_a_row += 1;
        self.counts_from = next;
        self.paused_until = Some(since + PUT_BACKOFF.delay(self.failures_in_a_row, rng));
        self.failures_in_a_row == 1
    }

    /// Whether the last request failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failures_in_a_row > 0
    }

    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }
}

impl Sender {
    /// Starts all requests that may start now. Returns when to try again.
    pub(super) fn start_requests(&mut self, now: Instant) -> Option<Instant> {
        if let Some(until) = self.backoff.paused_until(now) {
            return Some(until);
        }
        // The two kinds take turns: if only one request may be in flight, neither kind may starve the other.
        let [first, second] = match self.isolated.went_last {
            false => [Self::start_isolated, Self::start_batches],
            true => [Self::start_batches, Self::start_isolated],
        };
        let (first, second) = (first(self, now), second(self, now));
        first.into_iter().chain(second).min()
    }

    /// Number of isolated requests that may be in flight.
    fn max_isolated(&self) -> usize {
        // At most half of the requests, because isolated requests that hang until they time out must leave room for
        // others. Only one if none succeeds: the service may be unavailable.
        match self.isolated.backoff.is_failing() {
            true => 1,
            false => (self.context.config.max_requests_in_flight / 2).max(1),
        }
    }

    /// Bytes that other requests leave free for the next isolated request.
    fn reserved_for_isolated(&self, now: Instant) -> usize {
        let may_start = self.isolated.in_flight < self.max_isolated()
            && self.isolated.backoff.paused_until(now).is_none();
        if may_start { self.isolated.next_bytes(now) } else { 0 }
    }

    /// Starts isolated requests. Returns when to try again.
    fn start_isolated(&mut self, now: Instant) -> Option<Instant> {
        if self.isolated.is_empty() {
            return None;
        }
        if let Some(until) = self.isolated.backoff.paused_until(now) {
            return Some(until);
        }
        while self.isolated.in_flight < self.max_isolated() {
            let Some(batch) = self.isolated.pop(now) else {
                return self.isolated.next_due(now);
            };
            if batch.records.len() > 1 && batch.bytes > self.max_request(now) {
                for half in batch.split_in_halves() {
                    self.isolated.push(half, now);
                }
            } else if !(self.has_slot() && self.window.has_room_for_isolated(batch.bytes)) {
                self.isolated.push(batch, now);
                return None;
            } else if (batch.records.iter()).any(|record| !self.table.has(record.queue_id)) {
                // The stream was resharded: the records go to the queues of the new shards.
                for record in batch.records {
                    self.requeue(record, now);
                }
            } else {
                self.start(batch, now);
            }
        }
        None
    }

    /// Starts requests with the records that wait in the queues. Returns when to try again.
    fn start_batches(&mut self, now: Instant) -> Option<Instant> {
        loop {
            self.collector.max_size = self.max_request(now);
            // The size limit has shrunk since these records were collected.
            if self.collector.is_oversized()
                && let Some(batch) = self.collector.take_batch()
            {
                for record in batch.records {
                    self.requeue(record, now);
                }
            }
            // Without room in flight, records stay in their queues, where open aggregates grow.
            let collected = self.collector.batch().map_or(0, |(batch, _)| batch.bytes);
            if !self.has_room_in_flight(collected, now) {
                return None;
            }
            let blocked = self.fill(now);
            let (batch, is_full) = match self.collector.batch() {
                None => return blocked,
                Some(batch) => batch,
            };
            let due = batch.opened + self.context.config.collection_linger();
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

    /// Most bytes of a request of several records: the smallest of what the configuration, the link and a proxy allow.
    /// A single record may be larger.
    fn max_request(&mut self, now: Instant) -> usize {
        self.window.max_request().min(self.request_limit.bytes(now))
    }

    /// Whether `max_requests_in_flight` allows one more request.
    fn has_slot(&self) -> bool {
        self.in_flight.len() < self.context.config.max_requests_in_flight
    }

    fn has_room_in_flight(&self, bytes: usize, now: Instant) -> bool {
        self.has_slot() && self.window.has_room(bytes, self.reserved_for_isolated(now))
    }

    fn start(&mut self, batch: Batch, now: Instant) {
        let mut batch = self.without_expired(batch, now);
        if batch.records.is_empty() {
            return;
        }
        let counters = &self.context.outcomes.counters;
        counters.put_records_calls.add(1);
        counters.put_records_entries.add(batch.records.len());
        counters.put_records_bytes.add(batch.bytes);
        let data = Data::finish_all(batch.records.iter_mut().map(|record| &mut record.sealed.data));
        let mut entries = Vec::with_capacity(batch.records.len());
        for (record, data) in batch.records.iter_mut().zip(data) {
            record.history.begin(now);
            counters.retries.add(usize::from(record.history.attempts > 1));
            entries.push(Entry {
                data,
                partition_key: record.sealed.partition_key.clone().into_text(),
                explicit_hash_key: record.sealed.explicit_hash_key,
            });
        }
        let number = self.next_number;
        self.next_number += 1;
        let span = request_span(number, &batch);
        let config = &self.context.config;
        let largest = (batch.records.iter()).max_by_key(|record| record.size());
        let limit = largest.map_or(config.request_timeout, |largest| {
            let left = largest.expires().saturating_duration_since(now);
            config.request_time_limit(largest.size(), left)
        });
        let sent = self.window.start(batch.bytes, batch.is_isolated, now);
        self.isolated.in_flight += usize::from(batch.is_isolated);
        self.isolated.went_last = batch.is_isolated;
        self.in_flight.insert(number, InFlight { batch, sent });
        let answer = self.service.put_records(entries, limit);
        let noted = span.clone();
        let request = async move {
            let answer = answer.await;
            note_answer(&noted, &answer);
            (number, answer)
        };
        self.requests.spawn(request.instrument(span));
    }

    /// Removes and fails the records that expired before their request started.
    pub(super) fn without_expired(&mut self, mut batch: Batch, now: Instant) -> Batch {
        if batch.has_expired(now) {
            let expired = batch.take_expired(now);
            expired.iter().for_each(|record| self.leave(record.queue_id));
            self.expire(expired);
        }
        batch
    }

    /// Fills the batch. Returns when a shard whose limiter holds it back may send again.
    pub(super) fn fill(&mut self, now: Instant) -> Option<Instant> {
        self.split_off_singles();
        loop {
            let filled = self.collector.fill(&mut self.queues, now);
            for record in filled.isolated {
                let mut batch = Batch::new(now);
                batch.push(record);
                self.isolated.push(batch, now);
                // Isolated requests may have had their turn already.
                self.context.wake.notify_one();
            }
            if filled.to_seal.is_empty() {
                return filled.next_ready;
            }
            for id in filled.to_seal {
                if let Some(queue) = self.queues.get(&id) {
                    let intake = Arc::clone(&queue.intake);
                    self.fetch_open(&intake, SealReason::Linger);
                }
            }
        }
    }

    /// Splits the aggregate at the head of the unpredicted queue into single records, some members at a time.
    ///
    /// A single record takes much more memory than its bytes count in an aggregate. So a buffer full of aggregates is
    /// not split at once when the stream begins to place records itself, or when the shard map gets a gap.
    fn split_off_singles(&mut self) {
        let queue_id = self.table.unpredicted.id;
        let Some(queue) = self.queues.get_mut(&queue_id) else {
            return;
        };
        if queue.under_way >= MOST_UNDER_WAY || !queue.must_split() {
            return;
        }
        let Some(aggregate) = queue.waiting.pop_front() else {
            return;
        };
        let table = Arc::clone(&self.table);
        let mut parts = self.sealer.split_off_singles(*aggregate, MEMBERS_AT_A_TIME);
        let refused: Vec<_> = parts.extract_if(.., |part| table.refuses(part).is_some()).collect();
        queue.put_first(parts);
        // Only now: failing a record in ordered mode walks over the queue, which must be complete.
        for part in refused {
            if let Some(invalid) = table.refuses(&part) {
                self.fail(part, FailureCause::StrategyChanged(invalid), None);
            }
        }
        self.note_if_empty(queue_id);
    }
}

/// Creates the `tracing` span of a PutRecords call: counts and bytes, never data or keys. `attempt` is the highest
/// attempt of its records.
fn request_span(number: u64, batch: &Batch) -> Span {
    tracing::debug_span!(
        parent: None,
        "put_records",
        number,
        kinesis_records = batch.records.len(),
        bytes = batch.bytes,
        attempt = batch
            .records
            .iter()
            .map(|record| record.history.attempts)
            .max(),
        written = Empty,
        outcome = Empty,
    )
}

/// Records in the span how the call ended.
fn note_answer(span: &Span, answer: &Result<Vec<EntryOutcome>, CallError>) {
    if span.is_disabled() {
        return;
    }
    match answer {
        Ok(outcomes) => {
            let written = outcomes
                .iter()
                .filter(|outcome| matches!(outcome, EntryOutcome::Written { .. }))
                .count();
            span.record("written", written);
            let outcome = match written {
                0 => "refused",
                all if all == outcomes.len() => "written",
                _ => "partly written",
            };
            span.record("outcome", outcome);
        }
        Err(error) => {
            span.record("outcome", &*error.code);
        }
    }
}
