//! DynamoDB: a database of our own in memory, behind a front that faults can bend.
//!
//! [`Engine`] is the database: a pure state machine, in the manner of [`crate::kinesis`]. This module
//! puts a lock, the clock, JSON and the faults of indexes around it.

mod batches;
mod capacity;
mod definitions;
mod describe;
mod engine;
mod expression;
mod indexes;
mod legacy;
mod number;
mod reads;
mod refusal;
mod request;
mod schema;
mod settings;
mod table;
mod transactions;
mod value;
mod writes;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};

pub(crate) use self::engine::Engine;
use self::engine::{Answer, is_write};
use self::indexes::{Past, new_indexes};
use self::refusal::Refusal;
use crate::clock::{Clock, Timestamp};
use crate::faults::{Asks, Part, Plan};
use crate::kinesis::ApiError;

pub(crate) struct DynamoDb {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct State {
    engine: Engine,
    /// There while a fault may ask for it.
    past: Option<Past>,
}

impl fmt::Debug for DynamoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDb").finish_non_exhaustive()
    }
}

/// An answer: the HTTP status and the body.
pub(crate) type Reply = (u16, Vec<u8>);

impl DynamoDb {
    pub(crate) fn new(engine: Engine, clock: Arc<dyn Clock>) -> Self {
        let state = State { engine, past: None };
        Self { state: Mutex::new(state), clock }
    }

    /// The tables as they are now. Items are shared.
    pub(crate) fn snapshot(&self) -> Engine {
        self.lock().engine.clone()
    }

    /// Answers one request, as planned. The entries of a batch that the plan refuses come back
    /// unprocessed. `stalest_index` is how far reads of indexes may be behind from now on.
    pub(crate) fn call(
        &self,
        operation: &str,
        body: &[u8],
        plan: &Plan,
        stalest_index: Option<Duration>,
    ) -> Reply {
        let answer = parse(body).and_then(|mut request| {
            if plan.no_old_item {
                hide_old_item(&mut request);
            }
            if plan.refused.is_empty() {
                let answer = self.carry_out(operation, request, plan, stalest_index)?;
                return to_vec(&answer);
            }
            let answer = self.without(operation, request, plan, stalest_index)?;
            to_vec(&answer)
        });
        match answer {
            Ok(body) => (200, body),
            Err(refusal) => (refusal.status(), refusal.to_json()),
        }
    }

    /// Takes one step under the lock; the answer is written after it is released.
    fn carry_out(
        &self,
        operation: &str,
        request: Value,
        plan: &Plan,
        stalest_index: Option<Duration>,
    ) -> Result<Answer, Refusal> {
        let index_takes = plan.slow_index.unwrap_or_default();
        let mut state = self.lock();
        let now: Timestamp = self.clock.now().into();
        let State { engine, past } = &mut *state;
        if let Some(by) = plan.stale_index {
            // Without a past nothing has been written since a fault could ask.
            let engine = match past {
                None => engine,
                Some(past) => {
                    past.move_to(now.minus(by));
                    past.engine()
                }
            };
            return engine.call(now, operation, &request, Duration::ZERO);
        }
        if !is_write(operation) {
            return engine.call(now, operation, &request, Duration::ZERO);
        }
        let Some(stalest) = stalest_index else {
            *past = None;
            return engine.call(now, operation, &request, index_takes);
        };
        let past = past.get_or_insert_with(|| Past::begin(engine));
        let answer = engine.call(now, operation, &request, index_takes)?;
        past.record(now, operation, Arc::new(request), index_takes);
        past.move_to(now.minus(stalest));
        Ok(answer)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic would have been a bug of ours; the tests that follow it should still be served.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out a batch without some of its entries, and answers these as unprocessed.
    fn without(
        &self,
        operation: &str,
        mut request: Value,
        plan: &Plan,
        stalest_index: Option<Duration>,
    ) -> Result<Value, Refusal> {
        let unprocessed = take_entries(&mut request, &plan.refused);
        let left = request["RequestItems"].as_object().is_some_and(|tables| !tables.is_empty());
        let mut response = if left {
            match self.carry_out(operation, request, plan, stalest_index)? {
                Answer::Value(response) => response,
                Answer::Page(_) => Value::Object(Map::new()),
            }
        } else {
            Value::Object(Map::new())
        };
        let field =
            if operation == "BatchGetItem" { "UnprocessedKeys" } else { "UnprocessedItems" };
        response[field] = unprocessed;
        if operation == "BatchGetItem" && response.get("Responses").is_none() {
            response["Responses"] = Value::Object(Map::new());
        }
        Ok(response)
    }
}

fn parse(body: &[u8]) -> Result<Value, Refusal> {
    // An empty body is a request without members.
    if body.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        Refusal::serialization(text.split(" at line ").next().unwrap_or_default())
    })
}

