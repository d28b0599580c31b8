//! The start of a worker: checks and sets up, in order, what must hold before it runs.

mod admin;
mod consumer;
mod failure;
mod lease_table;
mod retry;
mod standalone;
mod tables;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_kinesis::config::Region;
use aws_sdk_kinesis::types::StreamStatus;
use kinesis_common::stream_name::StreamName;
use kinesis_common::sync::Mutex;

pub(crate) use self::admin::{AdminParts, find_leases};
pub(crate) use self::consumer::{ConsumerStart, find_consumer};
pub(super) use self::failure::{Failure, call_failed};

use self::failure::{stream_failed, sync_failed};
use self::lease_table::LeaseTable;
use self::retry::Startup;
use self::tables::Tables;
use super::context::PreparedWorker;
use super::fleet_mode::FleetMode;
use super::migration::Migration;
use super::run::CoordinatorParts;
use crate::config::OnRecreatedStream;
use crate::current_stream::{CurrentStream, find_stream};
use crate::error::StartError;
use crate::executor::Executor;
use crate::lease::{Layout, LeaseStore, StreamIdentity, for_leases, for_shards};
use crate::service_time::ServiceClock;
use crate::stream::{KinesisShardLister, ShardSync, Starter, SyncError};
use crate::worker_state::WorkerState;

const KINESIS: &str = "Kinesis";
const DYNAMODB: &str = "DynamoDB";

/// Pause between the first heartbeat and the first scan of a worker whose fleet starts cold.
///
/// The workers of such a fleet start together. After the pause, each sees the heartbeats of the
/// others and takes its own share of the leases. Without it, the first workers take all leases of a
/// large table, and handing them over again takes minutes.
const COLD_PAUSE: Duration = Duration::from_secs(2);

/// The pause before the first scan. `was_cold`: many leases had no owner at the start.
pub(crate) fn first_scan_delay(was_cold: bool) -> Duration {
    if was_cold { COLD_PAUSE } else { Duration::ZERO }
}

/// Makes ready what a worker needs, with a lease table or without one. Each step is tried again after a transient failure
/// until `startup_timeout`.
///
/// `executor`: where the tasks will run. This runs there, too.
pub(super) async fn prepare(
    parts: CoordinatorParts,
    executor: Arc<dyn Executor>,
) -> Result<PreparedWorker, StartError> {
    match parts.dynamodb.clone() {
        Some(dynamodb) => with_table(parts, dynamodb, executor).await,
        None => standalone::prepare(parts, executor).await,
    }
}

