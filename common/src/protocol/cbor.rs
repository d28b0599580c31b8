//! One call in CBOR: `application/x-amz-cbor-1.1`, as the AWS SDK for Java speaks it to Kinesis.
//!
//! Content type apart, a request is that of JSON 1.1: the operation is in `X-Amz-Target`, and the shapes have the same
//! members. Blobs are byte strings. Timestamps are whole milliseconds with tag 1, against RFC 8949, where tag 1 means
//! seconds. The codec of the AWS SDK for `rpcv2Cbor` follows the RFC, so it does not fit.

mod reader;
mod records;
mod writer;

use std::sync::Arc;

use aws_sdk_kinesis::error::{ErrorMetadata, ProvideErrorMetadata};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, Metadata};
use aws_smithy_schema::codec::Codec;
use aws_smithy_schema::error_envelope::sanitize_error_code;
use aws_smithy_schema::http_protocol::HttpRpcProtocol;
use aws_smithy_schema::protocol::{ClientProtocolInner, ServiceShapeName, SharedClientProtocol};
use aws_smithy_schema::serde::{SerdeError, SerializableStruct, ShapeDeserializer};
use aws_smithy_schema::{Schema, ShapeId, shape_id};
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::endpoint::Endpoint;
use aws_smithy_types::error::metadata::Builder as ErrorMetadataBuilder;

use self::reader::Reader;
pub(super) use self::records::read as read_records;
use self::writer::Writer;
use super::negotiation::{Negotiation, Operation};

const CONTENT_TYPE: &str = "application/x-amz-cbor-1.1";

const ID: ShapeId<'static> = shape_id!("aws.protocols", "awsCbor1_1");

/// Marks the error of a request that was refused for its encoding.
const REFUSED: &str = "encoding_refused";

/// Whether this protocol is [`CborProtocol`].
pub(super) fn is_id(protocol: &ShapeId<'_>) -> bool {
    protocol.as_str() == ID.as_str()
}

/// Whether a body is a map of CBOR, as each answer of Kinesis in CBOR is. No JSON begins with such a byte.
pub(super) fn is_cbor(body: &[u8]) -> bool {
    matches!(body.first(), Some(0xa0..=0xbf))
}

/// Whether a body is an object of JSON. No map of CBOR begins with such a byte.
pub(super) fn is_json(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'{')
}

/// Whether the endpoint refused a request for its encoding, and the next one is sent in another.
pub(super) fn is_refusal_of_encoding(error: &impl ProvideErrorMetadata) -> bool {
    error.meta().extra(REFUSED).is_some()
}

/// Writes the request of one call in CBOR, and reads the answer in CBOR or JSON.
#[derive(Debug)]
pub(super) struct CborProtocol {
    http: HttpRpcProtocol<CborCodec>,
    /// Reads answers in JSON.
    json: SharedClientProtocol,
    operation: Operation,
    negotiation: Arc<Negotiation>,
}

impl CborProtocol {
    pub(super) fn new(
        json: SharedClientProtocol,
        operation: Operation,
        negotiation: Arc<Negotiation>,
    ) -> Self {
        Self {
            http: HttpRpcProtocol::new(ID, CborCodec::default(), CONTENT_TYPE),
            json,
            operation,
            negotiation,
        }
    }

    /// Reads code and message of an error.
    fn error(
        &self,
        response: &HttpResponse,
        config: &ConfigBag,
    ) -> Result<ErrorMetadata, SerdeError> {
        let body = response.body().bytes().unwrap_or_default();
        let header = response.headers().get("x-amzn-errortype");
        if !is_cbor(body) {
            // Its own reader prefers the header, too.
            return match self.json.parse_error_metadata(response, config) {
                Ok(error) => Ok(error.build()),
                Err(error) => header
                    .map(|code| ErrorMetadata::builder().code(sanitize_error_code(code)).build())
                    .ok_or(error),
            };
        }
        let envelope = match Reader::new(body).error_envelope() {
            Ok(envelope) => envelope,
            // A body that cannot be read does not hide the code in the header.
            Err(_) if header.is_some() => reader::ErrorEnvelope::default(),
            Err(error) => return Err(error),
        };
        let mut error = ErrorMetadata::builder();
        if let Some(code) = header.or(envelope.code.as_deref()) {
            error = error.code(sanitize_error_code(code));
        }
        if let Some(message) = envelope.message {
            error = error.message(message);
        }
        Ok(error.build())
    }
}

