//! CBOR of AWS's protocol `application/x-amz-cbor-1.1` as JSON, and back.
//!
//! The shapes are those of the JSON protocol. Two kinds of values differ: bytes are bytes and no
//! base64, and times are whole milliseconds behind tag 1 and no fractional seconds.

use std::error::Error;

use ciborium::tag::Required;
use ciborium::value::Value as Cbor;
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::Value as Json;

/// The tag of a time.
const EPOCH: u64 = 1;

type Failed = Box<dyn Error + Send + Sync>;

pub(super) fn to_json(mut cbor: &[u8]) -> Result<Vec<u8>, Failed> {
    let value: Cbor = ciborium::from_reader(&mut cbor)?;
    if !cbor.is_empty() {
        return Err(format!("{} bytes after the end of the request", cbor.len()).into());
    }
    Ok(serde_json::to_vec(&AsJson(&value))?)
}

pub(super) fn from_json(json: &[u8]) -> Result<Vec<u8>, Failed> {
    let value: Json = serde_json::from_slice(json)?;
    let mut cbor = Vec::with_capacity(json.len());
    ciborium::into_writer(&AsCbor::nameless(&value), &mut cbor)?;
    Ok(cbor)
}

struct AsJson<'a>(&'a Cbor);

impl Serialize for AsJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Cbor::Null => serializer.serialize_unit(),
            Cbor::Bool(value) => serializer.serialize_bool(*value),
            Cbor::Text(text) => serializer.serialize_str(text),
            Cbor::Bytes(bytes) => {
                serializer.serialize_str(&base64_simd::STANDARD.encode_to_string(bytes))
            }
            Cbor::Integer(number) => match i64::try_from(*number) {
                Ok(number) => serializer.serialize_i64(number),
                Err(_) => Err(S::Error::custom("a number larger than 64 bits with sign")),
            },
            Cbor::Float(number) if number.is_finite() => serializer.serialize_f64(*number),
            Cbor::Float(_) => Err(S::Error::custom("a number that is not finite")),
            Cbor::Tag(EPOCH, time) => match &**time {
                Cbor::Integer(millis) => {
                    serializer.serialize_f64(i128::from(*millis) as f64 / 1000.0)
                }
                _ => Err(S::Error::custom("a time that is no whole number")),
            },
            Cbor::Tag(tag, _) => Err(S::Error::custom(format_args!("the tag {tag}"))),
            Cbor::Array(items) => serializer.collect_seq(items.iter().map(AsJson)),
            Cbor::Map(members) => {
                let texts = members.iter().map(|(name, value)| match name {
                    Cbor::Text(name) => Some((name, AsJson(value))),
                    _ => None,
                });
                match texts.collect::<Option<Vec<_>>>() {
                    Some(members) => serializer.collect_map(members),
                    None => Err(S::Error::custom("a member whose name is no text")),
                }
            }
            _ => Err(S::Error::custom("a value of an unknown kind")),
        }
    }
}

/// A value, and the name of the member it is: JSON does not tell bytes from text and times from
/// numbers. In the answers of Kinesis the names do, and none of them is a user's.
struct AsCbor<'a> {
    name: &'a str,
    value: &'a Json,
}

impl<'a> AsCbor<'a> {
    fn nameless(value: &'a Json) -> Self {
        Self { name: "", value }
    }
}

impl Serialize for AsCbor<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.value {
            Json::Null => serializer.serialize_none(),
            Json::Bool(value) => serializer.serialize_bool(*value),
            Json::String(text) if self.name == "Data" => {
                let bytes = base64_simd::STANDARD.decode_to_vec(text);
                serializer.serialize_bytes(&bytes.map_err(S::Error::custom)?)
            }
            Json::String(text) => serializer.serialize_str(text),
            Json::Number(number) => {
                let float = number.as_f64().unwrap_or_default();
                if self.name.ends_with("Timestamp") {
                    Required::<i64, EPOCH>((float * 1000.0).round() as i64).serialize(serializer)
                } else if let Some(number) = number.as_i64() {
                    serializer.serialize_i64(number)
                } else {
                    serializer.serialize_f64(float)
                }
            }
            Json::Array(items) => serializer.collect_seq(items.iter().map(AsCbor::nameless)),
            Json::Object(members) => serializer
                .collect_map(members.iter().map(|(name, value)| (name, AsCbor { name, value }))),
        }
    }
}

#[cfg(test)]
mod tests;
