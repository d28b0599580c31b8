//! DynamoDB: dynoxide's database behind a front of ours.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use dynoxide::{Database, DynoxideError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::clock::{Clock, Timestamp};
use crate::faults::Part;
use crate::kinesis::ApiError;

pub(crate) struct DynamoDb {
    database: Database,
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
        let database = Database::memory_with_clock(Arc::new(DatabaseClock(clock)))?;
        Ok(Self { database })
    }

    /// Answers one request. The entries of a batch that `refused` names come back unprocessed.
    pub(crate) fn call(
        &self,
        operation: &str,
        body: &[u8],
        refused: &HashMap<usize, ApiError>,
    ) -> Answer {
        let result = if refused.is_empty() {
            self.dispatch(operation, body)
        } else {
            self.without(refused, operation, body)
        };
        result.unwrap_or_else(|error| {
            let status = error.status_code();
            (status, error.to_json().into_bytes())
        })
    }

    fn dispatch(&self, operation: &str, body: &[u8]) -> Result<Answer, DynoxideError> {
        let db = &self.database;
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

    /// Carries out a batch without some of its entries, and answers these as unprocessed.
    fn without(
        &self,
        refused: &HashMap<usize, ApiError>,
        operation: &str,
        body: &[u8],
    ) -> Result<Answer, DynoxideError> {
        let mut request = parse::<Value>(body)?;
        let unprocessed = take_entries(&mut request, refused);
        let left = request["RequestItems"]
            .as_object()
            .is_some_and(|tables| !tables.is_empty());
        let mut response = if left {
            let (status, body) = self.dispatch(operation, &to_vec(&request)?)?;
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
pub(crate) fn locate(body: &[u8]) -> Vec<Part> {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
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
    parts
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
