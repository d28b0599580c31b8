//! What follows a failed delivery. Pure.

use std::time::Duration;

use crate::config::FailurePolicy;
use crate::error::{ErrorKind, ProcessorError};
use crate::processor::Part;

/// What follows a failure of the processor on some records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterFailure {
    /// They are delivered again after a pause.
    Retry,
    /// One half of them is delivered after a pause, then the other one.
    Halve,
    /// They are not delivered again.
    GiveUp(GiveUpReason),
    /// None of them is left.
    Done,
}

/// Reason for which records are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum GiveUpReason {
    /// The processor failed on them [`max_attempts`](FailurePolicy::max_attempts) times, or for
    /// [`max_retry_time`](FailurePolicy::max_retry_time).
    RetriesExhausted,
    /// The processor returned a [poison](ProcessorError::poison) error.
    Poison,
    /// They are older than [`max_record_age`](FailurePolicy::max_record_age).
    RecordAgeExpired,
    /// An operator [skipped](crate::WorkerHandle::skip_failed) them.
    Skipped,
}

impl GiveUpReason {
    /// Text for logs, health and errors.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::RetriesExhausted => "the retries are used up",
            Self::Poison => "the processor called the error poison",
            Self::RecordAgeExpired => "the records are too old",
            Self::Skipped => "an operator skipped them",
        }
    }
}

/// Counts the failure of `part`, and decides what follows. `part` is what is left of the records after the failure.
pub(crate) fn after_failure(
    policy: &FailurePolicy,
    part: &mut Part,
    error: &ProcessorError,
    now: Duration,
) -> AfterFailure {
    let can_be_halved = !is_counted(policy, part);
    match kind(part, error) {
        // The worker ends.
        ErrorKind::Fatal => return AfterFailure::Retry,
        ErrorKind::Retryable => return AfterFailure::Retry,
        // One of the records may still be sound.
        _ if can_be_halved => return AfterFailure::Halve,
        ErrorKind::Poison => return AfterFailure::GiveUp(GiveUpReason::Poison),
        ErrorKind::Unspecified | ErrorKind::Panic => {}
    }
    part.failures += 1;
    let failing_for = now.saturating_sub(*part.failing_since.get_or_insert(now));
    let is_last = policy.max_attempts.is_some_and(|most| part.failures >= most)
        || policy.max_retry_time.is_some_and(|longest| failing_for >= longest);
    if is_last { AfterFailure::GiveUp(GiveUpReason::RetriesExhausted) } else { AfterFailure::Retry }
}

/// Whether failures of the part count as attempts. Otherwise it is halved first.
pub(crate) fn is_counted(policy: &FailurePolicy, part: &Part) -> bool {
    !policy.bisect || part.len() == 1 || part.is_named
}

/// What the error says about the records of `part`. The processor may have named each of them with an error of its own.
fn kind(part: &Part, error: &ProcessorError) -> ErrorKind {
    if error.kind() == ErrorKind::Fatal || !part.is_named {
        return error.kind();
    }
    let mut kinds = error.failed_records().iter().map(|failed| failed.error.kind());
    // Poison records are a part of their own.
    if kinds.all(|kind| matches!(kind, ErrorKind::Retryable | ErrorKind::Poison)) {
        ErrorKind::Retryable
    } else {
        ErrorKind::Unspecified
    }
}
