//! Delivery of a shard's records.

use std::sync::Arc;
use std::time::Duration;

use super::state::{Event, ShutdownReason};
use super::{Running, ShardConsumer};
use crate::checkpoint::Checkpoint;
use crate::delivery::{AutoCheckpoint, Batch, Checkpointer, Deaggregator, RecordBatch, Tally};
use crate::error::WorkerError;
use crate::metrics::Metric;
use crate::retrieval::{Page, Position, Prefetch, ShardBudget, Start, prefetch};

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
        loop {
            let due = self.checkpoint_due_in(&mut auto);
            let page = tokio::select! {
                biased;
                reason = self.signals.raised() => return Ok(Event::ShutDown(reason)),
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => {
                    // It may have been carried by a renewal in the meantime.
                    if self.checkpoint_due_in(&mut auto) != Some(Duration::ZERO) {
                        continue;
                    }
                    let written = self.checkpoint(&running.checkpointer).await;
                    auto.tried(self.worker.clock.now(), written);
                    continue;
                }
                page = pages.next() => page?,
            };
            let Page {
                records,
                millis_behind_latest,
                end,
                mut held,
            } = page;
            let mut tally = Tally::default();
            let entries = deaggregator.expand(records, &mut tally);
            held.grow(usize::try_from(tally.decompressed_bytes).unwrap_or(usize::MAX));
            self.status.found(&tally);
            let batch = Batch::new(entries, millis_behind_latest, held);
            if let Err(reason) = self.deliver(running, &batch).await {
                return Ok(Event::ShutDown(reason));
            }
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

    /// Starts to read behind the checkpoint; `None`: there is nothing to read.
    fn open(&mut self) -> Option<Prefetch> {
        let worker = &self.worker;
        let lease = self.tenure.lease();
        let position = Position::start(
            &lease.checkpoint,
            lease.resume_from,
            worker.config.initial_position,
        )?;
        tracing::info!(shard_id = self.tenure.shard_id(), ?position, "reading");
        let reader = worker.retrieval.open(Start {
            status: Arc::clone(&self.status),
            position,
            seed: self.random.u64(..),
        });
        let budget = ShardBudget::new(&worker.budget);
        Some(prefetch(&*worker.executor, reader, budget))
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
        )
    }

    /// Delivers one batch, again and again until the processor has taken it.
    async fn deliver(
        &mut self,
        running: &mut Running,
        batch: &Batch,
    ) -> Result<(), ShutdownReason> {
        let Some(end) = batch.end() else {
            return Ok(());
        };
        let cancellation = self.signals.lost().child_token();
        let Running {
            processor,
            checkpointer,
        } = running;
        let mut backoff = self.backoff();
        let whole = self.status.meter().timer(&*self.worker.clock);
        loop {
            if !self.holds_lease() {
                return Err(ShutdownReason::LeaseLost);
            }
            checkpointer.deliver(end.clone());
            let attempt = backoff.failures() + 1;
            let view = RecordBatch::new(batch, checkpointer, &cancellation, attempt);
            let metrics = (Metric::ProcessTaskSuccess, Metric::ProcessRecordsTime);
            let call = self.call(metrics, async { processor.process_records(view).await });
            match call.await {
                Ok(()) => break,
                Err(error) => {
                    self.status.measure(Metric::FailedBatches, 1.0);
                    checkpointer.take_back();
                    self.complain("process_records", &error);
                }
            }
            if let Some(reason) = self.pause(backoff.next_delay()).await {
                return Err(reason);
            }
        }
        whole.took(Metric::ProcessTaskTime, Some(self.tenure.shard_id()));
        let bytes = batch.payload_bytes();
        self.status.succeeded();
        self.status.delivered(batch.records, bytes);
        self.tenure.record_bytes(bytes as u64);
        Ok(())
    }

    fn checkpoint_due_in(&self, auto: &mut AutoCheckpoint) -> Option<Duration> {
        if let Some(at) = self.tenure.carried_at() {
            auto.carried(at);
        }
        auto.due_in(self.worker.clock.now())
    }

    /// Checkpoints for the processor all that it has taken; whether that is written.
    pub(super) async fn checkpoint(&self, checkpointer: &Checkpointer) -> bool {
        match checkpointer.checkpoint().await {
            Ok(()) => true,
            Err(error) => {
                let shard_id = self.tenure.shard_id();
                tracing::warn!(shard_id, %error, "an automatic checkpoint was not written");
                false
            }
        }
    }

    /// As [`checkpoint`](Self::checkpoint), with a few attempts: nothing comes after it.
    pub(super) async fn last_checkpoint(&mut self, checkpointer: &Checkpointer) {
        let mut backoff = self.backoff();
        while !self.checkpoint(checkpointer).await && backoff.failures() < 5 && self.holds_lease() {
            tokio::time::sleep(backoff.next_delay().min(Duration::from_secs(1))).await;
        }
    }
}
