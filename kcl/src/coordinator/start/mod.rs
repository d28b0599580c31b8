//! What must hold before a worker may start, checked and set up in order.

pub(crate) mod retry;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_kinesis::types::StreamStatus;
use kinesis_common::stream_name::StreamName;

use self::retry::{Failure, Startup};
use super::error::StartError;
use super::fleet_mode::FleetMode;
use super::migration::{Migration, layout};
use super::run::CoordinatorParts;
use super::shared::{Shared, SharedParts};
use crate::clock::Clock;
use crate::config::{OnRecreatedStream, TableConfig};
use crate::current_stream::{CurrentStream, identity_of};
use crate::executor::Executor;
use crate::lease::{
    CallError, CallErrorKind, CorruptItem, DynamoDbLeaseStore, Layout, LeaseStore, LeaseStoreError,
    Snapshot, StreamIdentity, TableError, TableKind, TableProblem, classify, ensure_table,
    find_table, for_leases, for_shards, metered,
};
use crate::service_time::ServiceClock;
use crate::stream::{KinesisShardLister, ListShardsError, ShardSync, Starter, SyncError};
use crate::worker_state::WorkerState;

const KINESIS: &str = "Kinesis";
const DYNAMODB: &str = "DynamoDB";

/// Pause of a worker of a fleet that starts cold, between its first report and its first look at the
/// table. The workers of such a fleet start together: by then each sees the others, and takes its own
/// part of the leases. Without the pause, the first workers take all of a large table, and giving it up
/// again takes minutes.
const COLD_PAUSE: Duration = Duration::from_secs(2);

/// The pause before the first look. `was_cold`: many leases had no owner yet at the start.
pub(crate) fn first_look(was_cold: bool) -> Duration {
    if was_cold { COLD_PAUSE } else { Duration::ZERO }
}

