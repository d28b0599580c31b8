//! The start of a shard, as a new lease holds it.

use std::time::SystemTime;

use super::list::Shard;
use crate::checkpoint::Checkpoint;
use crate::config::{ShardPosition, StreamPosition};

/// The start of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaseStart {
    pub(crate) checkpoint: Checkpoint,
    /// The time of a start at [`Checkpoint::AtTimestamp`], or that of a move to [`Checkpoint::Latest`].
    pub(crate) time: Option<SystemTime>,
}

impl LeaseStart {
    pub(crate) fn new(checkpoint: Checkpoint) -> Self {
        Self { checkpoint, time: None }
    }

    fn at(time: SystemTime) -> Self {
        Self { checkpoint: Checkpoint::AtTimestamp, time: Some(time) }
    }

    /// The start at a position of `shard`.
    pub(crate) fn in_shard(position: &ShardPosition, shard: &Shard) -> Self {
        match position {
            ShardPosition::Latest => Self::new(Checkpoint::Latest),
            ShardPosition::TrimHorizon => Self::new(Checkpoint::TrimHorizon),
            ShardPosition::AtTimestamp(time) => Self::at(*time),
            // The shard begins with this number. No record has it, so a check whether retention has deleted the record
            // would raise a false alarm.
            ShardPosition::AtSequenceNumber(number)
            | ShardPosition::AfterSequenceNumber(number)
                if *number == shard.starting_sequence =>
            {
                Self::new(Checkpoint::TrimHorizon)
            }
            ShardPosition::AtSequenceNumber(number) => {
                Self::new(Checkpoint::Before(number.clone()))
            }
            ShardPosition::AfterSequenceNumber(number) => {
                Self::new(Checkpoint::after_all_of(number.clone()))
            }
        }
    }

    /// The start of a shard whose ancestor starts at `position`, and is processed first.
    pub(crate) fn below(position: StreamPosition) -> Self {
        match position {
            StreamPosition::AtTimestamp(time) => Self::at(time),
            StreamPosition::TrimHorizon | StreamPosition::Latest => {
                Self::new(Checkpoint::TrimHorizon)
            }
        }
    }
}

impl From<StreamPosition> for LeaseStart {
    fn from(position: StreamPosition) -> Self {
        match position {
            StreamPosition::Latest => Self::new(Checkpoint::Latest),
            StreamPosition::TrimHorizon => Self::new(Checkpoint::TrimHorizon),
            StreamPosition::AtTimestamp(time) => Self::at(time),
        }
    }
}
