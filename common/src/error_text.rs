//! The text of an error of an AWS client, for log lines, error texts and snapshots.
//!
//! The text must not hold payload or keys of records. The client's debug output (and its
//! `DisplayErrorContext`) shows whole requests and answers, so it is never used, and the client's error is
//! not kept as a source. The text consists of the service's code and message, or of the causes of the
//! transport where there was no answer.

use std::error::Error;
use std::sync::Arc;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::retry_class::RetryClass;

/// Longest text of a message, in characters.
const LONGEST: usize = 500;

/// An error of an AWS client as text: the source of a public error.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Cause(pub Arc<str>);

/// What the request of a failed call holds, and the service's message may therefore quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Payload and keys of records. The message is left out where it may quote them.
    WithRecords,
    /// No payload and no keys. Only a value that the message quotes is left out.
    WithoutRecords,
}

/// Returns the service's code and message, or the causes of the transport.
pub fn error_text<E>(error: &SdkError<E, HttpResponse>, request: Request) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let text = message_text(error, request);
    match (error.code(), error.message()) {
        (Some(code), Some(_)) => format!("{code}: {text}"),
        _ => text,
    }
}

/// Returns the same as [`error_text`], without the code where there is a message.
pub fn message_text<E>(error: &SdkError<E, HttpResponse>, request: Request) -> String
where
    E: ProvideErrorMetadata + Error + 'static,
{
    match error {
        SdkError::ServiceError(service) => {
            let (error, status) = (service.err(), service.raw().status().as_u16());
            match (error.code(), error.message()) {
                (Some(code), Some(message)) => safe_message(code, message, request),
                (Some(code), None) => code.to_owned(),
                (None, _) => format!("an answer without an error code, HTTP status {status}"),
            }
        }
        // The cause would quote what could not be read.
        SdkError::ResponseError(response) => format!(
            "the answer is cut short or not in the service's format, HTTP status {}",
            response.raw().status().as_u16()
        ),
        _ => cut(&with_causes(error)),
    }
}

/// Returns the service's message to a code, without values of the request that it quotes.
pub fn safe_message(code: &str, message: &str, request: Request) -> String {
    const BEFORE: &str = "Value '";
    const AFTER: &str = "' at '";
    match message.split_once(BEFORE) {
        // `Value at 'data' failed to satisfy constraint` quotes nothing.
        None if request == Request::WithoutRecords
            || quotes_nothing(code)
            || message.contains("Value at '") =>
        {
            cut(message)
        }
        None => "the service's message is left out, since it may quote the record".to_owned(),
        // `Value '...' at 'partitionKey' failed to satisfy constraint`: the value ends at the last such
        // place, because a value may look like the end of one.
        Some((intro, quoted)) => match quoted.rsplit_once(AFTER) {
            Some((_, rest)) => cut(&format!("{intro}Value (left out) at '{rest}")),
            None => cut(&format!("{intro}Value (left out)")),
        },
    }
}

/// Whether the service's message to a code tells of the caller or of the service, and so quotes nothing of
/// the request. A code that is not known may be one more name for a bad request.
pub fn quotes_nothing(code: &str) -> bool {
    RetryClass::of(code).is_some_and(|class| !class.may_quote_request())
}

/// Why a request could not be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialsProblem {
    /// The client has no credentials.
    Missing,
    /// A source of credentials was found, and could not be read now: a metadata service that is not up yet,
    /// for instance.
    Unavailable,
}

/// Returns why a request could not be signed. `None`: it was signed.
pub fn credentials_problem(error: &(dyn Error + 'static)) -> Option<CredentialsProblem> {
    let provider = chain(error).find_map(|cause| cause.downcast_ref::<CredentialsError>());
    match provider {
        Some(CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_)) => {
            Some(CredentialsProblem::Unavailable)
        }
        Some(_) => Some(CredentialsProblem::Missing),
        // The error of a client without a credentials provider has no public type.
        None => chain(error)
            .any(|cause| cause.to_string().contains("auth scheme"))
            .then_some(CredentialsProblem::Missing),
    }
}

/// Iterates over an error and its causes, outermost first.
pub fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// The texts of an error and its causes. Each text is taken once, because many errors repeat their cause.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in chain(error) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
    }
    text
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_kinesis::Client;
    use aws_sdk_kinesis::config::{BehaviorVersion, Builder, Region};

    use super::*;

    const LEFT_OUT: &str = "the service's message is left out, since it may quote the record";

    #[test]
    fn a_value_that_the_service_quotes_is_left_out() {
        for (code, message, expected) in [
            (
                "ValidationException",
                "1 validation error detected: Value 'secret' at 'partitionKey' failed to satisfy",
                "1 validation error detected: Value (left out) at 'partitionKey' failed to satisfy",
            ),
            // A value that looks like the end of one.
            (
                "ValidationException",
                "Value 'x' at 'y' secret' at 'data' failed",
                "Value (left out) at 'data' failed",
            ),
            ("ValidationException", "Value 'secret", "Value (left out)"),
            (
                "ProvisionedThroughputExceededException",
                "Rate exceeded for shard shardId-1",
                "Rate exceeded for shard shardId-1",
            ),
        ] {
            for request in [Request::WithRecords, Request::WithoutRecords] {
                assert_eq!(safe_message(code, message, request), expected);
            }
        }
    }

    #[test]
    fn a_message_that_may_quote_a_record_is_left_out() {
        for (code, message) in [
            ("InvalidArgumentException", "Specified value was secret"),
            ("SomethingNew", "about 'secret'"),
        ] {
            assert_eq!(safe_message(code, message, Request::WithRecords), LEFT_OUT);
            assert_eq!(safe_message(code, message, Request::WithoutRecords), message);
        }
        for code in [
            "InternalFailure",
            "ServiceUnavailable",
            "ThrottlingException",
            "ExpiredTokenException",
            "KMSThrottlingException",
            "AccessDeniedException",
            "ResourceNotFoundException",
        ] {
            assert!(quotes_nothing(code), "{code}");
        }
        for code in ["ValidationException", "ValidationError", "MalformedRecord", ""] {
            assert!(!quotes_nothing(code), "{code}");
        }
    }

    #[test]
    fn a_text_is_bounded() {
        let text = safe_message("InternalFailure", &"ä".repeat(10_000), Request::WithRecords);
        assert_eq!(text.chars().count(), LONGEST + 3);
    }

    #[tokio::test]
    async fn a_client_without_credentials_is_told() {
        let config = Builder::new()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("us-east-1"))
            .endpoint_url("http://127.0.0.1:9");
        let call = Client::from_conf(config.build()).list_shards().stream_name("s").send();
        let error = call.await.unwrap_err();
        assert_eq!(credentials_problem(&error), Some(CredentialsProblem::Missing));
        let text = error_text(&error, Request::WithoutRecords);
        assert!(text.contains("auth scheme") && !text.contains("ListShardsInput"), "{text}");
    }
}