/// Finds the stream; finds or creates the lease table; settles the fleet's mode; checks that the
/// table is this stream's; creates the first leases. Each step is tried until `startup_timeout` while
/// its failure may pass. A lease table that is deleted meanwhile is created again.
///
/// `executor`: where coordination will run; so does this.
pub(super) async fn prepare(
    parts: CoordinatorParts,
    executor: Arc<dyn Executor>,
) -> Result<Shared, StartError> {
    let CoordinatorParts {
        application,
        stream,
        worker_id,
        process,
        kinesis,
        dynamodb,
        config,
        clock,
        seed,
        states,
        meter,
        problems,
        runtime: _,
    } = parts;
    if kinesis.config().region().is_none() {
        return Err(StartError::NoRegion { service: KINESIS });
    }
    if dynamodb.config().region().is_none() {
        return Err(StartError::NoRegion { service: DYNAMODB });
    }
    let kinesis = for_shards(&kinesis, &config);
    let service_clock = ServiceClock::new(Arc::clone(&clock));
    let dynamodb = service_clock.told_by(&for_leases(&dynamodb, &config));
    let mut startup = Startup::begin(&*clock, config.startup_timeout, seed);
    states.enter(WorkerState::FindingStream);
    let identity =
        startup.step(KINESIS, "DescribeStreamSummary", || identify(&kinesis, &stream)).await?;

    states.enter(WorkerState::PreparingTable);
    let table = config.table.name.clone().unwrap_or_else(|| application.clone());
    let start = Start {
        dynamodb: &dynamodb,
        table: &table,
        worker_id: &worker_id,
        clock: &*clock,
        on_recreated: config.on_recreated_stream,
    };
    // Every table that is there is checked before its first item is read.
    let existing =
        startup.step(DYNAMODB, "DescribeTable", || start.find(&table, TableKind::Leases)).await?;
    let legacy = Layout::legacy(&application);
    let legacy_state = startup
        .step(DYNAMODB, "DescribeTable", || {
            start.find(legacy.state(&table), TableKind::LegacyState)
        })
        .await?;
    let lease_table = existing.then_some(table.as_str());
    let layout = startup
        .step(DYNAMODB, "GetItem", || layout(&dynamodb, &application, legacy_state, lease_table))
        .await?;
    if let Layout::Legacy { workers, .. } = &layout {
        let found = startup
            .step(DYNAMODB, "DescribeTable", || start.find(workers, TableKind::LegacyWorkers))
            .await?;
        if !found {
            return Err(StartError::TableUnusable {
                table: workers.clone(),
                problem: TableProblem::Missing,
            });
        }
    }
    let store = DynamoDbLeaseStore::new(dynamodb.clone(), table.clone(), layout.clone(), process);
    let store = if legacy_state {
        // While a fleet moves to one table, its leader's lock stays in the old one.
        store.with_leader_table(legacy.state(&table).to_owned())
    } else {
        store
    };
    let store = metered(Arc::new(store), &meter, &clock);
    let lease_table = LeaseTable {
        start: &start,
        store: &*store,
        layout: &layout,
        identity: &identity,
        config: &config.table,
        existed: Mutex::new(Some(existing)),
        settled: AtomicBool::new(false),
    };
    startup.step(DYNAMODB, "DescribeTable", || lease_table.make_ready()).await?;

    let sync = ShardSync {
        lister: Arc::new(KinesisShardLister::new(kinesis, stream.clone(), service_clock.clone())),
        store: Arc::clone(&store),
        position: config.initial_position,
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
    // Of the process: workers with one seed must not draw the same versions of the lock.
    let starter = Starter::new(&sync, &worker_id, seed ^ process);
    // The table was deleted since it was made ready, and perhaps created again.
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
                start.sync_failed(stream.as_str(), error)
            };
            let mut created = starter.run().await;
            if let Err(SyncError::StreamRecreated { .. }) = created {
                // The table may have been replaced by one of another stream, whose leases stay.
                lease_table.settle().await?;
            }
            if let Err(SyncError::StreamRecreated { .. }) = created
                && sync.stream.on_recreated() == OnRecreatedStream::StartOver
            {
                let replaced = sync.run().await;
                replaced.map_err(sync_failed)?;
                created = starter.run().await;
                // An owner's renewal came between: the next try replaces that lease.
                if let Err(error @ SyncError::StreamRecreated { .. }) = &created {
                    return Err(Failure::not_ready(DYNAMODB, "PutItem", error.to_string()));
                }
            }
            let was_cold = created.map_err(sync_failed)?;
            if !lease_table.has_state().await? {
                // The next try creates the leases again, those at `LATEST` where this one began.
                table_is_gone.store(true, Ordering::Relaxed);
                let cause =
                    format!("table {table} was created again: it has no state of the fleet");
                return Err(Failure::not_ready(DYNAMODB, "GetItem", cause));
            }
            Ok(was_cold)
        })
        .await?;
    drop(starter);
    Ok(Shared::new(SharedParts {
        worker_id,
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
        first_look: first_look(was_cold),
        seed,
        meter,
        problems,
        fleet_mode: Some(FleetMode {
            client: dynamodb,
            application,
            table,
            layout,
            has_legacy_tables: legacy_state,
        }),
        executor,
    }))
}

async fn identify(
    client: &aws_sdk_kinesis::Client,
    stream: &StreamName,
) -> Result<StreamIdentity, Failure> {
    const OPERATION: &str = "DescribeStreamSummary";
    let output = client
        .describe_stream_summary()
        .set_stream_arn(stream.arn())
        .set_stream_name(stream.name())
        .send()
        .await
        .map_err(|error| stream_failed(stream.as_str(), &classify(OPERATION, &error)))?;
    let found = output
        .stream_description_summary
        .ok_or_else(|| Failure::not_ready(KINESIS, OPERATION, "the answer has no summary"))?;
    match found.stream_status() {
        StreamStatus::Active | StreamStatus::Updating => {}
        StreamStatus::Creating => {
            let cause = format!("stream {stream} is CREATING");
            return Err(Failure::not_ready(KINESIS, OPERATION, cause));
        }
        status => {
            return Err(Failure::Final(StartError::StreamNotActive {
                stream: stream.to_string(),
                status: status.as_str().to_owned(),
            }));
        }
    }
    Ok(identity_of(&found))
}

