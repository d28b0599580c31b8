//! Parts of the library for this project's own simulation and lease store tests.
//!
//! Not part of the API: it changes without notice. The feature `internals` gates this module and
//! nothing else.

mod worker;

use std::error::Error;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;

pub use self::worker::{InjectedWorker, WorkerParts};
use crate::config::ConsumerConfig;
pub use crate::executor::Executor;
pub use crate::lease::item::{
    CorruptItem, Item, LEADER, TableItem, attribute, decode, encode, number, text, throughput,
};
pub use crate::lease::model::{Lease, PendingCheckpoint, Stamp, StreamIdentity};
pub use crate::lease::readback::{adopt, read_back};
pub use crate::lease::store::{
    LeaderLock, LeaseStore, LeaseWrite, Outcome, ShardFacts, Snapshot, StoreFuture, WorkerRow,
};
pub use crate::lease::{CallError, CallErrorKind, ChildShard, LeaseStoreError};
use crate::lease::{DynamoDbLeaseStore, Layout, WeakHeldLease, ensure_table, for_leases};
use crate::processor::ShardContext;
pub use crate::retrieval::{
    Held, Page, Position, RawRecord, Retrieval, RetrievalError, ShardBudget, ShardReader, Start,
};
pub use crate::stream::list::{ListShardsError, Shard, ShardList, ShardLister};

impl Start {
    /// The shard to read.
    pub fn shard_id(&self) -> &str {
        self.status.shard_id()
    }
}

/// The lease table in DynamoDB, created where it is missing, for the process `process`.
///
/// # Errors
/// The table cannot be used, or a call failed.
pub async fn open_lease_table(
    client: &Client,
    table: &str,
    process: u64,
) -> Result<Arc<dyn LeaseStore>, Box<dyn Error + Send + Sync>> {
    let config = ConsumerConfig::default();
    let client = for_leases(client, &config);
    ensure_table(&client, table, &config.table).await?;
    Ok(Arc::new(DynamoDbLeaseStore::new(client, table.to_owned(), Layout::OneTable, process)))
}

/// The ownership of a shard, seen from outside of its processor. Does not keep the lease.
#[derive(Debug, Clone)]
pub struct Ownership(WeakHeldLease);

impl Ownership {
    /// The ownership for which the processor of `shard` is made.
    pub fn of(shard: &ShardContext) -> Self {
        Self(shard.held_lease.clone())
    }

    /// True while the worker is sure to own the lease.
    pub fn is_held(&self) -> bool {
        self.0.state.is_held()
    }

    /// True once the worker's local deadline has passed, whatever it has heard of the lease.
    pub fn is_fenced(&self) -> bool {
        let state = &self.0.state;
        state.known().fence.has_fallen(state.clock.now())
    }
}
