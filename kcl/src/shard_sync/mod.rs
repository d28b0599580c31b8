//! Which shards exist, which of them need a lease, and which leases are done with.

mod cleanup;
mod hierarchy;
mod list;
mod sync;

pub(crate) use list::{KinesisShardLister, ListShardsError};
#[cfg(feature = "simulation")]
pub(crate) use list::{Shard, ShardList, ShardLister};
pub(crate) use sync::{ShardSync, SyncError};
