//! The lease table of a start: found or created, checked, and given the state of the fleet.

use std::sync::atomic::{AtomicBool, Ordering};

use aws_sdk_dynamodb::Client;
use kinesis_common::sync::Mutex;

use super::failure::{Failure, store_failed, table_failed};
use crate::config::{ConsumerConfig, OnRecreatedStream};
use crate::coordinator::migration::Migration;
use crate::error::StartError;
use crate::lease::item::attribute;
use crate::lease::{LeaseStore, Snapshot, StreamIdentity, TableProblem, ensure_table, find_table};

/// True if the table exists. Then it has this hash key, and its items can be read.
pub(super) async fn find(client: &Client, table: (&str, &str)) -> Result<bool, Failure> {
    find_table(client, table).await.map_err(|error| table_failed(table.0, error))
}

/// The lease table of one start. It may be deleted and created again while the start is under way.
pub(super) struct LeaseTable<'a> {
    pub(super) migration: Migration<'a>,
    pub(super) store: &'a dyn LeaseStore,
    pub(super) identity: &'a StreamIdentity,
    pub(super) config: &'a ConsumerConfig,
    /// Whether the table existed when it was looked for, for the first try.
    pub(super) existed: Mutex<Option<bool>>,
    /// True after a table was checked and held the state of the fleet.
    pub(super) is_settled: AtomicBool,
}

impl LeaseTable<'_> {
    /// Makes the table ready for leases: checks it if it exists, creates it if not, and writes the
    /// state of the fleet. It is called again after a transient failure, and when a later step does
    /// not find the table.
    pub(super) async fn make_ready(&self) -> Result<(), Failure> {
        let Migration { client, table, .. } = self.migration;
        let known = self.existed.lock().take();
        let exists = match known {
            Some(existed) => existed,
            None => find(client, (table, attribute::KEY)).await?,
        };
        // An existing table is checked before it is changed. The index is part of it.
        if exists {
            self.settle().await?;
        }
        let ensured = ensure_table(client, table, &self.config.table).await;
        ensured.map_err(|error| table_failed(table, error))?;
        // The table that was checked may have been deleted since, and created again by this worker
        // or by another worker that has not come further. Then it has no state.
        if exists && self.has_state().await? {
            return Ok(());
        }
        // Another worker may have created and filled the table meanwhile.
        self.settle().await
    }

    /// Checks the table, and writes the state of the fleet if the table is new.
    pub(super) async fn settle(&self) -> Result<(), Failure> {
        let settled = match self.settle_once().await {
            // The leases and the state are read one after the other. If the table was deleted and
            // created again in between, they do not belong together.
            Err(Failure::Final(_)) => self.settle_once().await,
            settled => settled,
        };
        if settled.is_ok() {
            self.is_settled.store(true, Ordering::Relaxed);
        }
        settled
    }

    async fn settle_once(&self) -> Result<(), Failure> {
        let table = self.migration.table;
        let found = self.store.list(true).await;
        let found = found.map_err(|error| store_failed(table, error))?;
        check_stream(&found, self.identity, table, self.config.on_recreated_stream)?;
        // If the table holds items but neither a lease nor a state, it is not a lease table.
        if found.leases.is_empty()
            && let Some(item) = found.corrupt.first()
            && self.migration.state().await?.is_none()
        {
            return Err(Failure::Final(StartError::TableUnusable {
                table: table.to_owned(),
                problem: TableProblem::ForeignItem {
                    key: item.key.clone(),
                    attribute: item.attribute,
                    problem: item.problem,
                },
            }));
        }
        // Leases without a state mean a fleet of 2.x. Once a table was settled, they may also come
        // from a worker that filled the next table before it found the state missing. The leases of
        // such a worker have an entity type, those of 2.x have none.
        let may_be_of_2x = if self.is_settled.load(Ordering::Relaxed) {
            found.leases.iter().any(|lease| !lease.has_entity_type) || !found.corrupt.is_empty()
        } else {
            !found.leases.is_empty() || !found.corrupt.is_empty()
        };
        self.migration.settle(may_be_of_2x).await
    }

    /// True if the table holds the state of the fleet. If it does not, the table was deleted and
    /// created again since the leases were created, and they may be gone.
    pub(super) async fn has_state(&self) -> Result<bool, Failure> {
        match self.migration.state().await? {
            Some(state) => self.migration.judge(&state).map(|()| true),
            None => Ok(false),
        }
    }
}

/// An attribute that only the leases of Java applications on several streams have.
const STREAM_NAME: &str = "streamName";

/// Checks that the leases are of this stream: not of another stream, not of an earlier stream of
/// the same name, and not of a Java application on several streams.
pub(super) fn check_stream(
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
