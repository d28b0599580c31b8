//! Isolation of the record that makes a request fail.
//!
//! A request that fails as a whole may fail because of one of its records. It is split in halves, and these again,
//! until that record is alone. An aggregate that is alone is split in halves, too. All other records are delivered
//! then. The halves are isolated requests: they hold no other records, so new records do not fail with them.

use super::Sender;
use super::request::RequestBackoff;
use super::response::Refusal;
use crate::aggregate::kinesis_record::KinesisRecord;
use crate::clock::Instant;
use crate::config::RecordOrdering;
use crate::retry::ErrorClass;
use crate::sender::batch::Batch;
use crate::service::CallErrorKind;

/// Number of failed requests, for an unknown reason, after which a record is isolated. Most such failures pass with one
/// more attempt, for which the records stay together.
const SUSPECT_AFTER: u32 = 3;

/// Most isolated requests while the service answers no request. The service may be unavailable then, and no record the
/// cause. When it is back, few requests are small.
const MOST_UNPROVEN: usize = 24;

/// Requests whose records are sent apart from all others.
#[derive(Default)]
pub(super) struct IsolatedRequests {
    /// Sorted by the time when they are due, then by the sequence of their first records.
    waiting: Vec<WaitingRequest>,
    pub(super) in_flight: usize,
    /// Whether the request that started last was an isolated one.
    pub(super) went_last: bool,
    /// The pause after failed isolated requests. It does not hold back other requests.
    pub(super) backoff: RequestBackoff,
}

struct WaitingRequest {
    batch: Batch,
    due: Instant,
}

impl WaitingRequest {
    fn rank(&self) -> (Instant, Option<u64>) {
        let first = self.batch.records.first();
        (self.due, first.map(|record| record.sequence))
    }
}

impl IsolatedRequests {
    /// Adds a request that may start at `due`.
    pub(super) fn push(&mut self, mut batch: Batch, due: Instant) {
        batch.is_isolated = true;
        let request = WaitingRequest { batch, due };
        let position = (self.waiting).partition_point(|waiting| waiting.rank() <= request.rank());
        self.waiting.insert(position, request);
    }

    /// Whether a failed request may be split. `is_proven`: the service has answered another request in the meantime.
    pub(super) fn may_split(&self, is_proven: bool) -> bool {
        is_proven || self.waiting.len() + self.in_flight < MOST_UNPROVEN
    }

    /// Takes out the first request that may start. Halves of an aggregate wait for their compression.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Batch> {
        let mut due = self.waiting.iter_mut().take_while(|request| request.due <= now);
        let ready = due.position(|request| request.batch.is_ready(now))?;
        Some(self.waiting.remove(ready).batch)
    }

    /// The bytes of the request that starts next, if one may start.
    pub(super) fn next_bytes(&self, now: Instant) -> usize {
        let next = self.waiting.first().filter(|request| request.due <= now);
        next.map_or(0, |request| request.batch.bytes)
    }

    /// When the next request is due that is not due now.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let mut due = self.waiting.iter().map(|request| request.due);
        due.find(|due| *due > now)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn batches(&mut self) -> impl Iterator<Item = &mut Batch> {
        self.waiting.iter_mut().map(|request| &mut request.batch)
    }

    /// Drops the requests that have no records left.
    pub(super) fn drop_empty(&mut self) {
        self.waiting.retain(|request| !request.batch.records.is_empty());
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Batch> {
        self.waiting.drain(..).map(|request| request.batch)
    }
}

