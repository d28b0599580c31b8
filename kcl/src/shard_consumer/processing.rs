//! Delivery of a shard's records.

use std::sync::Arc;
use std::time::Duration;

use super::caught_up::{CaughtUp, LOOK_EVERY};
use super::{Failure, PROCESS_RECORDS, Running, ShardConsumer};
use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::delivery::{AutoCheckpoint, Deaggregator};
use crate::error::WorkerError;
use crate::health::ProblemKind;
use crate::metrics::Metric;
use crate::processor::{Batch, Checkpointer, RecordBatch};
use crate::retrieval::{Page, Position, Prefetch, ShardBudget, Start, prefetch};
use crate::shard_state::{Event, ShutdownReason};
use crate::snapshot::Tally;

impl ShardConsumer {
    /// Delivers until the shard ends or is to be given up.
    ///
    /// # Errors
    /// What ends the whole worker.
    pub(super) async fn process(&mut self, running: &mut Running) -> Result<Event, WorkerError> {
        let Some(mut pages) = self.open() else {
            return Ok(Event::ShutDown(ShutdownReason::ShardEnd));
        };
        let mut deaggregator = self.deaggregator();
        let config = &self.worker.config;
        let mut auto = AutoCheckpoint::new(config.checkpoint, self.worker.clock.now());
        let mut caught_up = CaughtUp::new(self.tenure.lease().read_to);
        loop {
            let due = self.checkpoint_due_in(&mut auto);
            // Before the next page is asked for: while the shard is behind, a page is always there, and a
            // timer of no time is not ready when it is first polled.
            if due == Some(Duration::ZERO) {
                let checkpoint = self.try_checkpoint(&running.checkpointer);
                match self.unless_given_up(checkpoint).await {
                    Ok(written) => auto.tried(self.worker.clock.now(), written),
                    Err(reason) => return Ok(Event::ShutDown(reason)),
                }
                continue;
            }
            let page = tokio::select! {
                biased;
                reason = self.signals.raised() => return Ok(Event::ShutDown(reason)),
                // A renewal may have carried it in the meantime.
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => continue,
                page = pages.next() => page?,
                // A busy shard needs no note: its checkpoint is young.
                () = tokio::time::sleep(LOOK_EVERY) => {
                    self.note_read_to(&mut caught_up).await;
                    continue;
                }
            };
            let Page { records, millis_behind_latest, end, mut held } = page;
            let has_records = !records.is_empty();
            let last = records.last().map(|record| record.sequence_number.clone());
            let mut tally = Tally::default();
            let entries = deaggregator.expand(records, &mut tally);
            held.grow(usize::try_from(tally.decompressed_bytes).unwrap_or(usize::MAX));
            self.status.found(&tally);
            let batch = Batch::new(entries, millis_behind_latest, held);
            let delivered_to = batch.range().map(|(_, last)| last);
            if let Err(reason) = self.deliver(running, batch).await {
                return Ok(Event::ShutDown(reason));
            }
            if has_records {
                self.status.processed();
            }
            caught_up.passed(last, delivered_to);
            auto.delivered();
            if auto.is_on() {
                running.checkpointer.offer();
            }
            if let Some(children) = end {
                self.children = children;
                return Ok(Event::ShutDown(ShutdownReason::ShardEnd));
            }
        }
    }

    /// Notes in the lease up to when everything is read and checkpointed, if that is due. A failure is made
    /// good by the next note.
    async fn note_read_to(&self, caught_up: &mut CaughtUp) {
        let due =
            self.status.tip().and_then(|tip| caught_up.due(&self.tenure.lease().checkpoint, &tip));
        let Some(time) = due else { return };
        let noted = tokio::select! {
            biased;
            _ = self.signals.raised() => return,
            noted = self.tenure.note_read_to(time) => noted,
        };
        // Also after a failure: it is not tried again each second.
        caught_up.noted(time);
        if let Err(error) = noted {
            tracing::debug!(shard_id = self.tenure.shard_id(), %error, "how far the shard was read could not be noted");
        }
    }

