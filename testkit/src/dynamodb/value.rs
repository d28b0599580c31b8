//! Attribute values and items: as requests write them, as answers show them, and their sizes.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::number::Number;
use super::refusal::Refusal;

/// The attributes of an item by their names.
pub(crate) type Item = BTreeMap<String, AttributeValue>;

/// Largest size of an item, names counted.
pub(super) const MAX_ITEM_BYTES: usize = 400 * 1024;
/// Most documents within documents.
const MAX_DEPTH: usize = 32;

/// The value of an attribute. Members of sets are in order, without duplicates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AttributeValue {
    S(String),
    N(Number),
    B(Vec<u8>),
    Bool(bool),
    Null,
    Ss(Vec<String>),
    Ns(Vec<Number>),
    Bs(Vec<Vec<u8>>),
    L(Vec<Self>),
    M(Item),
}

impl AttributeValue {
    /// The type as requests and messages write it.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::S(_) => "S",
            Self::N(_) => "N",
            Self::B(_) => "B",
            Self::Bool(_) => "BOOL",
            Self::Null => "NULL",
            Self::Ss(_) => "SS",
            Self::Ns(_) => "NS",
            Self::Bs(_) => "BS",
            Self::L(_) => "L",
            Self::M(_) => "M",
        }
    }

    pub(super) fn from_json(json: &Value) -> Result<Self, Refusal> {
        Self::read(json, 0)
    }

    fn read(json: &Value, depth: usize) -> Result<Self, Refusal> {
        if depth > MAX_DEPTH {
            return Err(Refusal::validation("Nesting Levels have exceeded supported limits"));
        }
        let object = json.as_object().ok_or_else(|| {
            Refusal::serialization("An AttributeValue must be an object with one datatype")
        })?;
        // A member that is null counts as absent.
        let mut members = object.iter().filter(|(_, value)| !value.is_null());
        let Some((kind, value)) = members.next() else {
            return Err(Refusal::validation(
                "Supplied AttributeValue is empty, must contain exactly one of the supported \
                 datatypes",
            ));
        };
        if members.next().is_some() {
            return Err(Refusal::validation(
                "Supplied AttributeValue has more than one datatypes set, must contain exactly one \
                 of the supported datatypes",
            ));
        }
        Ok(match kind.as_str() {
            "S" => Self::S(text(value)?.to_owned()),
            "N" => Self::N(Number::parse(text(value)?)?),
            "B" => Self::B(bytes(value)?),
            "BOOL" => Self::Bool(flag(value)?),
            "NULL" if flag(value)? => Self::Null,
            "NULL" => {
                return Err(Refusal::invalid(
                    "Null attribute value types must have the value of true",
                ));
            }
            "SS" => {
                let members = each(value, |member| Ok(text(member)?.to_owned()))?;
                let shown = members.join(", ");
                Self::Ss(set(members, "An string set  may not be empty", &shown)?)
            }
            "NS" => {
                let members = each(value, |member| Number::parse(text(member)?))?;
                let shown: Vec<_> = members.iter().map(Number::to_string).collect();
                let shown = shown.join(", ");
                Self::Ns(set(members, "An number set  may not be empty", &shown)?)
            }
            "BS" => {
                let members = each(value, bytes)?;
                Self::Bs(set(members, "Binary sets should not be empty", "...")?)
            }
            "L" => Self::L(each(value, |member| Self::read(member, depth + 1))?),
            "M" => Self::M(read_item(value, depth + 1)?),
            other => {
                return Err(Refusal::serialization(format!(
                    "{other} is no datatype of an AttributeValue"
                )));
            }
        })
    }

    pub(super) fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// What it counts as in the size of its item.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::S(text) => text.len(),
            Self::N(number) => number.size(),
            Self::B(bytes) => bytes.len(),
            Self::Bool(_) | Self::Null => 1,
            Self::Ss(members) => members.iter().map(String::len).sum(),
            Self::Ns(members) => members.iter().map(|number| number.size()).sum(),
            Self::Bs(members) => members.iter().map(Vec::len).sum(),
            // A document takes three bytes, and each of its members one.
            Self::L(members) => 3 + members.iter().map(|member| 1 + member.size()).sum::<usize>(),
            Self::M(members) => 3 + members.len() + item_size(members),
        }
    }
}

/// The size of an item as limits and prices count it.
pub(super) fn item_size(item: &Item) -> usize {
    item.iter().map(|(name, value)| name.len() + value.size()).sum()
}

/// Reads an item, or a key.
pub(super) fn item_from_json(json: &Value) -> Result<Item, Refusal> {
    read_item(json, 0)
}

fn read_item(json: &Value, depth: usize) -> Result<Item, Refusal> {
    let object = json
        .as_object()
        .ok_or_else(|| Refusal::serialization("A map of AttributeValues must be an object"))?;
    let mut item = Item::new();
    for (name, value) in object {
        item.insert(name.clone(), AttributeValue::read(value, depth)?);
    }
    Ok(item)
}

pub(super) fn item_to_json(item: &Item) -> Value {
    let members = item.iter().map(|(name, value)| (name.clone(), value.to_json()));
    Value::Object(members.collect::<Map<_, _>>())
}

fn kind_of(json: &Value) -> &'static str {
    match json {
        Value::Null => "NULL",
        Value::Bool(true) => "TRUE_VALUE",
        Value::Bool(false) => "FALSE_VALUE",
        Value::Number(_) => "NUMBER_VALUE",
        Value::String(_) => "STRING_VALUE",
        Value::Array(_) => "Start of list",
        Value::Object(_) => "Start of structure or map",
    }
}

