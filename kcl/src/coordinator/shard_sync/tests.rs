//! On a table in memory, in paused time: how often readers with a doubt make a worker sync.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::*;
use crate::clock::{Clock, TokioClock};
use crate::config::{InitialPosition, OnRecreatedStream, OnStop};
use crate::coordinator::shared::SharedParts;
use crate::current_stream::CurrentStream;
use crate::executor::CurrentRuntime;
use crate::health::ProblemLog;
use crate::lease::memory::{Link, MemoryLeaseStore, MemoryTable, Passage};
use crate::lease::{LeaseStore, StreamIdentity};
use crate::metrics::Meter;
use crate::service_time::ServiceClock;
use crate::stream::{ShardList, ShardLister, ShardSync};

const SECOND: Duration = Duration::from_secs(1);
/// Longer than a test.
const INTERVAL: Duration = Duration::from_secs(3_600);

#[derive(Debug)]
struct Way;

impl Link for Way {
    fn passage(&self, _: bool) -> Passage {
        Passage::AT_ONCE
    }

    fn scan_lag(&self) -> Duration {
        Duration::ZERO
    }

    fn index_lag(&self) -> Duration {
        Duration::ZERO
    }

    fn hides_old_item(&self) -> bool {
        false
    }
}

/// A stream that is in the making: no listing is whole, and each reader doubts it again at once.
#[derive(Debug)]
struct Creating {
    stream: Arc<CurrentStream>,
    listed: Arc<AtomicU64>,
}

impl ShardLister for Creating {
    fn list(
        &self,
        _: Option<InitialPosition>,
    ) -> BoxFuture<'_, Result<ShardList, ListShardsError>> {
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
fn worker(seed: u64) -> (Arc<Shared>, Arc<AtomicU64>) {
    let clock = Arc::new(TokioClock::new()) as Arc<dyn Clock>;
    let table = Arc::new(MemoryTable::new(Arc::clone(&clock), None));
    let store = MemoryLeaseStore::new(table, Arc::new(Way), "me", SECOND).of_process(1);
    let store = Arc::new(store) as Arc<dyn LeaseStore>;
    let stream = Arc::new(CurrentStream::new(
        StreamIdentity { arn: "arn:orders".into(), created: 1 },
        OnRecreatedStream::StartOver,
        Arc::clone(&clock),
    ));
    let listed = Arc::default();
    let sync = ShardSync {
        lister: Arc::new(Creating { stream: Arc::clone(&stream), listed: Arc::clone(&listed) }),
        store: Arc::clone(&store),
        position: InitialPosition::TrimHorizon,
        stream,
        has_entity_type: true,
        clock: Arc::clone(&clock),
        finished: Arc::default(),
    };
    let shared = Shared::new(SharedParts {
        worker_id: "me".into(),
        process: 1,
        store,
        sync,
        clock: Arc::clone(&clock),
        service_clock: ServiceClock::new(Arc::clone(&clock)),
        failover: 10 * SECOND,
        max_leases: usize::MAX,
        table_reads: 5.0,
        on_stop: OnStop::default(),
        sync_interval: INTERVAL,
        first_look: Duration::ZERO,
        seed,
        meter: Meter::default(),
        problems: Arc::new(ProblemLog::new(Arc::clone(&clock))),
        fleet_mode: None,
        executor: Arc::new(CurrentRuntime),
    });
    (Arc::new(shared), listed)
}

#[tokio::test(start_paused = true)]
async fn doubts_make_a_worker_sync_at_once_and_then_after_a_pause() {
    for seed in 0..20 {
        let (shared, listed) = worker(seed);
        let syncs = || listed.load(Ordering::Relaxed);
        let maintained = Arc::clone(&shared);
        let task = tokio::spawn(async move { maintain(&maintained, seed).await });
        tokio::time::sleep(30 * SECOND).await;
        assert_eq!(syncs(), 0, "none is due");
        // The first doubt after a while.
        shared.sync.stream.doubt();
        tokio::time::sleep(SECOND / 10).await;
        assert_eq!(syncs(), 1);
        tokio::time::sleep(100 * SECOND).await;
        // Each of them fails, so the pauses grow from 1 s to 10 s.
        assert!((10..=40).contains(&syncs()), "{} syncs", syncs());
        // A stop does not wait for the pause.
        let began = shared.clock.now();
        shared.leaving.cancel();
        task.await.unwrap();
        assert!(shared.clock.now() - began < SECOND / 10);
    }
}
