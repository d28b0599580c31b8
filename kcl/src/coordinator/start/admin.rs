//! The start of a [`LeaseAdmin`](crate::LeaseAdmin): it finds what a worker would find, and creates nothing.

use std::sync::Arc;

use kinesis_common::stream_name::StreamName;

use super::failure::store_failed;
use super::lease_table::check_stream;
use super::retry::Startup;
use super::tables::{Tables, missing};
use super::{DYNAMODB, KINESIS, check_regions, identify};
use crate::clock::Clock;
use crate::config::ConsumerConfig;
use crate::current_stream::CurrentStream;
use crate::error::StartError;
use crate::lease::{Layout, LeaseStore, for_leases, for_shards};
use crate::service_time::ServiceClock;
use crate::stream::{KinesisShardLister, ShardSync};

/// The inputs of the start.
pub(crate) struct AdminParts {
    pub(crate) application: String,
    pub(crate) stream: StreamName,
    pub(crate) kinesis: aws_sdk_kinesis::Client,
    pub(crate) dynamodb: aws_sdk_dynamodb::Client,
    pub(crate) config: ConsumerConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) process: u64,
    pub(crate) seed: u64,
}

/// Finds the stream and the lease table, and checks that the table is this stream's.
pub(crate) async fn find_leases(parts: AdminParts) -> Result<ShardSync, StartError> {
    let AdminParts { application, stream, kinesis, dynamodb, config, clock, process, seed } = parts;
    check_regions(&kinesis, &dynamodb)?;
    let kinesis = for_shards(&kinesis, &config);
    let service_clock = ServiceClock::new(Arc::clone(&clock));
    let dynamodb = for_leases(&dynamodb, &config);
    let mut startup = Startup::begin(&*clock, config.startup_timeout, seed);
    let identity =
        startup.step(KINESIS, "DescribeStreamSummary", || identify(&kinesis, &stream)).await?;
    let table = config.table.name.unwrap_or_else(|| application.clone());
    let tables = Tables::find(&mut startup, &dynamodb, &application, &table, process).await?;
    if !tables.exists {
        return Err(missing(&table));
    }
    let store: Arc<dyn LeaseStore> = Arc::new(tables.store);
    let list = || async { store.list(true).await.map_err(|error| store_failed(&table, error)) };
    let found = startup.step(DYNAMODB, "Scan", list).await?;
    check_stream(&found, &identity, &table, config.on_recreated_stream)?;
    Ok(ShardSync {
        lister: Arc::new(KinesisShardLister::new(kinesis, stream, service_clock)),
        store,
        position: config.initial_position,
        stream: Arc::new(CurrentStream::new(
            identity,
            config.on_recreated_stream,
            Arc::clone(&clock),
        )),
        has_entity_type: tables.layout == Layout::OneTable,
        clock,
        finished: Arc::default(),
    })
}
