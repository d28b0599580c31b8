//! Recent load of a shard: a window that moves in two steps. Pure: time is passed in.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Instant;
use crate::sync::{Mutex, lock};

const STEP: Duration = Duration::from_secs(10);

/// What one shard takes in a second.
pub(crate) const SHARD_RECORDS_PER_SECOND: f64 = 1000.0;
pub(crate) const SHARD_BYTES_PER_SECOND: f64 = 1024.0 * 1024.0;

/// The load of one shard over the last 10 to 20 seconds, as this producer sees it.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ShardLoad {
    /// The shard.
    pub shard_id: Arc<str>,
    /// Kinesis records written per second.
    pub records_per_second: f64,
    /// Bytes of data and partition keys written per second.
    pub bytes_per_second: f64,
    /// Kinesis records per second that the shard refused because it was full.
    pub throttled_per_second: f64,
    /// What this producer writes, as a share of a shard's limit: 1,000 records or 1 MiB per second, whichever share is
    /// larger.
    pub utilisation: f64,
    /// What this producer may send now, as a share of that limit; see
    /// [`rate_limit`](crate::ProducerConfig::rate_limit).
    pub rate: f64,
}

#[derive(Debug)]
pub(crate) struct LoadWindow(Mutex<State>);

#[derive(Debug)]
struct State {
    created: Instant,
    /// When the current step began.
    began: Instant,
    current: Counts,
    before: Counts,
    rate: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    records: u64,
    bytes: u64,
    throttled: u64,
}

impl LoadWindow {
    pub(crate) fn new(now: Instant) -> Self {
        Self(Mutex::new(State {
            created: now,
            began: now,
            current: Counts::default(),
            before: Counts::default(),
            rate: 0.0,
        }))
    }

    pub(crate) fn wrote(&self, bytes: usize, now: Instant) {
        let mut state = lock(&self.0);
        state.roll(now);
        state.current.records += 1;
        state.current.bytes += bytes as u64;
    }

    pub(crate) fn throttled(&self, now: Instant) {
        let mut state = lock(&self.0);
        state.roll(now);
        state.current.throttled += 1;
    }

    pub(crate) fn set_rate(&self, rate: f64) {
        lock(&self.0).rate = rate;
    }

    pub(crate) fn report(&self, shard_id: &Arc<str>, now: Instant) -> ShardLoad {
        let mut state = lock(&self.0);
        state.roll(now);
        let (a, b) = (state.before, state.current);
        let covered = (now.saturating_duration_since(state.began) + STEP)
            .min(now.saturating_duration_since(state.created));
        // The rates of the first second would be far too high.
        let seconds = covered.max(Duration::from_secs(1)).as_secs_f64();
        let rate = |a: u64, b: u64| (a + b) as f64 / seconds;
        let records_per_second = rate(a.records, b.records);
        let bytes_per_second = rate(a.bytes, b.bytes);
        ShardLoad {
            shard_id: Arc::clone(shard_id),
            records_per_second,
            bytes_per_second,
            throttled_per_second: rate(a.throttled, b.throttled),
            utilisation: (records_per_second / SHARD_RECORDS_PER_SECOND)
                .max(bytes_per_second / SHARD_BYTES_PER_SECOND),
            rate: state.rate,
        }
    }
}

impl State {
    fn roll(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.began);
        if passed < STEP {
            return;
        }
        let current = std::mem::take(&mut self.current);
        self.before = if passed < 2 * STEP { current } else { Counts::default() };
        let into_step = Duration::from_secs(passed.as_secs() % STEP.as_secs());
        self.began = now.checked_sub(into_step).unwrap_or(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn rates_are_those_of_the_window_and_forget_what_is_older() {
        let start = clock::now();
        let window = LoadWindow::new(start);
        let id: Arc<str> = "s".into();
        let at = |seconds| start + Duration::from_secs(seconds);
        for second in 0..30 {
            for _ in 0..10 {
                window.wrote(52_428, at(second));
            }
            window.throttled(at(second));
            let load = window.report(&id, at(second + 1));
            assert!((9.0..11.1).contains(&load.records_per_second), "{load:?}");
            assert!((0.9..1.12).contains(&load.throttled_per_second), "{load:?}");
            assert!((0.45..0.56).contains(&load.utilisation), "{load:?}");
        }
        let later = window.report(&id, at(100));
        assert_eq!((later.records_per_second, later.utilisation), (0.0, 0.0));
    }
}
