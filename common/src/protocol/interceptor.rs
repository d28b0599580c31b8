//! Chooses the encoding of each call, and learns from its answer.

use std::sync::Arc;

use aws_sdk_kinesis::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeSerializationInterceptorContextMut,
};
use aws_sdk_kinesis::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_kinesis::error::BoxError;
use aws_smithy_runtime_api::client::orchestrator::Metadata;
use aws_smithy_schema::protocol::SharedClientProtocol;
use aws_smithy_types::config_bag::{Storable, StoreReplace};

use super::SENT_AGAIN;
use super::cbor::{CborProtocol, is_cbor, is_json};
use super::negotiation::{Encoding, Negotiation, Operation};

/// The protocol that the SDK has for Kinesis.
const JSON: &str = "aws.protocols#awsJson1_1";

/// An interceptor that gives a call [`CborProtocol`] in place of the SDK's protocol, where [`Negotiation`] says so.
#[derive(Debug)]
pub(super) struct ChooseEncoding {
    negotiation: Arc<Negotiation>,
}

/// The choice for one call, kept until its answer is there.
#[derive(Debug, Clone, Copy)]
struct Choice {
    operation: Operation,
    encoding: Encoding,
}

impl Storable for Choice {
    type Storer = StoreReplace<Self>;
}

impl ChooseEncoding {
    pub(super) fn new(negotiation: Arc<Negotiation>) -> Self {
        Self { negotiation }
    }
}

impl Intercept for ChooseEncoding {
    fn name(&self) -> &'static str {
        "ChooseEncoding"
    }

    fn modify_before_serialization(
        &self,
        _: &mut BeforeSerializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let operation = config.load::<Metadata>().and_then(|call| Operation::of(call.name()));
        let protocol = config.load::<SharedClientProtocol>();
        let (Some(operation), Some(json)) = (operation, protocol) else {
            return Ok(());
        };
        // A protocol that the caller chose is the caller's.
        if json.protocol_id().as_str() != JSON {
            return Ok(());
        }
        let json = json.clone();
        let is_again = SENT_AGAIN.try_with(|()| ()).is_ok();
        // Whatever other requests have found meanwhile: this one was refused in CBOR.
        let encoding = if is_again { Encoding::Json } else { self.negotiation.encoding(operation) };
        let state = config.interceptor_state();
        state.store_put(Choice { operation, encoding });
        if encoding == Encoding::Cbor {
            let cbor = CborProtocol::new(json, operation, Arc::clone(&self.negotiation));
            state.store_put(SharedClientProtocol::new(cbor));
        }
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let Some(&Choice { operation, encoding }) = config.load::<Choice>() else {
            return Ok(());
        };
        let negotiation = &self.negotiation;
        let response = context.response();
        let body = response.body().bytes().unwrap_or_default();
        match (encoding, context.output_or_error()) {
            (Encoding::Cbor, Ok(_)) if is_cbor(body) => negotiation.succeeded_in_cbor(operation),
            (Encoding::Cbor, Ok(_)) if is_json(body) => negotiation.found_json(operation),
            // `CborProtocol` has judged a failure when it read the error. An empty body is in neither encoding.
            (Encoding::Cbor, _) => {}
            (Encoding::Json, Ok(_)) if negotiation.is_on_trial(operation) => {
                negotiation.found_json(operation);
            }
            // Without a whole body, the code of the error is unknown.
            (Encoding::Json, Err(_))
                if negotiation.is_on_trial(operation) && response.body().bytes().is_some() =>
            {
                let protocol = config.load::<SharedClientProtocol>();
                let error = protocol.and_then(|it| it.parse_error_metadata(response, config).ok());
                let error = error.map(|error| error.build());
                let code = error.as_ref().and_then(|error| error.code());
                negotiation.failed_on_trial(operation, response.status().as_u16(), code);
            }
            (Encoding::Json, _) => {}
        }
        Ok(())
    }
}
