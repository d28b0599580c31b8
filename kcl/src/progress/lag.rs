//! The time by which the processing of a shard is behind. Pure.
//!
//! All times are by the worker's clock. The age of a record is computed from what the service reports: how far the
//! page is behind the tip, and when its records arrived. So a host whose time of day is wrong reports the same.

use std::collections::VecDeque;
use std::time::Duration;

use super::trend::Trend;
use crate::health::HeldUpBy;

/// Ages of the pages that were fetched and not processed.
#[derive(Debug, Default)]
pub(crate) struct Lag {
    /// One entry per page that is not processed, the oldest page first.
    pages: VecDeque<Age>,
    /// An upper bound of the age of the records that were not fetched at the last answer. `None`: nothing was read
    /// yet, or the service did not report it.
    rest: Option<Age>,
    trend: Trend,
}

/// An age, and the time at which it was that.
#[derive(Debug, Clone, Copy)]
struct Age {
    age: Duration,
    at: Duration,
}

impl Age {
    fn now(self, now: Duration) -> Duration {
        self.age.saturating_add(now.saturating_sub(self.at))
    }
}

impl Lag {
    /// Notes an answer that is `behind` the tip.
    pub(crate) fn answered(&mut self, now: Duration, behind: Option<Duration>) {
        self.rest = behind.map(|age| Age { age, at: now });
    }

    /// Notes a page with records. Its last record is `behind` the tip, and arrived `spread` after the first.
    pub(crate) fn fetched(&mut self, now: Duration, behind: Option<Duration>, spread: Duration) {
        let age = behind.unwrap_or_default().saturating_add(spread);
        self.pages.push_back(Age { age, at: now });
    }

    /// Notes that the oldest page is processed.
    pub(crate) fn processed(&mut self) {
        self.pages.pop_front();
    }

    /// Notes that the pages were dropped, and will be read again.
    pub(crate) fn pages_dropped(&mut self) {
        if let Some(oldest) = self.pages.pop_front() {
            self.rest = Some(oldest);
            self.pages.clear();
        }
    }

    /// The time by which the last answer was behind the tip.
    pub(crate) fn behind(&self) -> Option<Duration> {
        self.rest.map(|rest| rest.age)
    }

    /// Whether pages are not processed.
    pub(crate) fn has_records(&self) -> bool {
        !self.pages.is_empty()
    }

    /// Notes, about once a second, how the lag develops. That of a paused shard tells nothing.
    pub(crate) fn watch(&mut self, now: Duration, is_paused: bool) {
        let lag = self.at(now).filter(|_| !is_paused);
        self.trend.sample(now, lag, self.has_records());
    }

    /// What keeps the shard from catching up. `None`: it keeps up or catches up.
    pub(crate) fn falls_behind(&self) -> Option<HeldUpBy> {
        self.trend.held_up_by()
    }

    /// An upper bound of the age of the oldest record that is not processed. `None`: nothing was read yet.
    pub(crate) fn at(&self, now: Duration) -> Option<Duration> {
        let oldest = self.pages.front().or(self.rest.as_ref());
        oldest.map(|age| age.now(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn it_is_the_age_of_what_is_not_processed_and_grows_while_nothing_is() {
        let mut lag = Lag::default();
        assert_eq!(lag.at(secs(1_000)), None);
        // At the tip: what has come since the answer is not known.
        lag.answered(secs(1_000), Some(secs(0)));
        assert_eq!(lag.at(secs(1_001)), Some(secs(1)));
        // A page of 5 s of records, the last one 20 s old.
        lag.answered(secs(1_002), Some(secs(20)));
        lag.fetched(secs(1_002), Some(secs(20)), secs(5));
        assert_eq!(lag.at(secs(1_002)), Some(secs(25)));
        // The next page is fetched while the first one is in hand.
        lag.answered(secs(1_003), Some(secs(0)));
        lag.fetched(secs(1_003), Some(secs(0)), secs(15));
        assert_eq!(lag.at(secs(2_002)), Some(secs(1_025)), "no page is fetched");
        lag.processed();
        assert_eq!(lag.at(secs(2_002)), Some(secs(15 + 999)));
        lag.processed();
        assert_eq!(lag.at(secs(2_002)), Some(secs(999)), "by the last answer");
        lag.answered(secs(2_002), Some(secs(0)));
        assert_eq!(lag.at(secs(2_002)), Some(secs(0)));
    }

    #[test]
    fn pages_that_are_dropped_are_as_old_as_before() {
        let mut lag = Lag::default();
        lag.answered(secs(0), Some(secs(0)));
        lag.fetched(secs(0), Some(secs(0)), secs(5));
        lag.fetched(secs(1), Some(secs(0)), secs(1));
        assert_eq!(lag.at(secs(10)), Some(secs(15)));
        lag.pages_dropped();
        assert_eq!(lag.at(secs(10)), Some(secs(15)));
        lag.pages_dropped();
        lag.answered(secs(11), Some(secs(0)));
        assert_eq!(lag.at(secs(12)), Some(secs(1)));
    }

    #[test]
    fn what_the_service_does_not_say_is_not_known() {
        let mut lag = Lag::default();
        lag.answered(secs(5), None);
        assert_eq!(lag.at(secs(9)), None);
        lag.fetched(secs(5), None, secs(2));
        assert_eq!(lag.at(secs(9)), Some(secs(6)), "at least as old as its page");
    }

    #[test]
    fn extreme_ages_do_not_overflow() {
        let mut lag = Lag::default();
        lag.answered(Duration::MAX, Some(Duration::MAX));
        lag.fetched(secs(0), Some(Duration::MAX), Duration::MAX);
        assert_eq!(lag.at(Duration::MAX), Some(Duration::MAX));
    }
}
