//! Whether a move to another position of a shard passes records that are not processed. Pure.

use std::time::SystemTime;

use aws_smithy_types::DateTime;

use crate::checkpoint::Checkpoint;
use crate::config::ShardPosition;
use crate::lease::Lease;
use crate::progress::Progress;
use crate::sequence::SequenceNumber;

/// Error of [`WorkerHandle::seek`](crate::WorkerHandle::seek). Unless it says otherwise, the shard stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SeekError {
    /// This worker does not process the shard now.
    #[error("this worker does not process shard {shard_id}: ask the worker that holds its lease")]
    NotProcessing {
        /// The shard.
        shard_id: String,
    },
    /// Records before the position are not processed, or may not be.
    #[error("records before {position} may not be processed ({processed}): allow the skip")]
    WouldSkip {
        /// The position.
        position: String,
        /// What is processed.
        processed: String,
    },
    /// The position is a time in the future, or less than two seconds ago, which the service may refuse.
    #[error(
        "{time} is in the future, or less than two seconds ago: wait, or pause the shard until then"
    )]
    Future {
        /// The time.
        time: String,
    },
    /// A later call asked for another position before this move was done.
    #[error("another seek replaced this one")]
    Replaced,
    /// The position could not be written to the lease. If the answer was lost, it may have been written: call again.
    #[error("the position could not be written to the lease ({cause}): call again")]
    Failed {
        /// Why.
        cause: String,
    },
}

/// Error of [`WorkerHandle::skip_failed`](crate::WorkerHandle::skip_failed).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SkipError {
    /// This worker does not process the shard now.
    #[error("this worker does not process shard {shard_id}: ask the worker that holds its lease")]
    NotProcessing {
        /// The shard.
        shard_id: String,
    },
    /// The shard has not stopped at records.
    #[error(
        "shard {shard_id} has not stopped at records that cannot be processed: there is nothing to skip"
    )]
    NotStopped {
        /// The shard.
        shard_id: String,
    },
}

/// What is processed of a shard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Processed {
    /// All records up to this one are processed, with all their user records.
    whole: Option<SequenceNumber>,
    /// All records before this one are processed, and perhaps some of its user records.
    before: Option<SequenceNumber>,
    /// Everything that arrived before this time is processed.
    time: Option<SystemTime>,
}

impl Processed {
    /// What is processed under a lease, and was before.
    pub(crate) fn of(lease: &Lease, progress: &Progress) -> Self {
        let before = match &lease.checkpoint {
            Checkpoint::At(at) => Some(at.sequence_number.clone()),
            Checkpoint::Before(number) => Some(number.clone()),
            _ => None,
        };
        let at_lease = match &lease.checkpoint {
            // Nothing before the start of the lease is to be processed.
            Checkpoint::AtTimestamp | Checkpoint::Latest => lease.resume_from,
            _ => lease.read_to,
        };
        match progress.passed() {
            Some((whole, time)) => {
                Self { whole: Some(whole.clone()), before, time: time.max(at_lease) }
            }
            None => Self { whole: None, before, time: at_lease },
        }
    }

    /// True if no record that is not processed lies before the position.
    pub(crate) fn covers(&self, position: &ShardPosition) -> bool {
        let up_to = |number: &SequenceNumber| self.whole.as_ref().is_some_and(|it| number <= it);
        let before = self.before.as_ref();
        match position {
            ShardPosition::TrimHorizon => true,
            // Records may be put at any moment.
            ShardPosition::Latest => false,
            ShardPosition::AtTimestamp(time) => self.time.is_some_and(|it| *time <= it),
            ShardPosition::AtSequenceNumber(number) => {
                up_to(number) || before.is_some_and(|it| number <= it)
            }
            ShardPosition::AfterSequenceNumber(number) => {
                up_to(number) || before.is_some_and(|it| number < it)
            }
        }
    }

    /// In words.
    pub(crate) fn describe(&self) -> String {
        match (&self.whole, &self.before) {
            (Some(number), _) => format!("the last record processed is {number}"),
            (None, Some(number)) => format!("the lease is at {number}"),
            (None, None) => "no record is processed yet".to_owned(),
        }
    }
}

/// A position in words.
pub(crate) fn describe(position: &ShardPosition) -> String {
    match position {
        ShardPosition::Latest => "the tip".to_owned(),
        ShardPosition::TrimHorizon => "the trim horizon".to_owned(),
        ShardPosition::AtTimestamp(time) => DateTime::from(*time).to_string(),
        ShardPosition::AtSequenceNumber(number) => format!("record {number}"),
        ShardPosition::AfterSequenceNumber(number) => format!("the record after {number}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn number(number: u32) -> SequenceNumber {
        number.to_string().parse().unwrap()
    }

    #[test]
    fn only_a_position_within_what_is_processed_passes_nothing() {
        use ShardPosition::{
            AfterSequenceNumber, AtSequenceNumber, AtTimestamp, Latest, TrimHorizon,
        };
        let time = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        let nothing = Processed::default();
        let checkpoint = Processed { before: Some(number(5)), ..Processed::default() };
        let page =
            Processed { whole: Some(number(9)), time: Some(time(100)), ..checkpoint.clone() };
        for (processed, position, covered) in [
            (&nothing, TrimHorizon, true),
            (&nothing, Latest, false),
            (&nothing, AtTimestamp(time(1)), false),
            (&nothing, AtSequenceNumber(number(1)), false),
            (&checkpoint, AtSequenceNumber(number(5)), true),
            (&checkpoint, AtSequenceNumber(number(6)), false),
            (&checkpoint, AfterSequenceNumber(number(4)), true),
            // The rest of an aggregate may not be processed.
            (&checkpoint, AfterSequenceNumber(number(5)), false),
            (&page, AfterSequenceNumber(number(9)), true),
            (&page, AfterSequenceNumber(number(10)), false),
            (&page, AtSequenceNumber(number(9)), true),
            (&page, AtSequenceNumber(number(10)), false),
            (&page, AtTimestamp(time(100)), true),
            (&page, AtTimestamp(time(101)), false),
            (&page, Latest, false),
            (&page, TrimHorizon, true),
        ] {
            assert_eq!(processed.covers(&position), covered, "{processed:?} {position:?}");
        }
    }
}
