//! Isolation of the record that makes a request fail.
//!
//! A request that fails as a whole may fail because of one of its records. It is split in halves, and these again,
//! until that record is alone. An aggregate that is alone is split in halves, too. All other records are delivered
//! then. The halves are isolated requests: they hold no other records, so new records do not fail with them.

use super::request::RequestBackoff;
use crate::clock::Instant;
use crate::sender::batch::Batch;

/// Number of failed requests, for an unknown reason, after which a record is isolated. Most such failures pass with one
/// more attempt, for which the records stay together.
pub(super) const SUSPECT_AFTER: u32 = 3;

/// Most isolated requests while the service answers no request. The service may be unavailable then, and no record the
/// cause. When it is back, few requests are small.
const MOST_UNPROVEN: usize = 24;

/// Requests whose records are sent apart from all others.
#[derive(Default)]
pub(super) struct IsolatedRequests {
    /// Sorted by the time when they are due, then by the sequence of their first records.
    waiting: Vec<Part>,
    pub(super) in_flight: usize,
    /// Whether the request that started last was an isolated one.
    pub(super) went_last: bool,
    /// The pause after failed isolated requests. It does not hold back other requests.
    pub(super) backoff: RequestBackoff,
}

struct Part {
    batch: Batch,
    due: Instant,
}

impl Part {
    fn rank(&self) -> (Instant, Option<u64>) {
        let first = self.batch.records.first();
        (self.due, first.map(|record| record.sequence))
    }
}

impl IsolatedRequests {
    /// Adds a request that may start at `due`.
    pub(super) fn push(&mut self, mut batch: Batch, due: Instant) {
        batch.is_isolated = true;
        let part = Part { batch, due };
        let place = (self.waiting).partition_point(|waiting| waiting.rank() <= part.rank());
        self.waiting.insert(place, part);
    }

    /// Whether a failed request may be split. `is_proven`: the service has answered another request in the meantime.
    pub(super) fn may_split(&self, is_proven: bool) -> bool {
        is_proven || self.waiting.len() + self.in_flight < MOST_UNPROVEN
    }

    /// Takes out the first request that may start. Halves of an aggregate wait for their compression.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Batch> {
        let mut due = self.waiting.iter_mut().take_while(|part| part.due <= now);
        let ready = due.position(|part| part.batch.is_ready(now))?;
        Some(self.waiting.remove(ready).batch)
    }

    /// The bytes of the request that starts next, if one may start.
    pub(super) fn next_bytes(&self, now: Instant) -> usize {
        let next = self.waiting.first().filter(|part| part.due <= now);
        next.map_or(0, |part| part.batch.bytes)
    }

    /// When the next request is due that is not due now.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let mut due = self.waiting.iter().map(|part| part.due);
        due.find(|due| *due > now)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn batches(&mut self) -> impl Iterator<Item = &mut Batch> {
        self.waiting.iter_mut().map(|part| &mut part.batch)
    }

    /// Drops the requests that have no records left.
    pub(super) fn drop_empty(&mut self) {
        self.waiting.retain(|part| !part.batch.records.is_empty());
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Batch> {
        self.waiting.drain(..).map(|part| part.batch)
    }
}