    /// Starts to read behind the checkpoint; `None`: there is nothing to read.
    fn open(&mut self) -> Option<Prefetch> {
        let worker = &self.worker;
        let lease = self.tenure.lease();
        let position =
            Position::start(&lease.checkpoint, lease.resume_from, worker.config.initial_position)?;
        tracing::info!(shard_id = self.tenure.shard_id(), ?position, "reading");
        let reader = worker.retrieval.open(Start {
            status: Arc::clone(&self.status),
            position,
            stream: lease.stream,
            read_to: lease.read_to,
            seed: self.random.u64(..),
        });
        let budget = ShardBudget::new(&worker.budget);
        let status = Arc::clone(&self.status);
        Some(prefetch(&*worker.executor, reader, budget, status))
    }

    fn deaggregator(&self) -> Deaggregator {
        let lease = self.tenure.lease();
        let done = match lease.checkpoint {
            Checkpoint::At(position) => Some(position),
            _ => None,
        };
        let config = &self.worker.config;
        Deaggregator::new(
            self.tenure.shard_id(),
            lease.hash_key_range,
            done,
            config.aggregate_range,
            config.max_decompressed_size,
            Arc::clone(&self.worker.clock),
        )
    }

    /// Delivers one batch, again and again until the processor has taken it or checkpointed all of it.
    async fn deliver(
        &mut self,
        running: &mut Running,
        mut batch: Batch,
    ) -> Result<(), ShutdownReason> {
        let (records, bytes) = (batch.records, batch.payload_bytes());
        if records == 0 {
            return Ok(());
        }
        let tokens = self.signals.for_call();
        let Running { processor, checkpointer } = running;
        let checkpointed = checkpointer.done();
        let mut backoff = self.backoff();
        let whole = self.status.meter().timer(&*self.worker.clock);
        while let Some((first, last)) = batch.range() {
            if !self.holds_lease() {
                return Err(ShutdownReason::LeaseLost);
            }
            checkpointer.deliver(last.clone());
            self.status.took_batch(&first, &last);
            let attempt = backoff.failures() + 1;
            let view = RecordBatch::new(&batch, checkpointer, &tokens, attempt);
            let work = async { processor.process_records(view).await };
            let Err(error) = self.call(PROCESS_RECORDS, work).await else {
                break;
            };
            checkpointer.take_back();
            batch.trim_since(checkpointed.as_ref(), checkpointer.done());
            let mut failure = Failure::new(PROCESS_RECORDS, &error);
            failure.records = Some((first, last));
            let delay = backoff.next_delay();
            if batch.records > 0 {
                failure.retry_in = Some(delay);
            }
            if let Some(reason) = self.failed(&failure) {
                return Err(reason);
            }
            self.status.measure(Metric::FailedBatches, 1.0);
            if batch.records > 0
                && let Some(reason) = self.pause(delay).await
            {
                return Err(reason);
            }
        }
        whole.took(Metric::ProcessTaskTime, Some(self.tenure.shard_id()));
        self.status.succeeded();
        self.status.delivered(records, bytes);
        self.tenure.record_bytes(bytes as u64);
        Ok(())
    }

    fn checkpoint_due_in(&self, auto: &mut AutoCheckpoint) -> Option<Duration> {
        if let Some(at) = self.tenure.carried_at() {
            auto.carried(at);
        }
        auto.due_in(self.worker.clock.now())
    }

    /// Checkpoints for the processor all that it has taken; whether that is written. One attempt: the
    /// next batch, or the next renewal, writes it too.
    async fn try_checkpoint(&self, checkpointer: &Checkpointer) -> bool {
        self.was_written(checkpointer.try_checkpoint().await)
    }

    /// As [`try_checkpoint`](Self::try_checkpoint), tried again while there is time: nothing comes after
    /// it.
    pub(super) async fn last_checkpoint(&self, checkpointer: &Checkpointer) {
        self.was_written(checkpointer.checkpoint().await);
    }

    fn was_written(&self, result: Result<(), CheckpointError>) -> bool {
        let (problems, kind) = (self.status.problems(), ProblemKind::CheckpointFailing);
        let shard_id = self.tenure.shard_id();
        match &result {
            Ok(()) => {
                problems.recovered(kind, Some(shard_id));
            }
            Err(error) if problems.failed(kind, Some(shard_id), error).log => {
                tracing::warn!(shard_id, %error, "an automatic checkpoint was not written");
            }
            Err(_) => {}
        }
        result.is_ok()
    }
}
