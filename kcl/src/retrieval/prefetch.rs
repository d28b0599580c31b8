//! Fetches one page ahead of the processor.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::budget::ShardBudget;
use super::page::{Page, RawRecord};
use super::source::{RetrievalError, ShardReader};
use crate::error::WorkerError;
use crate::executor::Executor;
use crate::snapshot::ShardStatus;
use crate::task::Task;

/// The pages of a shard, in order. Dropping it stops the reads.
#[derive(Debug)]
pub(crate) struct Prefetch {
    pages: mpsc::Receiver<Page>,
    task: Task<Result<(), RetrievalError>>,
}

/// Starts to read. At most one page waits while the last one taken is processed.
pub(crate) fn prefetch(
    executor: &dyn Executor,
    reader: Box<dyn ShardReader>,
    budget: ShardBudget,
    status: Arc<ShardStatus>,
) -> Prefetch {
    let (sender, pages) = mpsc::channel(1);
    let run = run(reader, budget, status, sender);
    Prefetch { pages, task: Task::spawn(executor, "the reader of a shard", run) }
}

async fn run(
    mut reader: Box<dyn ShardReader>,
    budget: ShardBudget,
    status: Arc<ShardStatus>,
    pages: mpsc::Sender<Page>,
) -> Result<(), RetrievalError> {
    // No one listens any more: the shard was given up.
    while let Ok(slot) = pages.reserve().await {
        let page = reader.next_page(&budget).await?;
        if !page.records.is_empty() {
            status.fetched(page.millis_behind_latest, spread(&page.records));
        }
        let last = page.end.is_some();
        slot.send(page);
        if last {
            break;
        }
    }
    Ok(())
}

/// Time from the arrival of the first record to that of the last one.
fn spread(records: &[RawRecord]) -> Duration {
    let arrival = |record: Option<&RawRecord>| record.and_then(|record| record.arrival);
    match (arrival(records.first()), arrival(records.last())) {
        (Some(first), Some(last)) => last.duration_since(first).unwrap_or_default(),
        _ => Duration::ZERO,
    }
}

impl Prefetch {
    /// The next page with records, or the last one of the shard.
    ///
    /// # Cancel safety
    /// No page is lost by a call that did not return.
    pub(crate) async fn next(&mut self) -> Result<Page, WorkerError> {
        if let Some(page) = self.pages.recv().await {
            return Ok(page);
        }
        match (&mut self.task).await? {
            Err(RetrievalError::StreamDeleted { stream }) => {
                Err(WorkerError::StreamDeleted { stream })
            }
            Err(RetrievalError::StreamRecreated { stream }) => {
                Err(WorkerError::StreamRecreated { stream })
            }
            // The last page was taken before: nobody asks for more.
            Ok(()) => std::future::pending().await,
        }
    }
}
