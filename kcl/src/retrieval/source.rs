//! Where the pages of a shard come from.

use std::sync::Arc;
use std::time::SystemTime;

use futures::future::BoxFuture;

use super::budget::ShardBudget;
use super::page::Page;
use super::position::Position;
use crate::lease::StreamIdentity;
use crate::snapshot::ShardStatus;

/// How a worker reads its shards.
pub trait Retrieval: Send + Sync {
    /// A reader of one shard. It has read nothing yet.
    fn open(&self, start: Start) -> Box<dyn ShardReader>;
}

/// What is read, and from where on.
#[derive(Debug)]
pub struct Start {
    /// Names the shard.
    pub(crate) status: Arc<ShardStatus>,
    pub position: Position,
    /// The stream that the lease is of, if the lease says so.
    pub(crate) stream: Option<StreamIdentity>,
    /// Everything that arrived before this time was checkpointed, as the lease says.
    pub(crate) read_to: Option<SystemTime>,
    /// Of all random choices.
    pub seed: u64,
}

impl Start {
    pub fn shard_id(&self) -> &str {
        self.status.shard_id()
    }
}

/// Reads one shard, page by page, in order.
pub trait ShardReader: Send {
    /// The next page that has records, or the last page of the shard. Retries until there is one.
    ///
    /// # Errors
    /// The shard can not be read any more.
    fn next_page<'a>(
        &'a mut self,
        budget: &'a ShardBudget,
    ) -> BoxFuture<'a, Result<Page, RetrievalError>>;
}

/// Why a shard can not be read any more. Everything else is retried.
#[derive(Debug)]
pub enum RetrievalError {
    StreamDeleted { stream: String },
    StreamRecreated { stream: String },
}
