//! Lists the shards of the stream, creates the leases that they need, and deletes leases of finished shards.

mod cleanup;
mod hierarchy;
mod lease_start;
mod lineage;
pub(crate) mod list;
mod named;
mod starter;
mod sync;

pub(crate) use lease_start::LeaseStart;
pub(crate) use lineage::Lineage;
pub(crate) use list::KinesisShardLister;
pub(crate) use list::ListShardsError;
#[cfg(test)]
pub(crate) use list::{ShardList, ShardLister};
pub(crate) use named::{NamedShardsError, check_named};
pub(crate) use starter::Starter;
pub(crate) use sync::{ShardSync, SyncError};
