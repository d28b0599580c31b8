//! DynamoDB: dynoxide's database behind a front of ours.

mod indexes;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dynoxide::{Database, DynoxideError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use self::indexes::{Creating, Past, new_indexes};
use crate::clock::{Clock, Timestamp};
use crate::faults::{Asks, Part, Plan};
use crate::kinesis::ApiError;

pub(crate) struct DynamoDb {
    database: Database,
    clock: Arc<dyn Clock>,
    creating: Mutex<Creating>,
    /// There while a fault may ask for it.
    past: Mutex<Option<Past>>,
}

impl fmt::Debug for DynamoDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamoDb").finish_non_exhaustive()
    }
}

/// Our clock, as dynoxide reads it for TTL and streams.
struct DatabaseClock(Arc<dyn Clock>);

impl dynoxide::storage_backend::Clock for DatabaseClock {
    fn now_unix_secs(&self) -> u64 {
        Timestamp::from(self.0.now()).seconds()
    }

    fn now_unix_secs_f64(&self) -> f64 {
        Timestamp::from(self.0.now()).millis() as f64 / 1000.0
    }
}

/// An answer: the HTTP status and the body.
pub(crate) type Answer = (u16, Vec<u8>);

impl DynamoDb {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Result<Self, DynoxideError> {
        Ok(Self {
            database: in_memory(&clock)?,
            clock,
            creating: Mutex::default(),
            past: Mutex::default(),
        })
    }

    /// Answers one request, as planned. The entries of a batch that the plan refuses come back
    /// unprocessed. `stalest_index` is how far reads of indexes may be behind from now on.
    pub(crate) fn call(
        &self,
        operation: &str,
        body: &[u8],
        plan: &Plan,
        stalest_index: Option<Duration>,
    ) -> Answer {
        let result = if plan.refused.is_empty() {
            self.carry_out(operation, body, plan, stalest_index)
        } else {
            self.without(operation, body, plan, stalest_index)
        };
        result.unwrap_or_else(|error| {
            let status = error.status_code();
            (status, error.to_json().into_bytes())
        })
    }

    fn carry_out(
        &self,
        operation: &str,
        body: &[u8],
        plan: &Plan,
        stalest_index: Option<Duration>,
    ) -> Result<Answer, DynoxideError> {
        let now: Timestamp = self.clock.now().into();
        let body = if plan.no_old_item {
            Cow::Owned(without_old_item(body)?)
        } else {
            Cow::Borrowed(body)
        };
        {
            let mut creating = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
            creating.settle(now);
            if !creating.is_empty() {
                creating.check(&parse(&body)?)?;
            }
        }
        let (status, mut answer) = match plan.stale_index {
            Some(by) => self.read_past(now.minus(by), operation, &body)?,
            None if is_write(operation) => self.write(now, operation, &body, stalest_index)?,
            None => dispatch(&self.database, operation, &body)?,
        };
        let mut creating = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(by) = plan.slow_index.filter(|_| status == 200) {
            creating.add(&parse(&body)?, now.plus(by));
        }
        if !creating.is_empty() && operation.ends_with("Table") {
            let mut shown = parse(&answer)?;
            creating.show(&mut shown);
            answer = to_vec(&shown)?;
        }
        Ok((status, answer))
    }

    /// Writes to the present, and notes it for the past if there is to be one.
    fn write(
        &self,
        now: Timestamp,
        operation: &str,
        body: &[u8],
        stalest_index: Option<Duration>,
    ) -> Result<Answer, DynoxideError> {
        // Held while the write is carried out: the past follows in the same order.
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(stalest) = stalest_index else {
            *past = None;
            return dispatch(&self.database, operation, body);
        };
        let past = match &mut *past {
            Some(past) => past,
            none => none.insert(Past::begin(&self.database, in_memory(&self.clock)?)?),
        };
        let answer = dispatch(&self.database, operation, body)?;
        if answer.0 == 200 {
            past.record(now, operation, body);
            past.move_to(now.minus(stalest))?;
        }
        Ok(answer)
    }

    fn read_past(
        &self,
        time: Timestamp,
        operation: &str,
        body: &[u8],
    ) -> Result<Answer, DynoxideError> {
        let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match &mut *past {
            // Nothing has been written since a fault could ask.
            None => &self.database,
            Some(past) => {
                past.move_to(time)?;
                past.database()
            }
        };
        dispatch(database, operation, body)
    }

    /// Carries out a batch without some of its entries, and answers these as unprocessed.
    fn without(
        &self,
        operation: &str,
        body: &[u8],
        plan: &Plan,
        stalest_index: Option<Duration>,
    ) -> Result<Answer, DynoxideError> {
        let mut request = parse::<Value>(body)?;
        let unprocessed = take_entries(&mut request, &plan.refused);
        let left = request["RequestItems"]
            .as_object()
            .is_some_and(|tables| !tables.is_empty());
        let mut response = if left {
            let request = to_vec(&request)?;
            let (status, body) = self.carry_out(operation, &request, plan, stalest_index)?;
            if status != 200 {
                return Ok((status, body));
            }
            parse::<Value>(&body)?
        } else {
            Value::Object(Map::new())
        };
        let field = if operation == "BatchGetItem" {
            "UnprocessedKeys"
        } else {
            "UnprocessedItems"
        };
        response[field] = unprocessed;
        if operation == "BatchGetItem" && response.get("Responses").is_none() {
            response["Responses"] = Value::Object(Map::new());
        }
        Ok((200, to_vec(&response)?))
    }
}

