//! The ownership of shards: the lease item, the lease table, and the leases that this worker holds.

mod client;
mod dynamodb;
mod error;
mod fence;
#[cfg(test)]
#[allow(dead_code, reason = "the tests of lease stores use more of it")]
#[path = "../../tests/golden/reader.rs"]
mod golden;
mod held_lease;
pub(crate) mod item;
pub(crate) mod local;
#[cfg(test)]
#[allow(dead_code, unreachable_pub, unused_imports, reason = "it has more users in its own crate")]
#[path = "../../../integration-tests/simulation/src/memory/mod.rs"]
pub(crate) mod memory;
pub(crate) mod model;
pub(crate) mod readback;
#[cfg(any(test, feature = "testing"))]
mod recorder;
mod renewer;
pub(crate) mod store;
mod table;
mod table_check;
mod throughput;

pub(crate) use client::{for_leases, for_shards};
pub(crate) use dynamodb::{DynamoDbLeaseStore, get_item};
pub(crate) use error::classify;
pub use error::{CallError, CallErrorKind, LeaseStoreError};
#[cfg(test)]
pub(crate) use fence::Fence;
pub use held_lease::{ChildShard, FencingToken};
pub(crate) use held_lease::{HeldLease, LeaseEnd, RenewerServices, Retry, WeakHeldLease};
pub(crate) use item::Item;
#[cfg(test)]
pub(crate) use item::text;
pub(crate) use local::LocalLeaseStore;
#[cfg(feature = "testing")]
pub(crate) use model::PendingCheckpoint;
#[cfg(test)]
pub(crate) use model::Stamp;
pub(crate) use model::{Lease, StreamIdentity};
#[cfg(any(test, feature = "testing"))]
pub(crate) use recorder::Recorder;
pub(crate) use renewer::{RenewerContext, RetryBudget, WorkerStop};
pub(crate) use store::{
    LeaderLock, LeaseStore, LeaseWrite, Outcome, OwnerReport, ShardFacts, Snapshot, StoreFuture,
    WorkerRow,
};
pub(crate) use table::{Layout, TableError, ensure as ensure_table, find as find_table};
pub use table_check::TableProblem;
