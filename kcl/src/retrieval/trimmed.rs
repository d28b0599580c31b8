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

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_smithy_types::DateTime;

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
    /// Records that no worker of this library has read, up to this time of arrival.
    Unread(SystemTime),
}

/// The records that retention deleted before they were read. Their number is unknown: sequence numbers have gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    /// The last record before them.
    pub(super) after: SequenceNumber,
    /// The time up to which all records were read. `None`: unknown.
    pub(super) from: Option<SystemTime>,
    /// The time before which retention deletes records.
    pub(super) until: SystemTime,
    /// The oldest record that is left, and its arrival.
    pub(super) oldest: Option<(SequenceNumber, Option<SystemTime>)>,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { after, from, until, oldest } = self;
        write!(f, "retention deleted the records after number {after} before they were read, ")?;
        match from {
            Some(from) => {
                let span = until.duration_since(*from).unwrap_or_default();
                let (from, until) = (DateTime::from(*from), DateTime::from(*until));
                let seconds = span.as_secs();
                write!(f, "those that arrived from {from} to {until} ({seconds} s)")?;
            }
            None => write!(f, "those that arrived up to {}", DateTime::from(*until))?,
        }
        match oldest {
            Some((number, Some(arrival))) => write!(
                f,
                "; the oldest record that is left has number {number} and arrived at {}",
                DateTime::from(*arrival)
            ),
            Some((number, None)) => {
                write!(f, "; the oldest record that is left has number {number}")
            }
            None => f.write_str("; no record is left"),
        }
    }
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

    /// The gap between the last record read and `oldest`, the oldest record that is left.
    pub(super) fn gap(
        &self,
        until: SystemTime,
        oldest: Option<(SequenceNumber, Option<SystemTime>)>,
    ) -> Gap {
        // A new lease notes the epoch.
        let from = self.read_to.filter(|time| *time > SystemTime::UNIX_EPOCH);
        Gap { after: self.position.clone(), from, until, oldest }
    }

    /// Decides what was deleted. `now`: the service's time. `retention`: the time for which records are kept.
    pub(super) fn judge(&self, now: SystemTime, retention: Duration) -> Trimmed {
        let horizon = now.checked_sub(retention).unwrap_or(SystemTime::UNIX_EPOCH);
        match self.read_to {
            Some(read_to) if read_to >= horizon => Trimmed::Nothing,
            Some(_) => Trimmed::Unread(horizon),
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
    fn a_gap_is_told_with_its_numbers_and_times() {
        let at = |hour| SystemTime::UNIX_EPOCH + hour * HOUR;
        let check = TrimCheck::at_checkpoint(number(5), Some(at(1)));
        let gap = check.gap(at(3), Some((number(9), Some(at(4)))));
        assert_eq!(
            gap.to_string(),
            "retention deleted the records after number 5 before they were read, those that arrived from \
             1970-01-01T01:00:00Z to 1970-01-01T03:00:00Z (7200 s); the oldest record that is left has \
             number 9 and arrived at 1970-01-01T04:00:00Z"
        );
        let check = TrimCheck::at_checkpoint(number(5), Some(SystemTime::UNIX_EPOCH));
        assert_eq!(
            check.gap(at(3), None).to_string(),
            "retention deleted the records after number 5 before they were read, those that arrived up to \
             1970-01-01T03:00:00Z; no record is left"
        );
    }

    #[test]
    fn only_a_time_before_the_retention_is_a_gap() {
        let now = SystemTime::UNIX_EPOCH + 1000 * HOUR;
        for (read_to, trimmed) in [
            (Some(now - HOUR), Trimmed::Nothing),
            (Some(now - 24 * HOUR), Trimmed::Nothing),
            (Some(now - 25 * HOUR), Trimmed::Unread(now - 24 * HOUR)),
            (Some(SystemTime::UNIX_EPOCH), Trimmed::Unread(now - 24 * HOUR)),
            (None, Trimmed::CannotBeTold),
        ] {
            let check = TrimCheck::at_checkpoint(number(5), read_to);
            assert_eq!(check.judge(now, 24 * HOUR), trimmed, "{read_to:?}");
        }
    }
}
