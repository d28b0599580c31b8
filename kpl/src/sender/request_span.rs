//! The `tracing` span of a PutRecords call: counts, bytes, and how it ended. Never data or keys.

use tracing::Span;
use tracing::field::Empty;

use crate::sender::batch::Batch;
use crate::service::{CallError, EntryOutcome};

/// The span of a request that is about to be sent. `attempt` is the highest of its records'.
pub(super) fn request_span(number: u64, batch: &Batch) -> Span {
    tracing::debug_span!(
        parent: None,
        "put_records",
        number,
        kinesis_records = batch.records.len(),
        bytes = batch.bytes,
        attempt = batch
            .records
            .iter()
            .map(|record| record.history.attempts)
            .max(),
        written = Empty,
        outcome = Empty,
    )
}

/// Notes the answer in the span of the request.
pub(super) fn note(span: &Span, answer: &Result<Vec<EntryOutcome>, CallError>) {
    if span.is_disabled() {
        return;
    }
    match answer {
        Ok(outcomes) => {
            let written = outcomes
                .iter()
                .filter(|outcome| matches!(outcome, EntryOutcome::Written { .. }))
                .count();
            span.record("written", written);
            let outcome = match written {
                0 => "refused",
                all if all == outcomes.len() => "written",
                _ => "partly written",
            };
            span.record("outcome", outcome);
        }
        Err(error) => {
            span.record("outcome", &*error.code);
        }
    }
}
