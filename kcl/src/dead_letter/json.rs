//! Dead letters as JSON: the failure record of Lambda's event source mapping, with one object `kcl` for what that
//! lacks.

use std::time::SystemTime;

use aws_smithy_types::base64;
use aws_smithy_types::date_time::{DateTime, Format};
use serde_json::{Map, Value, json};

use super::letter::{DeadLetter, DeadLetterCondition};
use crate::sequence::ExtendedSequenceNumber;

/// Longest error text that is kept in a letter over the limit of its sink, in bytes.
const LONGEST_TEXT: usize = 2048;
/// Most causes that are kept in a letter over the limit of its sink.
const MOST_CAUSES: usize = 16;

impl DeadLetter {
    /// Writes the letter as JSON in one line, without a line break.
    ///
    /// It has the fields of the failure records that AWS Lambda writes for a Kinesis stream, so that tools for those
    /// read it. The object `kcl` holds the rest. The payload is in base64.
    ///
    /// ```json
    /// {
    ///   "requestContext": {
    ///     "requestId": "billing:orders:shardId-000000000001:4959:0",
    ///     "functionArn": "billing",
    ///     "condition": "RetryAttemptsExhausted",
    ///     "approximateInvokeCount": 3
    ///   },
    ///   "responseContext": {
    ///     "statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"
    ///   },
    ///   "version": "1.0",
    ///   "timestamp": "2026-11-30T05:00:00.123Z",
    ///   "KinesisBatchInfo": {
    ///     "shardId": "shardId-000000000001",
    ///     "startSequenceNumber": "4959",
    ///     "endSequenceNumber": "4959",
    ///     "approximateArrivalOfFirstRecord": "2026-11-30T04:59:58.001Z",
    ///     "approximateArrivalOfLastRecord": "2026-11-30T04:59:58.001Z",
    ///     "batchSize": 1,
    ///     "streamArn": "arn:aws:kinesis:eu-west-1:123456789012:stream/orders"
    ///   },
    ///   "kcl": {
    ///     "idempotencyKey": "billing:orders:shardId-000000000001:4959:0",
    ///     "application": "billing",
    ///     "worker": "worker-1",
    ///     "stream": "orders",
    ///     "subSequenceNumber": 0,
    ///     "aggregated": false,
    ///     "partitionKey": "customer-7",
    ///     "explicitHashKey": "42",
    ///     "error": "the amount is not a number",
    ///     "errorChain": ["invalid digit found in string"],
    ///     "firstFailure": "2026-11-30T04:59:59.500Z",
    ///     "redrives": 0,
    ///     "payload": "bm90IGEgbnVtYmVy"
    ///   }
    /// }
    /// ```
    ///
    /// `timestamp` is the time of the last failure. `responseContext` is absent if the processor was never called with
    /// the record. A letter without payload has `"payloadOmitted": true` in its place. A value that is not known is
    /// absent.
    pub fn to_json(&self) -> String {
        let batch = json!({
            "shardId": self.shard_id,
            "startSequenceNumber": self.position.sequence_number.as_str(),
            "endSequenceNumber": self.position.sequence_number.as_str(),
            "batchSize": 1,
        });
        let kcl = json!({
            "idempotencyKey": self.idempotency_key(),
            "application": self.application,
            "worker": self.worker_id,
            "stream": self.stream,
            "subSequenceNumber": self.position.sub_sequence_number,
            "aggregated": self.aggregated,
            "error": self.error,
            "errorChain": self.error_chain,
            "firstFailure": time_text(self.first_failure),
            "redrives": self.redrives,
        });
        let mut letter = json!({
            "requestContext": {
                "requestId": self.idempotency_key(),
                "functionArn": self.application,
                "condition": self.condition.as_str(),
                "approximateInvokeCount": self.attempts,
            },
            "version": "1.0",
            "timestamp": time_text(self.last_failure),
            "KinesisBatchInfo": batch,
            "kcl": kcl,
        });
        if self.attempts > 0 {
            letter["responseContext"] = json!({
                "statusCode": 200,
                "executedVersion": "$LATEST",
                "functionError": "Unhandled",
            });
        }
        if let Some(arrival) = self.arrival {
            let arrival = time_text(arrival);
            letter["KinesisBatchInfo"]["approximateArrivalOfFirstRecord"] = json!(arrival);
            letter["KinesisBatchInfo"]["approximateArrivalOfLastRecord"] = json!(arrival);
        }
        if let Some(arn) = &self.stream_arn {
            letter["KinesisBatchInfo"]["streamArn"] = json!(arn);
        }
        if let Some(key) = &self.partition_key {
            letter["kcl"]["partitionKey"] = json!(key);
        }
        if let Some(key) = self.explicit_hash_key {
            letter["kcl"]["explicitHashKey"] = json!(key.to_string());
        }
        match &self.payload {
            Some(payload) => letter["kcl"]["payload"] = Value::String(base64::encode(payload)),
            None => letter["kcl"]["payloadOmitted"] = json!(true),
        }
        letter.to_string()
    }

