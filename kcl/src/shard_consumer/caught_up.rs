//! Up to when a shard was read and checkpointed, as a note for its lease: pure.
//!
//! By this note the next owner tells a shard that had no records for longer than they are kept from one
//! whose records were deleted unread.

use std::time::{Duration, SystemTime};

use crate::checkpoint::Checkpoint;
use crate::sequence::{ExtendedSequenceNumber, SequenceNumber};
use crate::snapshot::Tip;

/// Shortest time between two notes. Records are kept for 24 hours at least.
const NOTE_EVERY: Duration = Duration::from_secs(1800);
/// Pause between two checks whether a note is due.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The last note in the lease, and how far the processor is.
#[derive(Debug)]
pub(super) struct CaughtUp {
    noted: Option<SystemTime>,
    /// The last record of the pages that processing is done with, whether or not it was delivered.
    passed: Option<SequenceNumber>,
    /// The last record that the processor has taken.
    delivered: Option<ExtendedSequenceNumber>,
}

impl CaughtUp {
    /// `noted`: as the lease has it.
    pub(super) fn new(noted: Option<SystemTime>) -> Self {
        Self { noted, passed: None, delivered: None }
    }

    /// Processing is done with a page: `last` is its last record, and `delivered` the last one that was
    /// delivered of it. They differ if the last record is an aggregate of which nothing was to be
    /// delivered: no checkpoint ever reaches it.
    pub(super) fn passed(
        &mut self,
        last: Option<SequenceNumber>,
        delivered: Option<ExtendedSequenceNumber>,
    ) {
        self.passed = last.or(self.passed.take());
        self.delivered = delivered.or(self.delivered.take());
    }

    /// The time to note now: everything that arrived before it is checkpointed, or was not to be
    /// delivered.
    pub(super) fn due(&self, checkpoint: &Checkpoint, tip: &Tip) -> Option<SystemTime> {
        let checkpoint = match checkpoint {
            Checkpoint::At(at) => Some(at),
            _ => None,
        };
        // The checkpoint does not tell: it may be within the aggregate that was fetched last.
        let nothing_waits = tip
            .fetched
            .as_ref()
            .is_none_or(|fetched| self.passed.as_ref().is_some_and(|passed| passed >= fetched));
        let delivered = self.delivered.as_ref();
        let is_checkpointed = delivered.is_none_or(|end| checkpoint.is_some_and(|at| at >= end));
        let is_old = self.noted.is_none_or(|noted| tip.reached >= noted + NOTE_EVERY);
        (nothing_waits && is_checkpointed && is_old).then_some(tip.reached)
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

    fn number(number: u64) -> SequenceNumber {
        number.to_string().parse().unwrap()
    }

    fn tip(fetched: Option<u64>) -> Tip {
        Tip {
            reached: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
            fetched: fetched.map(number),
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
        caught_up.passed(Some(number(9)), Some(at(9, 3)));
        assert_eq!(caught_up.due(&Checkpoint::At(at(9, 2)), &fetched), None);
        assert_eq!(caught_up.due(&Checkpoint::At(at(9, 3)), &fetched), Some(fetched.reached));
    }

    #[test]
    fn a_page_of_which_an_earlier_owner_processed_a_part_is_not_noted_before_it_is_processed() {
        let mut caught_up = CaughtUp::new(None);
        // The checkpoint is within the aggregate, whose other members were fetched again.
        let fetched = tip(Some(9));
        assert_eq!(caught_up.due(&Checkpoint::At(at(9, 2)), &fetched), None);
        caught_up.passed(Some(number(9)), Some(at(9, 9)));
        assert_eq!(caught_up.due(&Checkpoint::At(at(9, 8)), &fetched), None);
        assert!(caught_up.due(&Checkpoint::At(at(9, 9)), &fetched).is_some());
    }

    #[test]
    fn a_page_whose_last_record_has_nothing_to_deliver_is_noted_with_what_was_delivered() {
        let mut caught_up = CaughtUp::new(None);
        let fetched = tip(Some(9));
        assert_eq!(caught_up.due(&Checkpoint::TrimHorizon, &fetched), None);
        // All of the page was dropped.
        caught_up.passed(Some(number(9)), None);
        assert!(caught_up.due(&Checkpoint::TrimHorizon, &fetched).is_some());
        assert!(caught_up.due(&Checkpoint::At(at(5, 0)), &fetched).is_some());
        // A later page: the records before the dropped one must be checkpointed.
        let fetched = tip(Some(12));
        assert_eq!(caught_up.due(&Checkpoint::At(at(5, 0)), &fetched), None);
        caught_up.passed(Some(number(12)), Some(at(11, 2)));
        assert_eq!(caught_up.due(&Checkpoint::At(at(11, 1)), &fetched), None);
        assert_eq!(caught_up.due(&Checkpoint::TrimHorizon, &fetched), None);
        assert!(caught_up.due(&Checkpoint::At(at(11, 2)), &fetched).is_some());
        // The last page of a shard may have no records.
        caught_up.passed(None, None);
        assert!(caught_up.due(&Checkpoint::At(at(11, 2)), &fetched).is_some());
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
