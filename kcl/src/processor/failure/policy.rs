//! What follows a failed delivery. Pure.

use std::time::Duration;

use crate::config::FailurePolicy;
use crate::dead_letter::DeadLetterCondition;
use crate::error::ErrorKind;

/// What follows a failure of the processor on some records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterFailure {
    /// They are delivered again after a pause.
    Retry,
    /// One half of them is delivered after a pause, then the other one.
    Halve,
    /// They are not delivered again.
    GiveUp(GiveUpReason),
    /// The worker ends.
    EndWorker,
}

/// Reason for which records are given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GiveUpReason {
    /// The processor failed on them [`max_attempts`](FailurePolicy::max_attempts) times, or for
    /// [`max_retry_time`](FailurePolicy::max_retry_time).
    RetriesExhausted,
    /// The processor returned a [poison](crate::ProcessorError::poison) error.
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

    /// The condition of a dead letter. What an operator skips is none.
    pub(crate) fn condition(self) -> DeadLetterCondition {
        match self {
            Self::RetriesExhausted | Self::Skipped => DeadLetterCondition::RetriesExhausted,
            Self::Poison => DeadLetterCondition::Poison,
            Self::RecordAgeExpired => DeadLetterCondition::RecordAgeExpired,
        }
    }
}

/// Failures on some records that count as attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Failures {
    pub(crate) count: u32,
    /// Time of the first of them.
    pub(crate) since: Option<Duration>,
}

/// Counts a failure, and decides what follows. `kind`: what the error says. `can_be_halved`: whether the records are a
/// batch that is halved first.
pub(crate) fn after_failure(
    policy: &FailurePolicy,
    kind: ErrorKind,
    can_be_halved: bool,
    failures: &mut Failures,
    now: Duration,
) -> AfterFailure {
    match kind {
        ErrorKind::Fatal => return AfterFailure::EndWorker,
        ErrorKind::Retryable => return AfterFailure::Retry,
        // One of the records may still be sound.
        _ if can_be_halved => return AfterFailure::Halve,
        ErrorKind::Poison => return AfterFailure::GiveUp(GiveUpReason::Poison),
        ErrorKind::Unspecified | ErrorKind::Panic => {}
    }
    failures.count = failures.count.saturating_add(1);
    let failing_for = now.saturating_sub(*failures.since.get_or_insert(now));
    let is_last = policy.max_attempts.is_some_and(|most| failures.count >= most)
        || policy.max_retry_time.is_some_and(|longest| failing_for >= longest);
    if is_last { AfterFailure::GiveUp(GiveUpReason::RetriesExhausted) } else { AfterFailure::Retry }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn policy() -> FailurePolicy {
        FailurePolicy::default().with_max_attempts(3).with_max_retry_time(10 * SECOND)
    }

    #[test]
    fn attempts_and_time_are_limited() {
        let exhausted = AfterFailure::GiveUp(GiveUpReason::RetriesExhausted);
        let mut failures = Failures::default();
        let mut fail =
            |now| after_failure(&policy(), ErrorKind::Unspecified, false, &mut failures, now);
        assert_eq!(fail(SECOND), AfterFailure::Retry);
        assert_eq!(fail(2 * SECOND), AfterFailure::Retry);
        assert_eq!(fail(3 * SECOND), exhausted);

        let mut failures = Failures::default();
        let mut fail = |now| after_failure(&policy(), ErrorKind::Panic, false, &mut failures, now);
        assert_eq!(fail(SECOND), AfterFailure::Retry);
        assert_eq!(fail(11 * SECOND), exhausted);
    }

    #[test]
    fn without_limits_every_failure_is_followed_by_another_attempt() {
        let (policy, mut failures) = (FailurePolicy::default(), Failures::default());
        for second in 0..1_000 {
            let now = second * 3_600 * SECOND;
            let after = after_failure(&policy, ErrorKind::Unspecified, false, &mut failures, now);
            assert_eq!(after, AfterFailure::Retry);
        }
    }

    #[test]
    fn halving_and_errors_that_pass_use_up_no_attempt() {
        let mut failures = Failures::default();
        for (kind, can_be_halved, expected) in [
            (ErrorKind::Unspecified, true, AfterFailure::Halve),
            (ErrorKind::Poison, true, AfterFailure::Halve),
            (ErrorKind::Retryable, true, AfterFailure::Retry),
            (ErrorKind::Retryable, false, AfterFailure::Retry),
            (ErrorKind::Poison, false, AfterFailure::GiveUp(GiveUpReason::Poison)),
            (ErrorKind::Fatal, true, AfterFailure::EndWorker),
        ] {
            let after = after_failure(&policy(), kind, can_be_halved, &mut failures, SECOND);
            assert_eq!(after, expected, "{kind:?} {can_be_halved}");
        }
        assert_eq!(failures, Failures::default());
    }
}
