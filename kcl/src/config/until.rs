//! The end of a bounded replay.

use std::collections::BTreeMap;
use std::time::SystemTime;

#[cfg(feature = "serde")]
use super::timestamp;
use crate::sequence::SequenceNumber;

/// End of a bounded replay. Each shard finishes there, and the worker ends when all its shards have finished.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Until {
    /// The tip of the stream at the start of the worker: every record that was acknowledged before
    /// [`build`](crate::SchedulerBuilder::build) is delivered. Records of up to four seconds after it may be delivered,
    /// too, because the clocks of the service's hosts differ. A shard without records finishes about six seconds after
    /// the start.
    Tip,
    /// A time: a shard finishes at the first record that arrived at this time or later. If the time is in the future,
    /// shards follow their tips until then.
    Timestamp(#[cfg_attr(feature = "serde", serde(with = "timestamp"))] SystemTime),
    /// The last Kinesis record of each named shard, by shard id. It is delivered with all its user records. Shards that
    /// are not named finish at the tip, as with [`Tip`](Self::Tip). If a named shard ends before its number, its children
    /// follow it, as ever.
    SequenceNumbers(BTreeMap<String, SequenceNumber>),
}
