//! Who owns which shard: the lease item, the table that holds it, and the tenure of an owner.

mod client;
#[cfg(test)]
mod conformance;
mod dynamodb;
mod error;
mod expression;
mod fence;
#[cfg(test)]
mod golden;
mod item;
#[cfg(any(test, feature = "simulation"))]
pub(crate) mod memory;
mod metered;
mod model;
mod readback;
#[cfg(any(test, feature = "testing"))]
mod recorder;
mod store;
mod table;
mod table_check;
mod tenure;
mod throughput;
mod writer;

pub(crate) use client::{for_leases, for_shards};
pub(crate) use dynamodb::DynamoDbLeaseStore;
pub(crate) use error::{CallError, CallErrorKind, LeaseStoreError, classify};
#[cfg(test)]
pub(crate) use fence::Fence;
#[cfg(any(test, feature = "simulation"))]
pub(crate) use item::text;
pub(crate) use item::{CorruptItem, Item};
pub(crate) use metered::metered;
#[cfg(feature = "testing")]
pub(crate) use model::PendingCheckpoint;
#[cfg(test)]
pub(crate) use model::Stamp;
pub(crate) use model::{Lease, StreamIdentity};
#[cfg(test)]
pub(crate) use readback::Intent;
#[cfg(any(test, feature = "testing"))]
pub(crate) use recorder::Recorder;
pub(crate) use store::{
    LeaderLock, LeaseStore, Outcome, ShardFacts, Snapshot, StoreFuture, WorkerRow,
};
pub(crate) use table::{Layout, TableError, ensure as ensure_table, find as find_table};
pub(crate) use table_check::TableKind;
pub use table_check::TableProblem;
pub use tenure::FencingToken;
pub(crate) use tenure::{ChildShard, Fleet, LeaseOutcome, Retry, Tenure, TenureEnd, WeakTenure};
pub(crate) use writer::{RetryBudget, WriterContext};
