//! Random requests that mostly make sense: few tables, few keys, many expressions.

use fastrand::Rng;
use serde_json::{Map, Value, json};

pub struct Requests {
    rng: Rng,
    sent: usize,
    prefix: String,
}

/// With a partition key only, and with a sort key and indexes.
const TABLES: [&str; 2] = ["leases", "events"];

impl Requests {
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            sent: 0,
            // Two runs on one service must not meet.
            prefix: format!("compare-{:016x}-", seed),
        }
    }

    /// An operation and its request.
    pub fn next(&mut self) -> (&'static str, Value) {
        self.sent += 1;
        match self.sent {
            1 => ("CreateTable", self.leases()),
            2 => ("CreateTable", self.events()),
            _ => self.any(),
        }
        .pipe(without_nulls)
    }

    fn name(&self, table: &str) -> String {
        format!("{}{table}", self.prefix)
    }

    fn leases(&self) -> Value {
        json!({
            "TableName": self.name("leases"), "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [attribute("id", "S"), attribute("owner", "S")],
            "KeySchema": [key("id", "HASH")],
            "GlobalSecondaryIndexes": [{
                "IndexName": "by_owner", "KeySchema": [key("owner", "HASH")],
                "Projection": { "ProjectionType": "INCLUDE", "NonKeyAttributes": ["x"] },
            }],
        })
    }

    fn events(&self) -> Value {
        json!({
            "TableName": self.name("events"), "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [attribute("id", "S"), attribute("at", "N"), attribute("x", "N")],
            "KeySchema": [key("id", "HASH"), key("at", "RANGE")],
            "LocalSecondaryIndexes": [{
                "IndexName": "by_x", "KeySchema": [key("id", "HASH"), key("x", "RANGE")],
                "Projection": { "ProjectionType": "KEYS_ONLY" },
            }],
            "GlobalSecondaryIndexes": [{
                "IndexName": "of_x", "KeySchema": [key("x", "HASH"), key("at", "RANGE")],
                "Projection": { "ProjectionType": "ALL" },
            }],
        })
    }

    fn any(&mut self) -> (&'static str, Value) {
        let table = self.choice(&TABLES);
        let mut request = json!({ "TableName": self.name(table) });
        let capacity = self.choice(&[None, None, Some("TOTAL"), Some("INDEXES")]);
        request["ReturnConsumedCapacity"] = json!(capacity);
        let show = self.choice(&[None, Some("ALL_OLD")]);
        match self.rng.u8(..100) {
            0..20 => {
                request["Item"] = self.item(table);
                request["ReturnValues"] = json!(self.choice(&[None, Some("ALL_OLD")]));
                request["ReturnValuesOnConditionCheckFailure"] = json!(show);
                self.condition(&mut request);
                ("PutItem", request)
            }
            20..45 => {
                request["Key"] = self.key_of(table);
                // Not ALL_OLD: dynoxide gives the key of an item that was not there before. The suite
                // has a case for it.
                let returns = ["NONE", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW"];
                request["ReturnValues"] = json!(self.choice(&returns));
                request["ReturnValuesOnConditionCheckFailure"] = json!(show);
                if self.rng.u8(..4) == 0 {
                    self.attribute_updates(&mut request);
                } else {
                    self.update(&mut request);
                    // Which of the updated attributes are returned for an element that a list does not
                    // have is not documented: the two differ.
                    let text = request["UpdateExpression"].as_str().unwrap_or_default();
                    if text.contains("#l[") {
                        request["ReturnValues"] = json!("ALL_NEW");
                    }
                    self.condition_expression("ConditionExpression", &mut request, 3);
                }
                ("UpdateItem", request)
            }
            45..55 => {
                request["Key"] = self.key_of(table);
                request["ReturnValues"] = json!(self.choice(&[None, Some("ALL_OLD")]));
                self.condition(&mut request);
                ("DeleteItem", request)
            }
            55..63 => {
                request["Key"] = self.key_of(table);
                request["ConsistentRead"] = json!(self.rng.bool());
                self.projection(&mut request);
                ("GetItem", request)
            }
            63..73 => {
                self.condition_expression("FilterExpression", &mut request, 1);
                request["ConsistentRead"] = json!(self.rng.bool());
                if self.rng.bool() {
                    self.projection(&mut request);
                }
                ("Scan", request)
            }
            73..88 => ("Query", self.query(request)),
            88..94 => ("TransactWriteItems", self.transaction()),
            94..97 => ("BatchWriteItem", self.batch_write()),
            _ => ("BatchGetItem", self.batch_get()),
        }
    }

    fn choice<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.rng.usize(..from.len())]
    }

    fn id(&mut self) -> Value {
        json!({ "S": self.choice(&["a", "b", "c"]) })
    }

    fn key_of(&mut self, table: &str) -> Value {
        let mut key = json!({ "id": self.id() });
        if table == "events" {
            key["at"] = json!({ "N": self.choice(&["1", "2", "3.5", "-4", "50"]) });
        }
        key
    }

    fn item(&mut self, table: &str) -> Value {
        let mut item = self.key_of(table);
        for name in ["x", "y", "owner", "tags", "list", "doc"] {
            if self.rng.bool() {
                // A key of an index must have its type.
                item[name] = match name {
                    "x" if table == "events" => self.number(),
                    "owner" => self.text(),
                    _ => self.value(2),
                };
            }
        }
        item
    }

    fn number(&mut self) -> Value {
        json!({ "N": self.choice(&["0", "1", "2", "10", "-1.5", "1e3", "0.1", "00.50"]) })
    }

    fn text(&mut self) -> Value {
        json!({ "S": self.choice(&["w", "wo", "wor", "x", "ü"]) })
    }

    fn value(&mut self, depth: usize) -> Value {
        match self.rng.u8(..if depth > 0 { 10 } else { 6 }) {
            0 | 1 => self.number(),
            2 | 3 => self.text(),
            4 => json!({ "BOOL": self.rng.bool() }),
            5 => self.choice(&[0, 1]).pipe(|which| match which {
                0 => json!({ "NULL": true }),
                _ => json!({ "B": "AAE=" }),
            }),
            6 => json!({ "SS": self.choice(&[&["w"][..], &["w", "x"], &["x", "ü", "wo"]]) }),
            7 => json!({ "NS": self.choice(&[&["1"][..], &["1", "2"], &["-1.5", "10"]]) }),
            8 => {
                let members: Vec<_> =
                    (0..self.rng.usize(..4)).map(|_| self.value(depth - 1)).collect();
                json!({ "L": members })
            }
            _ => {
                let mut members = Map::new();
                for name in ["in", "y"] {
                    members.insert(name.to_owned(), self.value(depth - 1));
                }
                json!({ "M": members })
            }
        }
    }

    /// A placeholder for a value, which is noted in the request.
    fn placeholder(&mut self, request: &mut Value, value: Value) -> String {
        let known = request["ExpressionAttributeValues"].as_object();
        let name = format!(":v{}", known.map_or(0, Map::len));
        request["ExpressionAttributeValues"][&name] = value;
        name
    }

    fn path(&mut self, request: &mut Value) -> String {
        let paths =
            ["x", "y", "#o", "tags", "#l", "doc", "doc.#in", "#l[0]", "#l[1]", "doc.y", "id"];
        self.named(request, &paths)
    }

    fn named(&mut self, request: &mut Value, paths: &[&'static str]) -> String {
        let path = self.choice(paths);
        for (mark, name) in [("#o", "owner"), ("#l", "list"), ("#in", "in")] {
            if path.contains(mark) {
                request["ExpressionAttributeNames"][mark] = json!(name);
            }
        }
        path.to_owned()
    }

    fn some_value(&mut self, request: &mut Value) -> String {
        let value = self.value(1);
        self.placeholder(request, value)
    }

    fn scalar(&mut self, request: &mut Value) -> String {
        let value = if self.rng.bool() { self.number() } else { self.text() };
        self.placeholder(request, value)
    }

    /// A condition by either means, or none.
    fn condition(&mut self, request: &mut Value) {
        match self.rng.u8(..4) {
            0 => {}
            1 => self.expected(request),
            _ => self.condition_expression("ConditionExpression", request, 1),
        }
    }

    /// Sets a condition, one time in so many not.
    fn condition_expression(&mut self, member: &str, request: &mut Value, rarely: u8) {
        if self.rng.u8(..=rarely) == 0 {
            return;
        }
        // A filter cannot speak of the key in a query; elsewhere it may.
        let text = self.condition_text(request, 2);
        request[member] = json!(text);
    }

    fn condition_text(&mut self, request: &mut Value, depth: usize) -> String {
        let path = self.path(request);
        match self.rng.u8(..if depth > 0 { 13 } else { 9 }) {
            0 | 1 => {
                let comparator = self.choice(&["=", "<>"]);
                format!("{path} {comparator} {}", self.some_value(request))
            }
            2 => {
                let comparator = self.choice(&["<", "<=", ">", ">="]);
                format!("{path} {comparator} {}", self.scalar(request))
            }
            3 => format!("attribute_exists({path})"),
            4 => format!("attribute_not_exists({path})"),
            5 => {
                let prefix = self.text();
                format!("begins_with({path}, {})", self.placeholder(request, prefix))
            }
            6 => format!("contains({path}, {})", self.scalar(request)),
            7 => {
                let number = self.number();
                let comparator = self.choice(&["=", "<", ">="]);
                format!("size({path}) {comparator} {}", self.placeholder(request, number))
            }
            8 => {
                let (one, two) = (self.scalar(request), self.scalar(request));
                format!("{path} IN ({one}, {two})")
            }
            9 => format!("NOT ({})", self.condition_text(request, depth - 1)),
            10 => {
                let low = self.placeholder(request, json!({ "N": "0" }));
                let high = self.placeholder(request, json!({ "N": "2" }));
                format!("{path} BETWEEN {low} AND {high}")
            }
            which => {
                let operator = if which == 11 { "AND" } else { "OR" };
                let left = self.condition_text(request, depth - 1);
                format!("({left}) {operator} {}", self.condition_text(request, depth - 1))
            }
        }
    }

    fn expected(&mut self, request: &mut Value) {
        let name = self.choice(&["x", "y", "owner", "tags"]);
        let mut expected = Map::new();
        for name in [name, "id"].into_iter().take(self.rng.usize(1..=2)) {
            let condition = match self.rng.u8(..6) {
                0 => json!({ "Exists": false }),
                1 | 2 => json!({ "Value": self.value(1) }),
                3 => json!({ "ComparisonOperator": self.choice(&["NULL", "NOT_NULL"]) }),
                4 => json!({
                    "ComparisonOperator": self.choice(&["EQ", "NE", "LT", "GE"]),
                    "AttributeValueList": [self.number()],
                }),
                _ => json!({
                    "ComparisonOperator": self.choice(&["CONTAINS", "BEGINS_WITH"]),
                    "AttributeValueList": [self.text()],
                }),
            };
            expected.insert(name.to_owned(), condition);
        }
        if expected.len() > 1 && self.rng.bool() {
            request["ConditionalOperator"] = json!("OR");
        }
        request["Expected"] = Value::Object(expected);
    }

    fn attribute_updates(&mut self, request: &mut Value) {
        let mut updates = Map::new();
        for name in ["x", "y", "owner", "tags"] {
            if self.rng.bool() {
                let update = match self.rng.u8(..4) {
                    0 => json!({ "Action": "DELETE" }),
                    1 => json!({ "Action": "ADD", "Value": self.number() }),
                    _ if name == "x" => json!({ "Action": "PUT", "Value": self.number() }),
                    _ if name == "owner" => json!({ "Action": "PUT", "Value": self.text() }),
                    _ => json!({ "Value": self.value(2) }),
                };
                updates.insert(name.to_owned(), update);
            }
        }
        if updates.is_empty() {
            updates.insert("y".to_owned(), json!({ "Value": { "S": "set" } }));
        }
        request["AttributeUpdates"] = Value::Object(updates);
        if self.rng.bool() {
            self.expected(request);
        }
    }

    fn update(&mut self, request: &mut Value) {
        let mut set = Vec::new();
        if self.rng.bool() {
            let number = self.number();
            let number = self.placeholder(request, number);
            set.push(match self.rng.u8(..4) {
                0 => format!("x = {number}"),
                1 => format!("x = x + {number}"),
                2 => format!("x = if_not_exists(x, {number}) - {number}"),
                _ => format!("x = if_not_exists(x, {number})"),
            });
        }
        if self.rng.bool() {
            let path = self.named(request, &["y", "#l[0]", "#l[7]", "doc.#in", "doc.y", "tags"]);
            set.push(format!("{path} = {}", self.some_value(request)));
        }
        if set.is_empty() || self.rng.u8(..4) == 0 {
            let owner = self.text();
            let owner = self.placeholder(request, owner);
            let path = self.named(request, &["#o"]);
            set.push(format!("{path} = {owner}"));
        }
        let mut text = format!("SET {}", set.join(", "));
        match self.rng.u8(..5) {
            0 => {
                let path = self.named(request, &["more", "#l[1]", "doc"]);
                text = format!("{text} REMOVE {path}");
            }
            1 => {
                let number = self.number();
                text = format!("ADD {} {} {text}", "counts", self.placeholder(request, number));
            }
            2 => {
                let members = self.placeholder(request, json!({ "SS": ["w", "x"] }));
                let section = self.choice(&["ADD", "DELETE"]);
                text = format!("{text} {section} words {members}");
            }
            _ => {}
        }
        request["UpdateExpression"] = json!(text);
    }

    fn projection(&mut self, request: &mut Value) {
        if self.rng.bool() {
            return;
        }
        let paths =
            [&["x", "id"][..], &["doc.#in", "#l[1]"], &["y", "#l[0]", "#o"], &["doc", "tags"]];
        let paths = self.choice(&paths);
        let named: Vec<_> = paths.iter().map(|path| self.named(request, &[path])).collect();
        request["ProjectionExpression"] = json!(named.join(", "));
    }

    fn query(&mut self, mut request: Value) -> Value {
        request["TableName"] = json!(self.name("events"));
        let id = self.id();
        let id = self.placeholder(&mut request, id);
        let (index, sort) = self.choice(&[(None, "at"), (None, "at"), (Some("by_x"), "x")]);
        request["IndexName"] = json!(index);
        if sort == "at" {
            request["ExpressionAttributeNames"]["#at"] = json!("at");
        }
        let sort = if sort == "at" { "#at" } else { sort };
        let mut number = |requests: &mut Self| {
            let value = requests.number();
            requests.placeholder(&mut request, value)
        };
        let text = match self.rng.u8(..5) {
            0 => {
                let comparator = self.choice(&["=", "<", "<=", ">", ">="]);
                format!("id = {id} AND {sort} {comparator} {}", number(self))
            }
            1 => {
                request["ExpressionAttributeValues"][":low"] = json!({ "N": "0" });
                request["ExpressionAttributeValues"][":high"] = json!({ "N": "10" });
                format!("{sort} BETWEEN :low AND :high AND id = {id}")
            }
            _ => {
                if let Some(names) = request["ExpressionAttributeNames"].as_object_mut() {
                    names.remove("#at");
                }
                format!("id = {id}")
            }
        };
        if request["ExpressionAttributeNames"].as_object().is_some_and(Map::is_empty) {
            request["ExpressionAttributeNames"] = Value::Null;
        }
        request["KeyConditionExpression"] = json!(text);
        request["ScanIndexForward"] = json!(self.choice(&[None, Some(false)]));
        request["Limit"] = json!(self.choice(&[None, None, Some(1), Some(2), Some(3)]));
        request["Select"] = json!(self.choice(&[None, None, None, Some("COUNT")]));
        if index.is_none() && self.rng.u8(..3) == 0 {
            let number = self.number();
            let number = self.placeholder(&mut request, number);
            request["FilterExpression"] = json!(format!("x <> {number} OR attribute_exists(y)"));
        }
        request
    }

    fn transaction(&mut self) -> Value {
        let mut items = Vec::new();
        for _ in 0..self.rng.usize(1..4) {
            let table = self.choice(&TABLES);
            let mut action = json!({ "TableName": self.name(table) });
            let show = self.choice(&[None, Some("ALL_OLD")]);
            action["ReturnValuesOnConditionCheckFailure"] = json!(show);
            let kind = self.choice(&["Put", "Update", "Delete", "ConditionCheck"]);
            match kind {
                "Put" => action["Item"] = self.item(table),
                _ => action["Key"] = self.key_of(table),
            }
            if kind == "Update" {
                self.update(&mut action);
            }
            if kind == "ConditionCheck" || self.rng.bool() {
                action["ConditionExpression"] = json!(self.condition_text(&mut action, 1));
            }
            items.push(json!({ kind: action }));
        }
        json!({ "TransactItems": items })
    }

    fn batch_write(&mut self) -> Value {
        let table = self.choice(&TABLES);
        let entries: Vec<_> = (0..self.rng.usize(1..4))
            .map(|_| match self.rng.bool() {
                true => json!({ "PutRequest": { "Item": self.item(table) } }),
                false => json!({ "DeleteRequest": { "Key": self.key_of(table) } }),
            })
            .collect();
        json!({ "RequestItems": { self.name(table): entries } })
    }

    fn batch_get(&mut self) -> Value {
        let table = self.choice(&TABLES);
        let keys: Vec<_> = (0..self.rng.usize(1..4)).map(|_| self.key_of(table)).collect();
        let mut of_table = json!({ "Keys": keys });
        self.projection(&mut of_table);
        json!({ "RequestItems": { self.name(table): of_table } })
    }
}

fn attribute(name: &str, kind: &str) -> Value {
    json!({ "AttributeName": name, "AttributeType": kind })
}

fn key(name: &str, kind: &str) -> Value {
    json!({ "AttributeName": name, "KeyType": kind })
}

/// Members that are null are left out.
fn without_nulls((operation, mut request): (&'static str, Value)) -> (&'static str, Value) {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(members) => {
                members.retain(|_, value| !value.is_null());
                members.values_mut().for_each(strip);
            }
            Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    strip(&mut request);
    (operation, request)
}

trait Pipe: Sized {
    fn pipe<T>(self, next: impl FnOnce(Self) -> T) -> T {
        next(self)
    }
}

impl<T> Pipe for T {}