impl Sender {
    /// Handles a request that failed for an unknown reason, perhaps for one of its records. Records that were in
    /// several such requests are isolated.
    pub(super) fn suspect(
        &mut self,
        mut batch: Batch,
        error_kind: CallErrorKind,
        refusal: &Refusal,
        at: Instant,
        now: Instant,
    ) {
        // If other requests succeed meanwhile, the records are isolated at once: there is no time for more attempts.
        let started = (batch.records.first()).map(|record| record.history.started);
        let weight = match (error_kind, self.last_answer, started) {
            (CallErrorKind::Timeout, Some(last), Some(started)) if last > started => SUSPECT_AFTER,
            _ => 1,
        };
        let mut suspects = Batch::new(now);
        suspects.is_isolated = batch.is_isolated;
        if batch.is_isolated {
            suspects.opened = batch.opened;
        }
        for mut record in std::mem::take(&mut batch.records) {
            record.history.suspicions += weight;
            if batch.is_isolated || record.history.suspicions >= SUSPECT_AFTER {
                suspects.push(record);
            } else {
                self.on_refused(record, refusal, at, now);
            }
        }
        if !suspects.records.is_empty() {
            self.split_request(suspects, refusal, at, now);
        }
    }

    /// Splits a failed request in halves, which are sent at once: one of its records may be the cause. A single user
    /// record cannot be split: it is sent again at `at`, or fails.
    pub(super) fn split_request(
        &mut self,
        mut batch: Batch,
        refusal: &Refusal,
        at: Instant,
        now: Instant,
    ) {
        let is_refused = matches!(refusal.class, ErrorClass::Rejected | ErrorClass::Blocked);
        if !batch.is_isolated {
            batch.opened = now;
        }
        let is_proven = is_refused || self.last_answer.is_some_and(|last| last > batch.opened);
        if !self.isolated.may_split(is_proven) {
            return self.isolate(batch, refusal, at, now);
        }
        let Some(batch) = self.note_failure(batch, refusal, now) else {
            return;
        };
        let records = batch.records.len();
        tracing::debug!(code = %refusal.code, records, "a request failed: it is divided");
        if records > 1 {
            for half in batch.split_in_halves() {
                self.isolated.push(half, now);
            }
            return;
        }
        let opened = batch.opened;
        for record in batch.records {
            if record.members.len() > 1 {
                self.isolate_halves(record, opened, now);
            } else if refusal.class == ErrorClass::Rejected {
                self.fail_refused(record, refusal);
            } else {
                let mut batch = Batch::new(opened);
                batch.push(record);
                self.isolated.push(batch, at);
            }
        }
    }

    /// Splits an aggregate in halves, and sends them at once, apart from all other records.
    fn isolate_halves(&mut self, aggregate: KinesisRecord, opened: Instant, now: Instant) {
        let is_ordered = self.context.config.ordering == RecordOrdering::PerPartitionKey;
        for (place, mut half) in self.sealer.split_in_halves(aggregate).into_iter().enumerate() {
            if is_ordered && place > 0 {
                // The second half waits in its queue until the first half is completed, and may be the cause, too.
                half.history.is_isolated = true;
                self.enqueue(half);
                continue;
            }
            if place > 0
                && let Some(queue) = self.queues.get_mut(&half.queue_id)
            {
                queue.under_way += 1;
            }
            let mut batch = Batch::new(opened);
            batch.push(half);
            self.isolated.push(batch, now);
        }
    }

    /// Sends the records of a failed request again at `at`, apart from all other records.
    pub(super) fn isolate(&mut self, batch: Batch, refusal: &Refusal, at: Instant, now: Instant) {
        if let Some(batch) = self.note_failure(batch, refusal, now) {
            self.isolated.push(batch, at);
        }
    }

    /// Adds a failed attempt to the history of each record, and fails the expired ones. Returns the others, if there
    /// are any.
    fn note_failure(&mut self, mut batch: Batch, refusal: &Refusal, now: Instant) -> Option<Batch> {
        let (code, message) = (&refusal.code, &refusal.message);
        for record in &mut batch.records {
            let history = &mut record.history;
            history.failed(now, code, message, refusal.may_have_been_written);
            self.next_sweep = self.next_sweep.min(record.expires());
        }
        let batch = self.without_expired(batch, now);
        (!batch.records.is_empty()).then_some(batch)
    }
}
