//! TransactWriteItems and TransactGetItems.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::capacity::Capacity;
use super::engine::{Tables, table, table_mut};
use super::expression::Placeholders;
use super::reads::{projection, shown};
use super::refusal::Refusal;
use super::request::Request;
use super::value::{item_from_json, item_size};
use super::writes::Write;
use crate::clock::Timestamp;

const MAX_ACTIONS: usize = 100;
/// How long a token stands for its transaction.
const TOKEN_TTL: Duration = Duration::from_secs(600);

/// The transactions whose tokens are remembered: when each was carried out, and its request.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Tokens(BTreeMap<String, (Timestamp, Value)>);

impl Tokens {
    /// Whether the transaction has been carried out already.
    fn is_known(&mut self, now: Timestamp, token: &str, items: &Value) -> Result<bool, Refusal> {
        self.0.retain(|_, (at, _)| now < at.plus(TOKEN_TTL));
        match self.0.get(token) {
            None => Ok(false),
            Some((_, known)) if known == items => Ok(true),
            Some(_) => Err(Refusal::of_service(
                "IdempotentParameterMismatchException",
                "The provided client token is already in use with a different request",
            )),
        }
    }
}

fn actions<'a>(request: Request<'a>) -> Result<&'a [Value], Refusal> {
    let actions = request.list("TransactItems")?;
    if actions.is_empty() || actions.len() > MAX_ACTIONS {
        return Err(Refusal::constraint(
            "'[...]'",
            "transactItems",
            "Member must have length less than or equal to 100 and greater than or equal to 1",
        ));
    }
    Ok(actions)
}

fn read_action<'a>(tables: &Tables, json: &'a Value) -> Result<(&'a str, Write), Refusal> {
    let action = Request::within("TransactItems", json)?;
    let kinds = ["ConditionCheck", "Put", "Delete", "Update"];
    let mut given = kinds.into_iter().filter(|kind| action.has(kind));
    let (Some(kind), None) = (given.next(), given.next()) else {
        return Err(Refusal::validation(
            "TransactItems can only contain one of Check, Put, Update or Delete",
        ));
    };
    let request = Request::within(kind, action.required(kind)?)?;
    let name = request.table_name()?;
    let table = table(tables, name)?;
    let write = match kind {
        "ConditionCheck" => Write::check(table, request),
        "Put" => Write::put(table, request),
        "Delete" => Write::delete(table, request),
        _ => {
            request.required_text("UpdateExpression")?;
            Write::update(table, request)
        }
    };
    Ok((name, write?))
}

pub(super) fn transact_write(
    now: Timestamp,
    tables: &mut Tables,
    tokens: &mut Tokens,
    request: Request<'_>,
) -> Result<Value, Refusal> {
    let mut capacity = Capacity::asked(request)?;
    let token = request.text("ClientRequestToken")?;
    let items = request.required("TransactItems")?;
    if let Some(token) = token
        && tokens.is_known(now, token, items)?
    {
        return Ok(json!({}));
    }
    let mut writes = Vec::new();
    let mut touched = BTreeSet::new();
    for json in actions(request)? {
        let (name, write) = read_action(tables, json)?;
        if !touched.insert((name, write.key.clone())) {
            return Err(Refusal::validation(
                "Transaction request cannot include multiple operations on one item",
            ));
        }
        writes.push((name, write));
    }
    // Every write is decided on the tables as they are, before the first is carried out.
    let mut decided = Vec::new();
    for (name, write) in &writes {
        decided.push(write.decide(table(tables, name)?));
    }
    if decided.iter().any(Result::is_err) {
        let reasons = decided.into_iter().map(|decided| reason(decided.err()));
        return Err(cancelled(reasons.collect()));
    }
    for ((name, write), outcome) in writes.iter().zip(decided) {
        let table = table_mut(tables, name)?;
        let change = write.apply(table, outcome?);
        capacity.write(table, &change, 2.0);
    }
    if let Some(token) = token {
        tokens.0.insert(token.to_owned(), (now, items.clone()));
    }
    let mut answer = json!({});
    if let Some(capacity) = capacity.of_each() {
        answer["ConsumedCapacity"] = capacity;
    }
    Ok(answer)
}

/// Why one action keeps a transaction from being carried out.
fn reason(refusal: Option<Refusal>) -> Value {
    let Some(refusal) = refusal else {
        return json!({ "Code": "None" });
    };
    let code = match refusal.code() {
        "ConditionalCheckFailedException" => "ConditionalCheckFailed",
        _ => "ValidationError",
    };
    let mut reason = json!({ "Code": code, "Message": refusal.message() });
    if let Some(item) = refusal.detail("Item") {
        reason["Item"] = item.clone();
    }
    reason
}

fn cancelled(reasons: Vec<Value>) -> Refusal {
    let codes = reasons.iter().map(|reason| reason["Code"].as_str());
    let codes = codes.map(Option::unwrap_or_default).collect::<Vec<_>>();
    let message = format!(
        "Transaction cancelled, please refer cancellation reasons for specific reasons [{}]",
        codes.join(", ")
    );
    Refusal::of_service("TransactionCanceledException", message)
        .with("CancellationReasons", Value::Array(reasons))
}

pub(super) fn transact_get(tables: &Tables, request: Request<'_>) -> Result<Value, Refusal> {
    let mut capacity = Capacity::asked(request)?;
    let mut responses = Vec::new();
    for json in actions(request)? {
        let action = Request::within("TransactItems", json)?;
        let get = Request::within("Get", action.required("Get")?)?;
        let table = table(tables, get.table_name()?)?;
        let key = table.schema.key_named(&item_from_json(get.required("Key")?)?)?;
        let mut placeholders = Placeholders::read(get, &["ProjectionExpression"])?;
        let projection = projection(get, &mut placeholders)?;
        placeholders.check_used()?;
        let item = table.get(&key);
        let bytes = item.map_or(0, |item| item_size(item));
        capacity.read(&table.name, None, bytes, 2.0);
        responses.push(match item {
            None => json!({}),
            Some(item) => json!({ "Item": shown(projection.as_ref(), item) }),
        });
    }
    let mut answer = json!({ "Responses": responses });
    if let Some(capacity) = capacity.of_each() {
        answer["ConsumedCapacity"] = capacity;
    }
    Ok(answer)
}
