//! Records that are given up: they are skipped, or written to the sink of dead letters.

use std::fmt;
use std::sync::Arc;

use crate::error::ProcessorError;
use crate::processor::Records;

pub use super::policy::GiveUpReason;

/// User records that the worker skips, for the callback of
/// [`on_skipped`](crate::SchedulerBuilder::on_skipped).
pub struct SkippedRecords<'a> {
    pub(crate) shard_id: &'a str,
    pub(crate) records: Records<'a>,
    pub(crate) reason: GiveUpReason,
    pub(crate) error: Option<&'a ProcessorError>,
    pub(crate) attempts: u32,
}

impl<'a> SkippedRecords<'a> {
    /// Id of their shard.
    pub fn shard_id(&self) -> &'a str {
        self.shard_id
    }

    /// The records, in the order of the shard. There is at least one.
    pub fn records(&self) -> Records<'a> {
        self.records.clone()
    }

    /// Reason for which they are skipped.
    pub fn reason(&self) -> GiveUpReason {
        self.reason
    }

    /// The last error of the processor. `None` if the records were not delivered to it.
    pub fn error(&self) -> Option<&'a ProcessorError> {
        self.error
    }

    /// The number of deliveries.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }
}

impl fmt::Debug for SkippedRecords<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SkippedRecords")
            .field("shard_id", &self.shard_id)
            .field("records", &self.records.len())
            .field("reason", &self.reason)
            .field("attempts", &self.attempts)
            .finish_non_exhaustive()
    }
}

/// Called with records that are skipped.
pub(crate) type OnSkipped = Arc<dyn Fn(&SkippedRecords<'_>) + Send + Sync>;

/// Where records go that are given up. All shards of a worker share it.
#[derive(Clone, Default)]
pub(crate) struct GivenUp {
    pub(crate) on_skipped: Option<OnSkipped>,
}
