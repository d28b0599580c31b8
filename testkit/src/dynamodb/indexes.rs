//! Indexes that are not what the table is: still being created, or behind it.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dynoxide::{Database, DynoxideError};
use serde_json::Value;

use super::dispatch;
use crate::clock::Timestamp;

/// Indexes that are not yet active: by table and name, when they will be.
#[derive(Debug, Default)]
pub(super) struct Creating(HashMap<(String, String), Timestamp>);

impl Creating {
    /// The indexes that a request adds become active at `ready`.
    pub(super) fn add(&mut self, request: &Value, ready: Timestamp) {
        let table = request["TableName"].as_str().unwrap_or_default();
        for update in new_indexes(request) {
            let name = update["IndexName"].as_str().unwrap_or_default();
            self.0.insert((table.to_owned(), name.to_owned()), ready);
        }
    }

    /// Forgets what has become active.
    pub(super) fn settle(&mut self, now: Timestamp) {
        self.0.retain(|_, ready| now < *ready);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contains(&self, table: &str, index: &str) -> bool {
        self.0.contains_key(&(table.to_owned(), index.to_owned()))
    }

    /// Whether a request reads an index that cannot be read yet.
    pub(super) fn check(&self, request: &Value) -> Result<(), DynoxideError> {
        match (request["TableName"].as_str(), request["IndexName"].as_str()) {
            (Some(table), Some(index)) if self.contains(table, index) => {
                Err(DynoxideError::ValidationException(format!(
                    "Cannot read from backfilling global secondary index: {index}"
                )))
            }
            _ => Ok(()),
        }
    }

    /// Shows indexes in a description of their table as they are.
    pub(super) fn show(&self, response: &mut Value) {
        for description in ["Table", "TableDescription"] {
            let Some(description) = response.get_mut(description) else {
                continue;
            };
            let table = description["TableName"].as_str().unwrap_or_default();
            let table = table.to_owned();
            let indexes = description["GlobalSecondaryIndexes"].as_array_mut();
            for index in indexes.into_iter().flatten() {
                let name = index["IndexName"].as_str().unwrap_or_default();
                if self.contains(&table, name) {
                    index["IndexStatus"] = "CREATING".into();
                    index["Backfilling"] = true.into();
                }
            }
        }
    }
}

/// The indexes that an UpdateTable adds.
pub(super) fn new_indexes(request: &Value) -> impl Iterator<Item = &Value> {
    let updates = request["GlobalSecondaryIndexUpdates"].as_array();
    updates
        .into_iter()
        .flatten()
        .filter_map(|update| update.get("Create"))
}

/// The database as it was a while ago, and the writes since.
pub(super) struct Past {
    database: Database,
    since: VecDeque<(Timestamp, String, Bytes)>,
}

impl Past {
    /// A past that begins now. `database` is empty at first, and in memory.
    pub(super) fn begin(present: &Database, database: Database) -> Result<Self, DynoxideError> {
        static COPIES: AtomicU64 = AtomicU64::new(0);
        // The one way there is to copy a database goes through a file.
        let copy = COPIES.fetch_add(1, Ordering::Relaxed);
        let copy = format!("kinesis-testkit-{}-{copy}.db", process::id());
        let path = std::env::temp_dir().join(copy);
        let name = path.to_string_lossy();
        let copied = present
            .vacuum_into(&name)
            .and_then(|()| database.restore_from(&name));
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(%error, path = %name, "a copy of the database stays behind");
        }
        copied?;
        Ok(Self {
            database,
            since: VecDeque::new(),
        })
    }

    /// A write has been carried out in the present.
    pub(super) fn record(&mut self, now: Timestamp, operation: &str, body: &[u8]) {
        let body = Bytes::copy_from_slice(body);
        self.since.push_back((now, operation.to_owned(), body));
    }

    /// Moves on to how things were at `time`; never back.
    pub(super) fn move_to(&mut self, time: Timestamp) -> Result<(), DynoxideError> {
        while let Some((_, operation, body)) = self.since.pop_front_if(|(at, ..)| *at <= time) {
            dispatch(&self.database, &operation, &body)?;
        }
        Ok(())
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }
}
