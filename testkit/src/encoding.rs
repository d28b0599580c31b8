//! What bodies are written in.

mod cbor;

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap};

use crate::faults::Service;
use crate::kinesis::ApiError;

const CBOR: &str = "application/x-amz-cbor-1.1";

/// What a request is written in; its answer is written in the same.
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