/// Finds the stream, finds or creates the lease table, checks that the table is this stream's,
/// reads or writes the fleet's mode, and creates the first leases. A lease table that is deleted
/// meanwhile is created again.
async fn with_table(
    parts: CoordinatorParts,
    dynamodb: aws_sdk_dynamodb::Client,
    executor: Arc<dyn Executor>,
) -> Result<PreparedWorker, StartError> {
    let CoordinatorParts {
        application,
        stream,
        worker_id,
        process,
        kinesis,
        dynamodb: _,
        config,
        clock,
        seed,
        states,
        meter,
        problems,
        runtime: _,
    } = parts;
    check_regions(&kinesis, &dynamodb)?;
    let service_clock = ServiceClock::new(Arc::clone(&clock));
    let kinesis = service_clock.told_by_kinesis(&for_shards(&kinesis, &config));
    let dynamodb = service_clock.told_by(&for_leases(&dynamodb, &config));
    let mut startup = Startup::begin(&*clock, config.startup_timeout, seed);
    states.enter(WorkerState::FindingStream);
    let identity =
        startup.step(KINESIS, "DescribeStreamSummary", || identify(&kinesis, &stream)).await?;

    states.enter(WorkerState::PreparingTable);
    let table = config.table.name.clone().unwrap_or_else(|| application.clone());
    let Tables { exists, has_legacy, layout, mut store } =
        Tables::find(&mut startup, &dynamodb, &application, &table, process).await?;
    store.meter = Some((meter.clone(), Arc::clone(&clock)));
    let store: Arc<dyn LeaseStore> = Arc::new(store);
    let lease_table = LeaseTable {
        migration: Migration {
            client: &dynamodb,
            table: &table,
            layout: &layout,
            worker_id: &worker_id,
            clock: &*clock,
        },
        store: &*store,
        identity: &identity,
        config: &config,
        existed: Mutex::new(Some(exists)),
        is_settled: AtomicBool::new(false),
    };
    startup.step(DYNAMODB, "DescribeTable", || lease_table.make_ready()).await?;

    let sync = ShardSync {
        lister: Arc::new(KinesisShardLister::new(kinesis, stream.clone(), service_clock.clone())),
        store: Arc::clone(&store),
        position: config.initial_position.clone(),
        stream: Arc::new(CurrentStream::new(
            identity.clone(),
            config.on_recreated_stream,
            Arc::clone(&clock),
        )),
        has_entity_type: layout == Layout::OneTable,
        clock: Arc::clone(&clock),
        finished: Arc::default(),
    };
    states.enter(WorkerState::SyncingShards);
    // Mixed with the process, because workers with the same seed must not draw the same versions of
    // the lock.
    let starter = Starter::new(&sync, &worker_id, seed ^ process);
    // Set when the table was deleted since it was made ready, and perhaps created again.
    let table_is_gone = AtomicBool::new(false);
    let was_cold = startup
        .step(DYNAMODB, "PutItem", || async {
            if table_is_gone.load(Ordering::Relaxed) {
                lease_table.make_ready().await?;
                table_is_gone.store(false, Ordering::Relaxed);
            }
            let sync_failed = |error| {
                if let SyncError::Store(error) = &error
                    && error.is_table_missing()
                {
                    table_is_gone.store(true, Ordering::Relaxed);
                }
                sync_failed(stream.as_str(), &table, error)
            };
            let mut created = starter.run().await;
            if let Err(SyncError::StreamRecreated { .. }) = created {
                // The table may have been replaced by one of another stream, whose leases stay.
                lease_table.settle().await?;
            }
            if let Err(SyncError::StreamRecreated { .. }) = created
                && sync.stream.on_recreated == OnRecreatedStream::StartOver
            {
                let replaced = sync.run().await;
                replaced.map_err(sync_failed)?;
                created = starter.run().await;
                // An owner renewed its lease in between. The next try replaces that lease.
                if let Err(error @ SyncError::StreamRecreated { .. }) = &created {
                    return Err(Failure::not_ready(DYNAMODB, "PutItem", error.to_string()));
                }
            }
            let was_cold = created.map_err(sync_failed)?;
            if !lease_table.has_state().await? {
                // The next try creates the leases again. Those at `LATEST` keep the position of
                // this try.
                table_is_gone.store(true, Ordering::Relaxed);
                let cause =
                    format!("table {table} was created again: it has no state of the fleet");
                return Err(Failure::not_ready(DYNAMODB, "GetItem", cause));
            }
            Ok(was_cold)
        })
        .await?;
    drop(starter);
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
        first_scan_delay: first_scan_delay(was_cold),
        seed,
        meter,
        problems,
        fleet_mode: Some(FleetMode {
            client: dynamodb,
            application,
            table,
            layout,
            has_legacy_tables: has_legacy,
        }),
        executor,
    })
}

fn check_regions(
    kinesis: &aws_sdk_kinesis::Client,
    dynamodb: &aws_sdk_dynamodb::Client,
) -> Result<(), StartError> {
    check_region(KINESIS, kinesis.config().region())?;
    check_region(DYNAMODB, dynamodb.config().region())
}

fn check_region(service: &'static str, region: Option<&Region>) -> Result<(), StartError> {
    region.map(drop).ok_or(StartError::NoRegion { service })
}

async fn identify(
    client: &aws_sdk_kinesis::Client,
    stream: &StreamName,
) -> Result<StreamIdentity, Failure> {
    let found = find_stream(client, stream).await;
    let found = found.map_err(|error| stream_failed(stream.as_str(), &error))?;
    let Some(found) = found else {
        return Err(Failure::Final(StartError::StreamNotFound { stream: stream.to_string() }));
    };
    match found.status {
        StreamStatus::Active | StreamStatus::Updating => Ok(found.identity),
        StreamStatus::Creating => {
            let cause = format!("stream {stream} is CREATING");
            Err(Failure::not_ready(KINESIS, "DescribeStreamSummary", cause))
        }
        status => Err(Failure::Final(StartError::StreamNotActive {
            stream: stream.to_string(),
            status: status.as_str().to_owned(),
        })),
    }
}
