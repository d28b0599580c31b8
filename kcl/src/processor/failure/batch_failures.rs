//! The records of a batch that a processor could not process.

use crate::error::{FailedRecord, ProcessorError};
use crate::processor::Record;

/// The records of a batch that failed. All other records of the batch are done. Those after a failed one are delivered
/// again only if the shard is read again before that one is done: after a crash, a move, a pause or a stop of the shard.
///
/// Only the failed records come again, as a batch of their own. The [`FailurePolicy`](crate::FailurePolicy) applies to
/// each of them. A record that the policy gives up is a single user record, also inside an aggregate.
///
/// A later record of the same key that the processor has taken nevertheless stays done, so keep to the first failure of
/// each key where the order within a key matters.
///
/// ```
/// use kcl::{BatchFailures, ProcessorError, Record, RecordBatch};
///
/// fn store(record: &Record<'_>) -> Result<(), ProcessorError> {
///     # let _ = record;
///     Ok(())
/// }
///
/// async fn process_records(batch: RecordBatch<'_>) -> Result<(), ProcessorError> {
///     let mut failures = BatchFailures::new();
///     for record in batch {
///         if let Err(error) = store(&record) {
///             failures.push(&record, error);
///         }
///     }
///     failures.into_result()
/// }
/// ```
#[derive(Debug, Default)]
#[must_use = "return it with into_result()"]
pub struct BatchFailures(Vec<FailedRecord>);

impl BatchFailures {
    /// No failure.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a record that failed. A record that was added before keeps its first error.
    pub fn push(&mut self, record: &Record<'_>, error: impl Into<ProcessorError>) {
        let position = record.position();
        match self.0.binary_search_by(|failed| failed.position.cmp(&position)) {
            Ok(_) => {}
            Err(place) => self.0.insert(place, FailedRecord { position, error: error.into() }),
        }
    }

    /// The number of records that failed.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no record failed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the result of the batch: `Ok` if no record failed.
    ///
    /// # Errors
    /// Names the records that failed.
    pub fn into_result(self) -> Result<(), ProcessorError> {
        if self.0.is_empty() { Ok(()) } else { Err(ProcessorError::of_records(self.0)) }
    }
}
