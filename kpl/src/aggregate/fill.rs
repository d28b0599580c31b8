//! Fill: how full aggregates are when they are sealed, and what seals them.

use crate::stats::Counters;

/// Why an open aggregate, perhaps of a single record, took no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SealReason {
    /// It is as large as it may be, or the next record did not fit.
    Size,
    Count,
    /// It takes no others: a raw record, or one without a key.
    Alone,
    /// The next record is raw, or without a key.
    BeforeSingle,
    /// Its linger was over and its shard took it; with a linger of zero, nothing of its shard was under way.
    Linger,
    /// A member expired; or, in ordered mode, a record with another time to live came behind it.
    TimeToLive,
    /// `flush` or `close`.
    Flush,
    /// Others waited for room in the buffer.
    Pressure,
    /// Its shard closed, or, in ordered mode, an earlier record of its queue failed.
    Handover,
}

/// What is known of an aggregate when it is sealed.
#[derive(Debug)]
pub(crate) struct Fill {
    pub(crate) closed_by: SealReason,
    pub(crate) members: usize,
    /// In bytes, before compression.
    pub(crate) size: usize,
    /// What the size was allowed to be; `None` for a record alone.
    pub(crate) max_size: Option<usize>,
}

impl Fill {
    pub(crate) fn count(&self, counters: &Counters) {
        let reason = match self.closed_by {
            SealReason::Size => &counters.sealed_by_size,
            SealReason::Count => &counters.sealed_by_count,
            SealReason::Alone => &counters.sealed_alone,
            SealReason::BeforeSingle => &counters.sealed_before_single,
            SealReason::Linger => &counters.sealed_by_linger,
            SealReason::TimeToLive => &counters.sealed_by_time_to_live,
            SealReason::Flush => &counters.sealed_by_flush,
            SealReason::Pressure => &counters.sealed_by_pressure,
            SealReason::Handover => &counters.sealed_by_handover,
        };
        reason.add(1);
        if let Some(max_size) = self.max_size {
            counters.aggregates.add(1);
            counters.aggregated_user_records.add(self.members);
            counters.aggregate_bytes.add(self.size);
            counters.aggregate_bytes_allowed.add(max_size);
        }
    }
}
