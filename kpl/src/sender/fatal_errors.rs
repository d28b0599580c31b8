//! When a fatal error is believed.
//!
//! IAM policies, KMS grants and the control plane of Kinesis are eventually consistent. For moments they refuse what
//! they allow, or do not find a stream that exists. If the producer believed the first such error, all buffered records
//! would fail. So a fatal error counts as transient until PutRecords has returned nothing else for [`BELIEVED_AFTER`].

use std::time::Duration;

use super::Sender;
use crate::clock::Instant;
use crate::error::{FailureCause, Source};
use crate::retry;
use crate::service::{CallError, StreamDescription};

/// Time for which PutRecords must return fatal errors, without a success. The consumer waits as long before it believes
/// that a stream is gone.
const BELIEVED_AFTER: Duration = Duration::from_secs(10);

/// The answer of DescribeStreamSummary for a stream that PutRecords does not find.
pub(super) type Confirmation = Result<StreamDescription, CallError>;

/// The fatal errors since the last success.
#[derive(Default)]
pub(super) struct FatalErrors {
    streak: Option<Streak>,
    is_believed: bool,
}

/// Fatal errors without a success between them.
struct Streak {
    first: Instant,
    last: Instant,
    /// The last error.
    cause: FailureCause,
    source: Option<Source>,
}

impl FatalErrors {
    /// Notes a fatal error. Returns whether fatal errors are believed.
    pub(super) fn refused(
        &mut self,
        cause: FailureCause,
        source: Option<Source>,
        now: Instant,
    ) -> bool {
        let streak = self.streak.take();
        // After a longer pause it is not known whether a call would have succeeded in between.
        let streak =
            streak.filter(|streak| now.saturating_duration_since(streak.last) <= BELIEVED_AFTER);
        let first = streak.map_or(now, |streak| streak.first);
        self.streak = Some(Streak { first, last: now, cause, source });
        self.is_believed
    }

    /// Forgets the errors: PutRecords succeeded, or the stream exists.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The errors, if they have lasted long enough and are not believed yet.
    fn lasting(&self) -> Option<&Streak> {
        let lasting =
            self.streak.as_ref().filter(|streak| streak.last - streak.first >= BELIEVED_AFTER);
        lasting.filter(|_| !self.is_believed)
    }
}

impl Sender {
    /// Believes the fatal errors if they have lasted. DescribeStreamSummary first confirms that a stream is missing.
    pub(super) fn check_fatal_errors(&mut self) {
        let Some(streak) = self.fatal_errors.lasting() else {
            return;
        };
        if !retry::is_stream_missing(&streak.cause.code()) {
            self.believe();
        } else if self.confirming.is_empty() {
            self.confirming.spawn(self.service.describe());
        }
    }

    /// Handles the answer of DescribeStreamSummary.
    pub(super) fn on_confirmation(&mut self, confirmation: Confirmation) {
        match confirmation {
            // PutRecords has succeeded in the meantime, or its error has changed.
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

    /// Fails all sealed records that are not in flight. Until the next success, each fatal error fails its records at
    /// once.
    fn believe(&mut self) {
        let Some(streak) = &self.fatal_errors.streak else {
            return;
        };
        let (cause, source) = (streak.cause.clone(), streak.source.clone());
        tracing::error!(
            code = %cause.code(),
            "PutRecords has answered so for {BELIEVED_AFTER:?} and never succeeded: all records that wait fail"
        );
        self.fatal_errors.is_believed = true;
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
        self.shared.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn refuse(fatal_errors: &mut FatalErrors, at: Instant) -> bool {
        let cause = FailureCause::Fatal { code: "C".into(), message: "m".into() };
        fatal_errors.refused(cause, None, at);
        fatal_errors.lasting().is_some()
    }

    #[test]
    fn answers_without_a_success_last_after_ten_seconds() {
        let (start, mut fatal_errors) = (clock::now(), FatalErrors::default());
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
        let (start, mut fatal_errors) = (clock::now(), FatalErrors::default());
        for seconds in [0, 11, 22, 33] {
            assert!(!refuse(&mut fatal_errors, start + seconds * SECOND));
        }
    }
}
