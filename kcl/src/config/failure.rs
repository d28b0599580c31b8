//! Settings of what happens to records that the processor cannot process.

use std::time::Duration;

/// What happens to a batch on which the processor fails: how often it is tried again, and what follows then.
///
/// The default repeats the batch until it succeeds, or the shard is given up: no record is ever skipped, and one record
/// that can never be processed stops its shard. Another policy sets a limit, and [what follows](AfterRetries):
///
/// ```
/// use kcl::{AfterRetries, ConsumerConfig, FailurePolicy};
///
/// let policy = FailurePolicy::default()
///     .with_max_attempts(5)
///     .with_bisect(true)
///     .with_then(AfterRetries::DeadLetter);
/// let config = ConsumerConfig::default().with_failure_policy(policy);
/// assert!(config.validate().is_ok());
/// ```
///
/// The pauses between two attempts are those of [`retry_initial_delay`](crate::ConsumerConfig::retry_initial_delay) and
/// [`retry_max_delay`](crate::ConsumerConfig::retry_max_delay). With the defaults, ten attempts take about 25 seconds.
///
/// A processor that knows more about an error says so: see [`ProcessorError`](crate::ProcessorError) and
/// [`BatchFailures`](crate::BatchFailures). Errors of its other methods are repeated without a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct FailurePolicy {
    /// Most deliveries of the same records, the first one included. Default `None`: no limit. At least 1.
    ///
    /// The number survives a move of the shard to another worker. It is noted in the lease with a renewal that is due
    /// anyway, so a worker that crashes may lose the last failures of up to half the failover time.
    pub max_attempts: Option<u32>,
    /// Time after the first failure from which on the same records are not delivered again. Default `None`: no limit.
    ///
    /// The time starts anew when the shard moves to another worker.
    #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration::optional"))]
    pub max_retry_time: Option<Duration>,
    /// Whether a batch that fails is halved until the record that fails stands alone. Default `false`: the whole batch
    /// is given up.
    ///
    /// A batch of more than one record is halved after each failure. Attempts and time are counted only for a record that
    /// stands alone, or that the processor [named](crate::BatchFailures). In an aggregate, that is one user record. To find
    /// one bad record among 10,000 takes about 14 failures.
    pub bisect: bool,
    /// Age from which on a record is not delivered any more, by its time of arrival. Default `None`: no limit. It needs
    /// [`Skip`](AfterRetries::Skip) or [`DeadLetter`](AfterRetries::DeadLetter), which then happens to the record.
    ///
    /// Set it where late records are worthless, so that a consumer that was down catches up at once.
    #[cfg_attr(feature = "serde", serde(with = "kinesis_common::human_duration::optional"))]
    pub max_record_age: Option<Duration>,
    /// What happens to records that are given up. Default [`AfterRetries::StopShard`].
    pub then: AfterRetries,
}

/// What happens to records that are given up, after the last attempt or a [poison](crate::ProcessorError::poison) error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum AfterRetries {
    /// The shard stops at the records. The worker keeps the lease, so that no other worker takes it and meets the same
    /// records, and gives the memory back. [`health`](crate::WorkerHandle::health) and
    /// [`why_not_running`](crate::WorkerHandle::why_not_running) name the records and the error. An operator goes on with
    /// [`resume_shard`](crate::WorkerHandle::resume_shard), which tries them again, or with
    /// [`skip_failed`](crate::WorkerHandle::skip_failed), which skips them.
    #[default]
    StopShard,
    /// The records are skipped: logged, counted, and reported to
    /// [`on_skipped`](crate::SchedulerBuilder::on_skipped). **They are lost to the application**.
    Skip,
    /// The records are written to the [sink of dead letters](crate::SchedulerBuilder::dead_letters). Processing goes on,
    /// and the checkpoint passes them, after the sink has confirmed them. While the sink fails, the shard waits.
    DeadLetter,
}

impl FailurePolicy {
    /// What is wrong with the settings.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.max_attempts == Some(0) {
            problems.push("failure_policy.max_attempts is 0; it must be at least 1".into());
        }
        for (name, value) in
            [("max_retry_time", self.max_retry_time), ("max_record_age", self.max_record_age)]
        {
            if let Some(value) = value
                && !(Duration::from_millis(1)..=super::LONGEST).contains(&value)
            {
                problems.push(format!(
                    "failure_policy.{name} is {value:?}; it must be 1ms to {}: leave it out for no limit",
                    super::LONGEST_IN_WORDS
                ));
            }
        }
        if self.max_record_age.is_some() && self.then == AfterRetries::StopShard {
            problems.push(
                "failure_policy.max_record_age is set and failure_policy.then is stop_shard, which would stop the shard \
                 for ever: set then to skip or dead_letter or dead_letter"
                    .into(),
            );
        }
        problems
    }
}