pub(super) fn text(json: &Value) -> Result<&str, Refusal> {
    json.as_str().ok_or_else(|| {
        Refusal::serialization(format!("{} cannot be converted to String", kind_of(json)))
    })
}

fn flag(json: &Value) -> Result<bool, Refusal> {
    json.as_bool().ok_or_else(|| {
        Refusal::serialization(format!("{} cannot be converted to Boolean", kind_of(json)))
    })
}

fn bytes(json: &Value) -> Result<Vec<u8>, Refusal> {
    base64_simd::STANDARD
        .decode_to_vec(text(json)?)
        .map_err(|_| Refusal::serialization("The value of a binary must be base64"))
}

fn each<T>(
    json: &Value,
    read: impl FnMut(&Value) -> Result<T, Refusal>,
) -> Result<Vec<T>, Refusal> {
    let list = json.as_array().ok_or_else(|| Refusal::serialization("Expected a list"))?;
    list.iter().map(read).collect()
}

fn set<T: Ord>(mut members: Vec<T>, empty: &str, shown: &str) -> Result<Vec<T>, Refusal> {
    if members.is_empty() {
        return Err(Refusal::invalid(empty));
    }
    members.sort_unstable();
    if members.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Refusal::invalid(format_args!(
            "Input collection [{shown}] contains duplicates."
        )));
    }
    Ok(members)
}

/// In the JSON of the service.
impl Serialize for AttributeValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let base64 = |bytes: &Vec<u8>| base64_simd::STANDARD.encode_to_string(bytes);
        let mut map = serializer.serialize_map(Some(1))?;
        let kind = self.type_name();
        match self {
            Self::S(text) => map.serialize_entry(kind, text)?,
            Self::N(number) => map.serialize_entry(kind, &number.to_string())?,
            Self::B(bytes) => map.serialize_entry(kind, &base64(bytes))?,
            Self::Bool(flag) => map.serialize_entry(kind, flag)?,
            Self::Null => map.serialize_entry(kind, &true)?,
            Self::Ss(members) => map.serialize_entry(kind, members)?,
            Self::Ns(members) => {
                let members: Vec<_> = members.iter().map(Number::to_string).collect();
                map.serialize_entry(kind, &members)?;
            }
            Self::Bs(members) => {
                let members: Vec<_> = members.iter().map(base64).collect();
                map.serialize_entry(kind, &members)?;
            }
            Self::L(members) => map.serialize_entry(kind, members)?,
            Self::M(members) => map.serialize_entry(kind, members)?,
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for AttributeValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Value::deserialize(deserializer)?;
        Self::from_json(&json).map_err(|refusal| serde::de::Error::custom(refusal.message()))
    }
}

/// An item in an answer: the one that is stored, or a part of it.
#[derive(Debug, Clone)]
pub(super) enum Shown {
    Whole(Arc<Item>),
    Part(Item),
}

impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Whole(item) => item.as_ref().serialize(serializer),
            Self::Part(item) => item.serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_round_trip() {
        let item = json!({
            "s": {"S": "ü"}, "n": {"N": "-1.5"}, "b": {"B": "AAE="}, "t": {"BOOL": true},
            "u": {"NULL": true}, "ss": {"SS": ["a", "b"]}, "ns": {"NS": ["-1", "2"]},
            "bs": {"BS": ["AA=="]}, "l": {"L": [{"M": {"x": {"S": ""}}}]}, "m": {"M": {}},
        });
        assert_eq!(item_to_json(&item_from_json(&item).unwrap()), item);
    }

    #[test]
    fn sizes_are_those_of_the_documentation() {
        for (value, size) in [
            (json!({"S": "üx"}), 3),
            (json!({"N": "123"}), 3),
            (json!({"N": "-123"}), 4),
            (json!({"B": "AAE="}), 2),
            (json!({"BOOL": false}), 1),
            (json!({"L": []}), 3),
            (json!({"L": [{"S": "ab"}]}), 6),
            (json!({"M": {"k": {"S": "ab"}}}), 7),
            (json!({"SS": ["a", "bc"]}), 3),
        ] {
            assert_eq!(AttributeValue::from_json(&value).unwrap().size(), size, "{value}");
        }
    }

    #[test]
    fn malformed_values_are_refused_with_the_code_of_their_kind() {
        let deep = (0..40).fold(json!({"S": "x"}), |inner, _| json!({"L": [inner]}));
        for (value, code) in [
            (json!({}), "ValidationException"),
            (json!({"S": null}), "ValidationException"),
            (json!({"S": "x", "N": "1"}), "ValidationException"),
            (json!({"NULL": false}), "ValidationException"),
            (json!({"NS": ["1", "1.0"]}), "ValidationException"),
            (json!({"BS": []}), "ValidationException"),
            (deep, "ValidationException"),
            (json!({"S": 1}), "SerializationException"),
            (json!({"X": "x"}), "SerializationException"),
            (json!("x"), "SerializationException"),
            (json!({"B": "?"}), "SerializationException"),
            (json!({"L": {}}), "SerializationException"),
        ] {
            let refusal = AttributeValue::from_json(&value).unwrap_err();
            assert_eq!(refusal.code(), code, "{value}");
        }
    }
}
