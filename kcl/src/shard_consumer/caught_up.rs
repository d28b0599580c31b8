//! Up to when a shard was read and checkpointed, for its lease: pure.
//!
//! After a restart it tells a shard that had no records for longer than they are kept from one whose
//! records were deleted unread.

use std::time::{Duration, SystemTime};

use crate::checkpoint::Checkpoint;
use crate::sequence::ExtendedSequenceNumber;
use crate::snapshot::Tip;

/// How often it is written at most. Records are kept for 24 hours at least.
const NOTE_EVERY: Duration = Duration::from_secs(1800);
/// How often it is looked for.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is noted, and what was delivered.
#[derive(Debug)]
pub(super) struct CaughtUp {
    noted: Option<SystemTime>,
    delivered: Option<ExtendedSequenceNumber>,
}

impl CaughtUp {
    /// `noted`: as the lease has it.
    pub(super) fn new(noted: Option<SystemTime>) -> Self {
        Self {
            noted,
            delivered: None,
        }
    }

    /// The processor has taken all up to here.
    pub(super) fn delivered(&mut self, end: Option<ExtendedSequenceNumber>) {
        self.delivered = end.or(self.delivered.take());
    }

    /// The time to note now: everything that arrived before it is checkpointed.
    pub(super) fn due(&self, checkpoint: &Checkpoint, tip: &Tip) -> Option<SystemTime> {
        let fetched = tip.fetched.as_ref().is_none_or(
            |fetched| matches!(checkpoint, Checkpoint::At(at) if at.sequence_number >= *fetched),
        );
        let delivered = self
            .delivered
            .as_ref()
            .is_none_or(|end| matches!(checkpoint, Checkpoint::At(at) if at >= end));
        let is_old = self
            .noted
            .is_none_or(|noted| tip.reached >= noted + NOTE_EVERY);
        (fetched && delivered && is_old).then_some(tip.reached)
    }

    pub(super) fn noted(&mut self, time: SystemTime) {
        self.noted = Some(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sequence: u64, sub: u64) -> ExtendedSequenceNumber {
        ExtendedSequenceNumber::new(sequence.to_string().parse().unwrap(), sub)
    }

    fn tip(fetched: Option<u64>) -> Tip {
        Tip {
            reached: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
            fetched: fetched.map(|number| number.to_string().parse().unwrap()),
        }
    }

    #[test]
    fn only_what_is_checkpointed_is_noted() {
        let mut caught_up = CaughtUp::new(Some(SystemTime::UNIX_EPOCH));
        let nothing = tip(None);
        assert!(caught_up.due(&Checkpoint::TrimHorizon, &nothing).is_some());
        assert!(caught_up.due(&Checkpoint::At(at(5, 0)), &nothing).is_some());
        // Fetched, and not delivered yet.
        let fetched = tip(Some(9));
        assert_eq!(caught_up.due(&Checkpoint::At(at(5, 0)), &fetched), None);
        // Delivered, and checkpointed in part.
        caught_up.delivered(Some(at(9, 3)));
        assert_eq!(caught_up.due(&Checkpoint::At(at(9, 2)), &fetched), None);
        assert_eq!(
            caught_up.due(&Checkpoint::At(at(9, 3)), &fetched),
            Some(fetched.reached)
        );
    }

    #[test]
    fn it_is_noted_each_half_hour() {
        let reached = tip(None).reached;
        for (noted, due) in [
            (Some(reached - NOTE_EVERY), true),
            (Some(reached - NOTE_EVERY / 2), false),
            (None, true),
        ] {
            let caught_up = CaughtUp::new(noted);
            let found = caught_up.due(&Checkpoint::Latest, &tip(None));
            assert_eq!(found.is_some(), due, "{noted:?}");
        }
    }
}