    /// Writes the letter as JSON of at most `limit` bytes, as [`to_json`](Self::to_json) does.
    ///
    /// If it is larger, long error texts are cut. If that does not suffice, the payload is left out, and the letter is
    /// a reference to the record in the stream. Such a letter has about 1 KiB beside keys, names and error texts, so a
    /// limit of 64 KiB always suffices for letters of this crate.
    pub fn to_json_within(&self, limit: usize) -> String {
        // Base64 alone tells that a large payload does not fit: it is not encoded in vain.
        let may_fit = self.payload.as_ref().is_none_or(|payload| payload.len() / 3 * 4 <= limit);
        if may_fit {
            let whole = self.to_json();
            if whole.len() <= limit {
                return whole;
            }
        }
        let mut shorter = self.clone();
        cut(&mut shorter.error);
        shorter.error_chain.truncate(MOST_CAUSES);
        shorter.error_chain.iter_mut().for_each(cut);
        if may_fit {
            let cut = shorter.to_json();
            if cut.len() <= limit {
                return cut;
            }
        }
        shorter.payload = None;
        shorter.to_json()
    }

    /// Reads a letter that [`to_json`](Self::to_json) wrote. Unknown fields are ignored.
    ///
    /// # Errors
    /// The text is no letter of this crate. The error names the field, and shows nothing of its value.
    pub fn from_json(json: &[u8]) -> Result<Self, InvalidDeadLetter> {
        let value: Value = serde_json::from_slice(json).map_err(|error| {
            InvalidDeadLetter::Syntax { line: error.line(), column: error.column() }
        })?;
        let letter = Object::root(&value)?;
        let context = letter.object("requestContext")?;
        let batch = letter.object("KinesisBatchInfo")?;
        let kcl = letter.object("kcl")?;
        let payload = match kcl.optional("payload", as_text)? {
            Some(payload) => Some(kcl.parse("payload", base64::decode(payload).ok())?.into()),
            // A letter must say that it has no payload. Otherwise a cut letter would look like a reference.
            None if kcl.optional("payloadOmitted", Value::as_bool)? == Some(true) => None,
            None => return Err(kcl.missing("payload")),
        };
        let sequence_number = batch.required("startSequenceNumber", as_text)?;
        let position = ExtendedSequenceNumber::new(
            batch.parse("startSequenceNumber", sequence_number.parse().ok())?,
            kcl.required("subSequenceNumber", Value::as_u64)?,
        );
        Ok(Self {
            application: kcl.text("application")?,
            worker_id: kcl.text("worker")?,
            stream: kcl.text("stream")?,
            stream_arn: batch.optional("streamArn", as_text)?.map(str::to_owned),
            shard_id: batch.text("shardId")?,
            position,
            partition_key: kcl.optional("partitionKey", as_text)?.map(str::to_owned),
            explicit_hash_key: kcl
                .optional("explicitHashKey", as_text)?
                .map(|key| kcl.parse("explicitHashKey", key.parse().ok()))
                .transpose()?,
            arrival: batch.optional("approximateArrivalOfFirstRecord", as_time)?,
            payload,
            aggregated: kcl.required("aggregated", Value::as_bool)?,
            condition: context.required("condition", as_condition)?,
            attempts: context.required("approximateInvokeCount", as_u32)?,
            error: kcl.text("error")?,
            error_chain: kcl.required("errorChain", as_texts)?,
            first_failure: kcl.required("firstFailure", as_time)?,
            last_failure: letter.required("timestamp", as_time)?,
            redrives: kcl.required("redrives", as_u32)?,
        })
    }
}

