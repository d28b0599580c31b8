//! Where in a shard reading starts, and goes on.

use std::time::SystemTime;

use crate::checkpoint::Checkpoint;
use crate::config::InitialPosition;
use crate::sequence::SequenceNumber;

/// The next place to read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// The oldest record kept.
    TrimHorizon,
    /// Records put from now on.
    Latest,
    /// The first record that arrived at this time or later.
    Time(SystemTime),
    /// This record. What of it was checkpointed already is filtered after de-aggregation.
    At(SequenceNumber),
    /// Behind this record, the last one fetched.
    After(SequenceNumber),
}

impl Position {
    /// The last record fetched, if the position says it.
    pub(crate) fn fetched(&self) -> Option<&SequenceNumber> {
        match self {
            Self::After(number) => Some(number),
            _ => None,
        }
    }

    /// Where the owner of a lease starts; `None`: the shard is done.
    ///
    /// `resume_from` is the time at which a lease at `LATEST` was created: nothing put since is
    /// missed, however late its first owner comes.
    pub(crate) fn start(
        checkpoint: &Checkpoint,
        resume_from: Option<SystemTime>,
        initial: InitialPosition,
    ) -> Option<Self> {
        Some(match checkpoint {
            Checkpoint::At(position) => Self::At(position.sequence_number.clone()),
            Checkpoint::TrimHorizon => Self::TrimHorizon,
            Checkpoint::Latest => resume_from.map_or(Self::Latest, Self::Time),
            Checkpoint::AtTimestamp => match (initial, resume_from) {
                (InitialPosition::AtTimestamp(time), _) | (_, Some(time)) => Self::Time(time),
                // The settings have changed since: nothing may be skipped.
                _ => Self::TrimHorizon,
            },
            Checkpoint::ShardEnd => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::sequence::ExtendedSequenceNumber;

    #[test]
    fn each_checkpoint_starts_where_it_says() {
        let number: SequenceNumber = "42".parse().unwrap();
        let at = Checkpoint::At(ExtendedSequenceNumber::new(number.clone(), 3));
        let early = UNIX_EPOCH + Duration::from_secs(1);
        let late = UNIX_EPOCH + Duration::from_secs(2);
        use InitialPosition::{AtTimestamp, Latest, TrimHorizon};
        for (checkpoint, resume_from, initial, expected) in [
            (&at, Some(early), Latest, Some(Position::At(number))),
            (&Checkpoint::TrimHorizon, None, Latest, Some(Position::TrimHorizon)),
            (&Checkpoint::Latest, None, TrimHorizon, Some(Position::Latest)),
            (&Checkpoint::Latest, Some(early), Latest, Some(Position::Time(early))),
            (&Checkpoint::AtTimestamp, None, AtTimestamp(late), Some(Position::Time(late))),
            (&Checkpoint::AtTimestamp, Some(early), AtTimestamp(late), Some(Position::Time(late))),
            (&Checkpoint::AtTimestamp, Some(early), Latest, Some(Position::Time(early))),
            (&Checkpoint::AtTimestamp, None, Latest, Some(Position::TrimHorizon)),
            (&Checkpoint::ShardEnd, None, TrimHorizon, None),
        ] {
            let start = Position::start(checkpoint, resume_from, initial);
            assert_eq!(start, expected, "{checkpoint} {resume_from:?} {initial:?}");
        }
    }
}
