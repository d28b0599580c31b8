//! The start of a worker without a lease table: its leases are kept in memory.

use std::sync::Arc;

use super::failure::sync_failed;
use super::retry::Startup;
use super::{KINESIS, check_region, first_scan_delay, identify};
use crate::coordinator::context::PreparedWorker;
use crate::coordinator::run::CoordinatorParts;
use crate::current_stream::CurrentStream;
use crate::error::StartError;
use crate::executor::Executor;
use crate::lease::{LeaseStore, LocalLeaseStore, for_shards};
use crate::service_time::ServiceClock;
use crate::stream::{KinesisShardLister, ShardSync, Starter};
use crate::worker_state::WorkerState;

/// The name of the table in errors.
const TABLE: &str = "in memory";

/// Finds the stream, and creates the first leases.
pub(super) async fn prepare(
    parts: CoordinatorParts,
    executor: Arc<dyn Executor>,
) -> Result<PreparedWorker, StartError> {
    let CoordinatorParts { stream, worker_id, process, kinesis, config, clock, seed, .. } = parts;
    check_region(KINESIS, kinesis.config().region())?;
    let service_clock = ServiceClock::new(Arc::clone(&clock));
    let kinesis = service_clock.told_by_kinesis(&for_shards(&kinesis, &config));
    let mut startup = Startup::begin(&*clock, config.startup_timeout, seed);
    parts.states.enter(WorkerState::FindingStream);
    let identity =
        startup.step(KINESIS, "DescribeStreamSummary", || identify(&kinesis, &stream)).await?;
    let store: Arc<dyn LeaseStore> = Arc::new(LocalLeaseStore::new(process));
    let sync = ShardSync {
        lister: Arc::new(KinesisShardLister::new(kinesis, stream.clone(), service_clock.clone())),
        store: Arc::clone(&store),
        position: config.initial_position.clone(),
        stream: Arc::new(CurrentStream::new(
            identity,
            config.on_recreated_stream,
            Arc::clone(&clock),
        )),
        has_entity_type: true,
        clock: Arc::clone(&clock),
        finished: Arc::default(),
    };
    parts.states.enter(WorkerState::SyncingShards);
    let starter = Starter::new(&sync, &worker_id, seed);
    let create = || async {
        let created = starter.run().await;
        created.map_err(|error| sync_failed(stream.as_str(), TABLE, error))
    };
    startup.step(KINESIS, "ListShards", create).await?;
    tracing::info!(
        stream = stream.as_str(),
        "leases and checkpoints are kept in memory: the next start begins at the initial position again"
    );
    Ok(PreparedWorker {
        id: worker_id,
        stream: stream.as_str().to_owned(),
        process,
        store,
        sync,
        clock,
        service_clock,
        failover: config.failover_time,
        max_leases: config.max_leases,
        table_reads: f64::from(config.max_lease_table_reads),
        on_stop: config.on_stop,
        sync_interval: config.shard_sync_interval,
        // No other worker shares the leases.
        first_scan_delay: first_scan_delay(false),
        seed,
        meter: parts.meter,
        problems: parts.problems,
        fleet_mode: None,
        executor,
    })
}
