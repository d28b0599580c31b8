//! Until when an owner may believe that it owns: arithmetic on the injected clock.

use std::time::Duration;

/// The local deadline of a tenure.
///
/// Others call a lease expired when its counter stood still for the failover time as they saw it.
/// The counter moved no earlier than the write was *sent*, so an owner that counts from there stops
/// before anybody may take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fence {
    failover: Duration,
    renewed: Duration,
    /// Sending of the oldest write since `renewed` whose fate is unknown.
    unclear_since: Option<Duration>,
}

impl Fence {
    /// `sent`: when the write that acquired the lease was sent.
    pub(crate) fn new(failover: Duration, sent: Duration) -> Self {
        Self {
            failover,
            renewed: sent,
            unclear_since: None,
        }
    }

    /// A write that was sent at `sent` was answered: it moved the counter.
    pub(crate) fn succeeded(&mut self, sent: Duration) {
        self.renewed = self.renewed.max(sent);
        self.unclear_since = None;
    }

    /// The counter was found moved, by the write sent at `sent` or by an unclear one before it: only
    /// the earlier time is sure.
    pub(crate) fn read_back(&mut self, sent: Duration) {
        self.succeeded(self.unclear_since.unwrap_or(sent));
    }

    /// Nobody knows whether the write sent at `sent` was done.
    pub(crate) fn unclear(&mut self, sent: Duration) {
        self.unclear_since.get_or_insert(sent);
    }

    pub(crate) fn is_unclear(&self) -> bool {
        self.unclear_since.is_some()
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.renewed + self.failover
    }

    pub(crate) fn has_fallen(&self, now: Duration) -> bool {
        now >= self.deadline()
    }

    /// When the next renewal is due: half the failover time leaves the other half for retries.
    pub(crate) fn renewal_due(&self) -> Duration {
        self.renewed + self.failover / 2
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
        assert_eq!(fence.renewal_due(), at(105));
        assert!(!fence.has_fallen(at(109)));
        assert!(fence.has_fallen(at(110)));
        fence.succeeded(at(105));
        assert_eq!(fence.deadline(), at(115));
        // A late answer to an early write never moves it back.
        fence.succeeded(at(102));
        assert_eq!(fence.deadline(), at(115));
    }

    #[test]
    fn a_read_back_counts_from_the_oldest_unclear_write() {
        let mut fence = Fence::new(F, at(100));
        fence.unclear(at(105));
        fence.unclear(at(107));
        assert!(fence.is_unclear());
        fence.read_back(at(109));
        assert_eq!(fence.deadline(), at(115));
        assert!(!fence.is_unclear());
        fence.read_back(at(112));
        assert_eq!(fence.deadline(), at(122));
    }
}
