//! Request limit: the most bytes that a request of several records may have, as learned from answers 413. A proxy may
//! accept less than Kinesis. Pure: time is passed in.
//!
//! * A request of several records that is refused as too large halves the limit, or sets it to what passed recently.
//! * The limit grows slowly, because that of the proxy may be raised. If it has grown too far, a request is refused
//!   again. Then it waits twice as long before it grows the next time.
//! * A proxy may also answer 413 for the content of a request. So a refusal does not count if a larger request passed
//!   recently.

use std::time::Duration;

use crate::clock::Instant;

/// The smallest limit, in bytes. A refusal of a smaller request is not learned from.
const LEAST: usize = 64 * 1024;

/// Fraction of the limit by which it grows: one eighth. A refusal counts against what passed recently only if it is
/// smaller by as much: requests of equal size may differ a little on the wire.
const STEP: usize = 8;

/// Pause before the limit grows.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// Longest pause before the limit grows.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Time for which a request that passed counts as recent: at least so long, and at most twice as long.
const RECENT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct RequestLimit {
    /// The largest request that the configuration allows.
    most: usize,
    /// `None` while no request was refused as too large.
    learned: Option<Learned>,
    /// The largest requests that passed, in the current period and in the one before.
    passed: [usize; 2],
    /// When the current period began.
    since: Option<Instant>,
}

#[derive(Debug)]
struct Learned {
    limit: usize,
    /// How long the limit stays before it grows.
    pause: Duration,
    grows_at: Instant,
    /// Whether it has grown since the last refusal.
    has_grown: bool,
    is_logged: bool,
}

