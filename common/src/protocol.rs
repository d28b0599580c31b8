//! The encoding of requests to Kinesis and of its answers.
//!
//! The AWS SDK for Rust speaks JSON to Kinesis. Data of records is base64 there: it is a third larger, and slower to
//! write and to read. The AWS SDK for Java speaks CBOR (`application/x-amz-cbor-1.1`), where data is bytes.
//! [`WireProtocol`] makes a client of the AWS SDK for Rust speak CBOR, too. Signing, endpoints, retries and timeouts
//! stay those of the SDK.
//!
//! The encoding is chosen for each call. `negotiation` has the rules, `interceptor` applies them, and `cbor` writes and
//! reads one call in CBOR.

mod cbor;
mod interceptor;
mod negotiation;
mod records;

use std::sync::Arc;

use aws_sdk_kinesis::config::Builder;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use self::interceptor::ChooseEncoding;
use self::negotiation::{Negotiation, Operation};
pub use self::records::{ReadRecords, RecordsAnswer};

/// Encoding of requests to Kinesis and of its answers.
///
/// In CBOR, data of records is bytes. In JSON it is base64, which is a third larger and takes more CPU time. Both
/// mean the same to Kinesis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Wire {
    /// CBOR, or JSON where the endpoint does not accept CBOR.
    ///
    /// Some emulators speak JSON only. After the first request that such an endpoint refuses, requests are sent in
    /// JSON, the refused one included, and a warning is logged. The environment can choose JSON, as for the AWS SDK
    /// for Java: with `AWS_CBOR_DISABLE` set to anything but `false`, or with `CBOR_ENABLED=false`.
    #[default]
    Auto,
    /// JSON, as the AWS SDK for Rust.
    Json,
    /// CBOR, whatever the endpoint answers and whatever the environment says.
    Cbor,
}

/// The protocol of all clients of one endpoint. Clones share what they have learned about the endpoint.
#[derive(Debug, Clone)]
pub struct WireProtocol {
    /// `None`: the SDK's own protocol, JSON.
    negotiation: Option<Arc<Negotiation>>,
}

impl WireProtocol {
    /// Creates the protocol for an endpoint about which nothing is known. Reads the environment if `wire` says so.
    pub fn new(wire: Wire) -> Self {
        Self::in_environment(wire, |name| {
            std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
        })
    }

    fn in_environment(wire: Wire, variable: impl Fn(&str) -> Option<String>) -> Self {
        let negotiation = match wire {
            Wire::Json => None,
            Wire::Auto if disables_cbor(variable) => None,
            Wire::Auto => Some(Negotiation::with_fallback()),
            Wire::Cbor => Some(Negotiation::without_fallback()),
        };
        Self { negotiation: negotiation.map(Arc::new) }
    }

    /// Sets the protocol in the configuration of a client. A configuration that already names another protocol than
    /// the SDK's own keeps it.
    pub fn install(&self, config: Builder) -> Builder {
        match &self.negotiation {
            None => config,
            Some(negotiation) => config.interceptor(ChooseEncoding::new(Arc::clone(negotiation))),
        }
    }

    /// Whether the endpoint cannot refuse the encoding of PutRecords any more. Before that, call it with [`send`].
    pub fn is_settled_for_put_records(&self) -> bool {
        self.negotiation.as_ref().is_none_or(|known| known.is_settled(Operation::PUT_RECORDS))
    }
}

/// Whether the environment turns CBOR off: for version 1 of the AWS SDK for Java, or for version 2.
fn disables_cbor(variable: impl Fn(&str) -> Option<String>) -> bool {
    let says_false = |value: String| value.eq_ignore_ascii_case("false");
    variable("AWS_CBOR_DISABLE").is_some_and(|value| !says_false(value))
        || variable("CBOR_ENABLED").is_some_and(says_false)
}

tokio::task_local! {
    /// Set while a request is sent again that was refused for its encoding.
    static SENT_AGAIN: ();
}

/// Sends a request. If the endpoint refuses the encoding, sends it once more, in JSON: the SDK writes a request once for
/// all its attempts. A refused request has had no effect.
///
/// # Errors
/// The error of the last request.
pub async fn send<Answer, T, E>(send: impl Fn() -> Answer) -> Result<T, SdkError<E, HttpResponse>>
where
    Answer: Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    E: ProvideErrorMetadata,
{
    match send().await {
        Err(error) if cbor::is_refusal_of_encoding(&error) => SENT_AGAIN.scope((), send()).await,
        answer => answer,
    }
}

#[cfg(test)]
mod tests;
