//! Bounded replay: when the worker has nothing left to do, and the report of the work.
//!
//! A worker keeps the leases of its finished shards until it ends. Their checkpoints are plain ones, so the application
//! can go on later. A worker that gets such a lease afterwards finds no record within the [bound], and the shard finishes
//! again.
//!
//! [bound]: crate::retrieval::Bound

mod report;
mod standing;

pub(crate) use self::report::ReplayLog;
pub use self::report::{ReplayEnd, ReplayReport, ReplayedShard};
pub(crate) use self::standing::{Standing, standing};
