//! BatchGetItem and BatchWriteItem.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::capacity::Capacity;
use super::engine::{Tables, table, table_mut};
use super::expression::Placeholders;
use super::legacy;
use super::reads::{projection, read_price, shown};
use super::refusal::Refusal;
use super::request::Request;
use super::schema::Key;
use super::value::{item_from_json, item_size};
use super::writes::Write;

const MAX_GETS: usize = 100;
const MAX_WRITES: usize = 25;
/// Most bytes that a batch of reads answers; the other keys come back as unprocessed.
const MAX_READ_BYTES: usize = 16 << 20;

fn duplicates() -> Refusal {
    Refusal::validation("Provided list of item keys contains duplicates")
}

fn check_count(operation: &str, count: usize, most: usize) -> Result<(), Refusal> {
    if count == 0 {
        return Err(Refusal::constraint(
            "'{}'",
            "requestItems",
            "Member must have length greater than or equal to 1",
        ));
    }
    if count > most {
        return Err(Refusal::validation(format!(
            "Too many items requested for the {operation} call"
        )));
    }
    Ok(())
}

fn request_items(request: Request<'_>) -> Result<&Map<String, Value>, Refusal> {
    let items = request.object("RequestItems")?;
    items.ok_or_else(|| Request::missing("RequestItems"))
}

pub(super) fn batch_get(tables: &Tables, request: Request<'_>) -> Result<Value, Refusal> {
    const EXPRESSIONS: [&str; 1] = ["ProjectionExpression"];
    let mut capacity = Capacity::asked(request)?;
    let requested = request_items(request)?;
    let mut wanted = Vec::new();
    let mut count = 0;
    for (name, json) in requested {
        let of_table = Request::within("RequestItems", json)?;
        let keys = of_table.list("Keys")?;
        check_count("BatchGetItem", keys.len(), MAX_GETS)?;
        count += keys.len();
        wanted.push((name, of_table, keys));
    }
    check_count("BatchGetItem", count, MAX_GETS)?;
    let (mut responses, mut unprocessed) = (Map::new(), Map::new());
    let mut bytes = 0;
    for (name, of_table, keys) in wanted {
        legacy::check_one_kind(of_table, &["AttributesToGet"], &EXPRESSIONS)?;
        let table = table(tables, name)?;
        let mut placeholders = Placeholders::read(of_table, &EXPRESSIONS)?;
        let projection = projection(of_table, &mut placeholders)?;
        placeholders.check_used()?;
        let price = read_price(of_table)?;
        let mut seen = BTreeSet::new();
        let (mut items, mut rest) = (Vec::new(), Vec::new());
        for json in keys {
            let key = table.schema.key_named(&item_from_json(json)?)?;
            let item = table.get(&key);
            if !seen.insert(key) {
                return Err(duplicates());
            }
            let size = item.map_or(0, |item| item_size(item));
            if bytes + size > MAX_READ_BYTES {
                rest.push(json.clone());
                continue;
            }
            bytes += size;
            capacity.read(name, None, size, price);
            items.extend(item.map(|item| json!(shown(projection.as_ref(), item))));
        }
        responses.insert(name.clone(), Value::Array(items));
        if !rest.is_empty() {
            let mut again = requested[name].clone();
            again["Keys"] = Value::Array(rest);
            unprocessed.insert(name.clone(), again);
        }
    }
    let mut answer = json!({ "Responses": responses, "UnprocessedKeys": unprocessed });
    if let Some(capacity) = capacity.of_each() {
        answer["ConsumedCapacity"] = capacity;
    }
    Ok(answer)
}

pub(super) fn batch_write(tables: &mut Tables, request: Request<'_>) -> Result<Value, Refusal> {
    let mut capacity = Capacity::asked(request)?;
    // Nothing is written unless every entry can be.
    let mut writes: BTreeMap<&String, BTreeMap<Key, Write>> = BTreeMap::new();
    let mut count = 0;
    for (name, json) in request_items(request)? {
        let entries = json.as_array().map(Vec::as_slice).unwrap_or_default();
        check_count("BatchWriteItem", entries.len(), MAX_WRITES)?;
        count += entries.len();
        let table = table(tables, name)?;
        let of_table = writes.entry(name).or_default();
        for entry in entries {
            let entry = Request::within("RequestItems", entry)?;
            let write = match (entry.request("PutRequest")?, entry.request("DeleteRequest")?) {
                (Some(put), None) => Write::put(table, put)?,
                (None, Some(delete)) => Write::delete(table, delete)?,
                _ => {
                    return Err(Refusal::validation(
                        "Supplied WriteRequest must have exactly one of PutRequest and \
                         DeleteRequest",
                    ));
                }
            };
            write.decide(table)?;
            if of_table.insert(write.key.clone(), write).is_some() {
                return Err(duplicates());
            }
        }
    }
    check_count("BatchWriteItem", count, MAX_WRITES)?;
    for (name, writes) in writes {
        let table = table_mut(tables, name)?;
        for write in writes.into_values() {
            let outcome = write.decide(table)?;
            let change = write.apply(table, outcome);
            capacity.write(table, &change, 1.0);
        }
    }
    let mut answer = json!({ "UnprocessedItems": {} });
    if let Some(capacity) = capacity.of_each() {
        answer["ConsumedCapacity"] = capacity;
    }
    Ok(answer)
}
