//! Reads of the simulated stream: they fail, are throttled, and answer late.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use kcl::WorkerError;
use kcl::internals::{Page, PageSender, Position, RawRecords, Retrieval, ShardSource, Start};

use crate::network::Network;
use crate::stream::{self, Stream};

/// A page has fewer Kinesis records than this.
const MOST_RECORDS: usize = 8;
/// Approximate size of one Kinesis record.
const RECORD_BYTES: usize = 300;

pub(super) struct SimulatedReads {
    pub(super) stream: Arc<Stream>,
    pub(super) network: Arc<Network>,
}

impl Retrieval for SimulatedReads {
    fn open(&self, start: Start) -> Box<dyn ShardSource> {
        let next = match &start.position {
            Position::At(sequence) => stream::first_of(sequence),
            Position::After(sequence) => stream::first_of(sequence) + stream::MOST_MEMBERS,
            // Nothing was put before the leases were made.
            Position::TrimHorizon | Position::Latest | Position::Time(_) => 0,
        };
        Box::new(Reader {
            stream: Arc::clone(&self.stream),
            network: Arc::clone(&self.network),
            shard: start.shard_id().to_owned(),
            next,
            random: Rng::with_seed(start.seed),
        })
    }
}

struct Reader {
    stream: Arc<Stream>,
    network: Arc<Network>,
    shard: String,
    /// The first user record that was not read yet.
    next: u64,
    random: Rng,
}

impl Reader {
    async fn read(&mut self, pages: &PageSender) -> Page {
        loop {
            self.sleep(5, 300).await;
            let most = self.random.usize(1..MOST_RECORDS);
            let mut held = pages.memory((most * RECORD_BYTES) as u64).await;
            let trouble = !self.network.is_calm();
            if trouble && self.random.u32(..20) == 0 {
                // Failed or throttled: tried again after a pause.
                drop(held);
                self.sleep(100, 5_000).await;
                continue;
            }
            let fetched = self.stream.fetch(&self.shard, self.next, most);
            if trouble && self.random.u32(..40) == 0 {
                // The answer comes late.
                self.sleep(500, 12_000).await;
            }
            let records: RawRecords = fetched.records.into_iter().collect();
            held.resize(records.memory());
            self.next = fetched.next;
            if records.is_empty() && !fetched.ended {
                continue;
            }
            let mut children = self.stream.children(&self.shard);
            if self.random.u32(..4) == 0 {
                // A last page that names no children.
                children.clear();
            }
            return Page {
                records,
                millis_behind_latest: Some(0),
                end: fetched.ended.then_some(children),
                held,
            };
        }
    }

    async fn sleep(&mut self, from: u64, to: u64) {
        tokio::time::sleep(Duration::from_millis(self.random.u64(from..to))).await;
    }
}

impl ShardSource for Reader {
    fn run(mut self: Box<Self>, pages: PageSender) -> BoxFuture<'static, Result<(), WorkerError>> {
        async move {
            loop {
                let room = pages.room().await;
                let page = self.read(&pages).await;
                let is_last = page.end.is_some();
                room.send(page);
                if is_last {
                    return Ok(());
                }
            }
        }
        .boxed()
    }
}
