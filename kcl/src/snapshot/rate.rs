//! Rates of records and bytes over the last seconds. Pure.

use std::time::Duration;

/// Time in which the weight of a measurement falls to 37 %.
const MEMORY: Duration = Duration::from_secs(10);

/// Exponentially weighted rates of records and bytes.
#[derive(Debug)]
pub(super) struct Rates {
    /// Weighted sums of records and of bytes, as of `at`.
    sums: [f64; 2],
    at: Duration,
    /// Time of the first measurement that could have been.
    since: Duration,
}

impl Rates {
    pub(super) fn new(now: Duration) -> Self {
        Self { sums: [0.0; 2], at: now, since: now }
    }

    /// Counts records and their bytes.
    pub(super) fn add(&mut self, now: Duration, records: usize, bytes: usize) {
        self.sums = self.faded(now);
        self.at = self.at.max(now);
        self.sums[0] += records as f64;
        self.sums[1] += bytes as f64;
    }

    /// Records and bytes per second.
    pub(super) fn per_second(&self, now: Duration) -> [f64; 2] {
        // The weights of all moments since the start add up to this. Without it, a rate would seem to rise for as long
        // as the memory is. The first second counts as whole, so that one batch right at the start is no high rate.
        let age = now.saturating_sub(self.since).max(Duration::from_secs(1));
        let weight = MEMORY.as_secs_f64() * (1.0 - fading(age));
        self.faded(now).map(|sum| sum / weight)
    }

    fn faded(&self, now: Duration) -> [f64; 2] {
        let fading = fading(now.saturating_sub(self.at));
        self.sums.map(|sum| sum * fading)
    }
}

/// The share of its weight that a measurement of this age has kept.
fn fading(age: Duration) -> f64 {
    (-age.as_secs_f64() / MEMORY.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_steady_rate_is_shown_from_the_first_seconds_on() {
        let start = millis(7_000_000);
        let mut rates = Rates::new(start);
        assert_eq!(rates.per_second(start), [0.0, 0.0]);
        for step in 1..=600_u64 {
            let now = start + millis(100 * step);
            rates.add(now, 10, 1_000);
            let [records, bytes] = rates.per_second(now);
            let allowed = if step < 10 { 100.0 } else { 10.0 };
            assert!((records - 100.0).abs() <= allowed, "{records} records/s at step {step}");
            assert!((bytes - 100.0 * records).abs() < 1e-6, "{bytes}");
        }
    }

    #[test]
    fn a_rate_fades_when_nothing_comes_and_follows_a_change() {
        let mut rates = Rates::new(millis(0));
        let mut now = millis(0);
        for _ in 0..600 {
            now += millis(100);
            rates.add(now, 10, 0);
        }
        let [fallen, _] = rates.per_second(now + millis(10_000));
        assert!((35.0..40.0).contains(&fallen), "{fallen}");
        let [gone, _] = rates.per_second(now + millis(120_000));
        assert!(gone < 0.01, "{gone}");
        for _ in 0..300 {
            now += millis(100);
            rates.add(now, 20, 0);
        }
        let [risen, _] = rates.per_second(now);
        assert!((190.0..205.0).contains(&risen), "{risen}");
    }

    #[test]
    fn a_batch_at_the_start_is_no_high_rate_and_time_that_stands_still_is_no_infinite_one() {
        let mut rates = Rates::new(millis(5));
        rates.add(millis(5), 500, 0);
        let [records, _] = rates.per_second(millis(5));
        assert!(records <= 550.0, "{records}");
        rates.add(millis(0), 500, 0);
        assert!(rates.per_second(millis(0))[0].is_finite());
        assert!(rates.per_second(Duration::MAX)[0].abs() < 1e-6);
    }
}
