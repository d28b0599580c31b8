//! Settings, budget, counters and signals that all handles and tasks of a producer share.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::ack::{Completer, Delivery, FailureHook, Outcomes};
use crate::buffer::{AGGREGATE_OVERHEAD, Budget, MemoryBudget, RECORD_OVERHEAD};
use crate::config::ProducerConfig;
use crate::error::{DeliveryError, StopReason};
use crate::metrics::Telemetry;
use crate::record::UserRecord;

/// State that all handles and tasks of a producer share, apart from its shards.
pub(crate) struct Context {
    pub(crate) config: ProducerConfig,
    pub(crate) outcomes: Arc<Outcomes>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) budget: Arc<Budget>,
    /// Stops all tasks of the producer.
    pub(crate) cancel: CancellationToken,
    /// Wakes the sender.
    pub(crate) wake: Notify,
}

impl Context {
    pub(crate) fn new(
        config: ProducerConfig,
        on_failure: Option<FailureHook>,
        memory_budget: Option<MemoryBudget>,
    ) -> Arc<Self> {
        let memory_budget =
            memory_budget.unwrap_or_else(|| MemoryBudget::new(config.max_buffered_bytes));
        Arc::new(Self {
            outcomes: Arc::new(Outcomes::new(on_failure)),
            telemetry: Arc::new(Telemetry::new(config.hot_keys)),
            budget: Budget::new(memory_budget, config.droppable_limit),
            cancel: CancellationToken::new(),
            wake: Notify::new(),
            config,
        })
    }

    /// The largest record that the buffer could ever take, key and data, in bytes.
    pub(crate) fn max_bufferable_record(&self) -> usize {
        self.budget.limit().saturating_sub(RECORD_OVERHEAD + AGGREGATE_OVERHEAD)
    }

    /// Accepts a droppable record for which there is no room, and fails it at once.
    pub(crate) fn fail_as_dropped(&self, record: UserRecord) -> Delivery {
        self.outcomes.counters.user_records_accepted.add(1);
        let mut completer = Completer::new(&self.outcomes);
        let delivery = completer.add_member();
        self.complete_as_dropped(completer, record);
        delivery
    }

    /// Fails a droppable record that was accepted as the one member of a slot.
    pub(crate) fn complete_as_dropped(&self, completer: Completer, record: UserRecord) {
        self.outcomes.counters.user_records_dropped.add(1);
        completer.complete_one(0, Err(DeliveryError::dropped(record)));
    }

    pub(crate) fn stop_reason(&self) -> StopReason {
        self.outcomes.stop_reason().cloned().unwrap_or(StopReason::Closed)
    }
}
