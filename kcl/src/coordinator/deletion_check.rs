//! Whether the lease table and the stream still exist.
//!
//! When does a worker believe that the table or the stream was deleted? When a call has not found
//! it, and then every answer to another kind of call has said for 10 s that it is missing. One such
//! answer may be a passing fault, and all workers of the fleet would end for it.

use std::sync::Arc;
use std::time::Duration;

use kinesis_common::sync::until_set;
use tokio::sync::watch;

use super::context::Context;
use crate::error::WorkerError;
use crate::lease::{CallError, CallErrorKind, LeaseStoreError};

/// Time over which every answer must say that a resource is missing before it counts as deleted.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// Pause between two checks.
const PAUSE: Duration = Duration::from_secs(2);

/// A resource without which a worker cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource {
    /// The lease table or its index.
    Table,
    Stream,
}

impl Resource {
    /// The resource of a call.
    fn of(call: &CallError) -> Self {
        match call.operation {
            "ListShards" | "DescribeStreamSummary" => Self::Stream,
            _ => Self::Table,
        }
    }
}

/// The calls that did not find the table or the stream.
#[derive(Debug, Default)]
pub(super) struct MissingResources {
    table: Missing,
    stream: Missing,
}

/// The latest call that did not find a resource, until that is confirmed or refuted.
type Missing = watch::Sender<Option<CallError>>;

impl MissingResources {
    /// Notes an error. If it says that the table or the stream does not exist, [`DeletionCheck`]
    /// confirms that.
    pub(super) fn note(&self, error: &LeaseStoreError) {
        if let LeaseStoreError::Call(call) = error
            && call.kind == CallErrorKind::NotFound
        {
            self.of(Resource::of(call)).send_replace(Some(call.clone()));
        }
    }

    fn of(&self, resource: Resource) -> &Missing {
        match resource {
            Resource::Table => &self.table,
            Resource::Stream => &self.stream,
        }
    }
}

/// A row of answers that say that a resource is missing.
#[derive(Debug, Default)]
struct Inquiry {
    /// When the check with the first of these answers was sent.
    since: Option<Duration>,
}

impl Inquiry {
    /// Takes in an answer to a check that was sent at `sent`: whether the resource exists. `None`: the call
    /// failed. Returns whether the resource was deleted. `None`: ask again.
    fn answered(&mut self, sent: Duration, exists: Option<bool>) -> Option<bool> {
        if exists? {
            return Some(false);
        }
        let since = *self.since.get_or_insert(sent);
        (sent.saturating_sub(since) >= GONE_AFTER).then_some(true)
    }
}

/// Checks whether resources that a call did not find were deleted, and ends the worker if they
/// were.
#[derive(Debug)]
pub(super) struct DeletionCheck {
    pub(super) ctx: Arc<Context>,
}

impl DeletionCheck {
    /// Checks for ever.
    pub(super) async fn run(self) {
        futures::future::join(self.check(Resource::Table), self.check(Resource::Stream)).await;
    }

    async fn check(&self, resource: Resource) {
        let missing = self.ctx.missing.of(resource);
        let mut noted = missing.subscribe();
        loop {
            let call = until_set(&mut noted).await;
            tracing::warn!(error = %call, ?resource, "not found: checking whether it was deleted");
            if self.is_deleted(resource).await {
                return self.ctx.tasks.fail(match resource {
                    Resource::Table => WorkerError::TableDeleted { cause: call.to_string() },
                    Resource::Stream => {
                        WorkerError::StreamDeleted { stream: self.ctx.worker.stream.clone() }
                    }
                });
            }
            missing.send_replace(None);
            tracing::info!(?resource, "it exists: the call that did not find it was wrong");
        }
    }

    async fn is_deleted(&self, resource: Resource) -> bool {
        let mut inquiry = Inquiry::default();
        loop {
            let sent = self.ctx.worker.clock.now();
            let exists = self.exists(resource).await;
            if let Some(is_deleted) = inquiry.answered(sent, exists) {
                return is_deleted;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Asks whether the resource exists, by another kind of call than reads and writes are. `None`: the call
    /// failed.
    async fn exists(&self, resource: Resource) -> Option<bool> {
        let worker = &self.ctx.worker;
        let exists = match resource {
            Resource::Table => worker.store.exists().await,
            Resource::Stream => worker.sync.lister.exists().await.map_err(Into::into),
        };
        exists
            .inspect_err(|error| {
                tracing::warn!(%error, ?resource, "whether it still exists is unknown");
            })
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn only_answers_over_ten_seconds_confirm() {
        let mut inquiry = Inquiry::default();
        for at in [100, 102, 104, 106, 108] {
            assert_eq!(inquiry.answered(seconds(at), Some(false)), None);
        }
        // A check that failed does not count. The last answer must say that the resource is
        // missing.
        assert_eq!(inquiry.answered(seconds(111), None), None);
        assert_eq!(inquiry.answered(seconds(113), Some(false)), Some(true));
    }

    #[test]
    fn one_answer_that_finds_it_ends_the_inquiry() {
        let mut inquiry = Inquiry::default();
        assert_eq!(inquiry.answered(seconds(0), Some(false)), None);
        assert_eq!(inquiry.answered(seconds(9), Some(true)), Some(false));
    }
}
