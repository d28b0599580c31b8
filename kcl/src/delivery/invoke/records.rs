//! Delivers the records of a page until each of them is done.
//!
//! After a failure, [`after_failure`] decides by the policy. Records that are given up are skipped or written to the sink
//! of dead letters, or the shard stops at them.

use std::time::SystemTime;

use kinesis_common::backoff::Backoff;

use super::{Failure, Invoker, PROCESS_RECORDS};
use crate::config::{AfterRetries, CheckpointPolicy, FailurePolicy};
use crate::error::{ErrorKind, ProcessorError, WorkerError};
use crate::metrics::Metric;
use crate::processor::failure::{AfterFailure, GiveUpReason, after_failure};
use crate::processor::{Batch, Call, Checkpointer, ErasedProcessor, Part};
use crate::progress::Failing;
use crate::sequence::ExtendedSequenceNumber;
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
        // A page of aggregates may have no record to deliver.
        if batch.part().is_none() {
            return Ok(Delivered::All);
        }
        self.status.first_delivery(batch.arrivals());
        let tokens = self.stop.for_call();
        let mut backoff = self.backoff();
        let whole = self.status.meter().timer(&*self.clock);
        for span in self.status.control().to_skip() {
            if batch.isolate(&span) {
                self.given_up.skip(&batch.unprocessed(GiveUpReason::Skipped, None));
                batch.part_done(checkpointer);
            }
        }
        while batch.part().is_some() {
            self.check_lease()?;
            if self.isolate_expired(&mut batch) {
                let reason = GiveUpReason::RecordAgeExpired;
                match self.give_up(&mut batch, checkpointer, reason, None, &mut backoff).await? {
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
                self.processed(batch.part_len(), batch.part_bytes());
                batch.part_done(checkpointer);
                self.part_succeeded(checkpointer);
                backoff.succeeded();
                continue;
            };
            let end = batch.part_end();
            let (records, bytes) = (batch.len(), batch.payload_bytes());
            let has_poison = batch.failed(checkpointer, &error);
            // The processor has checkpointed some of the records, or named those that failed.
            self.processed(records - batch.len(), bytes - batch.payload_bytes());
            let mut after = match has_poison {
                true => Some(AfterFailure::GiveUp(GiveUpReason::Poison)),
                false => self.after_failure(&mut batch, end, &error),
            };
            let is_repeated = matches!(after, Some(AfterFailure::Retry | AfterFailure::Halve));
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
            while let Some(AfterFailure::GiveUp(reason)) = after {
                let cause = Some(&error);
                match self.give_up(&mut batch, checkpointer, reason, cause, &mut backoff).await? {
                    Next::GoesOn => backoff.succeeded(),
                    Next::Stopped => return Ok(Delivered::InPart),
                }
                // Other records may have failed in the same call.
                after = self.after_failure(&mut batch, end, &error);
            }
            match after {
                Some(AfterFailure::Halve) => batch.halve(),
                Some(AfterFailure::Retry) => {}
                _ => continue,
            }
            if self.pause_unless_asked(pause).await? {
                return Ok(Delivered::InPart);
            }
        }
        whole.took(Metric::ProcessTaskTime, Some(self.held_lease.shard_id()));
        self.status.succeeded();
        // Now the shard is not read from an earlier record again.
        if let Some(last) = batch.last() {
            self.status.control().skipped_up_to(&last);
        }
        Ok(Delivered::All)
    }

    /// Counts records that are processed.
    fn processed(&self, records: usize, bytes: usize) {
        if records > 0 {
            self.status.delivered(records, bytes);
            self.held_lease.record_bytes(bytes as u64);
        }
    }

    /// Counts the failure of what is left of the part, and decides what follows. `end`: the end of the part that failed.
    /// `None`: nothing is left.
    fn after_failure(
        &self,
        batch: &mut Batch,
        end: usize,
        error: &ProcessorError,
    ) -> Option<AfterFailure> {
        let policy = &self.config.failure_policy;
        // If no record before the end is left, the processor has checkpointed them, or they are given up.
        let kind = batch.error_kind(error);
        let part = batch.part_mut().filter(|part| part.first() < end)?;
        let can_be_halved = !is_counted(policy, part);
        let now = self.clock.now();
        let after = after_failure(policy, kind, can_be_halved, &mut part.failures, now);
        let failures = part.failures.count;
        if policy.max_attempts.is_some()
            && failures > 0
            && let Some((position, _)) = batch.span()
        {
            self.held_lease.progress().lock().failed(Failing { position, failures });
        }
        Some(after)
    }

    /// Counts the failures on the part, which begins at `first`, before it was read again, also those of a former owner
    /// of the lease.
    fn count_former_failures(&self, batch: &mut Batch, first: &ExtendedSequenceNumber) {
        let policy = &self.config.failure_policy;
        let Some(part) = batch.part_mut().filter(|part| is_counted(policy, part)) else { return };
        let failures = self.held_lease.progress().lock().failures_on(first);
        if part.failures.count == 0 && failures > 0 {
            part.failures.count = failures;
            part.deliveries = part.deliveries.max(failures);
        }
    }

    /// Notes that the processor has taken a part of the batch, or that it is given up.
    fn part_succeeded(&self, checkpointer: &Checkpointer) {
        self.status.succeeded();
        let mut progress = checkpointer.progress();
        progress.forget_passed_failures();
        if self.config.checkpoint != CheckpointPolicy::Manual {
            progress.offer_to_renewal();
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
        backoff: &mut Backoff,
    ) -> Result<Next, ShutdownReason> {
        let unprocessed = batch.unprocessed(reason, error);
        match self.config.failure_policy.then {
            AfterRetries::StopShard => {
                self.given_up.stop_at(&unprocessed);
                return Ok(Next::Stopped);
            }
            AfterRetries::Skip => self.given_up.skip(&unprocessed),
            AfterRetries::DeadLetter => tokio::select! {
                biased;
                reason = self.stop.raised() => return Err(reason),
                // The application pauses or moves the shard.
                () = self.status.control().until_not(false) => return Ok(Next::Stopped),
                () = self.given_up.write(&unprocessed, backoff) => {}
            },
        }
        self.check_lease()?;
        batch.part_done(checkpointer);
        self.part_succeeded(checkpointer);
        Ok(Next::GoesOn)
    }
}

/// Whether failures of the part count as attempts. Otherwise it is halved first.
fn is_counted(policy: &FailurePolicy, part: &Part) -> bool {
    !policy.bisect || part.len() == 1 || part.is_named
}
