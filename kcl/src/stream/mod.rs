//! Which shards exist, which of them need a lease, and which leases are done with.

mod cleanup;
mod hierarchy;
mod list;
mod starter;
mod sync;

#[cfg(feature = "simulation")]
pub(crate) use list::Shard;
pub(crate) use list::{KinesisShardLister, ListShardsError};
#[cfg(any(test, feature = "simulation"))]
pub(crate) use list::{ShardList, ShardLister};
pub(crate) use starter::Starter;
pub(crate) use sync::{ShardSync, SyncError};