fn in_memory(clock: &Arc<dyn Clock>) -> Result<Database, DynoxideError> {
    Database::memory_with_clock(Arc::new(DatabaseClock(Arc::clone(clock))))
}

/// Whether an operation may change tables or items.
fn is_write(operation: &str) -> bool {
    let reads = [
        "Describe",
        "List",
        "Get",
        "Query",
        "Scan",
        "BatchGet",
        "TransactGet",
    ];
    !reads.iter().any(|read| operation.starts_with(read))
}

fn dispatch(db: &Database, operation: &str, body: &[u8]) -> Result<Answer, DynoxideError> {
    match operation {
        "CreateTable" => run(body, |request| db.create_table(request)),
        "DeleteTable" => run(body, |request| db.delete_table(request)),
        "DescribeTable" => run(body, |request| db.describe_table(request)),
        "ListTables" => run(body, |request| db.list_tables(request)),
        "UpdateTable" => run(body, |request| db.update_table(request)),
        "PutItem" => run(body, |request| db.put_item(request)),
        "GetItem" => run(body, |request| db.get_item(request)),
        "DeleteItem" => run(body, |request| db.delete_item(request)),
        "UpdateItem" => run(body, |request| db.update_item(request)),
        "Query" => run(body, |request| db.query(request)),
        "Scan" => run(body, |request| db.scan(request)),
        "BatchGetItem" => run(body, |request| db.batch_get_item(request)),
        "BatchWriteItem" => run(body, |request| db.batch_write_item(request)),
        "TransactWriteItems" => run(body, |request| db.transact_write_items(request)),
        "TransactGetItems" => run(body, |request| db.transact_get_items(request)),
        "ListStreams" => run(body, |request| db.list_streams(request)),
        "DescribeStream" => run(body, |request| db.describe_stream(request)),
        "GetShardIterator" => run(body, |request| db.get_shard_iterator(request)),
        "GetRecords" => run(body, |request| db.get_records(request)),
        "UpdateTimeToLive" => run(body, |request| db.update_time_to_live(request)),
        "DescribeTimeToLive" => run(body, |request| db.describe_time_to_live(request)),
        "TagResource" => run(body, |request| db.tag_resource(request)),
        "UntagResource" => run(body, |request| db.untag_resource(request)),
        "ListTagsOfResource" => run(body, |request| db.list_tags_of_resource(request)),
        "ExecuteStatement" => run(body, |request| db.execute_statement(request)),
        "ExecuteTransaction" => run(body, |request| db.execute_transaction(request)),
        "BatchExecuteStatement" => run(body, |request| db.batch_execute_statement(request)),
        _ => {
            let code = "com.amazon.coral.service#UnknownOperationException";
            let message = format!("{operation} is not an operation of testkit");
            Ok((400, ApiError::new(code, message).to_json()))
        }
    }
}

fn run<Q: DeserializeOwned, R: Serialize>(
    body: &[u8],
    operation: impl FnOnce(Q) -> dynoxide::Result<R>,
) -> Result<Answer, DynoxideError> {
    Ok((200, to_vec(&operation(parse(body)?)?)?))
}

fn parse<Q: DeserializeOwned>(body: &[u8]) -> Result<Q, DynoxideError> {
    serde_json::from_slice(body).map_err(|error| {
        // dynoxide's types mark the refusals of a value that DynamoDB words as a validation error.
        let text = error.to_string();
        let text = text.split(" at line ").next().unwrap_or_default();
        let marked = ["VALIDATION_REQUEST:", "VALIDATION:"]
            .iter()
            .find_map(|mark| text.split_once(mark));
        match marked {
            Some((_, message)) => DynoxideError::ValidationException(message.to_owned()),
            None => DynoxideError::SerializationException(text.to_owned()),
        }
    })
}

fn to_vec(value: &impl Serialize) -> Result<Vec<u8>, DynoxideError> {
    serde_json::to_vec(value).map_err(|error| DynoxideError::InternalServerError(error.to_string()))
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
    let part = |table: &str| Part {
        resource: Some(table.to_owned()),
        shard: None,
    };
    let mut parts = Vec::new();
    if let Some(table) = request["TableName"].as_str() {
        parts.push(part(table));
    }
    for (table, entries) in request["RequestItems"].as_object().into_iter().flatten() {
        parts.extend(entries_of(entries).iter().map(|_| part(table)));
    }
    for action in request["TransactItems"].as_array().into_iter().flatten() {
        let bodies = action.as_object().into_iter().flatten();
        parts.extend(
            bodies
                .filter_map(|(_, body)| body["TableName"].as_str())
                .map(part),
        );
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

fn without_old_item(body: &[u8]) -> Result<Vec<u8>, DynoxideError> {
    fn strip(write: &mut Value) {
        if let Some(write) = write.as_object_mut() {
            write.remove(OLD_ITEM);
        }
    }
    let mut request = parse::<Value>(body)?;
    strip(&mut request);
    let actions = request
        .get_mut("TransactItems")
        .and_then(Value::as_array_mut);
    let actions = actions
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut);
    actions.flat_map(Map::values_mut).for_each(strip);
    to_vec(&request)
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
