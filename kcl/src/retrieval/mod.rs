//! Reading one shard: where to start, how fast, how much at a time.

mod budget;
mod client;
mod failure;
mod pacing;
mod page;
mod page_size;
mod polling;
mod position;
mod prefetch;
mod shared_call;
pub(crate) mod source;
mod standing;
mod stream_check;
mod trimmed;

pub(crate) use budget::ByteBudget;
pub use budget::{Held, ShardBudget};
pub use page::{Page, RawRecord};
pub(crate) use polling::PollingRetrieval;
pub use position::Position;
pub(crate) use prefetch::{Prefetch, prefetch};
pub(crate) use source::{Retrieval, Start};
#[cfg(test)]
pub(crate) use source::{RetrievalError, ShardReader};
