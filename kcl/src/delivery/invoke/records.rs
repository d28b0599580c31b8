//! Delivers the records of a page until each of them is done.
//!
//! After a failure, [`after_failure`] decides by the policy. Records that are given up are skipped or written to the sink
//! of dead letters, or the shard stops at them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::SystemTime;

use kinesis_common::panic_message::panic_message;

use super::{Failure, Invoker, PROCESS_RECORDS};
use crate::config::{AfterRetries, CheckpointPolicy};
use crate::delivery::given_up::{GiveUpReason, SkippedRecords};
use crate::delivery::policy::{AfterFailure, after_failure, is_counted};
use crate::error::{ErrorKind, ProcessorError, WorkerError};
use crate::health::ProblemKind;
use crate::metrics::Metric;
use crate::processor::{Batch, Call, Checkpointer, ErasedProcessor};
use crate::progress::Failing;
use crate::sequence::ExtendedSequenceNumber;
use crate::shard_control::StoppedAt;
use crate::shard_state::ShutdownReason;

/// Result of the delivery of a batch.
#[derive(Debug)]
pub(crate) enum Delivered {
    /// All records are done.
    All,
    /// The application paused or moved the shard after a failure, or the shard has stopped at records that are given up.
    /// The records that are not done are to be read again.
    InPart,
    /// The processor returned a fatal error.
    Fatal(WorkerError),
}

/// Whether the delivery of a batch goes on.
enum Next {
    GoesOn,
    Stopped,
}

impl Invoker {
    /// Delivers one batch, in parts, until each record is done: the processor returned `Ok`, it has checkpointed the
    /// record, or the record was given up.
    ///
    /// # Errors
    /// The shard is to be given up.
    pub(crate) async fn process_records(
        &mut self,
        processor: &mut dyn ErasedProcessor,
        checkpointer: &Checkpointer,
        mut batch: Batch,
    ) -> Result<Delivered, ShutdownReason> {
        let (records, bytes) = (batch.len(), batch.payload_bytes());
        // A page of aggregates may have no record to deliver.
        if records == 0 {
            return Ok(Delivered::All);
        }
        self.status.first_delivery(batch.arrivals());
        let tokens = self.stop.for_call();
        let mut backoff = self.backoff();
        let whole = self.status.meter().timer(&*self.clock);
        let mut given_up = 0;
        self.to_skip.extend(self.status.control().take_to_skip());
        for span in &self.to_skip {
            if batch.isolate(span) {
                given_up += self.skip(&batch, GiveUpReason::Skipped, None);
                batch.part_done(checkpointer);
            }
        }
        let reached = batch.last();
        self.to_skip.retain(|(_, last)| reached.as_ref() < Some(last));
        while batch.part().is_some() {
            self.check_lease()?;
            if self.isolate_expired(&mut batch) {
                let reason = GiveUpReason::RecordAgeExpired;
                given_up += batch.part_len();
                match self.give_up(&mut batch, checkpointer, reason, None).await? {
                    Next::GoesOn => continue,
                    Next::Stopped => return Ok(Delivered::InPart),
                }
            }
            let Some(span) = batch.span() else { break };
            self.count_former_failures(&mut batch, &span.0);
            self.status.took_batch(&span.0, &span.1);
            let view = batch.attempt(checkpointer, &tokens);
            let call = self
                .call(PROCESS_RECORDS, async { processor.call(Call::ProcessRecords(view)).await });
            let Err(error) = call.await else {
                batch.part_done(checkpointer);
                self.part_succeeded(checkpointer);
                backoff.succeeded();
                continue;
            };
            let end = batch.part_end();
            let has_poison = batch.failed(checkpointer, &error);
            let mut after = match has_poison {
                true => AfterFailure::GiveUp(GiveUpReason::Poison),
                false => self.after_failure(&mut batch, end, &error),
            };
            let is_repeated = matches!(after, AfterFailure::Retry | AfterFailure::Halve);
            let failure = Failure { error: &error, records: Some(span), is_repeated };
            let pause = self.on_failure(PROCESS_RECORDS, &mut backoff, &failure)?;
            self.status.measure(Metric::FailedBatches, 1.0);
            if error.kind() == ErrorKind::Fatal {
                let shard_id = self.held_lease.shard_id().to_owned();
                return Ok(Delivered::Fatal(WorkerError::Processor {
                    shard_id,
                    cause: error.to_string(),
                }));
            }
            while let AfterFailure::GiveUp(reason) = after {
                given_up += batch.part_len();
                match self.give_up(&mut batch, checkpointer, reason, Some(&error)).await? {
                    Next::GoesOn => backoff.succeeded(),
                    Next::Stopped => return Ok(Delivered::InPart),
                }
                // Other records may have failed in the same call.
                after = self.after_failure(&mut batch, end, &error);
            }
            match after {
                AfterFailure::Halve => batch.halve(),
                AfterFailure::Retry => {}
                AfterFailure::Done | AfterFailure::GiveUp(_) => continue,
            }
            if self.pause_unless_asked(pause).await? {
                return Ok(Delivered::InPart);
            }
        }
        whole.took(Metric::ProcessTaskTime, Some(self.held_lease.shard_id()));
        self.status.succeeded();
        self.status.delivered(records - given_up, bytes);
        self.held_lease.record_bytes(bytes as u64);
        Ok(Delivered::All)
    }

