//! The database held to a model of a table, and its operations where no client sees them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);

fn call(engine: &mut Engine, operation: &str, request: Value) -> Result<Value, Refusal> {
    let answer = engine.call(NOW, operation, &request, Duration::ZERO)?;
    Ok(serde_json::to_value(answer).unwrap())
}

/// A table `table` with the key `id` and an index `by_owner`.
fn with_table() -> Engine {
    let mut engine = Engine::default();
    let attribute = |name: &str| json!({ "AttributeName": name, "AttributeType": "S" });
    let key = |name: &str| json!([{ "AttributeName": name, "KeyType": "HASH" }]);
    let create = json!({
        "TableName": "table", "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [attribute("id"), attribute("owner")], "KeySchema": key("id"),
        "GlobalSecondaryIndexes": [{
            "IndexName": "by_owner", "KeySchema": key("owner"),
            "Projection": { "ProjectionType": "ALL" },
        }],
    });
    call(&mut engine, "CreateTable", create).unwrap();
    engine
}

/// A write that depends on what is there, or not.
#[derive(Debug, Clone)]
enum Step {
    Create {
        id: u8,
        owner: u8,
    },
    Raise {
        id: u8,
        expected: i64,
        by: i64,
    },
    Give {
        id: u8,
        owner: u8,
    },
    Release {
        id: u8,
    },
    Delete {
        id: u8,
        expected: i64,
    },
    /// Two writes, both of them or neither.
    Both {
        ids: (u8, u8),
        expected: (i64, i64),
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (id, owner, count) = (0..4_u8, 0..3_u8, 0..4_i64);
    let step = prop_oneof![
        (id.clone(), owner.clone()).prop_map(|(id, owner)| Step::Create { id, owner }),
        (id.clone(), count.clone(), -1..3_i64).prop_map(|(id, expected, by)| Step::Raise {
            id,
            expected,
            by
        }),
        (id.clone(), owner).prop_map(|(id, owner)| Step::Give { id, owner }),
        id.clone().prop_map(|id| Step::Release { id }),
        (id.clone(), count.clone()).prop_map(|(id, expected)| Step::Delete { id, expected }),
        ((id.clone(), id), (count.clone(), count))
            .prop_map(|(ids, expected)| Step::Both { ids, expected }),
    ];
    proptest::collection::vec(step, 0..60)
}

/// The counter and the owner of each item.
type Model = BTreeMap<u8, (i64, Option<u8>)>;

fn raise(id: u8, expected: i64, by: i64) -> Value {
    json!({
        "TableName": "table", "Key": { "id": { "S": id.to_string() } },
        "UpdateExpression": "SET x = x + :by", "ConditionExpression": "x = :expected",
        "ExpressionAttributeValues": {
            ":by": { "N": by.to_string() }, ":expected": { "N": expected.to_string() },
        },
    })
}

/// Takes a step in the database, and in the model: whether each took it.
fn take(step: &Step, engine: &mut Engine, model: &mut Model) -> (bool, bool) {
    let key = |id: &u8| json!({ "id": { "S": id.to_string() } });
    let name = |owner: &u8| json!({ "S": format!("w{owner}") });
    let counts = |model: &Model, id: &u8, expected: &i64| {
        model.get(id).is_some_and(|(count, _)| count == expected)
    };
    let (operation, request, expected) = match step {
        Step::Create { id, owner } => {
            let item = json!({
                "id": { "S": id.to_string() }, "x": { "N": "0" }, "owner": name(owner),
            });
            let request = json!({
                "TableName": "table", "Item": item,
                "ConditionExpression": "attribute_not_exists(id)",
            });
            let missing = !model.contains_key(id);
            model.entry(*id).or_insert((0, Some(*owner)));
            ("PutItem", request, missing)
        }
        Step::Raise { id, expected, by } => {
            let holds = counts(model, id, expected);
            if let Some((count, _)) = model.get_mut(id).filter(|_| holds) {
                *count += by;
            }
            ("UpdateItem", raise(*id, *expected, *by), holds)
        }
        Step::Give { id, owner } => {
            let request = json!({
                "TableName": "table", "Key": key(id), "UpdateExpression": "SET #o = :o",
                "ConditionExpression": "attribute_exists(id) AND NOT #o = :o",
                "ExpressionAttributeNames": { "#o": "owner" },
                "ExpressionAttributeValues": { ":o": name(owner) },
            });
            let held = model.get_mut(id).filter(|(_, held)| *held != Some(*owner));
            let holds = held.is_some();
            if let Some((_, held)) = held {
                *held = Some(*owner);
            }
            ("UpdateItem", request, holds)
        }
        Step::Release { id } => {
            // In the manner of the Java KCL.
            let request = json!({
                "TableName": "table", "Key": key(id),
                "AttributeUpdates": { "owner": { "Action": "DELETE" } },
                "Expected": { "id": { "Value": { "S": id.to_string() } } },
            });
            let held = model.get_mut(id);
            let holds = held.is_some();
            if let Some((_, owner)) = held {
                *owner = None;
            }
            ("UpdateItem", request, holds)
        }
        Step::Delete { id, expected } => {
            let request = json!({
                "TableName": "table", "Key": key(id),
                "Expected": { "x": { "Value": { "N": expected.to_string() } } },
            });
            let holds = counts(model, id, expected);
            if holds {
                model.remove(id);
            }
            ("DeleteItem", request, holds)
        }
        Step::Both { ids, expected } => {
            let update = |id, expected| json!({ "Update": raise(id, expected, 1) });
            let request = json!({
                "TransactItems": [update(ids.0, expected.0), update(ids.1, expected.1)],
            });
            let holds = ids.0 != ids.1
                && counts(model, &ids.0, &expected.0)
                && counts(model, &ids.1, &expected.1);
            if holds {
                for id in [ids.0, ids.1] {
                    model.entry(id).and_modify(|(count, _)| *count += 1);
                }
            }
            ("TransactWriteItems", request, holds)
        }
    };
    (call(engine, operation, request).is_ok(), expected)
}

/// What the table holds, read page by page; and the ids that the index has for each owner.
fn contents(engine: &mut Engine) -> (Model, BTreeMap<u8, Vec<u8>>) {
    let number = |text: &Value| text.as_str().unwrap().parse::<u8>().unwrap();
    let mut model = Model::new();
    let mut start = Value::Null;
    loop {
        let scan = json!({ "TableName": "table", "Limit": 2, "ExclusiveStartKey": start });
        let page = call(engine, "Scan", scan).unwrap();
        for item in page["Items"].as_array().unwrap() {
            let owner = item["owner"]["S"].as_str();
            let owner = owner.map(|owner| owner[1..].parse().unwrap());
            let count = item["x"]["N"].as_str().unwrap().parse().unwrap();
            let before = model.insert(number(&item["id"]["S"]), (count, owner));
            assert_eq!(before, None, "an item is on two pages");
        }
        start = page["LastEvaluatedKey"].clone();
        if start.is_null() {
            break;
        }
    }
    let mut owned = BTreeMap::new();
    for owner in 0..3_u8 {
        let query = json!({
            "TableName": "table", "IndexName": "by_owner",
            "KeyConditionExpression": "#o = :o", "ExpressionAttributeNames": { "#o": "owner" },
            "ExpressionAttributeValues": { ":o": { "S": format!("w{owner}") } },
        });
        let page = call(engine, "Query", query).unwrap();
        let items = page["Items"].as_array().unwrap();
        let mut ids: Vec<_> = items.iter().map(|item| number(&item["id"]["S"])).collect();
        ids.sort_unstable();
        owned.insert(owner, ids);
    }
    (model, owned)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn conditional_writes_do_what_a_model_of_them_does(steps in steps()) {
        let (mut engine, mut model) = (with_table(), Model::new());
        for step in &steps {
            let (taken, expected) = take(step, &mut engine, &mut model);
            prop_assert_eq!(taken, expected, "{:?}", step);
        }
        let (held, owned) = contents(&mut engine);
        prop_assert_eq!(&held, &model);
        for (owner, ids) in owned {
            let expected = model.iter().filter(|(_, (_, held))| *held == Some(owner));
            prop_assert_eq!(ids, expected.map(|(id, _)| *id).collect::<Vec<_>>());
        }
    }
}

#[test]
fn the_same_requests_at_the_same_times_make_the_same_tables() {
    let run = || {
        let mut engine = with_table();
        for id in 0..50_u8 {
            let item = json!({ "id": { "S": id.to_string() }, "x": { "N": "1" } });
            call(&mut engine, "PutItem", json!({ "TableName": "table", "Item": item })).unwrap();
        }
        let described = call(&mut engine, "DescribeTable", json!({ "TableName": "table" }));
        let scanned = call(&mut engine, "Scan", json!({ "TableName": "table" }));
        (described.unwrap(), scanned.unwrap())
    };
    assert_eq!(run(), run());
}

#[test]
fn a_refused_change_of_a_table_leaves_it_as_it_is() {
    let mut engine = with_table();
    let describe = json!({ "TableName": "table" });
    let before = call(&mut engine, "DescribeTable", describe.clone()).unwrap();
    let update = json!({
        "TableName": "table", "DeletionProtectionEnabled": true,
        "GlobalSecondaryIndexUpdates": [{ "Delete": { "IndexName": "none" } }],
    });
    let refusal = call(&mut engine, "UpdateTable", update).unwrap_err();
    assert_eq!(refusal.code(), "ResourceNotFoundException");
    assert_eq!(call(&mut engine, "DescribeTable", describe).unwrap(), before);
}
