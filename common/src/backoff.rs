//! Pauses between attempts: exponential, with full jitter from an injected generator.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use fastrand::Rng;

/// Steps after which every schedule has reached its ceiling: 64 doublings of a nanosecond are 584 years.
const MAX_STEPS: u32 = 65;

/// An exponential schedule with full jitter: each delay is drawn from all of `0..=step`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BackoffSchedule {
    first: Duration,
    longest: Duration,
    factor: f32,
}

impl BackoffSchedule {
    /// A schedule whose steps double from `first` up to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, factor: 2.0 }
    }

    /// Multiplies each step by `factor` in place of 2.
    #[must_use]
    pub const fn with_factor(self, factor: f32) -> Self {
        Self { factor, ..self }
    }

    /// The longest delay after the `failures`-th failure in a row (from 1).
    pub fn step(self, failures: u32) -> Duration {
        let steps = failures.clamp(1, MAX_STEPS) as usize;
        ExponentialBuilder::new()
            .with_min_delay(self.first)
            .with_max_delay(self.longest)
            .with_factor(self.factor)
            .without_max_times()
            .build()
            .nth(steps - 1)
            .unwrap_or(self.longest)
    }

    /// Draws the delay after the `failures`-th failure in a row (from 1).
    pub fn delay(self, failures: u32, random: &mut Rng) -> Duration {
        let nanos = u64::try_from(self.step(failures).as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(random.u64(0..=nanos))
    }
}

/// The pauses of one series of failures. A success ends the series.
#[derive(Debug)]
pub struct Backoff {
    schedule: BackoffSchedule,
    failures: u32,
    random: Rng,
}

impl Backoff {
    /// Pauses on a schedule whose steps double from `first` up to `longest`.
    pub fn new(first: Duration, longest: Duration, random: Rng) -> Self {
        Self { schedule: BackoffSchedule::new(first, longest), failures: 0, random }
    }

    /// Counts a failure, and draws the pause before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.schedule.delay(self.failures, &mut self.random)
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Ends the series of failures.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::*;

    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(5);
    const SCHEDULE: BackoffSchedule = BackoffSchedule::new(FIRST, LONGEST);

    #[test]
    fn the_steps_double_up_to_the_ceiling() {
        let steps: Vec<_> = (1..=9).map(|n| SCHEDULE.step(n).as_millis()).collect();
        assert_eq!(steps, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        let slower = SCHEDULE.with_factor(1.5);
        assert_eq!(slower.step(2).as_millis(), 75);
    }

    #[test]
    fn the_widest_schedule_reaches_its_ceiling() {
        let century = Duration::from_secs(100 * 365 * 86_400);
        let schedule = BackoffSchedule::new(Duration::from_nanos(1), century);
        assert_eq!(schedule.step(u32::MAX), century);
        let fixed = BackoffSchedule::new(Duration::MAX, Duration::MAX);
        assert_eq!(fixed.step(u32::MAX), Duration::MAX);
        fixed.delay(1, &mut Rng::with_seed(1));
    }

    #[test]
    fn full_jitter_uses_the_whole_step() {
        let mut random = Rng::with_seed(7);
        let delays: Vec<_> =
            (0..1000).map(|_| SCHEDULE.delay(1, &mut random).as_millis()).collect();
        assert!(delays.iter().any(|&d| d < 5) && delays.iter().any(|&d| d >= 45), "{delays:?}");
    }

    proptest! {
        #[test]
        fn delays_stay_within_the_step_and_repeat_with_the_seed(failures in any::<u32>(), seed in any::<u64>()) {
            for schedule in [SCHEDULE, SCHEDULE.with_factor(1.5)] {
                let draw = || schedule.delay(failures, &mut Rng::with_seed(seed));
                prop_assert!(draw() <= schedule.step(failures));
                prop_assert_eq!(draw(), draw());
            }
        }
    }

    #[test]
    fn a_series_goes_on_for_ever_and_a_success_ends_it() {
        let mut backoff = Backoff::new(FIRST, LONGEST, Rng::with_seed(1));
        for _ in 0..10_000 {
            assert!(backoff.next_delay() <= LONGEST);
        }
        assert_eq!(backoff.failures(), 10_000);
        backoff.succeeded();
        assert_eq!(backoff.failures(), 0);
        assert!(backoff.next_delay() <= FIRST);
    }

    #[test]
    fn the_same_seed_gives_the_same_pauses() {
        let draw = |seed| {
            let mut backoff = Backoff::new(FIRST, LONGEST, Rng::with_seed(seed));
            [backoff.next_delay(), backoff.next_delay()]
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
