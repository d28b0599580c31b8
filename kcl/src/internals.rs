//! Parts of the library for this project's own simulation and lease store tests.
//!
//! It is not part of the API, and changes without notice. The feature `internals` gates nothing but this module.

mod worker;

use std::error::Error;
use std::sync::Arc;

use aws_sdk_dynamodb::Client;

pub use self::worker::{InjectedReading, InjectedWorker, WorkerParts};
use crate::config::ConsumerConfig;
pub use crate::executor::Executor;
pub use crate::lease::item::{
    CorruptItem, Item, LEADER, TableItem, attribute, decode, encode, number, text, throughput,
};
pub use crate::lease::local::{LocalLeaseStore, apply};
pub use crate::lease::model::{Lease, PendingCheckpoint, Stamp, StreamIdentity};
pub use crate::lease::readback::{adopt, read_back};
pub use crate::lease::store::{
    LeaderLock, LeaseStore, LeaseWrite, Outcome, OwnerReport, ShardFacts, Snapshot, StoreFuture,
    WorkerRow,
};
pub use crate::lease::{CallError, CallErrorKind, ChildShard, LeaseStoreError};
use crate::lease::{DynamoDbLeaseStore, Layout, WeakHeldLease, ensure_table, for_leases};
use crate::processor::ShardContext;
pub use crate::progress::Failing;
pub use crate::retrieval::{
    Held, Page, PageSender, Position, RawRecord, RawRecords, Retrieval, Room, ShardSource, Start,
};
pub use crate::stream::list::{ListShardsError, Shard, ShardList, ShardLister};

impl Start {
    /// The shard to read.
    pub fn shard_id(&self) -> &str {
        self.status.shard_id()
    }
}

/// Opens the lease table in DynamoDB for process `process`. Creates the table if it does not exist.
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

/// Observer of the ownership of a shard. It does not keep the lease.
#[derive(Debug, Clone)]
pub struct Ownership(WeakHeldLease);

impl Ownership {
    /// The ownership for which the processor of `shard` was created.
    pub fn of(shard: &ShardContext) -> Self {
        Self(shard.held_lease.clone())
    }

    /// True while the worker is sure to hold the lease.
    pub fn is_held(&self) -> bool {
        self.0.state.is_held()
    }

    /// True after the worker's local deadline for the lease has passed.
    pub fn is_fenced(&self) -> bool {
        let state = &self.0.state;
        state.known.lock().fence.has_fallen(state.clock.now())
    }
}
