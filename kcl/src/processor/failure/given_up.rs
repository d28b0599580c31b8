//! Records that are given up: they are skipped, or written to the sink of dead letters, or the shard stops at them.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use kinesis_common::backoff::Backoff;
use kinesis_common::panic_message::panic_message;

use super::policy::GiveUpReason;
use crate::clock::Clock;
use crate::dead_letter::{DeadLetter, ErasedSink};
use crate::error::ProcessorError;
use crate::health::ProblemKind;
use crate::metrics::Metric;
use crate::processor::batch::Records;
use crate::processor::record::Record;
use crate::sequence::Span;
use crate::shard_control::StoppedAt;
use crate::snapshot::ShardStatus;

/// Time limit of one call of the sink. Then it is called again.
const SINK_TIMEOUT: Duration = Duration::from_secs(60);
/// Most letters in one call of the sink.
const LETTERS_PER_CALL: usize = 500;

/// User records that the worker skips, for the callback of
/// [`on_skipped`](crate::SchedulerBuilder::on_skipped).
pub struct SkippedRecords<'a> {
    shard_id: &'a str,
    unprocessed: &'a Unprocessed<'a>,
}

impl<'a> SkippedRecords<'a> {
    /// Id of their shard.
    pub fn shard_id(&self) -> &'a str {
        self.shard_id
    }

    /// The records, in the order of the shard. There is at least one.
    pub fn records(&self) -> Records<'a> {
        self.unprocessed.records.clone()
    }

    /// Reason for which they are skipped.
    pub fn reason(&self) -> GiveUpReason {
        self.unprocessed.reason
    }

    /// The last error of the processor on this record. `None` if this worker did not deliver it to the processor.
    pub fn error(&self, record: &Record<'_>) -> Option<&'a ProcessorError> {
        self.unprocessed.error.map(|error| error.of_record(&record.position()))
    }

    /// The number of deliveries.
    pub fn attempts(&self) -> u32 {
        self.unprocessed.attempts
    }
}

impl fmt::Debug for SkippedRecords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SkippedRecords")
            .field("shard_id", &self.shard_id)
            .field("records", &self.records().len())
            .field("reason", &self.reason())
            .field("attempts", &self.attempts())
            .finish_non_exhaustive()
    }
}

/// Records that are not delivered again. There is at least one.
pub(crate) struct Unprocessed<'a> {
    pub(crate) records: Records<'a>,
    /// Their positions, as spans of records that follow each other.
    pub(crate) spans: Vec<Span>,
    pub(crate) reason: GiveUpReason,
    /// The last error. `None`: they were not delivered.
    pub(crate) error: Option<&'a ProcessorError>,
    /// The number of deliveries.
    pub(crate) attempts: u32,
    /// Time of the first failure that counted.
    pub(crate) failing_since: Option<Duration>,
}

impl Unprocessed<'_> {
    fn cause(&self) -> String {
        self.error.map_or_else(|| self.reason.text().to_owned(), ToString::to_string)
    }
}

/// Called with records that are skipped.
type OnSkipped = Arc<dyn Fn(&SkippedRecords<'_>) + Send + Sync>;

/// Where records go that are given up. All shards of a worker share it.
#[derive(Clone, Default)]
pub(crate) struct Sinks {
    pub(crate) on_skipped: Option<OnSkipped>,
    pub(crate) dead_letters: Option<Arc<dyn ErasedSink>>,
}

/// Gives records of one shard up.
#[derive(Clone)]
pub(crate) struct GivenUp {
    sinks: Sinks,
    status: Arc<ShardStatus>,
    clock: Arc<dyn Clock>,
    origin: Arc<Origin>,
}

/// What all dead letters of a shard have in common.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) application: String,
    pub(crate) worker_id: String,
    /// Name or ARN, as given.
    pub(crate) stream: String,
    pub(crate) stream_arn: Option<String>,
}

impl GivenUp {
    pub(crate) fn new(
        sinks: Sinks,
        status: Arc<ShardStatus>,
        clock: Arc<dyn Clock>,
        origin: Origin,
    ) -> Self {
        Self { sinks, status, clock, origin: Arc::new(origin) }
    }

    /// Stops the shard at the records.
    pub(crate) fn stop_at(&self, unprocessed: &Unprocessed<'_>) {
        let Unprocessed { spans, records, reason, attempts, .. } = unprocessed;
        let (Some((first, _)), Some((_, last))) = (spans.first(), spans.last()) else { return };
        let (shard_id, records, cause) =
            (self.status.shard_id(), records.len(), unprocessed.cause());
        tracing::error!(
            shard_id, %first, %last, records, attempts, cause,
            "the shard stops at records that cannot be processed, because {}: call resume_shard to try them again, or skip_failed to skip them",
            reason.text()
        );
        let problem =
            format!("{records} records from {first} to {last}, after {attempts} attempts: {cause}");
        self.status.problems().failed(ProblemKind::ShardStopped, Some(shard_id), &problem);
        // If they are tried again, their attempts are counted anew.
        self.status.progress().lock().forget_failures();
        self.status.control().stop_at(StoppedAt { spans: spans.clone(), records });
    }

