//! The checkpoint of a shard, as a lease item holds it, and the errors of writing it.

use std::cmp::Ordering;
use std::error::Error;
use std::fmt;
use std::sync::Arc;

use crate::sequence::{ExtendedSequenceNumber, SequenceNumber};

/// Sub-sequence number of [`Checkpoint::Before`]. It is less than that of every user record.
const BEFORE_THE_RECORD: i128 = -1;

/// Largest sub-sequence number that the Java library reads.
const LARGEST_SUB_SEQUENCE_NUMBER: u64 = i64::MAX as u64;

/// The progress of processing in a shard.
///
/// The order is that of the Java library: `AT_TIMESTAMP`, `TRIM_HORIZON`, `LATEST`, all positions, `SHARD_END`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Checkpoint {
    /// Nothing is processed. Processing starts at the timestamp in the worker's settings.
    AtTimestamp,
    /// Nothing is processed. Processing starts at the oldest record that the stream keeps.
    TrimHorizon,
    /// Nothing is processed. Processing starts with records that were put after the lease was created.
    Latest,
    /// Nothing is processed. Processing starts at this Kinesis record.
    ///
    /// The lease holds the sequence number and the sub-sequence number -1. The Java library understands it, and no
    /// library writes it when it checkpoints.
    Before(SequenceNumber),
    /// This user record and all records before it are processed.
    At(ExtendedSequenceNumber),
    /// The shard is closed, and all of it is processed.
    ShardEnd,
}

impl Checkpoint {
    /// Returns true for a position to start at. Then no record was checkpointed yet.
    pub fn is_initial(&self) -> bool {
        matches!(self, Self::AtTimestamp | Self::TrimHorizon | Self::Latest | Self::Before(_))
    }

    /// The checkpoint of a Kinesis record of which all user records are processed, however many there are.
    pub(crate) fn after_all_of(record: SequenceNumber) -> Self {
        Self::At(ExtendedSequenceNumber::new(record, LARGEST_SUB_SEQUENCE_NUMBER))
    }

    /// The text of the `checkpoint` attribute.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::AtTimestamp => "AT_TIMESTAMP",
            Self::TrimHorizon => "TRIM_HORIZON",
            Self::Latest => "LATEST",
            Self::Before(number) => number.as_str(),
            Self::At(position) => position.sequence_number.as_str(),
            Self::ShardEnd => "SHARD_END",
        }
    }

    /// The number in the `checkpointSubSequenceNumber` attribute: 0 for the sentinels, -1 before the first user record.
    pub(crate) fn sub_sequence_number(&self) -> i128 {
        match self {
            Self::At(position) => position.sub_sequence_number.into(),
            Self::Before(_) => BEFORE_THE_RECORD,
            _ => 0,
        }
    }

    /// Parses the two attributes of a lease item. `None`: the text is neither a sentinel nor a sequence number, or the
    /// number does not fit it.
    pub(crate) fn parse(text: &str, sub_sequence_number: i128) -> Option<Self> {
        if sub_sequence_number == BEFORE_THE_RECORD {
            return Some(Self::Before(text.parse().ok()?));
        }
        let sub_sequence_number = u64::try_from(sub_sequence_number).ok()?;
        Some(match text {
            "AT_TIMESTAMP" => Self::AtTimestamp,
            "TRIM_HORIZON" => Self::TrimHorizon,
            "LATEST" => Self::Latest,
            "SHARD_END" => Self::ShardEnd,
            number => {
                Self::At(ExtendedSequenceNumber::new(number.parse().ok()?, sub_sequence_number))
            }
        })
    }
}

impl Checkpoint {
    /// What the order compares: a checkpoint before a record is less than one at its first user record.
    fn rank(&self) -> (u8, Option<(&SequenceNumber, Option<u64>)>) {
        match self {
            Self::AtTimestamp => (0, None),
            Self::TrimHorizon => (1, None),
            Self::Latest => (2, None),
            Self::Before(number) => (3, Some((number, None))),
            Self::At(at) => (3, Some((&at.sequence_number, Some(at.sub_sequence_number)))),
            Self::ShardEnd => (4, None),
        }
    }
}

