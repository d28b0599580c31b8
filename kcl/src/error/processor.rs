//! Errors that a record processor returns.

use std::error::Error;
use std::fmt;

use kinesis_common::error_text::chain;

use crate::checkpoint::CheckpointError;
use crate::sequence::ExtendedSequenceNumber;

/// Error of a record processor: any error, or a text.
///
/// Its text appears in logs, snapshots, health, `why_not_running` and dead letters, so keep payload and keys out of it.
/// The errors of some parsers, for instance of JSON, quote their input.
///
/// What follows an error is decided by the [`FailurePolicy`](crate::FailurePolicy). A processor that knows better says
/// so: [`retryable`](Self::retryable), [`poison`](Self::poison), [`fatal`](Self::fatal). One that knows which records
/// of a batch failed returns [`BatchFailures`](crate::BatchFailures).
///
/// The type does not implement [`std::error::Error`], so that `?` converts every error into it.
/// [`as_error`](Self::as_error) returns one.
///
/// ```
/// use kcl::ProcessorError;
///
/// fn amount(text: &str) -> Result<u64, ProcessorError> {
///     let amount = text.parse()?;
///     if amount == 0 {
///         return Err("an amount of zero".into());
///     }
///     Ok(amount)
/// }
/// assert_eq!(amount("0").unwrap_err().to_string(), "an amount of zero");
/// assert!(amount("x").is_err());
/// ```
pub struct ProcessorError {
    source: Box<dyn Error + Send + Sync>,
    kind: ErrorKind,
    /// The records that failed, each with its error. Empty: the error concerns the whole batch.
    records: Vec<FailedRecord>,
}

/// What an error says about a further attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// Nothing: the policy counts the attempts.
    Unspecified,
    Panic,
    /// A later attempt will succeed.
    Retryable,
    /// No later attempt can succeed.
    Poison,
    /// The worker cannot go on.
    Fatal,
}

/// A record that failed.
#[derive(Debug)]
pub(crate) struct FailedRecord {
    pub(crate) position: ExtendedSequenceNumber,
    pub(crate) error: ProcessorError,
}

impl ProcessorError {
    /// Creates an error with the text `message`.
    pub fn new(message: impl Into<String>) -> Self {
        Self::of(message.into(), ErrorKind::Unspecified)
    }

    /// An error that a later attempt does not meet, for instance because a downstream system is down. The call is
    /// repeated until it succeeds, whatever limits the [`FailurePolicy`](crate::FailurePolicy) sets.
    pub fn retryable(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::of(error, ErrorKind::Retryable)
    }

    /// An error that every further attempt would meet, for instance because a record cannot be parsed. The call is not
    /// repeated with the same records: the [`FailurePolicy`](crate::FailurePolicy) halves the batch, or gives it up.
    pub fn poison(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::of(error, ErrorKind::Poison)
    }

    /// An error after which the worker cannot go on, for instance because credentials were revoked. All shards get their
    /// last call, and the worker ends with [`WorkerError::Processor`](crate::WorkerError::Processor).
    pub fn fatal(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::of(error, ErrorKind::Fatal)
    }

    pub(crate) fn panicked(message: &str) -> Self {
        Self::of(format!("the processor panicked: {message}"), ErrorKind::Panic)
    }

    fn of(error: impl Into<Box<dyn Error + Send + Sync>>, kind: ErrorKind) -> Self {
        Self { source: error.into(), kind, records: Vec::new() }
    }

    /// The error of a batch of which single records failed. `records`: at least one, in the order of the shard.
    pub(crate) fn of_records(records: Vec<FailedRecord>) -> Self {
        let first = &records[0].error;
        let text = match records.len() {
            1 => format!("a record failed: {first}"),
            failed => format!("{failed} records failed, the first one: {first}"),
        };
        // One fatal error is that of the batch.
        let is_fatal = records.iter().any(|failed| failed.error.kind == ErrorKind::Fatal);
        let kind = if is_fatal { ErrorKind::Fatal } else { ErrorKind::Unspecified };
        Self { records, ..Self::of(text, kind) }
    }

    /// The error inside.
    pub fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
        self.source.as_ref()
    }

    /// Whether the processor panicked, and the library caught the panic.
    pub fn is_panic(&self) -> bool {
        self.kind == ErrorKind::Panic
    }

    pub(crate) fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The records that failed, in the order of the shard. Empty: the error concerns the whole batch.
    pub(crate) fn failed_records(&self) -> &[FailedRecord] {
        &self.records
    }

    /// The error of one record.
    pub(crate) fn of_record(&self, position: &ExtendedSequenceNumber) -> &Self {
        let found = self.records.binary_search_by(|record| record.position.cmp(position));
        found.map_or(self, |index| &self.records[index].error)
    }

    /// The texts of the error and its causes.
    pub(crate) fn texts(&self) -> Vec<String> {
        chain(self.as_error()).map(ToString::to_string).collect()
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for ProcessorError {
    /// A checkpoint that could not be written says nothing about the records: it is [retryable](Self::retryable).
    fn from(error: E) -> Self {
        let error = error.into();
        let kind = match error.downcast_ref() {
            // The position is wrong, and stays so.
            Some(CheckpointError::OutOfRange { .. }) | None => ErrorKind::Unspecified,
            Some(_) => ErrorKind::Retryable,
        };
        Self::of(error, kind)
    }
}

impl fmt::Display for ProcessorError {
    /// Writes the error and its causes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.texts().join(": "))
    }
}

impl fmt::Debug for ProcessorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.source, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_that_was_not_written_says_nothing_about_the_records() {
        let lost = CheckpointError::LeaseLost { shard_id: "shard".into() };
        assert_eq!(ProcessorError::from(lost).kind(), ErrorKind::Retryable);
        assert_eq!(ProcessorError::from("broken").kind(), ErrorKind::Unspecified);
        assert_eq!(ProcessorError::poison("broken").kind(), ErrorKind::Poison);
    }
}