/// Cuts a text at a character.
fn cut(text: &mut String) {
    text.truncate(text.floor_char_boundary(LONGEST_TEXT));
}

/// A time in ISO 8601, UTC, to the millisecond as Lambda writes it, or to the nanosecond if the time has them.
///
/// Times before the year 1 and after 9999 become the first or last one of these years.
pub(super) fn time_text(time: SystemTime) -> String {
    const FIRST: i64 = -62_135_596_800;
    const LAST: i64 = 253_402_300_799;
    let time = DateTime::from(time);
    let whole = DateTime::from_secs(time.secs().clamp(FIRST, LAST));
    let text = whole.fmt(Format::DateTime).expect("years 1 to 9999 can be formatted");
    let seconds = text.trim_end_matches('Z');
    match time.subsec_nanos() {
        nanos if nanos % 1_000_000 == 0 => format!("{seconds}.{:03}Z", nanos / 1_000_000),
        nanos => format!("{seconds}.{nanos:09}Z"),
    }
}

fn as_text(value: &Value) -> Option<&str> {
    value.as_str()
}

fn as_texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
}

fn as_u32(value: &Value) -> Option<u32> {
    value.as_u64()?.try_into().ok()
}

fn as_time(value: &Value) -> Option<SystemTime> {
    let time = DateTime::from_str(value.as_str()?, Format::DateTimeWithOffset).ok()?;
    SystemTime::try_from(time).ok()
}

fn as_condition(value: &Value) -> Option<DeadLetterCondition> {
    let text = value.as_str()?;
    DeadLetterCondition::ALL.into_iter().find(|condition| condition.as_str() == text)
}

/// A JSON object and its path, for errors that name a field.
struct Object<'a> {
    path: &'static str,
    fields: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    fn root(value: &'a Value) -> Result<Self, InvalidDeadLetter> {
        let fields = value.as_object().ok_or(InvalidDeadLetter::NoObject)?;
        Ok(Self { path: "", fields })
    }

    fn object(&self, name: &'static str) -> Result<Self, InvalidDeadLetter> {
        Ok(Self { path: name, fields: self.required(name, Value::as_object)? })
    }

    /// Reads a field that may be absent or null.
    fn optional<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, InvalidDeadLetter> {
        match self.fields.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => self.parse(name, read(value)).map(Some),
        }
    }

    fn required<T>(
        &self,
        name: &'static str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<T, InvalidDeadLetter> {
        self.optional(name, read)?.ok_or_else(|| self.missing(name))
    }

    fn text(&self, name: &'static str) -> Result<String, InvalidDeadLetter> {
        self.required(name, as_text).map(str::to_owned)
    }

    fn parse<T>(&self, name: &'static str, parsed: Option<T>) -> Result<T, InvalidDeadLetter> {
        parsed.ok_or_else(|| InvalidDeadLetter::Field { field: self.path_of(name) })
    }

    fn missing(&self, name: &'static str) -> InvalidDeadLetter {
        InvalidDeadLetter::Missing { field: self.path_of(name) }
    }

    fn path_of(&self, name: &'static str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// Error of [`DeadLetter::from_json`]. Its text holds nothing of the input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDeadLetter {
    /// The text is not JSON, or was cut.
    #[error("the dead letter is not JSON, or cut: line {line}, column {column}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// The text is JSON, but not an object.
    #[error("the dead letter is not a JSON object")]
    NoObject,
    /// A field is absent. If it is `kcl`, the record may be one of Lambda.
    #[error("the dead letter has no field {field}")]
    Missing {
        /// Path of the field.
        field: String,
    },
    /// A field has a value of the wrong type or form.
    #[error("field {field} of the dead letter has a value that cannot be read")]
    Field {
        /// Path of the field.
        field: String,
    },
}

#[cfg(test)]
mod tests;
