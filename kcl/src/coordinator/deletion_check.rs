//! Whether the lease table and the stream still exist. A call that does not find them may be answered
//! so by a passing fault, and every worker of the fleet makes such calls: before a worker ends for it,
//! another kind of call must say the same for some time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::error::WorkerFailure;
use super::shared::Shared;
use crate::lease::{CallError, CallErrorKind, LeaseStoreError};

/// A resource is gone when every answer has said so for this long.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// Pause between two questions.
const PAUSE: Duration = Duration::from_secs(2);

/// What a worker cannot go on without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource {
    /// The lease table or its index.
    Table,
    Stream,
}

impl Resource {
    /// What a call was about.
    fn of(call: &CallError) -> Self {
        match call.operation {
            "ListShards" | "DescribeStreamSummary" => Self::Stream,
            _ => Self::Table,
        }
    }

    /// Why the worker ends.
    fn gone(self, call: CallError) -> WorkerFailure {
        let cause = call.to_string();
        match self {
            Self::Table => WorkerFailure::TableDeleted { cause },
            Self::Stream => WorkerFailure::StreamDeleted { cause },
        }
    }
}

/// Calls that did not find a resource, and who asks whether it is gone.
#[derive(Debug, Default)]
pub(super) struct Existence {
    table: Suspect,
    stream: Suspect,
}

#[derive(Debug, Default)]
struct Suspect {
    /// The last call that did not find it.
    call: Mutex<Option<CallError>>,
    noted: Notify,
}

impl Existence {
    /// Notes an error: if it says that the table or the stream is gone, that is to be confirmed.
    pub(super) fn doubt(&self, error: &LeaseStoreError) {
        if let LeaseStoreError::Call(call) = error
            && call.kind == CallErrorKind::NotFound
        {
            let suspect = self.suspect(Resource::of(call));
            *suspect.call() = Some(call.clone());
            suspect.noted.notify_one();
        }
    }

    fn suspect(&self, resource: Resource) -> &Suspect {
        match resource {
            Resource::Table => &self.table,
            Resource::Stream => &self.stream,
        }
    }
}

impl Suspect {
    fn call(&self) -> MutexGuard<'_, Option<CallError>> {
        // Each change is one assignment.
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one question said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Exists,
    Missing,
    /// The service did not say.
    NotKnown,
}

/// What the questions say so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    Exists,
    Gone,
    AskAgain,
}

/// Answers in a row that said that a resource is missing.
#[derive(Debug, Default)]
struct Inquiry {
    /// When the first of them was asked for.
    since: Option<Duration>,
}

impl Inquiry {
    fn answered(&mut self, asked: Duration, answer: Answer) -> Finding {
        match answer {
            Answer::Exists => Finding::Exists,
            Answer::NotKnown => Finding::AskAgain,
            Answer::Missing => {
                let since = *self.since.get_or_insert(asked);
                if asked.saturating_sub(since) >= GONE_AFTER {
                    Finding::Gone
                } else {
                    Finding::AskAgain
                }
            }
        }
    }
}

/// Confirms what calls did not find, until the worker ends.
pub(super) async fn confirm(shared: Arc<Shared>) {
    let both = futures::future::join(
        confirm_one(&shared, Resource::Table),
        confirm_one(&shared, Resource::Stream),
    );
    let _ = shared.leaving.run_until_cancelled(both).await;
}

async fn confirm_one(shared: &Shared, resource: Resource) {
    let suspect = shared.existence.suspect(resource);
    loop {
        suspect.noted.notified().await;
        // None: it was part of an inquiry that is over.
        let Some(call) = suspect.call().take() else {
            continue;
        };
        tracing::warn!(error = %call, ?resource, "not found: asking for some time whether it is gone");
        if inquire(shared, resource).await == Finding::Gone {
            return shared.fail(resource.gone(call));
        }
        suspect.call().take();
        tracing::info!(?resource, "it exists: the call that did not find it was wrong");
    }
}

async fn inquire(shared: &Shared, resource: Resource) -> Finding {
    let mut inquiry = Inquiry::default();
    loop {
        let asked = shared.clock.now();
        let answer = ask(shared, resource).await;
        match inquiry.answered(asked, answer) {
            Finding::AskAgain => tokio::time::sleep(PAUSE).await,
            finding => return finding,
        }
    }
}

async fn ask(shared: &Shared, resource: Resource) -> Answer {
    let exists = match resource {
        Resource::Table => shared.store.exists().await,
        Resource::Stream => shared.sync.lister.exists().await.map_err(Into::into),
    };
    match exists {
        Ok(true) => Answer::Exists,
        Ok(false) => Answer::Missing,
        Err(error) => {
            tracing::warn!(%error, ?resource, "whether it still exists is not known");
            Answer::NotKnown
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
        // No answer is none: the last one must say it too.
        assert_eq!(inquiry.answered(seconds(111), Answer::NotKnown), Finding::AskAgain);
        assert_eq!(inquiry.answered(seconds(113), Answer::Missing), Finding::Gone);
    }

    #[test]
    fn one_answer_that_finds_it_ends_the_inquiry() {
        let mut inquiry = Inquiry::default();
        assert_eq!(inquiry.answered(seconds(0), Answer::Missing), Finding::AskAgain);
        assert_eq!(inquiry.answered(seconds(9), Answer::Exists), Finding::Exists);
    }
}