    /// Counts the failure of what is left of the part, and decides what follows. `end`: the end of the part that failed.
    fn after_failure(&self, batch: &mut Batch, end: usize, error: &ProcessorError) -> AfterFailure {
        // If no record before the end is left, the processor has checkpointed them, or they are given up.
        let policy = &self.config.failure_policy;
        let Some(part) = batch.part_mut().filter(|part| part.first() < end) else {
            return AfterFailure::Done;
        };
        let after = after_failure(policy, part, error, self.clock.now());
        let failures = part.failures;
        if policy.max_attempts.is_some()
            && failures > 0
            && let Some((position, _)) = batch.span()
        {
            self.held_lease.progress().lock().failed(Failing { position, failures });
        }
        after
    }

    /// Counts the failures of former owners of the lease on the part, which begins at `first`.
    fn count_former_failures(&self, batch: &mut Batch, first: &ExtendedSequenceNumber) {
        let policy = &self.config.failure_policy;
        let Some(part) = batch.part_mut().filter(|part| is_counted(policy, part)) else { return };
        let former = self.held_lease.lease().failing;
        if part.failures == 0
            && let Some(former) = former.filter(|former| former.position == *first)
        {
            part.failures = former.failures;
            part.deliveries = part.deliveries.max(former.failures);
        }
    }

    /// Notes that the processor has taken a part of the batch.
    fn part_succeeded(&self, checkpointer: &Checkpointer) {
        self.status.succeeded();
        if self.config.checkpoint != CheckpointPolicy::Manual {
            checkpointer.progress().offer_to_renewal();
        }
    }

    /// Makes the records that are too old to be delivered a part of their own. Returns whether there are any.
    fn isolate_expired(&self, batch: &mut Batch) -> bool {
        let Some(age) = self.config.failure_policy.max_record_age else { return false };
        let oldest = self.status.service_time().checked_sub(age);
        batch.isolate_older(oldest.unwrap_or(SystemTime::UNIX_EPOCH))
    }

    /// Gives the first part of the batch up, as the policy says.
    ///
    /// # Errors
    /// The shard is to be given up.
    async fn give_up(
        &self,
        batch: &mut Batch,
        checkpointer: &Checkpointer,
        reason: GiveUpReason,
        error: Option<&ProcessorError>,
    ) -> Result<Next, ShutdownReason> {
        match self.config.failure_policy.then {
            AfterRetries::StopShard => {
                self.stop_at(batch, reason, error);
                return Ok(Next::Stopped);
            }
            AfterRetries::Skip => {
                self.skip(batch, reason, error);
            }
        }
        batch.part_done(checkpointer);
        self.part_succeeded(checkpointer);
        Ok(Next::GoesOn)
    }

    /// Stops the shard at the first part of the batch.
    fn stop_at(&self, batch: &Batch, reason: GiveUpReason, error: Option<&ProcessorError>) {
        let Some((first, last)) = batch.span() else { return };
        let (shard_id, records) = (self.held_lease.shard_id(), batch.part_len());
        let attempts = batch.attempts();
        let cause = error.map_or_else(|| reason.text().to_owned(), ToString::to_string);
        tracing::error!(
            shard_id, %first, %last, records, attempts, cause,
            "the shard stops at records that cannot be processed, because {}: call resume_shard to try them again, or skip_failed to skip them",
            reason.text()
        );
        let problem =
            format!("{records} records from {first} to {last}, after {attempts} attempts: {cause}");
        self.status.problems().failed(ProblemKind::ShardStopped, Some(shard_id), &problem);
        self.status.control().stop_at(StoppedAt { spans: batch.spans(), records });
    }

    /// Skips the first part of the batch. Returns the number of records.
    fn skip(&self, batch: &Batch, reason: GiveUpReason, error: Option<&ProcessorError>) -> usize {
        let Some((first, last)) = batch.span() else { return 0 };
        let (shard_id, attempts) = (self.held_lease.shard_id(), batch.attempts());
        let records = batch.part_len();
        let cause = error.map(tracing::field::display);
        tracing::error!(
            shard_id, %first, %last, records, attempts, cause,
            "records are skipped, because {}", reason.text()
        );
        self.status.measure(Metric::SkippedRecords, records as f64);
        if let Some(on_skipped) = &self.given_up.on_skipped {
            let skipped =
                SkippedRecords { shard_id, records: batch.records(), reason, error, attempts };
            let called = catch_unwind(AssertUnwindSafe(|| on_skipped(&skipped)));
            if let Err(panic) = called {
                let error = panic_message(panic.as_ref());
                tracing::error!(shard_id, error, "the callback for skipped records panicked");
            }
        }
        records
    }
}
