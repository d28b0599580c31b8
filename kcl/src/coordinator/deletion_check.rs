//! Whether the lease table and the stream still exist.
//!
//! When does a worker believe that the table or the stream was deleted? When a call has not found
//! it, and then every answer to another kind of call has said for 10 s that it is missing. One such
//! answer may be a passing fault, and all workers of the fleet would end for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::context::Context;
use crate::error::WorkerFailure;
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

    /// Why the worker ends.
    fn deleted(self, call: CallError) -> WorkerFailure {
        let cause = call.to_string();
        match self {
            Self::Table => WorkerFailure::TableDeleted { cause },
            Self::Stream => WorkerFailure::StreamDeleted { cause },
        }
    }
}

/// The calls that did not find the table or the stream.
#[derive(Debug, Default)]
pub(super) struct MissingResources {
    table: Missing,
    stream: Missing,
}

#[derive(Debug, Default)]
struct Missing {
    /// The latest call that did not find the resource.
    call: Mutex<Option<CallError>>,
    noted: Notify,
}

impl MissingResources {
    /// Notes an error. If it says that the table or the stream does not exist, [`DeletionCheck`]
    /// confirms that.
    pub(super) fn note(&self, error: &LeaseStoreError) {
        if let LeaseStoreError::Call(call) = error
            && call.kind == CallErrorKind::NotFound
        {
            let missing = self.of(Resource::of(call));
            *missing.call() = Some(call.clone());
            missing.noted.notify_one();
        }
    }

    fn of(&self, resource: Resource) -> &Missing {
        match resource {
            Resource::Table => &self.table,
            Resource::Stream => &self.stream,
        }
    }
}

impl Missing {
    fn call(&self) -> MutexGuard<'_, Option<CallError>> {
        // Each change is one assignment.
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer to one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Exists,
    Missing,
    /// The call failed.
    Unknown,
}

/// What the answers of an inquiry say so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    Exists,
    Deleted,
    AskAgain,
}

/// A row of answers that say that a resource is missing.
#[derive(Debug, Default)]
struct Inquiry {
    /// When the check with the first of these answers was sent.
    since: Option<Duration>,
}

impl Inquiry {
    /// Takes in an answer to a check that was sent at `sent`.
    fn answered(&mut self, sent: Duration, answer: Answer) -> Finding {
        match answer {
            Answer::Exists => Finding::Exists,
            Answer::Unknown => Finding::AskAgain,
            Answer::Missing => {
                let since = *self.since.get_or_insert(sent);
                if sent.saturating_sub(since) >= GONE_AFTER {
                    Finding::Deleted
                } else {
                    Finding::AskAgain
                }
            }
        }
    }
}

/// Checks whether resources that a call did not find were deleted, and ends the worker if they
/// were.
#[derive(Debug)]
pub(super) struct DeletionCheck {
    ctx: Arc<Context>,
}

impl DeletionCheck {
    pub(super) fn new(ctx: Arc<Context>) -> Self {
        Self { ctx }
    }

    /// Runs until the worker leaves.
    pub(super) async fn run(self) {
        let both = futures::future::join(self.check(Resource::Table), self.check(Resource::Stream));
        let _ = self.ctx.stop.leaving.run_until_cancelled(both).await;
    }

    async fn check(&self, resource: Resource) {
        let missing = self.ctx.missing.of(resource);
        loop {
            missing.noted.notified().await;
            // If there is no call, it belonged to an inquiry that is over.
            let Some(call) = missing.call().take() else {
                continue;
            };
            tracing::warn!(error = %call, ?resource, "not found: checking whether it was deleted");
            if self.inquire(resource).await == Finding::Deleted {
                return self.ctx.tasks.fail(resource.deleted(call));
            }
            missing.call().take();
            tracing::info!(?resource, "it exists: the call that did not find it was wrong");
        }
    }

    async fn inquire(&self, resource: Resource) -> Finding {
        let mut inquiry = Inquiry::default();
        loop {
            let sent = self.ctx.worker.clock.now();
            let answer = self.ask(resource).await;
            match inquiry.answered(sent, answer) {
                Finding::AskAgain => tokio::time::sleep(PAUSE).await,
                finding => return finding,
            }
        }
    }

    /// Asks by another kind of call than reads and writes are.
    async fn ask(&self, resource: Resource) -> Answer {
        let worker = &self.ctx.worker;
        let exists = match resource {
            Resource::Table => worker.store.exists().await,
            Resource::Stream => worker.sync.lister.exists().await.map_err(Into::into),
        };
        match exists {
            Ok(true) => Answer::Exists,
            Ok(false) => Answer::Missing,
            Err(error) => {
                tracing::warn!(%error, ?resource, "whether it still exists is unknown");
                Answer::Unknown
            }
        }
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
            assert_eq!(inquiry.answered(seconds(at), Answer::Missing), Finding::AskAgain);
        }
        // A check that failed does not count. The last answer must say that the resource is
        // missing.
        assert_eq!(inquiry.answered(seconds(111), Answer::Unknown), Finding::AskAgain);
        assert_eq!(inquiry.answered(seconds(113), Answer::Missing), Finding::Deleted);
    }

    #[test]
    fn one_answer_that_finds_it_ends_the_inquiry() {
        let mut inquiry = Inquiry::default();
        assert_eq!(inquiry.answered(seconds(0), Answer::Missing), Finding::AskAgain);
        assert_eq!(inquiry.answered(seconds(9), Answer::Exists), Finding::Exists);
    }
}
