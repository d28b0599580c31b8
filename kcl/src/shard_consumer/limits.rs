//! Where a shard starts, and where a bounded replay of it finishes.

use std::time::Duration;

use aws_smithy_types::DateTime;

use super::{Running, ShardConsumer};
use crate::checkpoint::Checkpoint;
use crate::config::CheckpointPolicy;
use crate::retrieval::Position;
use crate::service_time::HOST_SKEW;
use crate::shard_state::{Event, ShutdownReason};

/// Longest pause between two comparisons of the service's time with the time at which a shard starts.
const START_CHECK_INTERVAL: Duration = Duration::from_secs(1);

impl ShardConsumer {
    /// Waits until the service's time is that at which the shard starts. The service has no iterator for a later time.
    pub(super) async fn wait_for_start(&self) -> Result<Event, ShutdownReason> {
        // The time of a lease at `LATEST` is the service's own, and is past.
        let is_at_time = self.held_lease.lease().checkpoint == Checkpoint::AtTimestamp;
        let Some(Position::Time(time)) = self.start_position().filter(|_| is_at_time) else {
            return Ok(Event::StartReached);
        };
        let service_time = || self.worker.service_clock.now();
        // A host of the service whose clock is slow would still refuse the time.
        let reached = time.checked_add(HOST_SKEW).unwrap_or(time);
        while let Ok(left) = reached.duration_since(service_time())
            && !left.is_zero()
        {
            if self.status.waits_until(Some(time)).is_none() {
                tracing::info!(
                    shard_id = self.held_lease.shard_id(),
                    start = %DateTime::from(time),
                    "the shard starts at a time in the future, and waits"
                );
            }
            // The service's time may change by more than that of this host.
            self.invoker.pause(left.min(START_CHECK_INTERVAL)).await?;
        }
        self.status.waits_until(None);
        Ok(Event::StartReached)
    }

    /// The position at which this worker starts to read. `None`: the shard is finished.
    pub(super) fn start_position(&self) -> Option<Position> {
        let lease = self.held_lease.lease();
        let initial = &self.worker.config.initial_position;
        Position::start(&lease.checkpoint, lease.resume_from, initial)
    }

    /// Whether no record within the bound can follow.
    pub(super) fn has_reached_bound(&self) -> bool {
        let Some(bound) = &self.bound else { return false };
        let progress = self.held_lease.progress().lock();
        progress.processed_to().is_some_and(|(read_to, passed)| bound.is_reached(read_to, passed))
    }

    /// Finishes a bounded replay of the shard. The lease keeps a plain checkpoint, so that the application can go on later.
    pub(super) async fn finish(
        &mut self,
        running: &mut Option<Running>,
    ) -> Result<Event, ShutdownReason> {
        if let Some(Running { processor, checkpointer }) = running {
            self.invoker.finish(&mut **processor, checkpointer).await?;
            if self.worker.config.checkpoint != CheckpointPolicy::Manual {
                let mut backoff = self.invoker.backoff();
                // No later checkpoint makes up for this one.
                loop {
                    let written = self.invoker.unless_given_up(checkpointer.checkpoint()).await?;
                    if self.note_checkpoint(written) {
                        break;
                    }
                    self.invoker.pause(backoff.next_delay()).await?;
                }
            }
        }
        self.invoker.drop_processor(running.take());
        self.held_lease.progress().lock().finished();
        self.status.has_finished();
        let shard_id = self.held_lease.shard_id();
        tracing::info!(shard_id, "the bounded replay of the shard has finished");
        Ok(Event::Finished)
    }
}