fn to_vec(value: &impl serde::Serialize) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(value).map_err(|error| Refusal::internal(error.to_string()))
}

/// What a request touches: its table, each table of a transaction, or one part for each entry of a
/// batch, in the order of the tables' names and then of the request.
pub(crate) fn locate(body: &[u8]) -> (Vec<Part>, Asks) {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let asks = Asks {
        // A consistent read is one of a local index, which is never behind.
        index_read: request["IndexName"].is_string() && request["ConsistentRead"] != true,
        new_index: new_indexes(&request).next().is_some(),
        old_item: conditions(&request).any(|write| write.get(OLD_ITEM).is_some()),
    };
    let part = |table: &str| Part { resource: Some(table.to_owned()), shard: None };
    let mut parts = Vec::new();
    if let Some(table) = request["TableName"].as_str() {
        parts.push(part(table));
    }
    for (table, entries) in request["RequestItems"].as_object().into_iter().flatten() {
        parts.extend(entries_of(entries).iter().map(|_| part(table)));
    }
    for action in request["TransactItems"].as_array().into_iter().flatten() {
        let bodies = action.as_object().into_iter().flatten();
        parts.extend(bodies.filter_map(|(_, body)| body["TableName"].as_str()).map(part));
    }
    if parts.is_empty() {
        parts.push(Part::default());
    }
    (parts, asks)
}

/// The member by which a write asks for the item that fails its condition.
const OLD_ITEM: &str = "ReturnValuesOnConditionCheckFailure";

/// The writes of a request that can have a condition: the request itself, or those of a transaction.
fn conditions(request: &Value) -> impl Iterator<Item = &Value> {
    let actions = request["TransactItems"].as_array().into_iter().flatten();
    let writes = actions.filter_map(Value::as_object).flat_map(Map::values);
    std::iter::once(request).chain(writes)
}

/// Removes what asks for the item that fails a condition.
fn hide_old_item(request: &mut Value) {
    fn strip(write: &mut Value) {
        if let Some(write) = write.as_object_mut() {
            write.remove(OLD_ITEM);
        }
    }
    strip(request);
    let actions = request.get_mut("TransactItems").and_then(Value::as_array_mut);
    let actions = actions.into_iter().flatten().filter_map(Value::as_object_mut);
    actions.flat_map(Map::values_mut).for_each(strip);
}

/// Writes are an array, keys to get an array inside an object.
fn entries_of(entries: &Value) -> &[Value] {
    let entries = entries.get("Keys").unwrap_or(entries);
    entries.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Takes the entries out of a batch, counted as `locate` counts them, and gives them in the shape
/// of unprocessed ones.
fn take_entries(request: &mut Value, refused: &HashMap<usize, ApiError>) -> Value {
    let mut unprocessed = Map::new();
    let mut nth = 0;
    let Some(tables) = request["RequestItems"].as_object_mut() else {
        return Value::Null;
    };
    for (table, entries) in tables.iter_mut() {
        let all = entries_of(entries).to_vec();
        let (taken, left): (Vec<_>, Vec<_>) = all
            .into_iter()
            .enumerate()
            .partition(|(offset, _)| refused.contains_key(&(nth + offset)));
        nth += taken.len() + left.len();
        let strip = |entries: Vec<(usize, Value)>| -> Value {
            entries.into_iter().map(|(_, entry)| entry).collect()
        };
        let (any_taken, taken, left) = (!taken.is_empty(), strip(taken), strip(left));
        let mut rest = entries.clone();
        if entries.get("Keys").is_some() {
            rest["Keys"] = taken;
            entries["Keys"] = left;
        } else {
            rest = taken;
            *entries = left;
        }
        if any_taken {
            unprocessed.insert(table.clone(), rest);
        }
    }
    tables.retain(|_, entries| !entries_of(entries).is_empty());
    Value::Object(unprocessed)
}
