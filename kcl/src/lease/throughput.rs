//! The throughput of a shard, a moving average in the attribute `throughputKBps`.

use std::time::Duration;

/// Weight of the latest sample, as in the Java library.
const ALPHA: f64 = 0.5;

/// A moving average over intervals between renewals.
#[derive(Debug, Clone)]
pub(crate) struct Throughput {
    average: Option<f64>,
    since: Duration,
    bytes: u64,
}

impl Throughput {
    pub(crate) fn new(now: Duration) -> Self {
        Self { average: None, since: now, bytes: 0 }
    }

    /// Adds `bytes`, and returns the average in KiB/s. Intervals shorter than `at_least` are joined, so that frequent
    /// checkpoints do not make the average jump.
    pub(crate) fn sample(&mut self, bytes: u64, now: Duration, at_least: Duration) -> Option<f64> {
        self.bytes = self.bytes.saturating_add(bytes);
        let interval = now.saturating_sub(self.since);
        if interval >= at_least && !interval.is_zero() {
            let rate = self.bytes as f64 / 1024.0 / interval.as_secs_f64();
            self.average = Some(match self.average {
                Some(average) => ALPHA * rate + (1.0 - ALPHA) * average,
                None => rate,
            });
            (self.since, self.bytes) = (now, 0);
        }
        self.average
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_over_intervals_and_joins_short_ones() {
        let second = Duration::from_secs(1);
        let mut throughput = Throughput::new(second);
        assert_eq!(throughput.sample(1024, second * 2, second * 2), None);
        assert_eq!(throughput.sample(3072, second * 3, second * 2), Some(2.0));
        assert_eq!(throughput.sample(0, second * 5, second * 2), Some(1.0));
        assert_eq!(throughput.sample(0, second * 5, second * 2), Some(1.0));
    }
}
