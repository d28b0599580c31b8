//! Opens and closes the source of a shard.

use std::sync::Arc;
use std::time::SystemTime;

use super::ShardConsumer;
use crate::checkpoint::Checkpoint;
use crate::delivery::Deaggregator;
use crate::error::WorkerError;
use crate::lease::Lease;
use crate::retrieval::{Page, Pages, Position, ShardBudget, Start};

/// A source of the shard, and what belongs to its pages.
pub(super) struct Reading {
    pages: Pages,
    pub(super) deaggregator: Deaggregator,
}

/// Waits for the next page. While nothing is read, it waits for ever.
pub(super) async fn next_page(reading: &mut Option<Reading>) -> Result<Page, WorkerError> {
    match reading {
        Some(reading) => reading.pages.next().await,
        None => std::future::pending().await,
    }
}

impl ShardConsumer {
    /// Starts to read after the last record that is processed. `None`: the shard is finished.
    pub(super) fn read(&mut self) -> Option<Reading> {
        let worker = &self.worker;
        let lease = self.held_lease.lease();
        let (position, read_to) = self.position(&lease)?;
        tracing::info!(shard_id = self.held_lease.shard_id(), ?position, "reading");
        let source = worker.retrieval.open(Start {
            status: Arc::clone(&self.status),
            position,
            stream: lease.stream.clone(),
            read_to,
            seed: self.random.u64(..),
        });
        let budget = ShardBudget::new(&worker.budget);
        let pages = Pages::read(&*worker.executor, source, budget, Arc::clone(&self.status));
        Some(Reading { pages, deaggregator: self.deaggregator(lease) })
    }

    /// The position after the last record that is processed under this lease, or the position of the lease. With a time
    /// before which everything that arrived is processed, if one is known.
    fn position(&self, lease: &Lease) -> Option<(Position, Option<SystemTime>)> {
        let position = self.start_position()?;
        let progress = self.held_lease.progress().lock();
        Some(match (progress.passed(), progress.pinned) {
            (Some((passed, time)), _) => (Position::After(passed.clone()), time.max(lease.read_to)),
            // What was put since the first read is not to be missed.
            (None, Some(pinned)) if position == Position::Latest => {
                (Position::Time(pinned), lease.read_to)
            }
            (None, _) => (position, lease.read_to),
        })
    }

    /// Stops the source, and gives its memory back.
    pub(super) async fn stop_reading(&self, reading: &mut Option<Reading>) {
        let Some(Reading { pages, .. }) = reading.take() else { return };
        pages.stop().await;
        self.status.batch_processed();
        self.held_lease.progress().lock().pages_dropped();
    }

    fn deaggregator(&self, lease: Lease) -> Deaggregator {
        // The last page may have been delivered in part.
        let done = match self.held_lease.progress().lock().highest().max(lease.checkpoint) {
            Checkpoint::At(position) => Some(position),
            _ => None,
        };
        let config = &self.worker.config;
        Deaggregator::new(
            self.held_lease.shard_id(),
            lease.hash_key_range,
            done,
            config.aggregate_range,
            config.max_decompressed_size,
            Arc::clone(&self.worker.clock),
        )
    }
}
