//! Warnings that cannot flood: one of a kind in ten seconds, with the number of those left out.
//!
//! No log line holds data or partition keys. The service's message is left out where it may quote them: where it refuses a
//! request for what is in it.

use std::time::Duration;

use crate::clock::Instant;
use crate::sync::{Mutex, lock};

const INTERVAL: Duration = Duration::from_secs(10);

/// Lets one warning of a kind through in each interval.
#[derive(Debug, Default)]
pub(crate) struct LogGate(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    closed_until: Option<Instant>,
    left_out: u64,
}

impl LogGate {
    /// Whether to log now: then with how many were left out before.
    pub(crate) fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = lock(&self.0);
        if state.closed_until.is_some_and(|until| now < until) {
            state.left_out += 1;
            return None;
        }
        state.closed_until = Some(now + INTERVAL);
        Some(std::mem::take(&mut state.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

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