/// Serializes as text.
#[cfg(feature = "serde")]
impl serde::Serialize for Checkpoint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Ord for Checkpoint {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for Checkpoint {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before(number) => write!(f, "before {number}"),
            Self::At(position) => position.fmt(f),
            sentinel => f.write_str(sentinel.as_str()),
        }
    }
}

/// Failure of a checkpoint.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// This worker does not own the lease any more, or cannot be sure that it does, for example because the lease table
    /// did not answer for the failover time. Another worker processes the shard from the last checkpoint on. Stop
    /// processing the shard, and do not retry.
    #[error(
        "the lease of shard {shard_id} is lost: stop processing it, another worker goes on from the last checkpoint"
    )]
    LeaseLost {
        /// The shard.
        shard_id: String,
    },
    /// The position was not delivered to this processor yet, or lies before the checkpoint in force.
    #[error(
        "cannot checkpoint at {requested}: give a record delivered to this processor, \
         after {lowest} and up to {highest}"
    )]
    OutOfRange {
        /// The position that was asked for.
        requested: Box<Checkpoint>,
        /// The checkpoint in force.
        lowest: Box<Checkpoint>,
        /// The last position delivered.
        highest: Box<Checkpoint>,
    },
    /// DynamoDB throttled the last attempt before a planned stop ran out of time. Until then, the library tries again.
    /// An earlier attempt may have been written although its answer was lost. If none was, the next owner of the shard
    /// gets the records since the last checkpoint again.
    #[error(
        "the lease table throttled the checkpoint of shard {shard_id}: retry later, or raise the table's write capacity"
    )]
    Throttled {
        /// The shard.
        shard_id: String,
        /// The last error of the client.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// DynamoDB refused the request for good, or could not be reached before a planned stop ran out of time. The checkpoint
    /// may have been written.
    #[error(
        "the checkpoint of shard {shard_id} could not be written to the lease table: see the source"
    )]
    Store {
        /// The shard.
        shard_id: String,
        /// True if the same request may succeed later.
        retryable: bool,
        /// The last error of the client.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
}

impl CheckpointError {
    pub(crate) fn out_of_range(
        requested: Checkpoint,
        lowest: Checkpoint,
        highest: Checkpoint,
    ) -> Self {
        let [requested, lowest, highest] = [requested, lowest, highest].map(Box::new);
        Self::OutOfRange { requested, lowest, highest }
    }

    /// Returns true if the same call may succeed later, in the same processor.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Throttled { .. } => true,
            Self::Store { retryable, .. } => *retryable,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: &str, sub: u64) -> Checkpoint {
        Checkpoint::At(ExtendedSequenceNumber::new(number.parse().unwrap(), sub))
    }

    #[test]
    fn orders_as_java_does() {
        let ascending = [
            Checkpoint::AtTimestamp,
            Checkpoint::TrimHorizon,
            Checkpoint::Latest,
            at("0", 0),
            at("9", 7),
            Checkpoint::Before("10".parse().unwrap()),
            at("10", 0),
            at("10", 1),
            Checkpoint::ShardEnd,
        ];
        assert!(ascending.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn text_and_back() {
        for checkpoint in [
            Checkpoint::AtTimestamp,
            Checkpoint::TrimHorizon,
            Checkpoint::Latest,
            at("49680423998448199394140700329433276993968542601086763026", 3),
            at("7", u64::MAX),
            Checkpoint::Before("7".parse().unwrap()),
            Checkpoint::after_all_of("7".parse().unwrap()),
            Checkpoint::ShardEnd,
        ] {
            let parsed = Checkpoint::parse(checkpoint.as_str(), checkpoint.sub_sequence_number());
            assert_eq!(parsed, Some(checkpoint));
        }
        assert_eq!(Checkpoint::parse("shard_end", 0), None);
        assert_eq!(Checkpoint::parse("", 0), None);
        for (text, sub) in [("7", -2), ("7", i128::MAX), ("TRIM_HORIZON", -1)] {
            assert_eq!(Checkpoint::parse(text, sub), None, "{text} {sub}");
        }
    }
}
