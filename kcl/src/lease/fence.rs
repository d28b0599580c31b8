//! Until when an owner may believe that it owns: arithmetic on the injected clock.

use std::time::Duration;

/// The local deadline of an ownership.
///
/// Others call a lease expired when its counter stood still for the failover time as they saw it.
/// The counter moved no earlier than the write was *sent*, so an owner that counts from there stops
/// before anybody may take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fence {
    failover: Duration,
    renewed: Duration,
    /// A write since `renewed` failed: it may have been done nevertheless.
    unclear: bool,
    /// The counter was found moved, nobody knows by whom: a renewal must tell.
    unproven: bool,
}

impl Fence {
    /// `sent`: when the write that acquired the lease was sent.
    pub(crate) fn new(failover: Duration, sent: Duration) -> Self {
        Self { failover, renewed: sent, unclear: false, unproven: false }
    }

    /// A write that was sent at `sent` was answered: it moved the counter.
    pub(crate) fn succeeded(&mut self, sent: Duration) {
        self.renewed = self.renewed.max(sent);
        self.unclear = false;
        self.unproven = false;
    }

    /// The counter was found moved: by a write of ours whose answer was lost, or by a leader that took
    /// a handoff back. When is not known, so the deadline stays, and a renewal is due at once. Writes
    /// that knew the old counter can do nothing any more.
    pub(crate) fn read_back(&mut self) {
        self.unclear = false;
        self.unproven = true;
    }

    /// A write failed. It may have been done, even if the last attempt was refused: an earlier attempt
    /// of the same call may have got through.
    pub(crate) fn failed(&mut self) {
        self.unclear = true;
    }

    pub(crate) fn is_unclear(&self) -> bool {
        self.unclear
    }

    pub(crate) fn is_unproven(&self) -> bool {
        self.unproven
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.renewed + self.failover
    }

    pub(crate) fn has_fallen(&self, now: Duration) -> bool {
        now >= self.deadline()
    }

    /// When the last renewal was sent.
    pub(crate) fn renewed(&self) -> Duration {
        self.renewed
    }

    /// When the next renewal is due, if that is `interval` after the last: at most half the failover time,
    /// which leaves the other half for retries.
    pub(crate) fn renewal_due(&self, interval: Duration) -> Duration {
        if self.unproven {
            return self.renewed;
        }
        self.renewed + interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn counts_from_the_sending_of_the_last_success() {
        let mut fence = Fence::new(F, at(100));
        assert_eq!(fence.renewal_due(F / 2), at(105));
        assert!(!fence.has_fallen(at(109)));
        assert!(fence.has_fallen(at(110)));
        fence.succeeded(at(105));
        assert_eq!(fence.deadline(), at(115));
        // A late answer to an early write never moves it back.
        fence.succeeded(at(102));
        assert_eq!(fence.deadline(), at(115));
    }

    #[test]
    fn a_read_back_proves_nothing_and_asks_for_a_renewal() {
        let mut fence = Fence::new(F, at(100));
        fence.failed();
        assert!(fence.is_unclear());
        assert_eq!(fence.renewal_due(F / 2), at(105), "retries are paced elsewhere");
        fence.read_back();
        assert!(!fence.is_unclear() && fence.is_unproven());
        assert_eq!(fence.deadline(), at(110));
        assert_eq!(fence.renewal_due(F / 2), at(100), "now");
        fence.succeeded(at(107));
        assert!(!fence.is_unproven());
        assert_eq!((fence.renewal_due(F / 2), fence.deadline()), (at(112), at(117)));
    }
}