impl ClientProtocolInner for CborProtocol {
    type Request = HttpRequest;
    type Response = HttpResponse;

    fn protocol_id(&self) -> &ShapeId<'static> {
        self.http.protocol_id()
    }

    fn serialize_request(
        &self,
        input: &dyn SerializableStruct,
        schema: &Schema<'_>,
        _: &str,
        config: &ConfigBag,
    ) -> Result<HttpRequest, SerdeError> {
        let codec = CborCodec::for_request(schema, input)?;
        let http = HttpRpcProtocol::new(self.protocol_id().clone(), codec, CONTENT_TYPE);
        let mut request = http.serialize_request(input, schema, "/", config)?;
        let service = config.load::<ServiceShapeName>().map(ServiceShapeName::as_str);
        let operation = config.load::<Metadata>().map(Metadata::name);
        let (Some(service), Some(operation)) = (service, operation) else {
            return Err(SerdeError::custom("the SDK does not name the service or the operation"));
        };
        request.headers_mut().insert("X-Amz-Target", format!("{service}.{operation}"));
        Ok(request)
    }

    fn deserialize_response<'a>(
        &self,
        response: &'a HttpResponse,
        schema: &Schema<'_>,
        config: &'a ConfigBag,
    ) -> Result<Box<dyn ShapeDeserializer + 'a>, SerdeError> {
        // By the body and not by the content type, which emulators get wrong.
        match response.body().bytes() {
            // Each of these operations has a result. Without one, GetRecords would have reached the end of the shard.
            Some([]) if response.status().is_success() => {
                Err(SerdeError::invalid_input("an answer without a body"))
            }
            Some(body) if is_json(body) => self.json.deserialize_response(response, schema, config),
            _ => self.http.deserialize_response(response, schema, config),
        }
    }

    fn parse_error_metadata(
        &self,
        response: &HttpResponse,
        config: &ConfigBag,
    ) -> Result<ErrorMetadataBuilder, SerdeError> {
        let status = response.status().as_u16();
        let error = self.error(response, config);
        let code = error.as_ref().ok().and_then(|error| error.code());
        if !self.negotiation.failed_in_cbor(self.operation, status, code) {
            return error.map(ErrorMetadata::into_builder);
        }
        // Only an error with a code keeps the mark.
        let code = code.map_or_else(|| format!("Http{status}"), str::to_owned);
        let error = error.map(ErrorMetadata::into_builder).unwrap_or_default();
        Ok(error.code(code).custom(REFUSED, ""))
    }

    fn update_endpoint(
        &self,
        request: &mut HttpRequest,
        endpoint: &Endpoint,
        config: &ConfigBag,
    ) -> Result<(), SerdeError> {
        self.http.update_endpoint(request, endpoint, config)
    }
}

/// The format of bodies.
#[derive(Debug, Default)]
pub(super) struct CborCodec {
    /// Bytes that are reserved for a body.
    reserved: usize,
}

impl CborCodec {
    /// Creates the codec for one request. The body is measured first: a body of megabytes that grows while it is written
    /// would be copied several times, and would take twice its memory.
    fn for_request(
        schema: &Schema<'_>,
        input: &dyn SerializableStruct,
    ) -> Result<Self, SerdeError> {
        Ok(Self { reserved: writer::body_len(schema, input)? })
    }
}

impl Codec for CborCodec {
    type Serializer = Writer;
    type Deserializer<'a> = Reader<'a>;

    fn create_serializer(&self) -> Writer {
        Writer::new(Vec::with_capacity(self.reserved))
    }

    fn create_deserializer<'a>(&self, body: &'a [u8]) -> Reader<'a> {
        Reader::new(body)
    }
}

#[cfg(test)]
mod tests;
