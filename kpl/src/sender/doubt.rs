//! Doubt: when an error answer that waiting does not cure is believed.
//!
//! IAM policies, KMS grants and the control plane of Kinesis are eventually consistent. For moments they refuse what they
//! allow, or do not find a stream that exists. A producer that believed the first such answer would fail all that it
//! buffers. So such an answer counts as transient until PutRecords has answered nothing else for [`BELIEVED_AFTER`].

use std::time::Duration;

use super::Sender;
use crate::clock::Instant;
use crate::error::{FailureCause, Source};
use crate::retry;
use crate::service::{CallError, StreamDescription};

/// How long PutRecords must answer so, without a success. The consumer waits as long before it believes that a stream is gone.
const BELIEVED_AFTER: Duration = Duration::from_secs(10);

/// What DescribeStreamSummary said of a stream that PutRecords does not find.
pub(super) type Confirmation = Result<StreamDescription, CallError>;

/// The fatal answers since the last success.
#[derive(Default)]
pub(super) struct Doubt {
    row: Option<Row>,
    is_believed: bool,
}

/// Fatal answers without a success between them.
struct Row {
    first: Instant,
    last: Instant,
    /// What the last of them said.
    cause: FailureCause,
    source: Option<Source>,
}

impl Doubt {
    /// PutRecords gave a fatal answer. Returns whether it is believed.
    pub(super) fn refused(
        &mut self,
        cause: FailureCause,
        source: Option<Source>,
        now: Instant,
    ) -> bool {
        let row = self.row.take();
        // After a longer pause the answers in between are not known: the stream may have been written to by others.
        let row = row.filter(|row| now.saturating_duration_since(row.last) <= BELIEVED_AFTER);
        let first = row.map_or(now, |row| row.first);
        self.row = Some(Row { first, last: now, cause, source });
        self.is_believed
    }

    /// PutRecords succeeded, or the stream is there.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The row of answers that has lasted long enough, and is not believed yet.
    fn lasting(&self) -> Option<&Row> {
        let lasting = self.row.as_ref().filter(|row| row.last - row.first >= BELIEVED_AFTER);
        lasting.filter(|_| !self.is_believed)
    }
}

impl Sender {
    /// Believes the fatal answers if they have lasted. That a stream is missing is confirmed before.
    pub(super) fn judge_doubt(&mut self) {
        let Some(row) = self.doubt.lasting() else {
            return;
        };
        if !retry::is_stream_missing(&row.cause.code()) {
            self.believe();
        } else if self.confirming.is_empty() {
            self.confirming.spawn(self.service.describe());
        }
    }

    /// DescribeStreamSummary has answered whether the stream is missing.
    pub(super) fn on_confirmation(&mut self, confirmation: Confirmation) {
        match confirmation {
            // PutRecords has succeeded meanwhile, or its answers have changed.
            _ if self.doubt.lasting().is_none() => {}
            Ok(description) if description.status != "DELETING" => {
                tracing::warn!(
                    status = description.status,
                    "PutRecords does not find the stream, which exists: the records wait"
                );
                self.doubt.clear();
            }
            // Without the permission to describe the stream, the answers of PutRecords decide.
            Err(error) if !(error.is_stream_missing() || retry::is_access_denied(&error.code)) => {
                // The next answer of PutRecords has the stream described again.
                tracing::debug!(code = %error.code, message = %error.message, "whether the stream exists is not known");
            }
            Ok(_) | Err(_) => self.believe(),
        }
    }

    /// Gives up all that is sealed and not in flight. Until the next success, each fatal answer fails its records at once.
    fn believe(&mut self) {
        let Some(row) = &self.doubt.row else {
            return;
        };
        let (cause, source) = (row.cause.clone(), row.source.clone());
        tracing::error!(
            code = %cause.code(),
            "PutRecords has answered so for {BELIEVED_AFTER:?} and never succeeded: all records that wait fail"
        );
        self.doubt.is_believed = true;
        let backing_off = std::mem::take(&mut self.backing_off).into_values().map(|record| *record);
        let batches = self.isolated.drain().chain(self.collector.take_batch());
        let mut waiting: Vec<_> = backing_off.chain(batches.flat_map(|b| b.records)).collect();
        waiting.iter().for_each(|record| self.leave(record.queue_id));
        let mut queue_ids = Vec::new();
        for (queue_id, queue) in &mut self.queues {
            waiting.extend(self.collector.drain(queue));
            queue_ids.push(*queue_id);
        }
        queue_ids.into_iter().for_each(|queue_id| self.freed(queue_id));
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

    fn refuse(doubt: &mut Doubt, at: Instant) -> bool {
        let cause = FailureCause::Fatal { code: "C".into(), message: "m".into() };
        doubt.refused(cause, None, at);
        doubt.lasting().is_some()
    }

    #[test]
    fn answers_without_a_success_last_after_ten_seconds() {
        let (start, mut doubt) = (clock::now(), Doubt::default());
        for seconds in [0, 4, 8] {
            assert!(!refuse(&mut doubt, start + seconds * SECOND));
        }
        doubt.clear();
        for seconds in [9, 14, 18] {
            assert!(!refuse(&mut doubt, start + seconds * SECOND));
        }
        assert!(refuse(&mut doubt, start + 19 * SECOND));
    }

    #[test]
    fn answers_with_a_long_time_between_them_are_separate() {
        let (start, mut doubt) = (clock::now(), Doubt::default());
        for seconds in [0, 11, 22, 33] {
            assert!(!refuse(&mut doubt, start + seconds * SECOND));
        }
    }
}
