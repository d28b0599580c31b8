//! Positions at which reading starts.

use std::collections::BTreeMap;
use std::time::SystemTime;

#[cfg(feature = "serde")]
use super::timestamp;
use crate::sequence::SequenceNumber;

/// Where a shard without a checkpoint starts.
///
/// ```
/// use kcl::{InitialPosition, ShardPosition, ShardPositions, StreamPosition};
///
/// // One shard starts after the last record that another consumer has processed, all others at the trim horizon.
/// let last = "49590338271490256608559692538361571095921575989136588898".parse()?;
/// let positions = ShardPositions::new(StreamPosition::TrimHorizon)
///     .with("shardId-000000000000", ShardPosition::AfterSequenceNumber(last));
/// let position = InitialPosition::PerShard(positions);
/// # Ok::<(), kcl::InvalidSequenceNumber>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum InitialPosition {
    /// Records put since the first worker's [`build`](crate::SchedulerBuilder::build) began. Records of up to three
    /// seconds before may be delivered too: the lease holds the time to start from, by the service's clock. That time
    /// is rounded down to a second and reduced by two seconds, because the clocks of the service's hosts differ.
    #[default]
    Latest,
    /// The oldest record that the stream still has.
    TrimHorizon,
    /// The first record that arrived at this time or later. If the time is before the retention of the stream, it is
    /// the oldest record that the stream still has. If the time is in the future, shards wait until then, by the
    /// service's clock, and deliver no record that arrives earlier.
    AtTimestamp(#[cfg_attr(feature = "serde", serde(with = "timestamp"))] SystemTime),
    /// A position of its own for each named shard.
    PerShard(ShardPositions),
}

/// Position that means something in every shard of a stream. [`InitialPosition`] describes the variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum StreamPosition {
    /// Records that are put from now on.
    #[default]
    Latest,
    /// The oldest record that the stream still has.
    TrimHorizon,
    /// The first record that arrived at this time or later.
    AtTimestamp(#[cfg_attr(feature = "serde", serde(with = "timestamp"))] SystemTime),
}

/// Position in one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ShardPosition {
    /// Records that are put from now on.
    Latest,
    /// The oldest record that the shard still has.
    TrimHorizon,
    /// The first record that arrived at this time or later.
    AtTimestamp(#[cfg_attr(feature = "serde", serde(with = "timestamp"))] SystemTime),
    /// This Kinesis record, with all its user records. The first sequence number of the shard is its trim horizon.
    AtSequenceNumber(SequenceNumber),
    /// The Kinesis record after this one. All user records of this one count as processed.
    AfterSequenceNumber(SequenceNumber),
}

/// Positions of named shards, and the position of all others.
///
/// * A named shard starts at its position, also if it is closed. Its descendants are read from their beginning, after
///   it, so no record after its position is skipped. A descendant that is named, too, starts at its own position.
/// * All other shards start at [`others`](Self::others).
/// * The positions are for shards without a lease, as every [`InitialPosition`] is. If the application has no leases
///   yet, [`build`](crate::SchedulerBuilder::build) fails for a shard that the stream does not list, and for a
///   sequence number before the first one of the shard. Later, such a shard may have left the stream: its name is
///   logged and has no effect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct ShardPositions {
    /// Position of each named shard, by shard id.
    pub shards: BTreeMap<String, ShardPosition>,
    /// Position of all other shards. Default [`StreamPosition::Latest`].
    pub others: StreamPosition,
}

impl ShardPositions {
    /// Creates positions that name no shard yet.
    pub fn new(others: StreamPosition) -> Self {
        Self { shards: BTreeMap::new(), others }
    }

    /// Names a shard.
    #[must_use]
    pub fn with(mut self, shard_id: impl Into<String>, position: ShardPosition) -> Self {
        self.shards.insert(shard_id.into(), position);
        self
    }
}

impl InitialPosition {
    /// The position of shards that are not named.
    pub(crate) fn of_others(&self) -> StreamPosition {
        match self {
            Self::Latest => StreamPosition::Latest,
            Self::TrimHorizon => StreamPosition::TrimHorizon,
            Self::AtTimestamp(time) => StreamPosition::AtTimestamp(*time),
            Self::PerShard(positions) => positions.others,
        }
    }

    /// The named shards.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&str, &ShardPosition)> {
        let positions = match self {
            Self::PerShard(positions) => Some(&positions.shards),
            _ => None,
        };
        positions.into_iter().flatten().map(|(shard_id, position)| (shard_id.as_str(), position))
    }

    /// The times in this position.
    pub(super) fn times(&self) -> impl Iterator<Item = SystemTime> {
        let named = self.named().filter_map(|(_, position)| match position {
            ShardPosition::AtTimestamp(time) => Some(*time),
            _ => None,
        });
        let others = match self.of_others() {
            StreamPosition::AtTimestamp(time) => Some(time),
            _ => None,
        };
        named.chain(others)
    }
}

impl From<StreamPosition> for InitialPosition {
    fn from(position: StreamPosition) -> Self {
        match position {
            StreamPosition::Latest => Self::Latest,
            StreamPosition::TrimHorizon => Self::TrimHorizon,
            StreamPosition::AtTimestamp(time) => Self::AtTimestamp(time),
        }
    }
}

impl From<StreamPosition> for ShardPosition {
    fn from(position: StreamPosition) -> Self {
        match position {
            StreamPosition::Latest => Self::Latest,
            StreamPosition::TrimHorizon => Self::TrimHorizon,
            StreamPosition::AtTimestamp(time) => Self::AtTimestamp(time),
        }
    }
}
