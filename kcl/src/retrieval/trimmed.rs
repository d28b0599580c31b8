//! Whether retention deleted records before they were read.
//!
//! The service does not say so: an iterator at a record that was deleted starts at the oldest record that
//! is left. That may be the next record all the same, because a shard without new records loses the record
//! of its checkpoint, too. The time up to which the shard was read decides:
//!
//! * The owner of a lease notes in it the time up to which everything was read and checkpointed, at least
//!   each half hour while the shard is at its tip. If the record of the checkpoint is gone, and that time is
//!   within the retention, nothing was deleted unread. If that time is before the retention, no worker of
//!   this library read the shard for longer than its records are kept: a gap.
//! * Without a note it cannot be told whether there is a gap: a warning is logged, and no alarm raised. A
//!   lease that a worker of another library created has no note until a worker of this library has read the
//!   shard to its tip. A worker of another library that owns a lease reads without a note, so the next owner
//!   of this library removes the note that it finds.
//! * A reader that was behind the tip when it last read, longer ago than records are kept, has lost
//!   records for certain.

use std::time::{Duration, SystemTime};

use crate::sequence::SequenceNumber;

/// Something to find out with the next answer of a shard.
#[derive(Debug, Clone)]
pub(super) struct TrimCheck {
    /// The last record that was processed.
    position: SequenceNumber,
    /// The next answer begins with that record, if it still exists.
    is_included: bool,
    /// Up to when everything was read. `None`: not known.
    read_to: Option<SystemTime>,
}

/// What an answer says about the records before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing is missing.
    Sound,
    /// There is no record yet, and the tip is not reached.
    NotYet,
    /// The record of the position is gone, or was not asked for: time decides.
    Gone,
}

/// What retention did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trimmed {
    Nothing,
    /// It deleted the record of the checkpoint. Whether it deleted others unread is not known.
    CannotBeTold,
    /// It deleted records that no worker of this library has read.
    Unread,
}

impl TrimCheck {
    /// For the first read under a lease, which begins at the record of the checkpoint. `read_to`: as the
    /// lease notes it.
    pub(super) fn at_checkpoint(position: SequenceNumber, read_to: Option<SystemTime>) -> Self {
        Self { position, is_included: true, read_to }
    }

    /// Behind the last record fetched, when the last answer, at `answered`, said that there are more.
    pub(super) fn behind(position: SequenceNumber, answered: SystemTime) -> Self {
        Self { position, is_included: false, read_to: Some(answered) }
    }

    pub(super) fn position(&self) -> &SequenceNumber {
        &self.position
    }

    pub(super) fn read_to(&self) -> Option<SystemTime> {
        self.read_to
    }

    /// `first`: the first record of the answer; `is_last`: the answer reached the tip, or the shard's end.
    pub(super) fn see(&self, first: Option<&SequenceNumber>, is_last: bool) -> Seen {
        match first {
            Some(first) if self.is_included && *first == self.position => Seen::Sound,
            Some(_) => Seen::Gone,
            // The record would have been in it.
            None if is_last => Seen::Gone,
            None => Seen::NotYet,
        }
    }

    /// Judges by the service's time, where records are kept for `retention`.
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
        let behind = TrimCheck::behind(number(5), SystemTime::UNIX_EPOCH);
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
