//! Whether the processing of a shard falls behind, and what holds it up. Pure.

use std::time::Duration;

use crate::health::HeldUpBy;

/// Time over which the least lag is taken. Two such times are compared.
const WINDOW: Duration = Duration::from_secs(30);

/// Lag up to which a shard keeps up with its producers.
const KEEPS_UP: Duration = Duration::from_secs(10);

/// Compares the lag of a shard with its lag before.
///
/// The lag rises while a batch is processed, and falls when it is done. So the least lag of a window counts.
#[derive(Debug, Default)]
pub(super) struct Trend {
    window: Option<Window>,
    /// The least lag of the window before.
    least_before: Option<Duration>,
    held_up_by: Option<HeldUpBy>,
}

#[derive(Debug)]
struct Window {
    since: Duration,
    least: Duration,
    samples: u32,
    /// Samples at which records waited for the processor, or were in its hands.
    busy: u32,
}

impl Trend {
    /// Notes the lag, about once a second. `has_records`: the worker holds records of the shard that are not processed.
    pub(super) fn sample(&mut self, now: Duration, lag: Option<Duration>, has_records: bool) {
        let Some(lag) = lag.filter(|lag| *lag > KEEPS_UP) else {
            *self = Self::default();
            return;
        };
        let new = || Window { since: now, least: lag, samples: 0, busy: 0 };
        let window = self.window.get_or_insert_with(new);
        window.least = window.least.min(lag);
        window.samples += 1;
        window.busy += u32::from(has_records);
        if now.saturating_sub(window.since) < WINDOW {
            return;
        }
        let Window { least, samples, busy, .. } = *window;
        // A lag that stays is not caught up either.
        let falls_behind = self.least_before.is_some_and(|before| least >= before);
        self.held_up_by = falls_behind.then_some(match 2 * busy >= samples {
            true => HeldUpBy::Processor,
            false => HeldUpBy::Reads,
        });
        self.least_before = Some(least);
        self.window = None;
    }

    /// What holds the shard up. `None`: it keeps up or catches up, or was not seen for long enough.
    pub(super) fn held_up_by(&self) -> Option<HeldUpBy> {
        self.held_up_by
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    /// The verdict after two minutes of samples of this lag.
    fn verdict(lag: impl Fn(u64) -> u64, has_records: bool) -> Option<HeldUpBy> {
        let mut trend = Trend::default();
        for second in 0..120 {
            trend.sample(secs(1_000 + second), Some(secs(lag(second))), has_records);
        }
        trend.held_up_by()
    }

    #[test]
    fn a_lag_that_grows_or_stays_is_held_up_and_one_that_falls_is_not() {
        assert_eq!(verdict(|second| 20 + second, true), Some(HeldUpBy::Processor));
        assert_eq!(verdict(|second| 20 + second, false), Some(HeldUpBy::Reads));
        assert_eq!(verdict(|_| 3_600, true), Some(HeldUpBy::Processor));
        assert_eq!(verdict(|second| 3_600 - second, true), None);
        // One batch takes 8 s, in which 10 s of records are processed.
        let catches_up = |second| 600 - 10 * (second / 8) + second;
        assert_eq!(verdict(catches_up, true), None);
        let falls_behind = |second| 600 - 7 * (second / 8) + second;
        assert_eq!(verdict(falls_behind, true), Some(HeldUpBy::Processor));
    }

    #[test]
    fn a_shard_at_the_tip_or_without_a_read_is_not_held_up() {
        assert_eq!(verdict(|second| 1 + second % 9, true), None);
        let mut trend = Trend::default();
        for second in 0..120 {
            trend.sample(secs(second), Some(secs(20 + second)), true);
        }
        assert!(trend.held_up_by().is_some());
        trend.sample(secs(121), None, false);
        assert_eq!(trend.held_up_by(), None, "it is read anew");
        trend.sample(secs(122), Some(Duration::MAX), true);
        trend.sample(Duration::MAX, Some(Duration::MAX), true);
        assert_eq!(trend.held_up_by(), None, "nothing to compare it with");
    }
}
