//! Indexes that are behind their tables: the database as it was a while ago.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::engine::Engine;
use crate::clock::Timestamp;

/// The indexes that an UpdateTable adds.
pub(super) fn new_indexes(request: &Value) -> impl Iterator<Item = &Value> {
    let updates = request["GlobalSecondaryIndexUpdates"].as_array();
    updates.into_iter().flatten().filter_map(|update| update.get("Create"))
}

/// The database as it was, and the writes since.
#[derive(Debug)]
pub(super) struct Past {
    engine: Engine,
    since: VecDeque<Write>,
}

#[derive(Debug)]
struct Write {
    at: Timestamp,
    operation: String,
    request: Arc<Value>,
    index_takes: Duration,
}

impl Past {
    /// A past that begins now.
    pub(super) fn begin(present: &Engine) -> Self {
        Self { engine: present.clone(), since: VecDeque::new() }
    }

    /// A write has been carried out in the present.
    pub(super) fn record(
        &mut self,
        at: Timestamp,
        operation: &str,
        request: Arc<Value>,
        index_takes: Duration,
    ) {
        self.since.push_back(Write { at, operation: operation.to_owned(), request, index_takes });
    }

    /// Moves on to how things were at `time`; never back.
    pub(super) fn move_to(&mut self, time: Timestamp) {
        while let Some(write) = self.since.pop_front_if(|write| write.at <= time) {
            let Write { at, operation, request, index_takes } = write;
            // It was carried out before, on the same tables at the same time: the answer is known.
            let _ = self.engine.call(at, &operation, &request, index_takes);
        }
    }

    pub(super) fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }
}
