//! What must hold before a worker may start, checked and set up in order.

use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_kinesis::types::StreamStatus;

use super::coordinator::CoordinatorParts;
use super::error::StartError;
use super::fleet_mode::FleetMode;
use super::migration::{Migration, layout};
use super::shared::{Shared, SharedParts};
use crate::clock::Clock;
use crate::executor::Executor;
use crate::lease::{
    CallError, CallErrorKind, DynamoDbLeaseStore, Layout, LeaseStore, LeaseStoreError, Snapshot,
    StreamIdentity, TableError, classify, describe_table, ensure_table, for_leases, for_shards,
    metered,
};
use crate::shard_sync::{KinesisShardLister, ListShardsError, ShardSync, SyncError};
use crate::stream_name::StreamName;
use crate::worker_state::WorkerState;

/// Finds the stream; finds or creates the lease table; settles the fleet's mode; checks that the
/// table is this stream's; creates the first leases.
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
    let kinesis = for_shards(&kinesis, &config);
    let dynamodb = for_leases(&dynamodb, &config);
    states.enter(WorkerState::FindingStream);
    let identity = identify(&kinesis, &stream).await?;

    states.enter(WorkerState::PreparingTable);
    let table = config
        .table
        .name
        .clone()
        .unwrap_or_else(|| application.clone());
    let start = Start {
        dynamodb: &dynamodb,
        table: &table,
        worker_id: &worker_id,
        clock: &*clock,
    };
    let existing = start.describe(&table).await?;
    let legacy = Layout::legacy(&application);
    let legacy_state = start.describe(legacy.state(&table)).await?;
    let lease_table = existing.then_some(table.as_str());
    let layout = layout(&dynamodb, &application, legacy_state, lease_table).await?;
    if let Layout::Legacy { workers, .. } = &layout
        && !start.describe(workers).await?
    {
        return Err(StartError::TableUnusable {
            table: workers.clone(),
            problem: "the fleet's state is in its old tables, and this one of them is missing: \
                      start a Java worker, which creates it"
                .to_owned(),
        });
    }
    let store = DynamoDbLeaseStore::new(dynamodb.clone(), table.clone(), layout.clone(), process);
    let store = if legacy_state {
        // While a fleet moves to one table, its leader's lock stays in the old one.
        store.with_leader_table(legacy.state(&table).to_owned())
    } else {
        store
    };
    let store = metered(Arc::new(store), &meter, &clock);
    // A table that is there is judged before anything in it, its index included, is changed.
    if existing {
        start.settle(&*store, &layout, &identity).await?;
    }
    ensure_table(&dynamodb, &table, &config.table)
        .await
        .map_err(|error| start.table_failed(error))?;
    if !existing {
        // Another worker may have created and filled it meanwhile.
        start.settle(&*store, &layout, &identity).await?;
    }

    let sync = ShardSync {
        lister: Arc::new(KinesisShardLister::new(
            kinesis,
            &stream,
            Arc::clone(&clock),
        )),
        store: Arc::clone(&store),
        position: config.initial_position,
        stream: identity,
        has_entity_type: layout == Layout::OneTable,
        clock: Arc::clone(&clock),
        finished: Arc::default(),
    };
    states.enter(WorkerState::SyncingShards);
    sync.run().await.map_err(|error| match error {
        SyncError::Store(error) => start.store_failed(error),
        SyncError::List(ListShardsError::Call(error)) => stream_failed(&stream, error),
        error @ (SyncError::List(ListShardsError::Malformed { .. })
        | SyncError::StillOpen { .. }
        | SyncError::Stale) => StartError::Service {
            service: "Kinesis",
            operation: "ListShards",
            source: Arc::new(error),
        },
        SyncError::Incomplete => StartError::IncompleteShardList {
            stream: stream.clone(),
        },
    })?;
    Ok(Shared::new(SharedParts {
        worker_id,
        process,
        store,
        sync,
        clock,
        failover: config.failover_time,
        max_leases: config.max_leases,
        table_reads: f64::from(config.max_lease_table_reads),
        on_stop: config.on_stop,
        sync_interval: config.shard_sync_interval,
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
    stream: &str,
) -> Result<StreamIdentity, StartError> {
    let name = StreamName::new(stream);
    let output = client
        .describe_stream_summary()
        .set_stream_arn(name.arn())
        .set_stream_name(name.name())
        .send()
        .await
        .map_err(|error| stream_failed(stream, classify("DescribeStreamSummary", &error)))?;
    let found = output
        .stream_description_summary
        .ok_or_else(|| StartError::StreamNotFound {
            stream: stream.to_owned(),
        })?;
    match found.stream_status() {
        StreamStatus::Active | StreamStatus::Updating => {}
        status => {
            return Err(StartError::StreamNotActive {
                stream: stream.to_owned(),
                status: status.as_str().to_owned(),
            });
        }
    }
    let created = found
        .stream_creation_timestamp()
        .to_millis()
        .unwrap_or_default();
    Ok(StreamIdentity {
        arn: found.stream_arn().to_owned(),
        created: u64::try_from(created).unwrap_or_default(),
    })
}

struct Start<'a> {
    dynamodb: &'a Client,
    table: &'a str,
    worker_id: &'a str,
    clock: &'a dyn Clock,
}

impl Start<'_> {
    /// True if the table exists.
    async fn describe(&self, table: &str) -> Result<bool, StartError> {
        let described = describe_table(self.dynamodb, table).await;
        described
            .map(|found| found.is_some())
            .map_err(|error| self.table_failed(error))
    }

    async fn settle(
        &self,
        store: &dyn LeaseStore,
        layout: &Layout,
        identity: &StreamIdentity,
    ) -> Result<(), StartError> {
        let found = match store.list(true).await {
            Ok(found) => found,
            // Created a moment ago by another worker, or being deleted: `ensure_table` waits.
            Err(error) if error.is_table_missing() => Snapshot::default(),
            Err(error) => return Err(self.store_failed(error)),
        };
        check_stream(&found, identity, self.table)?;
        let migration = Migration {
            client: self.dynamodb,
            table: self.table,
            layout,
            worker_id: self.worker_id,
            clock: self.clock,
        };
        migration
            .settle(!found.leases.is_empty() || !found.corrupt.is_empty())
            .await
    }

    fn table_failed(&self, error: TableError) -> StartError {
        match error {
            TableError::Unusable(problem) => StartError::TableUnusable {
                table: self.table.to_owned(),
                problem,
            },
            TableError::Call(error) => call_failed("DynamoDB", error),
        }
    }

    fn store_failed(&self, error: LeaseStoreError) -> StartError {
        match error {
            LeaseStoreError::Call(error) => call_failed("DynamoDB", error),
            other => StartError::CorruptItem {
                table: self.table.to_owned(),
                source: Arc::new(other),
            },
        }
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
) -> Result<(), StartError> {
    let mut unknown = found.leases.iter().map(|lease| &lease.other);
    if let Some(name) = unknown.find_map(|other| other.get(STREAM_NAME)) {
        return Err(StartError::MultiStreamTable {
            table: table.to_owned(),
            found: name.as_s().cloned().unwrap_or_default(),
        });
    }
    for other in found
        .leases
        .iter()
        .filter_map(|lease| lease.stream.as_ref())
    {
        if other.arn != identity.arn {
            return Err(StartError::TableOfAnotherStream {
                table: table.to_owned(),
                found: other.arn.clone(),
                wanted: identity.arn.clone(),
            });
        }
        if other.created != identity.created {
            return Err(StartError::StreamRecreated {
                stream: identity.arn.clone(),
                table: table.to_owned(),
            });
        }
    }
    Ok(())
}

fn stream_failed(stream: &str, error: CallError) -> StartError {
    match error.kind {
        CallErrorKind::NotFound => StartError::StreamNotFound {
            stream: stream.to_owned(),
        },
        _ => call_failed("Kinesis", error),
    }
}

pub(super) fn call_failed(service: &'static str, error: CallError) -> StartError {
    let operation = error.operation;
    let kind = error.kind;
    let source = Arc::new(error);
    match kind {
        CallErrorKind::AccessDenied => StartError::AccessDenied {
            service,
            operation,
            source,
        },
        CallErrorKind::NoCredentials => StartError::NoCredentials { service, source },
        CallErrorKind::NoAnswer => StartError::NoAnswer {
            service,
            operation,
            source,
        },
        _ => StartError::Service {
            service,
            operation,
            source,
        },
    }
}
