//! Answers without what two DynamoDBs may do differently.

use std::fmt;

use serde_json::Value;

/// What an answer says.
#[derive(Debug, PartialEq)]
pub enum Answer {
    Given(Value),
    /// Refused, with the code: messages are for humans.
    Refused {
        code: String,
        details: Value,
        message: Message,
    },
}

/// A message, which is shown and not compared.
#[derive(Debug)]
pub struct Message(String);

impl PartialEq for Message {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(value) => write!(f, "{value}"),
            Self::Refused { code, details, message } => {
                write!(f, "{code} {details}: {}", message.0)
            }
        }
    }
}

pub fn normal(operation: &str, status: u16, mut answer: Value) -> Answer {
    if status == 200 {
        order_sets(&mut answer);
        // ARNs and times are each service's own; the suite looks at the rest.
        if answer.get("TableDescription").is_some() {
            answer = Value::Null;
        }
        // The order of partitions is each service's own; a query is of one partition.
        if operation == "Scan" {
            sort(answer.get_mut("Items"));
        }
        let tables = answer.get_mut("Responses").and_then(Value::as_object_mut);
        for items in tables.into_iter().flat_map(|tables| tables.values_mut()) {
            sort(Some(items));
        }
        return Answer::Given(answer);
    }
    let code = answer["__type"].as_str().unwrap_or_default();
    let code = code.rsplit('#').next().unwrap_or_default().to_owned();
    let message = ["message", "Message"].iter().find_map(|name| answer[name].as_str());
    let message = Message(message.unwrap_or_default().to_owned());
    let mut details = answer;
    if let Some(details) = details.as_object_mut() {
        for name in ["__type", "message", "Message"] {
            details.remove(name);
        }
        for reason in details
            .get_mut("CancellationReasons")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            if let Some(reason) = reason.as_object_mut() {
                reason.remove("Message");
            }
        }
    }
    order_sets(&mut details);
    Answer::Refused { code, details, message }
}

fn sort(list: Option<&mut Value>) {
    if let Some(list) = list.and_then(Value::as_array_mut) {
        list.sort_by_key(Value::to_string);
    }
}

/// Puts the members of sets in order.
fn order_sets(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(order_sets),
        Value::Object(members) => {
            for (name, value) in members.iter_mut() {
                match name.as_str() {
                    "SS" | "NS" | "BS" => sort(Some(value)),
                    _ => order_sets(value),
                }
            }
        }
        _ => {}
    }
}
