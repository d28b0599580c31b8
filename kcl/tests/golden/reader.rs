//! Items and requests of the Java library, as they were captured.

use std::collections::HashMap;

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::AttributeValue;
use base64::Engine as _;
use serde_json::Value;

type Item = HashMap<String, AttributeValue>;

const GOLDEN: [(&str, &str); 2] = [
    ("3.4.2", include_str!("kcl-3.4.2-items.ndjson")),
    ("3.5.1", include_str!("kcl-3.5.1-items.ndjson")),
];

pub(crate) fn attribute_value(json: &Value) -> AttributeValue {
    let (kind, value) = json.as_object().unwrap().iter().next().unwrap();
    let string = || value.as_str().unwrap().to_owned();
    match kind.as_str() {
        "S" => AttributeValue::S(string()),
        "N" => AttributeValue::N(string()),
        "B" => AttributeValue::B(Blob::new(
            base64::engine::general_purpose::STANDARD.decode(string()).unwrap(),
        )),
        "SS" => {
            let mut set: Vec<String> =
                value.as_array().unwrap().iter().map(|v| v.as_str().unwrap().into()).collect();
            set.sort();
            AttributeValue::Ss(set)
        }
        "L" => AttributeValue::L(value.as_array().unwrap().iter().map(attribute_value).collect()),
        "M" => AttributeValue::M(item(value)),
        other => panic!("unexpected type {other}"),
    }
}

pub(crate) fn item(json: &Value) -> Item {
    json.as_object().unwrap().iter().map(|(k, v)| (k.clone(), attribute_value(v))).collect()
}

/// Version, table and item of each.
pub(crate) fn golden() -> Vec<(&'static str, String, Item)> {
    let mut items = Vec::new();
    for (version, lines) in GOLDEN {
        for line in lines.lines() {
            let json: Value = serde_json::from_str(line).unwrap();
            items.push((version, json["table"].as_str().unwrap().to_owned(), item(&json["item"])));
        }
    }
    items
}

/// Operation and body of each request.
pub(crate) fn requests() -> Vec<(String, Value)> {
    include_str!("kcl-3.5.1-requests.ndjson")
        .lines()
        .map(|line| {
            let mut json: Value = serde_json::from_str(line).unwrap();
            (json["op"].as_str().unwrap().to_owned(), json["body"].take())
        })
        .collect()
}
