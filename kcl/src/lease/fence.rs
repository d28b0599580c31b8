//! The time until which an owner may count on its lease: arithmetic on the injected clock.

use std::time::Duration;

/// The local deadline of an ownership.
///
/// Other workers consider a lease expired when they have seen the same counter for the failover time. The counter
/// moved no earlier than the write was *sent*. So an owner that counts from the sending stops before another worker
/// may take the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fence {
    failover: Duration,
    /// The time at which the last write was sent that is known to have moved the counter.
    pub(super) renewed: Duration,
    /// A write since `renewed` failed, but may have been done.
    pub(super) unclear: bool,
    /// The counter was found moved, and the writer is not known. A renewal must show whether this worker owns the lease.
    pub(super) unproven: bool,
}

impl Fence {
    /// `sent`: the time at which the write that acquired the lease was sent.
    pub(crate) fn new(failover: Duration, sent: Duration) -> Self {
        Self { failover, renewed: sent, unclear: false, unproven: false }
    }

    /// Notes that a write moved the counter, which was sent at `sent`.
    pub(crate) fn succeeded(&mut self, sent: Duration) {
        self.renewed = self.renewed.max(sent);
        self.unclear = false;
        self.unproven = false;
    }

    /// Notes that the counter was found moved: by a write of this worker whose answer was lost, or by a leader that took
    /// a handoff back. The time of that write is not known, so the deadline stays and a renewal is due at once. Earlier
    /// writes of this worker, which knew the old counter, can do nothing any more.
    pub(crate) fn read_back(&mut self) {
        self.unclear = false;
        self.unproven = true;
    }

    /// Notes that a write failed. It may have been done even if the last attempt was refused, because an earlier attempt
    /// of the same call may have got through.
    pub(crate) fn failed(&mut self) {
        self.unclear = true;
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.renewed + self.failover
    }

    pub(crate) fn has_fallen(&self, now: Duration) -> bool {
        now >= self.deadline()
    }

    /// The time at which the next renewal is due. `interval`: the time between renewals, at most half the failover time,
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
        assert!(fence.unclear);
        assert_eq!(fence.renewal_due(F / 2), at(105), "retries are paced elsewhere");
        fence.read_back();
        assert!(!fence.unclear && fence.unproven);
        assert_eq!(fence.deadline(), at(110));
        assert_eq!(fence.renewal_due(F / 2), at(100), "now");
        fence.succeeded(at(107));
        assert!(!fence.unproven);
        assert_eq!((fence.renewal_due(F / 2), fence.deadline()), (at(112), at(117)));
    }
}
