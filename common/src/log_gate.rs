//! Rate limits for warnings: one of a kind in ten seconds, with the number of those left out.
//!
//! No log line holds data or partition keys. The service's message is left out where it may quote them: where the
//! service refuses a request for its content.

use std::time::Duration;

use crate::clock::Instant;
use crate::sync::Mutex;

const INTERVAL: Duration = Duration::from_secs(10);

/// Lets one warning of a kind through in each interval.
#[derive(Debug, Default)]
pub struct LogGate(Mutex<SumGate>);

impl LogGate {
    /// Whether to log now. If so, returns the number of warnings left out since the last one.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let mut gate = self.0.lock();
        gate.add(1);
        gate.pass(now).map(|all| all - 1)
    }
}

/// Sums up frequent events, and lets one line with the sum through in each interval.
#[derive(Debug, Default)]
pub struct SumGate {
    closed_until: Option<Instant>,
    untold: u64,
}

impl SumGate {
    /// Counts `n` events.
    pub fn add(&mut self, n: usize) {
        self.untold += n as u64;
    }

    /// When the next line is due, if there is one to log.
    pub fn due(&self) -> Option<Instant> {
        self.closed_until.filter(|_| self.untold > 0)
    }

    /// The sum since the last line, if one is due at `now`.
    pub fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.untold == 0 || self.closed_until.is_some_and(|until| now < until) {
            return None;
        }
        self.closed_until = Some(now + INTERVAL);
        Some(std::mem::take(&mut self.untold))
    }

    /// Lets the next line through at once: the last one, when its producer ends.
    pub fn open(&mut self) {
        self.closed_until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn every_one_is_in_the_sum_of_some_line() {
        let start = clock::now();
        let mut gate = SumGate::default();
        assert_eq!((gate.pass(start), gate.due()), (None, None));
        let mut told = Vec::new();
        for tenths in 0..250 {
            let now = start + Duration::from_millis(100 * tenths);
            gate.add(7);
            told.extend(gate.pass(now));
        }
        assert_eq!(told, [7, 700, 700]);
        assert_eq!(gate.due(), Some(start + Duration::from_secs(30)));
        gate.open();
        told.extend(gate.pass(start));
        assert_eq!(told.iter().sum::<u64>(), 7 * 250);
        assert_eq!(gate.due(), None);
    }

    #[test]
    fn one_passes_in_each_interval_and_tells_of_the_others() {
        let start = clock::now();
        let gate = LogGate::default();
        let passed: Vec<_> = (0..300)
            .filter_map(|tenths| gate.pass(start + Duration::from_millis(100 * tenths)))
            .collect();
        assert_eq!(passed, [0, 99, 99]);
    }
}
