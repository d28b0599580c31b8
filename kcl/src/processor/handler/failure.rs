//! What follows a failed attempt of a handler.

use std::time::Duration;

use crate::error::ProcessorError;
use crate::health::Failed;
use crate::metrics::Metric;
use crate::processor::Services;
use crate::processor::failure::{self, Failures};
use crate::sequence::ExtendedSequenceNumber;

/// Failures in a row that are logged as warnings. Further ones are logged as errors.
const WARNINGS: u32 = 3;

/// A failed attempt.
pub(super) struct Failure<'a> {
    pub(super) error: &'a ProcessorError,
    /// The position of the record.
    pub(super) position: &'a ExtendedSequenceNumber,
    /// The pause before the next attempt, as the settings say.
    pub(super) pause: Duration,
    pub(super) failures: &'a mut Failures,
}

/// What follows.
pub(super) enum AfterFailure {
    /// The policy decides.
    Policy(failure::AfterFailure),
    /// The handler was told to stop: the record goes to the next owner of the shard.
    Stop,
}

/// Decides what follows a failed attempt, and logs the failure.
pub(super) fn after(failure: Failure<'_>, services: &Services, shard_id: &str) -> AfterFailure {
    let Failure { error, position, pause, failures } = failure;
    // The handler was told to stop, so its error is not a failure.
    if let Some(reason) = services.stop.now() {
        if error.is_panic() {
            tracing::warn!(shard_id, ?reason, %position, %error, "the handler panicked after it was told to stop");
        } else {
            tracing::info!(shard_id, ?reason, %position, %error, "the handler returned early, as it was told to stop");
        }
        return AfterFailure::Stop;
    }
    services.status.measure(Metric::FailedBatches, 1.0);
    let (policy, now) = (&services.config.failure_policy, services.clock.now());
    let after = failure::after_failure(policy, error.kind(), false, failures, now);
    let retry_in =
        (after == failure::AfterFailure::Retry).then_some(pause).map(tracing::field::debug);
    let Failed { failures, log } = services.status.failed(error);
    if log && failures > WARNINGS {
        tracing::error!(shard_id, failures, %position, retry_in, %error, "the handler keeps failing");
    } else if log {
        tracing::warn!(shard_id, failures, %position, retry_in, %error, "the handler failed");
    }
    AfterFailure::Policy(after)
}