impl RequestLimit {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, learned: None, passed: [0; 2], since: None }
    }

    /// The most bytes of a request of several records.
    pub(crate) fn bytes(&mut self, now: Instant) -> usize {
        if let Some(learned) = &mut self.learned {
            while learned.grows_at <= now && learned.limit < self.most {
                learned.limit += learned.limit / STEP;
                learned.has_grown = true;
                learned.grows_at += learned.pause;
            }
            if learned.limit >= self.most {
                self.learned = None;
            }
        }
        self.learned.as_ref().map_or(self.most, |learned| learned.limit)
    }

    /// A request of several records was refused as too large.
    pub(crate) fn refused(&mut self, bytes: usize, now: Instant) {
        let before = self.bytes(now);
        let passed = self.passed_recently(now);
        let slightly_less = bytes - bytes / STEP;
        // As large a request passes: this one was refused for something else than its size.
        if bytes <= LEAST || bytes <= passed - passed / STEP {
            return;
        }
        let limit = (bytes / 2).max(passed.min(slightly_less)).max(LEAST);
        // Requests that were in flight together are refused together, and count once.
        if limit >= before {
            return;
        }
        let old = self.learned.take();
        let pause = match &old {
            Some(old) if old.has_grown => (old.pause * 2).min(LONGEST_PAUSE),
            Some(old) => old.pause,
            None => FIRST_PAUSE,
        };
        self.learned = Some(Learned {
            limit,
            pause,
            grows_at: now + pause,
            has_grown: false,
            is_logged: old.is_some_and(|old| old.is_logged),
        });
    }

    /// A request passed. Returns the limit when it is to be logged: once for each limit that is learned.
    pub(crate) fn passed(&mut self, bytes: usize, now: Instant) -> Option<usize> {
        self.passed_recently(now);
        self.passed[0] = self.passed[0].max(bytes);
        let learned = self.learned.as_mut()?;
        // A smaller request says nothing of the limit.
        let is_found = bytes >= learned.limit / 2;
        // A single record may be larger than the limit. If it passes, other requests of its size do.
        learned.limit = learned.limit.max(bytes);
        (is_found && !std::mem::replace(&mut learned.is_logged, true)).then_some(learned.limit)
    }

    /// The largest request that passed recently.
    fn passed_recently(&mut self, now: Instant) -> usize {
        let age = now.saturating_duration_since(*self.since.get_or_insert(now));
        if age >= RECENT {
            self.passed = if age >= RECENT * 2 { [0; 2] } else { [0, self.passed[0]] };
            self.since = Some(now);
        }
        self.passed[0].max(self.passed[1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    const MIB: usize = 1 << 20;
    const MINUTE: Duration = Duration::from_secs(60);

    /// Sends requests as large as may be to a proxy, one in each second; returns how many were refused.
    fn send(limit: &mut RequestLimit, proxy: usize, now: &mut Instant, seconds: u32) -> u32 {
        let mut refused = 0;
        for _ in 0..seconds {
            *now += Duration::from_secs(1);
            let mut bytes = limit.bytes(*now);
            // The halves of a refused request are tried at once.
            while bytes > proxy {
                refused += 1;
                limit.refused(bytes, *now);
                bytes = (bytes / 2).min(limit.bytes(*now));
            }
            let _ = limit.passed(bytes, *now);
        }
        refused
    }

    #[test]
    fn few_requests_are_refused_however_long_a_proxy_has_its_limit() {
        for proxy in [100_000, 700_000, 3 * MIB] {
            let (mut limit, mut now) = (RequestLimit::new(5 * MIB), clock::now());
            let first = send(&mut limit, proxy, &mut now, 60);
            assert!((1..8).contains(&first), "{first} refused at first");
            let later = send(&mut limit, proxy, &mut now, 24 * 3600);
            assert!(later < 50, "{later} refused in a day");
            assert!(limit.bytes(now) > proxy / 2, "{}", limit.bytes(now));
        }
    }

    #[test]
    fn it_follows_a_limit_that_is_raised_or_lifted() {
        let (mut limit, mut now) = (RequestLimit::new(5 * MIB), clock::now());
        send(&mut limit, 700_000, &mut now, 60);
        send(&mut limit, 2 * MIB, &mut now, 3 * 3600);
        assert!((MIB..=2 * MIB + MIB / 4).contains(&limit.bytes(now)), "{}", limit.bytes(now));
        send(&mut limit, usize::MAX, &mut now, 24 * 3600);
        assert_eq!(limit.bytes(now), 5 * MIB);
        // A single record may be larger than the limit: that it passes lifts the limit.
        send(&mut limit, 700_000, &mut now, 300);
        assert!(limit.bytes(now) < MIB);
        let _ = limit.passed(5 * MIB, now);
        assert_eq!(limit.bytes(now), 5 * MIB);
    }

    #[test]
    fn a_limit_that_is_lowered_is_learned_when_larger_requests_have_long_passed() {
        let (mut limit, mut now) = (RequestLimit::new(5 * MIB), clock::now());
        assert_eq!(send(&mut limit, usize::MAX, &mut now, 10), 0);
        now += 2 * MINUTE;
        let refused = send(&mut limit, 700_000, &mut now, 60);
        assert!((1..8).contains(&refused), "{refused}");
    }

    #[test]
    fn refusals_for_the_content_do_not_count_beside_larger_requests_that_pass() {
        let (mut limit, now) = (RequestLimit::new(5 * MIB), clock::now());
        assert_eq!(limit.passed(4 * MIB, now), None);
        for bytes in [3 * MIB, MIB, MIB / 2, 1000] {
            limit.refused(bytes, now);
            assert_eq!(limit.bytes(now), 5 * MIB);
        }
        // Nor does that of a small request at any time.
        let mut limit = RequestLimit::new(5 * MIB);
        limit.refused(LEAST, now);
        assert_eq!(limit.bytes(now), 5 * MIB);
        limit.refused(LEAST + 1, now);
        assert_eq!(limit.bytes(now), LEAST);
    }

    #[test]
    fn it_is_logged_once_when_it_is_found() {
        let (mut limit, now) = (RequestLimit::new(5 * MIB), clock::now());
        limit.refused(4 * MIB, now);
        assert_eq!(limit.passed(1000, now), None, "it says nothing of the limit");
        limit.refused(2 * MIB, now);
        assert_eq!(limit.passed(MIB, now), Some(MIB));
        assert_eq!(limit.passed(MIB, now), None);
        limit.refused(MIB + MIB / 8, now + 2 * MINUTE);
        assert_eq!(limit.passed(MIB, now), None);
    }
}
