//! Bounded histogram of times: eight buckets for each doubling, so that a percentile is off by at most a sixteenth.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets for each doubling, as a power of two.
const FINENESS: u32 = 3;

/// Power of two of the microseconds from which on times share the last bucket: twelve days.
const TOP: u32 = 40;

const BUCKETS: usize = ((TOP - FINENESS + 1) << FINENESS) as usize;

/// The bucket of a time.
pub fn bucket_of(time: Duration) -> usize {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let top = micros.checked_ilog2().unwrap_or(0);
    if top < FINENESS {
        return micros as usize;
    }
    let fine = (micros >> (top - FINENESS)) & ((1 << FINENESS) - 1);
    let bucket = (((top - FINENESS + 1) << FINENESS) as usize) + fine as usize;
    bucket.min(BUCKETS - 1)
}

/// The middle of a bucket.
pub fn value_of(bucket: usize) -> Duration {
    let fine = (bucket & ((1 << FINENESS) - 1)) as u64;
    let doubling = (bucket >> FINENESS) as u32;
    if doubling == 0 {
        return Duration::from_micros(fine);
    }
    let step = 1_u64 << (doubling - 1);
    let low = ((1 << FINENESS) + fine) * step;
    Duration::from_nanos(low * 1000 + (step - 1) * 500)
}

/// Milliseconds, with a fraction: a call may take less than one.
#[cfg(feature = "serde")]
fn millis<S: serde::Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(super::milliseconds(*value))
}

/// Percentiles of measured times.
///
/// The percentiles are off by at most a sixteenth of their value, the maximum is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Percentiles {
    /// Number of measurements.
    pub count: u64,
    /// Half of the measurements are not longer.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis"))]
    pub p50: Duration,
    /// 90 of 100 measurements are not longer.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis"))]
    pub p90: Duration,
    /// 99 of 100 measurements are not longer.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis"))]
    pub p99: Duration,
    /// The longest measurement.
    #[cfg_attr(feature = "serde", serde(serialize_with = "millis"))]
    pub max: Duration,
}

/// A histogram of 2.4 KiB.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    max_nanos: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS], max_nanos: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Counts a time.
    pub fn record(&self, time: Duration) {
        self.buckets[bucket_of(time)].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.max_nanos.fetch_max(nanos, Ordering::Relaxed);
    }

    /// Percentiles of the times counted so far.
    pub fn percentiles(&self) -> Percentiles {
        let counts = self.buckets.each_ref().map(|n| n.load(Ordering::Relaxed));
        let count: u64 = counts.iter().sum();
        let max = Duration::from_nanos(self.max_nanos.load(Ordering::Relaxed));
        let percentile = |percent: u64| {
            let rank = (count * percent).div_ceil(100).max(1);
            let mut seen = 0;
            let bucket = counts.iter().position(|n| {
                seen += n;
                seen >= rank
            });
            bucket.map_or(Duration::ZERO, |bucket| value_of(bucket).min(max))
        };
        Percentiles { count, p50: percentile(50), p90: percentile(90), p99: percentile(99), max }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_stands_for_its_times(micros in 0..1_u64 << TOP) {
            let time = Duration::from_micros(micros);
            let middle = value_of(bucket_of(time));
            let off = middle.abs_diff(time);
            prop_assert!(off <= time / 16 + Duration::from_micros(1), "{time:?} {middle:?}");
        }

        #[test]
        fn percentiles_are_those_of_the_sorted_times(mut micros in proptest::collection::vec(0..10_000_000_u64, 1..300)) {
            let histogram = Histogram::default();
            for &time in &micros {
                histogram.record(Duration::from_micros(time));
            }
            micros.sort_unstable();
            let found = histogram.percentiles();
            prop_assert_eq!(found.count, micros.len() as u64);
            prop_assert_eq!(found.max, Duration::from_micros(micros[micros.len() - 1]));
            for (percent, found) in [(50, found.p50), (90, found.p90), (99, found.p99)] {
                let exact = Duration::from_micros(micros[(micros.len() * percent).div_ceil(100) - 1]);
                prop_assert!(found.abs_diff(exact) <= exact / 16 + Duration::from_micros(1), "{percent}: {found:?} {exact:?}");
            }
        }
    }

    #[test]
    fn buckets_rise_and_the_longest_times_have_one() {
        assert!((1..BUCKETS).all(|bucket| value_of(bucket) > value_of(bucket - 1)));
        assert!((0..BUCKETS).all(|bucket| bucket_of(value_of(bucket)) == bucket));
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
        assert_eq!(Histogram::default().percentiles(), Percentiles::default());
    }
}
