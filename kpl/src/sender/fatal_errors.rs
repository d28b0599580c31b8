//! When a fatal error is believed.
//!
//! IAM policies, KMS grants and the control plane of Kinesis are eventually consistent. For moments they refuse what
//! they allow, or do not find a stream that exists. If the producer believed the first such error, all buffered records
//! would fail. So a fatal error counts as transient until fatal errors have lasted for [`BELIEVED_AFTER`], or for half
//! of `record_ttl` if that is less, in at least [`LEAST_ERRORS`] responses. A response that refuses a record for any
//! other reason, such as a throttle, shows that the stream and the permissions are there, and ends the series. A
//! timeout or a broken connection shows nothing.

use std::time::Duration;

use super::Sender;
use crate::clock::{self, Instant};
use crate::error::{FailureCause, Source};
use crate::retry;
use crate::service::{CallError, StreamDescription};

/// Longest time for which PutRecords must return fatal errors before they are believed. The consumer waits as long
/// before it believes that a stream is gone.
const BELIEVED_AFTER: Duration = Duration::from_secs(10);

/// Fatal errors that are believed, at least.
const LEAST_ERRORS: u32 = 3;

/// Shortest pause between two calls of DescribeStreamSummary. An account may make 20 such calls a second. Up to as much
/// again is added at random.
const CONFIRM_PAUSE: Duration = Duration::from_secs(2);

/// The answer of DescribeStreamSummary for a stream that PutRecords does not find.
pub(super) type Confirmation = Result<StreamDescription, CallError>;

/// The fatal errors since PutRecords last answered otherwise.
pub(super) struct FatalErrors {
    believed_after: Duration,
    streak: Option<Streak>,
    is_believed: bool,
    /// Whether an error came since the waiting records last failed.
    has_news: bool,
    /// No call of DescribeStreamSummary before this.
    confirm_after: Option<Instant>,
}

/// Fatal errors without another response between them. They all say that the stream is missing, or none does.
struct Streak {
    first: Instant,
    last: Instant,
    errors: u32,
    /// The last error.
    cause: FailureCause,
    source: Option<Source>,
}

impl FatalErrors {
    pub(super) fn new(record_ttl: Duration) -> Self {
        Self {
            believed_after: BELIEVED_AFTER.min(record_ttl / 2),
            streak: None,
            is_believed: false,
            has_news: false,
            confirm_after: None,
        }
    }

    /// Notes a fatal error. Returns whether fatal errors are believed.
    pub(super) fn refused(
        &mut self,
        cause: FailureCause,
        source: Option<Source>,
        now: Instant,
    ) -> bool {
        let is_missing = |cause: &FailureCause| retry::is_stream_missing(&cause.code());
        let streak = self.streak.take().filter(|streak| {
            // After a longer pause it is not known whether a call would have succeeded in between.
            now.saturating_duration_since(streak.last) <= BELIEVED_AFTER
                // Whether a stream is missing is confirmed apart from other errors.
                && is_missing(&streak.cause) == is_missing(&cause)
        });
        let (first, errors) = streak.map_or((now, 0), |streak| (streak.first, streak.errors));
        self.streak = Some(Streak { first, last: now, errors: errors + 1, cause, source });
        self.has_news = true;
        self.is_believed
    }

    /// Forgets the errors: PutRecords answered otherwise, or the stream exists.
    pub(super) fn clear(&mut self) {
        self.streak = None;
        self.is_believed = false;
    }

    /// The errors, if they have lasted long enough and are not believed yet.
    fn lasting(&self) -> Option<&Streak> {
        let lasting = self.streak.as_ref().filter(|streak| {
            streak.errors >= LEAST_ERRORS && streak.last - streak.first >= self.believed_after
        });
        lasting.filter(|_| !self.is_believed)
    }

    /// Whether DescribeStreamSummary may be called. Then the next call waits for `pause`.
    fn may_confirm(&mut self, now: Instant, pause: Duration) -> bool {
        let may = self.confirm_after.is_none_or(|after| now >= after);
        if may {
            self.confirm_after = Some(now + pause);
        }
        may
    }
}

impl Sender {
    /// Believes the fatal errors if they have lasted. DescribeStreamSummary first confirms that a stream is missing.
    pub(super) fn check_fatal_errors(&mut self) {
        if self.fatal_errors.is_believed {
            // Later records fail with the first such error.
            if self.fatal_errors.has_news {
                self.fail_waiting();
            }
            return;
        }
        let Some(streak) = self.fatal_errors.lasting() else {
            return;
        };
        if !retry::is_stream_missing(&streak.cause.code()) {
            self.believe();
            return;
        }
        let pause = CONFIRM_PAUSE.mul_f64(1.0 + self.rng.f64());
        if self.confirming.is_empty() && self.fatal_errors.may_confirm(clock::now(), pause) {
            self.confirming.spawn(self.service.describe());
        }
    }

