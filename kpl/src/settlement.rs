//! What all records of a producer share when they are settled: counters, the failure hook, the reason of an end, and the
//! epochs that `flush` waits for.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use crate::error::{DeliveryError, StopReason};
use crate::stats::Counters;
use crate::sync::{Mutex, lock};

/// Never panics: it also runs in drops, where a panic would take the outcomes of other records along.
pub(crate) type FailureHook = Arc<dyn Fn(&DeliveryError) + Send + Sync>;

#[derive(Default)]
pub(crate) struct Settlement {
    pub(crate) counters: Counters,
    pub(crate) epochs: Epochs,
    on_failure: Option<FailureHook>,
    stopped: OnceLock<StopReason>,
}

impl Settlement {
    pub(crate) fn new(on_failure: Option<FailureHook>) -> Self {
        Self {
            on_failure,
            ..Self::default()
        }
    }

    /// Notes why the producer stops; the first reason stays.
    pub(crate) fn stop(&self, reason: StopReason) {
        let _ = self.stopped.set(reason);
    }

    pub(crate) fn stop_reason(&self) -> Option<&StopReason> {
        self.stopped.get()
    }

    /// A failure that no `Delivery` will see.
    pub(crate) fn unobserved(&self, error: &DeliveryError) {
        self.counters.failures_unobserved.add(1);
        if let Some(hook) = &self.on_failure {
            hook(error);
        }
    }
}

/// Counts the unsettled aggregates by the epoch they were opened in; each flush begins a new epoch.
#[derive(Default)]
pub(crate) struct Epochs {
    state: Mutex<EpochState>,
    emptied: Notify,
}

#[derive(Default)]
struct EpochState {
    current: u64,
    unsettled: BTreeMap<u64, usize>,
}

impl Epochs {
    pub(crate) fn enter(&self) -> u64 {
        let mut state = lock(&self.state);
        let epoch = state.current;
        *state.unsettled.entry(epoch).or_insert(0) += 1;
        epoch
    }

    pub(crate) fn leave(&self, epoch: u64) {
        let mut state = lock(&self.state);
        if let Some(count) = state.unsettled.get_mut(&epoch) {
            *count -= 1;
            if *count == 0 {
                state.unsettled.remove(&epoch);
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

    /// Waits until everything of `epoch` and before is settled.
    pub(crate) async fn settled(&self, epoch: u64) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if lock(&self.state)
                .unsettled
                .first_key_value()
                .is_none_or(|(first, _)| *first > epoch)
            {
                return;
            }
            emptied.await;
        }
    }
}
