//! What bodies are written in.

mod cbor;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap};

use crate::faults::Service;
use crate::kinesis::ApiError;

const CBOR: &str = "application/x-amz-cbor-1.1";

/// How Kinesis of a [`LocalAws`](crate::LocalAws) treats requests in CBOR (`application/x-amz-cbor-1.1`), which the SDK
/// for Java sends. Requests in JSON are answered as ever.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CborSupport {
    /// They are carried out and answered in CBOR, as by AWS.
    #[default]
    Full,
    /// They are carried out and answered in JSON.
    AnsweredInJson,
    /// They are refused with HTTP 415 and an empty body, as by a server that finds its handlers by the content type.
    UnsupportedMediaType,
    /// They are refused with HTTP 400 and this code in JSON, as by a server that takes every body for JSON.
    Refused {
        /// The error code the client sees, such as `SerializationException`.
        code: String,
    },
    /// They fail with HTTP 500 and a body that is neither, as by a server that breaks on them.
    Failed,
}

/// What a request or an answer is written in; the answer is written in the same as the request, if the
/// [settings](CborSupport) do not say otherwise.
///
/// Everything behind it speaks JSON. CBOR, as the SDK for Java speaks it to Kinesis, is turned into
/// JSON here, and the answer back. That SDK too speaks JSON to DynamoDB and for SubscribeToShard; a
/// subscription asked for in CBOR gets its events in CBOR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Cbor,
}

impl Encoding {
    /// The encoding of a request.
    pub(crate) fn of(service: Service, headers: &HeaderMap) -> Self {
        let is_cbor = || headers.get(CONTENT_TYPE).is_some_and(|kind| kind == CBOR);
        match service {
            Service::Kinesis if is_cbor() => Self::Cbor,
            Service::Kinesis | Service::DynamoDb => Self::Json,
        }
    }

    /// The content type of a whole answer.
    pub(crate) fn content_type(self, service: Service) -> &'static str {
        match (self, service) {
            (Self::Cbor, _) => CBOR,
            (Self::Json, Service::Kinesis) => "application/x-amz-json-1.1",
            (Self::Json, Service::DynamoDb) => "application/x-amz-json-1.0",
        }
    }

    /// The content type of an event in a stream.
    pub(crate) fn event_content_type(self) -> &'static str {
        match self {
            Self::Cbor => CBOR,
            Self::Json => "application/json",
        }
    }

    /// A request as JSON.
    pub(crate) fn read(self, body: Bytes) -> Result<Bytes, ApiError> {
        match self {
            Self::Json => Ok(body),
            Self::Cbor => cbor::to_json(&body)
                .map(Bytes::from)
                .map_err(|error| ApiError::new("SerializationException", error.to_string())),
        }
    }

    /// An answer, given as JSON.
    pub(crate) fn write(self, json: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Json => json,
            Self::Cbor => cbor::from_json(&json).expect("an answer of testkit is valid JSON"),
        }
    }
}
