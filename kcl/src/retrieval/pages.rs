//! The pages of one shard, on their way from the source that reads it to the consumer that processes them.
//!
//! One page waits while the last one taken is processed. A source asks for room first ([`PageSender::room`]), so that it
//! can watch its other inputs meanwhile: a subscription whose events nothing takes has to be ended, for example.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::budget::{Held, ShardBudget};
use super::{Page, ShardSource};
use crate::error::WorkerError;
use crate::executor::Executor;
use crate::snapshot::ShardStatus;
use crate::task::Task;

/// Takes the pages of a source.
#[derive(Debug)]
pub struct PageSender {
    /// Boxed, because a channel takes memory for 32 pages even if it is empty.
    pages: mpsc::Sender<Box<Page>>,
    budget: ShardBudget,
    status: Arc<ShardStatus>,
}

/// Room for one page of a shard. It is free again if this is dropped.
#[derive(Debug)]
pub struct Room<'a> {
    slot: mpsc::Permit<'a, Box<Page>>,
    status: &'a ShardStatus,
}

impl PageSender {
    /// Waits until no page waits for the processor.
    ///
    /// # Cancel safety
    /// A call that is dropped takes nothing.
    pub async fn room(&self) -> Room<'_> {
        match self.pages.reserve().await {
            Ok(slot) => Room { slot, status: &self.status },
            // The shard was given up, and the task of the source is being aborted.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits for memory for about `bytes`. Returns at once if the shard holds no page.
    ///
    /// # Cancel safety
    /// A call that is dropped takes nothing.
    pub async fn memory(&self, bytes: u64) -> Held {
        self.budget.reserve(bytes).await
    }

    /// Bytes that a page of this shard should have.
    pub fn share(&self) -> u64 {
        self.budget.share()
    }
}

impl Room<'_> {
    /// Sends a page. It has records, or is the last one of the shard.
    pub fn send(self, page: Page) {
        if !page.records.is_empty() {
            self.status.fetched(page.millis_behind_latest, page.records.spread());
        }
        self.slot.send(Box::new(page));
    }
}

/// A channel for one page.
pub(super) fn channel(
    budget: ShardBudget,
    status: Arc<ShardStatus>,
) -> (PageSender, mpsc::Receiver<Box<Page>>) {
    let (sender, pages) = mpsc::channel(1);
    (PageSender { pages: sender, budget, status }, pages)
}

/// The pages of a shard, in order. When it is dropped, the source is stopped soon.
#[derive(Debug)]
pub(crate) struct Pages {
    pages: mpsc::Receiver<Box<Page>>,
    task: Task<Result<(), WorkerError>>,
}

impl Pages {
    /// Starts the task that reads a shard.
    pub(crate) fn read(
        executor: &dyn Executor,
        source: Box<dyn ShardSource>,
        budget: ShardBudget,
        status: Arc<ShardStatus>,
    ) -> Self {
        let (sender, pages) = channel(budget, status);
        Self { pages, task: Task::spawn(executor, "the reader of a shard", source.run(sender)) }
    }

    /// Stops the source. When this returns, its subscription has ended and its memory is given back.
    pub(crate) async fn stop(self) {
        drop(self.pages);
        self.task.stop().await;
    }

    /// Waits for the next page with records, or the last one of the shard.
    ///
    /// # Cancel safety
    /// A call that is dropped loses no page.
    pub(crate) async fn next(&mut self) -> Result<Page, WorkerError> {
        if let Some(page) = self.pages.recv().await {
            return Ok(*page);
        }
        (&mut self.task).await??;
        // The caller has taken the last page, and asks for no more.
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures::FutureExt as _;
    use futures::future::BoxFuture;
    use tokio::runtime::Handle;

    use super::*;
    use crate::clock::{Clock, TokioClock};
    use crate::retrieval::ByteBudget;
    use crate::retrieval::embedded::{SHARD, status};

    /// Holds memory, and notes that it was dropped.
    struct Subscribed(Arc<AtomicBool>);

    impl Drop for Subscribed {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    impl ShardSource for Subscribed {
        fn run(self: Box<Self>, pages: PageSender) -> BoxFuture<'static, Result<(), WorkerError>> {
            async move {
                let _held = pages.memory(100).await;
                let _subscribed = self;
                std::future::pending().await
            }
            .boxed()
        }
    }

    #[tokio::test]
    async fn a_source_that_is_stopped_has_ended_its_subscription() {
        let clock = Arc::new(TokioClock::new()) as Arc<dyn Clock>;
        let (budget, dropped) = (ByteBudget::new(1_000), Arc::new(AtomicBool::new(false)));
        let source = Box::new(Subscribed(Arc::clone(&dropped)));
        let shard = ShardBudget::new(&budget);
        let pages = Pages::read(&Handle::current(), source, shard, status(SHARD, &clock));
        while budget.held() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!dropped.load(Ordering::Relaxed));
        pages.stop().await;
        assert!(dropped.load(Ordering::Relaxed));
        assert_eq!(budget.held(), 0);
    }
}