struct Start<'a> {
    dynamodb: &'a Client,
    table: &'a str,
    worker_id: &'a str,
    clock: &'a dyn Clock,
    on_recreated: OnRecreatedStream,
}

impl Start<'_> {
    /// True if the table exists; then its items can be read.
    async fn find(&self, table: &str, kind: TableKind) -> Result<bool, Failure> {
        let found = find_table(self.dynamodb, table, kind).await;
        found.map_err(|error| table_failed(table, error))
    }

    async fn ensure(&self, config: &TableConfig) -> Result<(), Failure> {
        let ensured = ensure_table(self.dynamodb, self.table, config).await;
        ensured.map_err(|error| table_failed(self.table, error))
    }

    fn foreign(&self, item: &CorruptItem) -> Failure {
        Failure::Final(StartError::TableUnusable {
            table: self.table.to_owned(),
            problem: TableProblem::ForeignItem {
                key: item.key.clone(),
                attribute: item.attribute,
                problem: item.problem,
            },
        })
    }

    fn store_failed(&self, error: LeaseStoreError) -> Failure {
        match error {
            LeaseStoreError::Call(error) => call_failed(self.table, &error),
            other => Failure::Final(StartError::CorruptItem {
                table: self.table.to_owned(),
                problem: other.to_string(),
            }),
        }
    }

    fn sync_failed(&self, stream: &str, error: SyncError) -> Failure {
        match error {
            SyncError::Store(error) => self.store_failed(error),
            SyncError::List(ListShardsError::Call(error)) => stream_failed(stream, &error),
            // More leases than could be created from one reading of the table.
            error @ SyncError::Stale => Failure::not_ready(DYNAMODB, "PutItem", error.to_string()),
            SyncError::StreamRecreated { stream } => {
                Failure::Final(StartError::StreamRecreated { stream, table: self.table.to_owned() })
            }
            error @ (SyncError::List(
                ListShardsError::Malformed { .. } | ListShardsError::NoStream,
            )
            | SyncError::StillOpen { .. }
            | SyncError::Incomplete) => {
                Failure::not_ready(KINESIS, "ListShards", error.to_string())
            }
        }
    }
}

/// The lease table of one start. It may be deleted, and created again, while the start is under way.
struct LeaseTable<'a> {
    start: &'a Start<'a>,
    store: &'a dyn LeaseStore,
    layout: &'a Layout,
    identity: &'a StreamIdentity,
    config: &'a TableConfig,
    /// Whether the table was there, for the first try.
    existed: Mutex<Option<bool>>,
    /// A table was judged, and held the state of the fleet.
    settled: AtomicBool,
}

impl LeaseTable<'_> {
    /// Makes the table ready for leases: it is judged if it is there, and created if not, and holds the
    /// state of the fleet. Call it again after a failure that may pass, and when a later step does not
    /// find the table.
    async fn make_ready(&self) -> Result<(), Failure> {
        let start = self.start;
        let known = self.existed.lock().unwrap_or_else(PoisonError::into_inner).take();
        let exists = match known {
            Some(existed) => existed,
            None => start.find(start.table, TableKind::Leases).await?,
        };
        // A table that is there is judged before anything in it, its index included, is changed.
        if exists {
            self.settle().await?;
        }
        start.ensure(self.config).await?;
        // The table that was judged may have been deleted since, and another one created by this worker or
        // by one that has not come further: then it has no state.
        let migration = self.migration();
        if exists && let Some(state) = migration.state().await? {
            return migration.judge(&state);
        }
        // Another worker may have created and filled it meanwhile.
        self.settle().await
    }

    /// Judges the table, and writes the state of the fleet if the table is new.
    async fn settle(&self) -> Result<(), Failure> {
        let settled = match self.settle_once().await {
            // Its leases and its state are read one after the other. If the table was deleted and created
            // again in between, they do not belong together.
            Err(Failure::Final(_)) => self.settle_once().await,
            settled => settled,
        };
        if settled.is_ok() {
            self.settled.store(true, Ordering::Relaxed);
        }
        settled
    }

    async fn settle_once(&self) -> Result<(), Failure> {
        let start = self.start;
        let found = self.store.list(true).await;
        let found = found.map_err(|error| start.store_failed(error))?;
        check_stream(&found, self.identity, start.table, start.on_recreated)?;
        let migration = self.migration();
        // Items, none of which is a lease, and no state: they are not a fleet's.
        if found.leases.is_empty()
            && let Some(item) = found.corrupt.first()
            && migration.state().await?.is_none()
        {
            return Err(start.foreign(item));
        }
        // Leases without a state mean a fleet of 2.x. Once a table was settled, they may also come from a
        // worker that filled the next table before it found that its state is missing. The leases of such
        // a worker have an entity type, those of 2.x have none.
        let may_be_of_2x = if self.settled.load(Ordering::Relaxed) {
            found.leases.iter().any(|lease| !lease.has_entity_type) || !found.corrupt.is_empty()
        } else {
            !found.leases.is_empty() || !found.corrupt.is_empty()
        };
        migration.settle(may_be_of_2x).await
    }

    /// Whether the state of the fleet stands beside the leases that this start created. If not, the table
    /// was deleted and created again after the leases were looked for: they may be gone.
    async fn has_state(&self) -> Result<bool, Failure> {
        let migration = self.migration();
        match migration.state().await? {
            Some(state) => migration.judge(&state).map(|()| true),
            None => Ok(false),
        }
    }

    fn migration(&self) -> Migration<'_> {
        Migration {
            client: self.start.dynamodb,
            table: self.start.table,
            layout: self.layout,
            worker_id: self.start.worker_id,
            clock: self.start.clock,
        }
    }
}

