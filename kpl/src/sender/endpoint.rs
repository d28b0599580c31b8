//! Endpoint: whether whole requests fail; then the next ones wait, so that an absent service is not hammered. Pure.

use crate::clock::Instant;
use crate::retry::PUT_BACKOFF;

#[derive(Debug, Default)]
pub(super) struct Endpoint {
    failures_in_a_row: u32,
    paused_until: Option<Instant>,
    /// Requests from this number on were started after the last failure that counted.
    counts_from: u64,
}

impl Endpoint {
    pub(super) fn paused_until(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| *until > now)
    }

    /// Request `number` failed; the next one will have the number `next`. The pause counts from `since`. Returns whether it is
    /// the first failure in a row.
    ///
    /// Requests that were in flight together fail for one reason: only one of them counts, and draws a pause.
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
