//! Moves a running shard to another position.

use super::ShardConsumer;
use crate::checkpoint::Checkpoint;
use crate::config::{CheckpointPolicy, ShardPosition};
use crate::health::ProblemKind;
use crate::processor::Checkpointer;
use crate::progress::Progress;
use crate::seek::{self, Processed, SeekError};
use crate::service_time::HOST_SKEW;
use crate::shard_control::SeekRequest;
use crate::stream::LeaseStart;

impl ShardConsumer {
    /// Moves the shard to another position, as the application asks, and answers. Returns whether it was moved.
    pub(super) async fn seek(&self, checkpointer: &Checkpointer, request: SeekRequest) -> bool {
        let SeekRequest { position, allow_skip, reply } = request;
        let moved = match self.target(&position, allow_skip) {
            Ok(LeaseStart { checkpoint, time }) => {
                // Not given up for a planned stop: it is one attempt, and a part of it would lose the progress.
                let written = checkpointer.move_to(checkpoint, time).await;
                written.map_err(|error| SeekError::Failed { cause: error.to_string() })
            }
            Err(error) => Err(error),
        };
        let (shard_id, position) = (self.held_lease.shard_id(), seek::describe(&position));
        match &moved {
            Ok(()) => {
                // It may have stopped at records, or stood still at a gap.
                self.status.control().start_anew();
                self.status.problems().recovered(ProblemKind::RecordsTrimmed, Some(shard_id));
                tracing::info!(shard_id, position, "the shard was moved");
            }
            Err(error) => tracing::warn!(shard_id, position, %error, "the shard was not moved"),
        }
        let has_moved = moved.is_ok();
        // The caller may have been cancelled.
        let _ = reply.send(moved);
        has_moved
    }

    /// The start that stands for a position in the lease.
    ///
    /// # Errors
    /// The position may not be taken.
    fn target(&self, position: &ShardPosition, allow_skip: bool) -> Result<LeaseStart, SeekError> {
        // A host of the service whose clock is slow refuses a later time.
        let now = self.worker.service_clock.now();
        let now = now.checked_sub(HOST_SKEW).unwrap_or(now);
        if let ShardPosition::AtTimestamp(time) = position
            && *time > now
        {
            return Err(SeekError::Future { time: seek::describe(position) });
        }
        let lease = self.held_lease.lease();
        let processed = match self.worker.config.checkpoint {
            // The processor may keep records that it has not checkpointed.
            CheckpointPolicy::Manual => Processed::of(&lease, &Progress::new(Checkpoint::Latest)),
            _ => Processed::of(&lease, &self.held_lease.progress().lock()),
        };
        if !allow_skip && !processed.covers(position) {
            let (position, processed) = (seek::describe(position), processed.describe());
            return Err(SeekError::WouldSkip { position, processed });
        }
        Ok(match position {
            // Pinned, so that the next owner misses nothing that is put from now on.
            ShardPosition::Latest => LeaseStart { checkpoint: Checkpoint::Latest, time: Some(now) },
            ShardPosition::TrimHorizon => LeaseStart::new(Checkpoint::TrimHorizon),
            ShardPosition::AtTimestamp(time) => {
                LeaseStart { checkpoint: Checkpoint::AtTimestamp, time: Some(*time) }
            }
            ShardPosition::AtSequenceNumber(number) => {
                LeaseStart::new(Checkpoint::Before(number.clone()))
            }
            ShardPosition::AfterSequenceNumber(number) => {
                LeaseStart::new(Checkpoint::after_all_of(number.clone()))
            }
        })
    }
}
