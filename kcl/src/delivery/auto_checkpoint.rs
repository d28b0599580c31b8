//! When the library checkpoints by itself.

use std::time::Duration;

use crate::config::CheckpointPolicy;

/// Pause after an automatic checkpoint that could not be written.
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// The clockwork of the automatic checkpoint policies; never due under `Manual`.
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

    /// A batch has succeeded.
    pub(crate) fn delivered(&mut self) {
        self.unwritten = self.every.is_some();
    }

    /// The library checkpoints for the processor.
    pub(crate) fn is_on(&self) -> bool {
        self.every.is_some()
    }

    /// A renewal wrote at `at` all that had succeeded until then: the interval starts anew.
    pub(crate) fn carried(&mut self, at: Duration) {
        self.not_before = self.not_before.max(at + self.every.unwrap_or_default());
    }

    /// How long until the next checkpoint; `None`: nothing to write.
    pub(crate) fn due_in(&self, now: Duration) -> Option<Duration> {
        self.unwritten.then(|| self.not_before.saturating_sub(now))
    }

    /// A checkpoint was tried.
    pub(crate) fn tried(&mut self, now: Duration, written: bool) {
        let every = self.every.unwrap_or_default();
        self.unwritten = !written;
        self.not_before = now + if written { every } else { every.max(AFTER_FAILURE) };
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
        assert_eq!(auto.due_in(secs(100)), None);
    }

    #[test]
    fn after_each_batch_at_once() {
        let mut auto = AutoCheckpoint::new(CheckpointPolicy::AfterBatch, secs(5));
        assert_eq!(auto.due_in(secs(5)), None);
        auto.delivered();
        assert_eq!(auto.due_in(secs(5)), Some(secs(0)));
        auto.tried(secs(5), true);
        assert_eq!(auto.due_in(secs(5)), None);
    }

    #[test]
    fn the_interval_starts_anew_with_what_a_renewal_wrote() {
        let mut auto = AutoCheckpoint::new(CheckpointPolicy::Interval(secs(10)), secs(0));
        auto.delivered();
        auto.carried(secs(4));
        assert_eq!(auto.due_in(secs(9)), Some(secs(5)));
        auto.tried(secs(14), true);
        auto.delivered();
        auto.carried(secs(4));
        assert_eq!(auto.due_in(secs(14)), Some(secs(10)), "it was earlier");
    }

    #[test]
    fn once_per_interval_and_again_soon_after_a_failure() {
        let mut auto = AutoCheckpoint::new(CheckpointPolicy::Interval(secs(10)), secs(0));
        auto.delivered();
        assert_eq!(auto.due_in(secs(4)), Some(secs(6)));
        auto.tried(secs(10), true);
        auto.delivered();
        assert_eq!(auto.due_in(secs(11)), Some(secs(9)));

        let mut auto = AutoCheckpoint::new(CheckpointPolicy::AfterBatch, secs(0));
        auto.delivered();
        auto.tried(secs(0), false);
        auto.carried(secs(0));
        assert_eq!(auto.due_in(secs(0)), Some(AFTER_FAILURE));
    }
}
