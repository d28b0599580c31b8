//! The partition keys with the most bytes: a space-saving sketch with a bounded number of keys. Pure: time is passed
//! in.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Instant;

/// One record of so many is sampled.
pub(crate) const SAMPLING: u64 = 16;

/// Interval at which all counts are halved, so that keys that were hot fade.
const HALF_LIFE: Duration = Duration::from_secs(60);

/// The load of one partition key, as a sample shows it.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct KeyLoad {
    /// The partition key.
    pub partition_key: String,
    /// Its share of all recent bytes (half-life: a minute), from 0 to 1. Too low only by the error of the sampling.
    pub share: f64,
    /// Largest amount by which the share is too high, because the key replaced another one in the sketch.
    pub error: f64,
}

/// Sketch of `capacity` keys. It holds each key that has more than `1 / capacity` of the bytes.
#[derive(Debug)]
pub(crate) struct HotKeys {
    capacity: usize,
    places: HashMap<Box<str>, usize>,
    counters: Vec<Counter>,
    total: f64,
    halve_at: Instant,
}

#[derive(Debug)]
struct Counter {
    key: Box<str>,
    bytes: f64,
    error: f64,
}

impl HotKeys {
    pub(crate) fn new(capacity: usize, now: Instant) -> Self {
        Self {
            capacity,
            places: HashMap::new(),
            counters: Vec::new(),
            total: 0.0,
            halve_at: now + HALF_LIFE,
        }
    }

    pub(crate) fn add(&mut self, key: &str, bytes: usize, now: Instant) {
        self.fade(now);
        let bytes = bytes as f64;
        self.total += bytes;
        if let Some(&place) = self.places.get(key) {
            self.counters[place].bytes += bytes;
            return;
        }
        if self.counters.len() < self.capacity {
            self.places.insert(key.into(), self.counters.len());
            self.counters.push(Counter { key: key.into(), bytes, error: 0.0 });
            return;
        }
        // The new key replaces the one with the fewest bytes, and takes over its count.
        let least =
            self.counters.iter().enumerate().min_by(|(_, a), (_, b)| a.bytes.total_cmp(&b.bytes));
        let Some((place, _)) = least else { return };
        let counter = &mut self.counters[place];
        self.places.remove(&counter.key);
        counter.key = key.into();
        counter.error = counter.bytes;
        counter.bytes += bytes;
        self.places.insert(key.into(), place);
    }

    /// The hottest first.
    pub(crate) fn report(&mut self, now: Instant) -> Vec<KeyLoad> {
        self.fade(now);
        let total = self.total;
        let mut keys: Vec<_> = self
            .counters
            .iter()
            .filter(|counter| counter.bytes > 0.0 && total > 0.0)
            .map(|counter| KeyLoad {
                partition_key: counter.key.to_string(),
                share: counter.bytes / total,
                error: counter.error / total,
            })
            .collect();
        keys.sort_by(|a, b| {
            b.share.total_cmp(&a.share).then_with(|| a.partition_key.cmp(&b.partition_key))
        });
        keys
    }

    fn fade(&mut self, now: Instant) {
        if now < self.halve_at {
            return;
        }
        let late = now.saturating_duration_since(self.halve_at).as_secs() / HALF_LIFE.as_secs();
        // After so many half-lives the counts are zero.
        let factor = 0.5_f64.powi(late.min(100) as i32 + 1);
        self.halve_at = now + HALF_LIFE;
        self.total *= factor;
        for counter in &mut self.counters {
            counter.bytes *= factor;
            counter.error *= factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    proptest! {
        /// The guarantee of the sketch: no key is undercounted, the error is known, and whatever is above 1/capacity is
        /// there.
        #[test]
        fn no_heavy_key_is_missed(
            records in proptest::collection::vec((0..40_u8, 1..1000_usize), 1..600),
            capacity in 1..30_usize,
        ) {
            let now = clock::now();
            let mut sketch = HotKeys::new(capacity, now);
            let mut exact = HashMap::new();
            for (key, bytes) in &records {
                sketch.add(&format!("key-{key}"), *bytes, now);
                *exact.entry(format!("key-{key}")).or_insert(0) += bytes;
            }
            let total: usize = exact.values().sum();
            let report = sketch.report(now);
            prop_assert!(report.len() <= capacity);
            prop_assert!(report.is_sorted_by(|a, b| a.share >= b.share));
            for (key, bytes) in exact {
                let share = bytes as f64 / total as f64;
                match report.iter().find(|load| load.partition_key == key) {
                    Some(load) => {
                        prop_assert!(load.share >= share - 1e-9);
                        prop_assert!(load.share - load.error <= share + 1e-9);
                    }
                    None => prop_assert!(share <= 1.0 / capacity as f64 + 1e-9),
                }
            }
        }
    }

    #[test]
    fn what_was_hot_fades() {
        let start = clock::now();
        let mut sketch = HotKeys::new(4, start);
        sketch.add("then", 1_000_000, start);
        let later = start + Duration::from_secs(20 * 60);
        sketch.add("now", 1000, later);
        let report = sketch.report(later);
        assert_eq!(report[0].partition_key, "now");
        assert!(report[0].share > 0.99, "{report:?}");
        let much_later = start + Duration::from_secs(1_000_000);
        sketch.add("last", 1, much_later);
        assert_eq!(sketch.report(much_later)[0].partition_key, "last");
    }
}
