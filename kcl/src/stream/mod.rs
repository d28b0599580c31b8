//! Lists the shards of the stream, creates the leases that they need, and deletes leases of finished shards.

mod cleanup;
mod hierarchy;
pub(crate) mod list;
mod starter;
mod sync;

pub(crate) use hierarchy::sentinel;
pub(crate) use list::KinesisShardLister;
pub(crate) use list::ListShardsError;
#[cfg(test)]
pub(crate) use list::{ShardList, ShardLister};
pub(crate) use starter::Starter;
pub(crate) use sync::{ShardSync, SyncError};