/// `table`: a table's name. Each table is looked for before its items are read, so a table that this call
/// does not find was deleted since. It is tried again until `startup_timeout`: a lease table is created
/// again, another table may be by its owner.
pub(super) fn call_failed(table: &str, error: &CallError) -> Failure {
    if error.kind == CallErrorKind::NotFound {
        let cause = format!("table {table}: {}", error.source);
        return Failure::not_ready(DYNAMODB, error.operation, cause);
    }
    Failure::of_call(DYNAMODB, &format!("table {table}"), error)
}

fn table_failed(table: &str, error: TableError) -> Failure {
    match error {
        TableError::Unusable(problem) => {
            Failure::Final(StartError::TableUnusable { table: table.to_owned(), problem })
        }
        TableError::NotReady(text) => {
            let cause = format!("table {table}: {text}");
            Failure::not_ready(DYNAMODB, "DescribeTable", cause)
        }
        TableError::Call(error) => call_failed(table, &error),
    }
}

fn stream_failed(stream: &str, error: &CallError) -> Failure {
    match error.kind {
        CallErrorKind::NotFound => {
            Failure::Final(StartError::StreamNotFound { stream: stream.to_owned() })
        }
        _ => Failure::of_call(KINESIS, &format!("stream {stream}"), error),
    }
}

/// Only the leases of Java applications on several streams have it.
const STREAM_NAME: &str = "streamName";

/// Leases made for another stream, or for an earlier one of the same name, are not this stream's;
/// nor are those of a Java application on several streams, whose keys name a stream too.
fn check_stream(
    found: &Snapshot,
    identity: &StreamIdentity,
    table: &str,
    on_recreated: OnRecreatedStream,
) -> Result<(), StartError> {
    let mut unknown = found.leases.iter().map(|lease| &lease.other);
    if let Some(name) = unknown.find_map(|other| other.get(STREAM_NAME)) {
        return Err(StartError::MultiStreamTable {
            table: table.to_owned(),
            found: name.as_s().cloned().unwrap_or_default(),
        });
    }
    for other in found.leases.iter().filter_map(|lease| lease.stream.as_ref()) {
        if other.arn != identity.arn {
            return Err(StartError::TableOfAnotherStream {
                table: table.to_owned(),
                found: other.arn.clone(),
                wanted: identity.arn.clone(),
            });
        }
        let starts_over = on_recreated == OnRecreatedStream::StartOver;
        if other.created != identity.created && !(starts_over && other.created < identity.created) {
            return Err(StartError::StreamRecreated {
                stream: identity.arn.clone(),
                table: table.to_owned(),
            });
        }
    }
    Ok(())
}