    /// Handles the answer of DescribeStreamSummary.
    pub(super) fn on_confirmation(&mut self, confirmation: Confirmation) {
        match confirmation {
            // PutRecords has answered otherwise in the meantime.
            _ if self.fatal_errors.lasting().is_none() => {}
            Ok(description) if description.status != "DELETING" => {
                tracing::warn!(
                    status = description.status,
                    "PutRecords does not find the stream, which exists: the records wait"
                );
                self.fatal_errors.clear();
            }
            // Without the permission to describe the stream, the errors of PutRecords decide.
            Err(error) if !(error.is_stream_missing() || retry::is_access_denied(&error.code)) => {
                // The next error of PutRecords leads to another call.
                tracing::debug!(code = %error.code, message = %error.message, "whether the stream exists is not known");
            }
            Ok(_) | Err(_) => self.believe(),
        }
    }

    /// Fails the records that wait. Until PutRecords answers otherwise, each fatal error does so again, and fails its
    /// own records at once.
    fn believe(&mut self) {
        if let Some(streak) = &self.fatal_errors.streak {
            tracing::error!(
                code = %streak.cause.code(),
                "PutRecords has answered so for {:?}, and not otherwise: all records that wait fail",
                streak.last - streak.first
            );
            self.fatal_errors.is_believed = true;
            self.fail_waiting();
        }
    }

    /// Fails all sealed records that are not in flight and do not wait for a fresh shard map.
    fn fail_waiting(&mut self) {
        self.fatal_errors.has_news = false;
        let Some(streak) = &self.fatal_errors.streak else {
            return;
        };
        let (cause, source) = (streak.cause.clone(), streak.source.clone());
        let backing_off = std::mem::take(&mut self.backing_off).into_values().map(|record| *record);
        let batches = self.isolated.drain().chain(self.collector.take_batch());
        let mut waiting: Vec<_> = backing_off.chain(batches.flat_map(|b| b.records)).collect();
        waiting.iter().for_each(|record| self.leave(record.queue_id));
        let mut queue_ids = Vec::new();
        for (queue_id, queue) in &mut self.queues {
            waiting.extend(self.collector.drain(queue));
            queue_ids.push(*queue_id);
        }
        queue_ids.into_iter().for_each(|queue_id| self.note_if_empty(queue_id));
        waiting.sort_by_key(|record| record.sequence);
        self.fail_together(waiting, &cause, source.as_ref());
        self.context.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn refuse(fatal_errors: &mut FatalErrors, at: Instant) -> bool {
        let cause = FailureCause::Fatal { code: "C".into(), message: "m".into() };
        fatal_errors.refused(cause, None, at);
        fatal_errors.lasting().is_some()
    }

    #[test]
    fn answers_without_a_success_last_after_ten_seconds() {
        let (start, mut fatal_errors) = (clock::now(), FatalErrors::new(30 * SECOND));
        for seconds in [0, 4, 8] {
            assert!(!refuse(&mut fatal_errors, start + seconds * SECOND));
        }
        fatal_errors.clear();
        for seconds in [9, 14, 18] {
            assert!(!refuse(&mut fatal_errors, start + seconds * SECOND));
        }
        assert!(refuse(&mut fatal_errors, start + 19 * SECOND));
    }

    #[test]
    fn answers_with_a_long_time_between_them_are_separate() {
        let (start, mut fatal_errors) = (clock::now(), FatalErrors::new(30 * SECOND));
        for seconds in [0, 11, 22, 33] {
            assert!(!refuse(&mut fatal_errors, start + seconds * SECOND));
        }
    }

    #[test]
    fn two_answers_are_not_enough_however_far_apart() {
        let (start, mut fatal_errors) = (clock::now(), FatalErrors::new(30 * SECOND));
        for seconds in [0, 10] {
            assert!(!refuse(&mut fatal_errors, start + seconds * SECOND));
        }
        assert!(refuse(&mut fatal_errors, start + 11 * SECOND));
    }

    #[test]
    fn records_that_live_for_less_than_that_fail_by_the_error_and_not_by_their_age() {
        let (start, mut fatal_errors) = (clock::now(), FatalErrors::new(10 * SECOND));
        for seconds in [0, 2, 4] {
            assert!(!refuse(&mut fatal_errors, start + seconds * SECOND));
        }
        assert!(refuse(&mut fatal_errors, start + 5 * SECOND));
    }

    #[test]
    fn whether_the_stream_is_missing_is_a_series_of_its_own() {
        let (start, mut fatal_errors) = (clock::now(), FatalErrors::new(30 * SECOND));
        for seconds in [0, 4, 8] {
            assert!(!refuse(&mut fatal_errors, start + seconds * SECOND));
        }
        let code = "ResourceNotFoundException";
        let cause = FailureCause::Fatal { code: code.into(), message: "m".into() };
        fatal_errors.refused(cause, None, start + 11 * SECOND);
        assert!(fatal_errors.lasting().is_none());
    }
}
