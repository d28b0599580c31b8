//! Schedules of the writes that the library makes by itself: automatic checkpoints, and the note of the time up
//! to which a shard was read.

use std::time::{Duration, SystemTime};

use crate::config::CheckpointPolicy;

/// Pause after an automatic checkpoint that could not be written.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Schedule of the automatic checkpoint policies. Under `Manual`, no checkpoint is ever due.
#[derive(Debug)]
pub(crate) struct AutoCheckpoint {
    every: Option<Duration>,
    not_before: Duration,
    unwritten: bool,
}

impl AutoCheckpoint {
    pub(crate) fn new(policy: CheckpointPolicy, now: Duration) -> Self {
        let every = match policy {
            CheckpointPolicy::Manual => None,
            CheckpointPolicy::AfterBatch => Some(Duration::ZERO),
            CheckpointPolicy::Interval(interval) => Some(interval),
        };
        Self { every, not_before: now + every.unwrap_or_default(), unwritten: false }
    }

    /// Notes that a batch has succeeded.
    pub(crate) fn delivered(&mut self) {
        self.unwritten = self.every.is_some();
    }

    /// True if the library checkpoints for the processor.
    pub(crate) fn is_on(&self) -> bool {
        self.every.is_some()
    }

    /// Time until the next checkpoint. `None`: there is nothing to write. `carried_at`: when a renewal last wrote
    /// the checkpoint. The interval starts anew then.
    pub(crate) fn due_in(&self, now: Duration, carried_at: Option<Duration>) -> Option<Duration> {
        let since_carried = carried_at.map(|at| at + self.every.unwrap_or_default());
        let due = since_carried.map_or(self.not_before, |due| due.max(self.not_before));
        self.unwritten.then(|| due.saturating_sub(now))
    }

    /// Notes an attempt to checkpoint.
    pub(crate) fn tried(&mut self, now: Duration, written: bool) {
        let every = self.every.unwrap_or_default();
        self.unwritten = !written;
        self.not_before = now + if written { every } else { every.max(AFTER_FAILURE) };
    }
}

/// Shortest time between two notes. Records are kept for at least 24 hours.
const NOTE_EVERY: Duration = Duration::from_secs(1800);

/// Schedule of the note in a lease of the time up to which its shard was read.
///
/// By this note, the next owner tells a shard that had no records for longer than they are kept from a shard whose
/// records were deleted unread.
#[derive(Debug)]
pub(crate) struct ReadToNote {
    noted: Option<SystemTime>,
}

impl ReadToNote {
    /// `noted`: the note of the lease.
    pub(crate) fn new(noted: Option<SystemTime>) -> Self {
        Self { noted }
    }

    /// True if the shard, read up to `read_to`, needs a new note.
    pub(crate) fn is_due(&self, read_to: SystemTime) -> bool {
        self.noted.is_none_or(|noted| read_to >= noted + NOTE_EVERY)
    }

    pub(crate) fn noted(&mut self, read_to: SystemTime) {
        self.noted = Some(read_to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn manual_is_never_due() {
        let mut auto = AutoCheckpoint::new(CheckpointPolicy::Manual, secs(0));
        auto.delivered();
        assert_eq!(auto.due_in(secs(100), None), None);
    }

    #[test]
    fn after_each_batch_at_once() {
        let mut auto = AutoCheckpoint::new(CheckpointPolicy::AfterBatch, secs(5));
        assert_eq!(auto.due_in(secs(5), None), None);
        auto.delivered();
        assert_eq!(auto.due_in(secs(5), None), Some(secs(0)));
        auto.tried(secs(5), true);
        assert_eq!(auto.due_in(secs(5), None), None);
    }

    #[test]
    fn the_interval_starts_anew_with_what_a_renewal_wrote() {
        let mut auto = AutoCheckpoint::new(CheckpointPolicy::Interval(secs(10)), secs(0));
        auto.delivered();
        let carried_at = Some(secs(4));
        assert_eq!(auto.due_in(secs(9), carried_at), Some(secs(5)));
        auto.tried(secs(14), true);
        auto.delivered();
        assert_eq!(auto.due_in(secs(14), carried_at), Some(secs(10)), "it was earlier");
    }

    #[test]
    fn once_per_interval_and_again_soon_after_a_failure() {
        let mut auto = AutoCheckpoint::new(CheckpointPolicy::Interval(secs(10)), secs(0));
        auto.delivered();
        assert_eq!(auto.due_in(secs(4), None), Some(secs(6)));
        auto.tried(secs(10), true);
        auto.delivered();
        assert_eq!(auto.due_in(secs(11), None), Some(secs(9)));

        let mut auto = AutoCheckpoint::new(CheckpointPolicy::AfterBatch, secs(0));
        auto.delivered();
        auto.tried(secs(0), false);
        assert_eq!(auto.due_in(secs(0), Some(secs(0))), Some(AFTER_FAILURE));
    }

    #[test]
    fn a_note_is_due_each_half_hour() {
        let read_to = SystemTime::UNIX_EPOCH + secs(1_000_000);
        for (noted, is_due) in [
            (Some(read_to - NOTE_EVERY), true),
            (Some(read_to - NOTE_EVERY / 2), false),
            (None, true),
        ] {
            assert_eq!(ReadToNote::new(noted).is_due(read_to), is_due, "{noted:?}");
        }
    }
}