    /// Skips the records.
    pub(crate) fn skip(&self, unprocessed: &Unprocessed<'_>) {
        let Unprocessed { spans, records, reason, attempts, .. } = unprocessed;
        let (Some((first, _)), Some((_, last))) = (spans.first(), spans.last()) else { return };
        let (shard_id, records, cause) =
            (self.status.shard_id(), records.len(), unprocessed.cause());
        tracing::error!(
            shard_id, %first, %last, records, attempts, cause,
            "records are skipped, because {}", reason.text()
        );
        self.status.measure(Metric::SkippedRecords, records as f64);
        if let Some(on_skipped) = &self.sinks.on_skipped {
            let skipped = SkippedRecords { shard_id, unprocessed };
            let called = catch_unwind(AssertUnwindSafe(|| on_skipped(&skipped)));
            if let Err(panic) = called {
                let error = panic_message(panic.as_ref());
                tracing::error!(shard_id, error, "the callback for skipped records panicked");
            }
        }
    }

    /// Writes the records to the sink of dead letters, again and again until the sink has confirmed all of them.
    ///
    /// # Cancel safety
    /// If the call is dropped, some letters may be written. They are written again when the records are given up again.
    pub(crate) async fn write(&self, unprocessed: &Unprocessed<'_>, backoff: &mut Backoff) {
        // `build` refuses a policy that needs a sink without one.
        let Some(sink) = &self.sinks.dead_letters else { return std::future::pending().await };
        let mut records = unprocessed.records.clone();
        loop {
            let letters: Vec<_> = records
                .by_ref()
                .take(LETTERS_PER_CALL)
                .map(|record| self.letter(&record, unprocessed))
                .collect();
            if letters.is_empty() {
                break;
            }
            while let Err(error) = self.try_write(&**sink, &letters).await {
                let (kind, shard_id) = (ProblemKind::DeadLettersFailing, self.status.shard_id());
                let failed = self.status.problems().failed(kind, Some(shard_id), &error);
                if failed.log {
                    tracing::error!(
                        shard_id, failures = failed.failures, letters = letters.len(), %error,
                        "dead letters cannot be written, and the shard waits"
                    );
                }
                tokio::time::sleep(backoff.next_delay()).await;
            }
            self.status.measure(Metric::DeadLetters, letters.len() as f64);
        }
        backoff.succeeded();
        let (kind, shard_id) = (ProblemKind::DeadLettersFailing, self.status.shard_id());
        self.status.problems().recovered(kind, Some(shard_id));
        tracing::warn!(
            shard_id,
            records = unprocessed.records.len(),
            attempts = unprocessed.attempts,
            cause = unprocessed.cause(),
            "records became dead letters, because {}",
            unprocessed.reason.text()
        );
    }

    async fn try_write(
        &self,
        sink: &dyn ErasedSink,
        letters: &[DeadLetter],
    ) -> Result<(), ProcessorError> {
        // In a block, so that code of the sink before its first await is guarded, too.
        let write = AssertUnwindSafe(async { sink.write(letters).await }).catch_unwind();
        match tokio::time::timeout(SINK_TIMEOUT, write).await {
            Ok(Ok(written)) => Ok(written?),
            Ok(Err(panic)) => {
                Err(format!("the sink panicked: {}", panic_message(panic.as_ref())).into())
            }
            Err(_) => Err(format!("the sink did not answer within {SINK_TIMEOUT:?}").into()),
        }
    }

    fn letter(&self, record: &Record<'_>, unprocessed: &Unprocessed<'_>) -> DeadLetter {
        let Origin { application, worker_id, stream, stream_arn } = &*self.origin;
        let position = record.position();
        let error = unprocessed.error.map(|error| error.of_record(&position));
        let mut texts = error.map(ProcessorError::texts).unwrap_or_default().into_iter();
        let now = self.status.service_time();
        let failing_for =
            unprocessed.failing_since.map(|since| self.clock.now().saturating_sub(since));
        let first_failure = now.checked_sub(failing_for.unwrap_or_default());
        let shard_id = self.status.shard_id();
        let mut letter =
            DeadLetter::new(application, stream, shard_id, position, record.bytes(), now);
        letter.worker_id.clone_from(worker_id);
        letter.stream_arn = letter.stream_arn.or_else(|| stream_arn.clone());
        letter.partition_key = record.partition_key().map(str::to_owned);
        letter.explicit_hash_key = record.explicit_hash_key();
        letter.arrival = record.approximate_arrival();
        letter.aggregated = record.is_aggregated();
        letter.condition = unprocessed.reason.condition();
        letter.attempts = unprocessed.attempts;
        letter.redrives = record.redrives();
        letter.error = texts.next().unwrap_or_else(|| unprocessed.reason.text().to_owned());
        letter.error_chain = texts.collect();
        letter.first_failure = first_failure.unwrap_or(SystemTime::UNIX_EPOCH);
        letter
    }
}
