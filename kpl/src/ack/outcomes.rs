//! State that all records of a producer share when they are completed: the counters, the failure hook, the reason of
//! the stop, and the epochs that `flush` waits for.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Instant;
use crate::error::{DeliveryError, FailureCause, StopReason};
use crate::stats::Counters;
use crate::sync::{Mutex, lock};

/// The failure hook. It never panics: it also runs in drops, where a panic would lose the outcomes of other records.
pub(crate) type FailureHook = Arc<dyn Fn(&DeliveryError) + Send + Sync>;

#[derive(Default)]
pub(crate) struct Outcomes {
    pub(crate) counters: Counters,
    pub(crate) epochs: Epochs,
    on_failure: Option<FailureHook>,
    stopped: OnceLock<StopReason>,
}

impl Outcomes {
    pub(crate) fn new(on_failure: Option<FailureHook>) -> Self {
        Self { on_failure, ..Self::default() }
    }

    /// Notes why the producer stops; the first reason stays.
    pub(crate) fn stop(&self, reason: StopReason) {
        let _ = self.stopped.set(reason);
    }

    pub(crate) fn stop_reason(&self) -> Option<&StopReason> {
        self.stopped.get()
    }

    pub(crate) fn count_failed(&self, cause: &FailureCause, user_records: usize) {
        match cause {
            FailureCause::Abandoned(_) => self.counters.user_records_abandoned.add(user_records),
            _ => self.counters.user_records_failed.add(user_records),
        }
    }

    /// A failure that no `Delivery` will see.
    pub(crate) fn unobserved(&self, error: &DeliveryError) {
        self.counters.failures_unobserved.add(1);
        if let Some(hook) = &self.on_failure {
            hook(error);
        }
    }
}

/// Counts the pending aggregates by the epoch in which they were opened. Each `flush` begins a new epoch, and so does
/// time. The first pending epoch shows how old the oldest aggregate is.
#[derive(Default)]
pub(crate) struct Epochs {
    state: Mutex<EpochState>,
    emptied: Notify,
}

/// Longest time for which aggregates are counted in one epoch.
const LONGEST_EPOCH: Duration = Duration::from_millis(100);

#[derive(Default)]
struct EpochState {
    current: u64,
    pending: BTreeMap<u64, Epoch>,
}

struct Epoch {
    /// When the first of its aggregates was opened.
    began: Instant,
    pending: usize,
}

impl Epochs {
    pub(crate) fn enter(&self, now: Instant) -> u64 {
        let mut state = lock(&self.state);
        let is_over = |epoch: &Epoch| now.saturating_duration_since(epoch.began) >= LONGEST_EPOCH;
        if state.pending.get(&state.current).is_some_and(is_over) {
            state.current += 1;
        }
        let current = state.current;
        let epoch = state.pending.entry(current).or_insert(Epoch { began: now, pending: 0 });
        epoch.pending += 1;
        current
    }

    /// Age of the oldest pending aggregate, too high by at most the length of an epoch.
    pub(crate) fn oldest(&self, now: Instant) -> Option<Duration> {
        let state = lock(&self.state);
        let (_, first) = state.pending.first_key_value()?;
        Some(now.saturating_duration_since(first.began))
    }

    pub(crate) fn leave(&self, epoch: u64) {
        let mut state = lock(&self.state);
        if let Some(left) = state.pending.get_mut(&epoch) {
            left.pending -= 1;
            if left.pending == 0 {
                state.pending.remove(&epoch);
                drop(state);
                self.emptied.notify_waiters();
            }
        }
    }

    /// Begins a new epoch and returns the one that ended.
    pub(crate) fn end_current(&self) -> u64 {
        let mut state = lock(&self.state);
        state.current += 1;
        state.current - 1
    }

    /// Waits until everything of `epoch` and before is completed.
    pub(crate) async fn completed(&self, epoch: u64) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if lock(&self.state).pending.first_key_value().is_none_or(|(first, _)| *first > epoch) {
                return;
            }
            emptied.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    proptest! {
        /// Whatever enters and leaves: the age is that of the oldest that is left, or up to an epoch more.
        #[test]
        fn the_oldest_is_known_to_an_epoch(
            steps in proptest::collection::vec((0..70_u64, 0..3_u8, any::<prop::sample::Index>()), 1..200),
        ) {
            let epochs = Epochs::default();
            let mut now = clock::now();
            let mut inside = Vec::new();
            for (millis, step, which) in steps {
                now += Duration::from_millis(millis);
                match step {
                    0 | 1 => inside.push((now, epochs.enter(now))),
                    _ if !inside.is_empty() => {
                        let (_, epoch) = inside.swap_remove(which.index(inside.len()));
                        epochs.leave(epoch);
                    }
                    _ => drop(epochs.end_current()),
                }
                let oldest = inside.iter().map(|(entered, _)| now - *entered).max();
                match (oldest, epochs.oldest(now)) {
                    (None, None) => {}
                    (Some(oldest), Some(told)) => {
                        prop_assert!(told >= oldest && told < oldest + LONGEST_EPOCH, "{told:?} {oldest:?}");
                    }
                    (oldest, told) => prop_assert!(false, "{told:?} {oldest:?}"),
                }
            }
        }
    }
}
