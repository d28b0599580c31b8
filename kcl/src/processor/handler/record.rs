//! The record that a handler gets.

use std::fmt;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::processor::{OwnedRecord, Record, ShardContext};

/// A user record of a shard, for one attempt of a [handler](crate::SchedulerBuilder::handler), or inside a
/// [`PendingRecord`](crate::PendingRecord).
///
/// It may be sent to other tasks, and is cheap to clone. Like an [`OwnedRecord`], it keeps the page that it came in.
#[derive(Clone)]
pub struct ShardRecord {
    pub(super) record: OwnedRecord,
    pub(super) shard: Arc<ShardContext>,
    pub(super) attempt: u32,
}

impl ShardRecord {
    /// The record, with its position, time of arrival and hash key.
    pub fn as_record(&self) -> Record<'_> {
        self.record.as_record()
    }

    /// The record without its shard, to keep.
    pub fn into_owned_record(self) -> OwnedRecord {
        self.record
    }

    /// The payload.
    pub fn data(&self) -> &[u8] {
        self.as_record().data()
    }

    /// The partition key. `None`: the record was put without a key, on a stream whose record distribution strategy is
    /// `AUTO`.
    pub fn partition_key(&self) -> Option<&str> {
        self.as_record().partition_key()
    }

    /// The shard of the record. It has the shard's id and the [fencing token](ShardContext::fencing_token).
    pub fn shard(&self) -> &ShardContext {
        &self.shard
    }

    /// Number of this attempt: 1, and one more after each failure.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Cancelled when the lease of the shard is lost. Then another worker may process the record. The future of the
    /// handler is dropped where it awaits, so the token is for tasks and threads that the handler started.
    pub fn cancellation(&self) -> &CancellationToken {
        self.shard.cancellation()
    }

    /// Cancelled when the shard is to be given up on request: by a planned stop of the worker, or because the lease
    /// moves to another worker.
    ///
    /// A handler that can finish the record in time does so. Otherwise it returns an error: the record goes to the next
    /// owner of the shard, and the error does not count as a failure. The deadline is that of the stop, or 25 s for a
    /// move to another worker.
    pub fn shutdown_token(&self) -> &CancellationToken {
        self.shard.shutdown_token()
    }
}

impl fmt::Debug for ShardRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardRecord")
            .field("shard_id", &self.shard.shard_id())
            .field("record", &self.record)
            .field("attempt", &self.attempt)
            .finish()
    }
}
