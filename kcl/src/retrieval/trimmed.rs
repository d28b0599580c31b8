//! Detects that retention deleted records before they were read.
//!
//! The service does not report it: an iterator at a record that was deleted starts at the oldest record that is
//! left. That may be the next record after all, because a shard without new records loses the record of its
//! checkpoint, too. The time up to which the shard was read decides:
//!
//! * The owner of a lease notes in it the time up to which everything was read and checkpointed, at least
//!   each half hour while the shard is at its tip. If the record of the checkpoint is gone, and that time is
//!   within the retention, nothing was deleted unread. If that time is before the retention, no worker of
//!   this library read the shard for longer than its records are kept: a gap.
//! * Without a note, it is not known whether there is a gap: a warning is logged, and no problem is reported. A
//!   lease that a worker of another library created has no note until a worker of this library has read the
//!   shard to its tip. A worker of another library that owns a lease writes no note, so the next owner of this
//!   library removes the note that it finds.
//! * If a reader was behind the tip at its last read, and that read is longer ago than records are kept, records
//!   were deleted unread.

use std::time::{Duration, SystemTime};

use crate::sequence::SequenceNumber;

/// A check for deleted records, to be made with the next answer of a shard.
#[derive(Debug, Clone)]
pub(super) struct TrimCheck {
    /// The last record that was processed.
    pub(super) position: SequenceNumber,
    /// True if the next answer begins with that record, should it still exist.
    is_included: bool,
    /// Time up to which everything was read. `None`: unknown.
    pub(super) read_to: Option<SystemTime>,
}

/// What an answer shows about the records before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing is missing.
    Sound,
    /// It has no record, and did not reach the tip.
    NotYet,
    /// The record of the position is gone, or was not asked for. The time decides.
    Gone,
}

/// What retention deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trimmed {
    /// No unread record.
    Nothing,
    /// The record of the checkpoint. Whether unread records were deleted, too, is unknown.
    CannotBeTold,
    /// Records that no worker of this library has read.
    Unread,
}

impl TrimCheck {
    /// The check of the first read under a lease, which begins at the record of the checkpoint. `read_to`: as
    /// noted in the lease.
    pub(super) fn at_checkpoint(position: SequenceNumber, read_to: Option<SystemTime>) -> Self {
        Self { position, is_included: true, read_to }
    }

    /// The check of a read after the last record fetched. The last answer, at `answered`, said that there are more.
    pub(super) fn after(position: SequenceNumber, answered: SystemTime) -> Self {
        Self { position, is_included: false, read_to: Some(answered) }
    }

    /// Examines an answer. `first`: its first record. `is_last`: it reached the tip or the shard's end.
    pub(super) fn see(&self, first: Option<&SequenceNumber>, is_last: bool) -> Seen {
        match first {
            Some(first) if self.is_included && *first == self.position => Seen::Sound,
            Some(_) => Seen::Gone,
            // The answer would have held the record.
            None if is_last => Seen::Gone,
            None => Seen::NotYet,
        }
    }

    /// Decides what was deleted. `now`: the service's time. `retention`: the time for which records are kept.
    pub(super) fn judge(&self, now: SystemTime, retention: Duration) -> Trimmed {
        let horizon = now.checked_sub(retention).unwrap_or(SystemTime::UNIX_EPOCH);
        match self.read_to {
            Some(read_to) if read_to >= horizon => Trimmed::Nothing,
            Some(_) => Trimmed::Unread,
            None => Trimmed::CannotBeTold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn number(number: u64) -> SequenceNumber {
        number.to_string().parse().unwrap()
    }

    #[test]
    fn what_an_answer_says() {
        let checkpoint = TrimCheck::at_checkpoint(number(5), None);
        let behind = TrimCheck::after(number(5), SystemTime::UNIX_EPOCH);
        let (five, nine) = (number(5), number(9));
        for (check, first, is_last, seen) in [
            (&checkpoint, Some(&five), true, Seen::Sound),
            (&checkpoint, Some(&nine), false, Seen::Gone),
            (&checkpoint, None, false, Seen::NotYet),
            (&checkpoint, None, true, Seen::Gone),
            (&behind, Some(&nine), true, Seen::Gone),
            (&behind, None, false, Seen::NotYet),
        ] {
            assert_eq!(check.see(first, is_last), seen, "{check:?} {first:?}");
        }
    }

    #[test]
    fn only_a_time_before_the_retention_is_a_gap() {
        let now = SystemTime::UNIX_EPOCH + 1000 * HOUR;
        for (read_to, trimmed) in [
            (Some(now - HOUR), Trimmed::Nothing),
            (Some(now - 24 * HOUR), Trimmed::Nothing),
            (Some(now - 25 * HOUR), Trimmed::Unread),
            (Some(SystemTime::UNIX_EPOCH), Trimmed::Unread),
            (None, Trimmed::CannotBeTold),
        ] {
            let check = TrimCheck::at_checkpoint(number(5), read_to);
            assert_eq!(check.judge(now, 24 * HOUR), trimmed, "{read_to:?}");
        }
    }
}
