//! Parts: records of requests that failed as a whole, and that may have caused the failure. They travel in requests of their
//! own, without other records.
//!
//! A request that fails for one of its records is divided, and divided again, until that record is alone. The others are
//! delivered then, and new records do not meet it at all. An aggregate that is alone is divided, too.

use super::request::RequestBackoff;
use crate::clock::Instant;
use crate::sender::batch::Batch;

/// Failed requests, for an unknown reason, after which a record travels in a part. Most such failures pass with one more
/// attempt, for which the records stay together.
pub(super) const SUSPECT_AFTER: u32 = 3;

/// The most parts while no request is answered. The service may be unavailable then, and no record the cause. When the
/// service is back, the parts are few.
const MOST_UNPROVEN: usize = 24;

#[derive(Default)]
pub(super) struct IsolatedRequests {
    /// Sorted by the time at which they are due, then by the order of their first records.
    waiting: Vec<Part>,
    pub(super) in_flight: usize,
    /// Whether the request that started last was a part.
    pub(super) went_last: bool,
    /// Failures of parts. They do not hold up other requests.
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
    /// Adds a part that may start at `due`.
    pub(super) fn push(&mut self, mut batch: Batch, due: Instant) {
        batch.is_isolated = true;
        let part = Part { batch, due };
        let place = (self.waiting).partition_point(|waiting| waiting.rank() <= part.rank());
        self.waiting.insert(place, part);
    }

    /// Whether a part that failed may be divided: `is_proven` if the service has answered another request since.
    pub(super) fn may_split(&self, is_proven: bool) -> bool {
        is_proven || self.waiting.len() + self.in_flight < MOST_UNPROVEN
    }

    /// Takes out the first part that may start. Halves of an aggregate wait for their compression.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Batch> {
        let mut due = self.waiting.iter_mut().take_while(|part| part.due <= now);
        let ready = due.position(|part| part.batch.is_ready(now))?;
        Some(self.waiting.remove(ready).batch)
    }

    /// The bytes of the part that starts next, if one may start.
    pub(super) fn next_bytes(&self, now: Instant) -> usize {
        let next = self.waiting.first().filter(|part| part.due <= now);
        next.map_or(0, |part| part.batch.bytes)
    }

    /// When the next part is due that is not due now.
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

    /// Drops the parts that have no records left.
    pub(super) fn drop_empty(&mut self) {
        self.waiting.retain(|part| !part.batch.records.is_empty());
    }

    pub(super) fn drain(&mut self) -> impl Iterator<Item = Batch> {
        self.waiting.drain(..).map(|part| part.batch)
    }
}
