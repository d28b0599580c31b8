//! Pauses between attempts: exponential with full jitter, drawn from a seed.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use fastrand::Rng;

/// The pauses of one series of failures. A success starts it anew.
#[derive(Debug)]
pub(crate) struct Backoff {
    builder: ExponentialBuilder,
    schedule: ExponentialBackoff,
    longest: Duration,
    random: Rng,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration, random: Rng) -> Self {
        let builder = ExponentialBuilder::new()
            .with_factor(2.0)
            .with_min_delay(first)
            .with_max_delay(longest)
            .without_max_times();
        Self { schedule: builder.build(), builder, longest, random, failures: 0 }
    }

    /// One more failure: how long to wait, between zero and the doubled ceiling.
    pub(crate) fn next_delay(&mut self) -> Duration {
        self.failures += 1;
        let ceiling = self.schedule.next().unwrap_or(self.longest);
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.random.u64(0..=nanos))
    }

    /// Failures since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    pub(crate) fn succeeded(&mut self) {
        if self.failures > 0 {
            self.failures = 0;
            self.schedule = self.builder.build();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(2);

    #[test]
    fn the_ceiling_doubles_up_to_the_longest_pause() {
        let mut largest = [Duration::ZERO; 8];
        for seed in 0..500 {
            let mut backoff = Backoff::new(FIRST, LONGEST, Rng::with_seed(seed));
            for (attempt, largest) in largest.iter_mut().enumerate() {
                let delay = backoff.next_delay();
                let ceiling = (FIRST * 2u32.pow(attempt as u32)).min(LONGEST);
                assert!(delay <= ceiling, "{delay:?} > {ceiling:?}");
                *largest = delay.max(*largest);
            }
        }
        assert!(largest[7] > LONGEST / 2 && largest[0] > FIRST / 2, "{largest:?}");
    }

    #[test]
    fn it_goes_on_for_ever_and_a_success_starts_it_anew() {
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
