//! On a table in memory, in paused time: how often readers cause a sync when they doubt that the
//! stream is the same.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::*;
use crate::config::StreamPosition;
use crate::coordinator::context::PreparedWorker;
use crate::coordinator::memory_worker::memory_worker;
use crate::current_stream::CurrentStream;
use crate::lease::memory::{Link, Passage};
use crate::stream::{ShardList, ShardLister};

const SECOND: Duration = Duration::from_secs(1);
/// Longer than the test.
const INTERVAL: Duration = Duration::from_secs(3_600);

#[derive(Debug)]
struct Way;

impl Link for Way {
    fn passage(&self, _: bool) -> Passage {
        Passage::AT_ONCE
    }
}

/// A stream in creation: no listing is complete, and each reader doubts the stream again at once.
#[derive(Debug)]
struct Creating {
    stream: Arc<CurrentStream>,
    listed: Arc<AtomicU64>,
}

impl ShardLister for Creating {
    fn list(&self, _: Option<StreamPosition>) -> BoxFuture<'_, Result<ShardList, ListShardsError>> {
        async {
            self.listed.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(SECOND / 100).await;
            self.stream.doubt();
            Ok(ShardList { shards: Vec::new(), server_time: SystemTime::UNIX_EPOCH })
        }
        .boxed()
    }
}

/// A worker, and its listings so far.
fn worker(seed: u64) -> (Arc<Context>, Arc<AtomicU64>) {
    let (mut worker, _table) = memory_worker(Arc::new(Way));
    let listed = Arc::default();
    let stream = Arc::clone(&worker.sync.stream);
    worker.sync.lister = Arc::new(Creating { stream, listed: Arc::clone(&listed) });
    let worker = PreparedWorker { seed, sync_interval: INTERVAL, ..worker };
    (Arc::new(Context::new(worker)), listed)
}

#[tokio::test(start_paused = true)]
async fn doubts_make_a_worker_sync_at_once_and_then_after_a_pause() {
    for seed in 0..20 {
        let (ctx, listed) = worker(seed);
        let syncs = || listed.load(Ordering::Relaxed);
        let work = ShardSyncer::new(Arc::clone(&ctx)).run();
        let leaving = ctx.stop.leaving.clone();
        let task = tokio::spawn(leaving.run_until_cancelled_owned(work));
        tokio::time::sleep(30 * SECOND).await;
        assert_eq!(syncs(), 0, "none is due");
        // The first doubt after a while.
        ctx.worker.sync.stream.doubt();
        tokio::time::sleep(SECOND / 10).await;
        assert_eq!(syncs(), 1);
        tokio::time::sleep(100 * SECOND).await;
        // Each of them fails, so the pauses grow from 1 s to 10 s.
        assert!((10..=40).contains(&syncs()), "{} syncs", syncs());
        // A stop does not wait for the pause.
        let began = ctx.worker.clock.now();
        ctx.stop.leaving.cancel();
        task.await.unwrap();
        assert!(ctx.worker.clock.now() - began < SECOND / 10);
    }
}
