//! A worker on a lease table in memory, for tests in paused time.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::runtime::Handle;

use super::context::PreparedWorker;
use crate::clock::{Clock, TokioClock};
use crate::config::{InitialPosition, OnRecreatedStream, OnStop, StreamPosition};
use crate::current_stream::CurrentStream;
use crate::health::ProblemLog;
use crate::lease::memory::{Link, MemoryLeaseStore, MemoryTable};
use crate::lease::{LeaseStore, StreamIdentity};
use crate::metrics::Meter;
use crate::service_time::ServiceClock;
use crate::stream::{ListShardsError, ShardList, ShardLister, ShardSync};

const SECOND: Duration = Duration::from_secs(1);

/// Lists no shards, and never answers.
#[derive(Debug)]
pub(super) struct NoShards;

impl ShardLister for NoShards {
    fn list(&self, _: Option<StreamPosition>) -> BoxFuture<'_, Result<ShardList, ListShardsError>> {
        std::future::pending().boxed()
    }
}

/// The worker `me` on a new table that it reaches over `link`, and the table. A test replaces what
/// it needs otherwise.
pub(super) fn memory_worker(link: Arc<dyn Link>) -> (PreparedWorker, Arc<MemoryTable>) {
    let clock = Arc::new(TokioClock::new()) as Arc<dyn Clock>;
    let table = Arc::new(MemoryTable::new(Arc::clone(&clock), None));
    let store = MemoryLeaseStore::new(Arc::clone(&table), link, "me", SECOND).of_process(1);
    let store = Arc::new(store) as Arc<dyn LeaseStore>;
    let sync = ShardSync {
        lister: Arc::new(NoShards),
        store: Arc::clone(&store),
        position: InitialPosition::TrimHorizon,
        stream: Arc::new(CurrentStream::new(
            StreamIdentity { arn: "arn:orders".into(), created: 1 },
            OnRecreatedStream::StartOver,
            Arc::clone(&clock),
        )),
        has_entity_type: true,
        clock: Arc::clone(&clock),
        finished: Arc::default(),
    };
    let worker = PreparedWorker {
        id: "me".into(),
        stream: "orders".into(),
        process: 1,
        store,
        sync,
        service_clock: ServiceClock::new(Arc::clone(&clock)),
        failover: 10 * SECOND,
        max_leases: usize::MAX,
        table_reads: 5.0,
        on_stop: OnStop::default(),
        sync_interval: 60 * SECOND,
        first_scan_delay: Duration::ZERO,
        seed: 7,
        meter: Meter::default(),
        problems: Arc::new(ProblemLog::new(Arc::clone(&clock))),
        clock,
        fleet_mode: None,
        executor: Arc::new(Handle::current()),
    };
    (worker, table)
}
