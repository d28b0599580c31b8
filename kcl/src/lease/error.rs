//! Why a call to AWS, or an operation on the lease table, failed.

use std::error::Error;
use std::sync::Arc;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use super::item::CorruptItem;
use crate::error_text::error_text;

/// A call to AWS that failed after its retries. The client's own types stay inside.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} failed: {source}")]
pub struct CallError {
    pub operation: &'static str,
    pub kind: CallErrorKind,
    pub(crate) source: Cause,
}

impl CallError {
    pub fn new(operation: &'static str, kind: CallErrorKind, cause: String) -> Self {
        Self { operation, kind, source: Cause(cause.into()) }
    }
}

/// What went wrong, as far as it decides what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallErrorKind {
    /// Refused for now; an earlier attempt of the call may have been done.
    Throttled,
    /// No answer: it may have been done.
    NoAnswer,
    /// The service failed: it may have been done.
    Internal,
    /// The table or stream does not exist.
    NotFound,
    AccessDenied,
    /// The client has no credentials to sign the request with.
    NoCredentials,
    /// AWS does not accept the credentials that the request was signed with.
    CredentialsRefused,
    /// The same request will be refused again.
    Refused,
}

/// An error of the AWS client as text, with all its causes.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Cause(Arc<str>);

/// Why an operation on the lease table failed. A condition that did not hold is an outcome, not an
/// error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeaseStoreError {
    #[error(transparent)]
    Call(#[from] CallError),
    /// An item that the operation needs cannot be read.
    #[error(transparent)]
    Corrupt(#[from] CorruptItem),
    /// The lease that the operation is for was lost.
    #[error("the lease is lost: another worker goes on with the shard")]
    Lost,
    /// A planned stop ran out of time first. A write may have been done.
    #[error("the lease table did not answer before the deadline of the planned stop")]
    OutOfTime,
    /// The shards that a lease stands for could not be listed.
    #[error("the shards of the stream could not be listed: {0}")]
    Shards(String),
}

impl LeaseStoreError {
    fn kind(&self) -> Option<CallErrorKind> {
        match self {
            Self::Call(call) => Some(call.kind),
            Self::Corrupt(_) | Self::Lost | Self::OutOfTime | Self::Shards(_) => None,
        }
    }

    pub fn is_throttled(&self) -> bool {
        self.kind() == Some(CallErrorKind::Throttled)
    }

    /// What passes by itself, perhaps. A table that is not found may be a passing fault too: it ends
    /// the worker once that is confirmed.
    pub fn is_retryable(&self) -> bool {
        self.is_throttled()
            || self.is_ambiguous()
            || self.is_table_missing()
            || matches!(self, Self::Shards(_) | Self::OutOfTime)
    }

    /// A write may have been done although it failed.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self.kind(), Some(CallErrorKind::NoAnswer | CallErrorKind::Internal))
    }

    /// The table or its index is gone.
    pub fn is_table_missing(&self) -> bool {
        self.kind() == Some(CallErrorKind::NotFound)
    }
}

/// Sorts an error of an AWS client.
pub(crate) fn classify<E>(operation: &'static str, error: &SdkError<E, HttpResponse>) -> CallError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let text = error_text(error);
    let kind = match error {
        SdkError::ServiceError(service) => kind_of(service.err().code().unwrap_or_default()),
        other => credentials_problem(other, &text).unwrap_or(match other {
            SdkError::ConstructionFailure(_) => CallErrorKind::Refused,
            SdkError::ResponseError(_) => CallErrorKind::Internal,
            _ => CallErrorKind::NoAnswer,
        }),
    };
    CallError::new(operation, kind, text)
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// What a failure to sign a request means; `None`: the request was signed.
fn credentials_problem(error: &(dyn Error + 'static), text: &str) -> Option<CallErrorKind> {
    let provider = causes(error).find_map(|cause| cause.downcast_ref::<CredentialsError>());
    match provider {
        // The provider found a source and could not read it now: a metadata service that is not up
        // yet, for instance.
        Some(CredentialsError::ProviderTimedOut(_) | CredentialsError::ProviderError(_)) => {
            Some(CallErrorKind::NoAnswer)
        }
        Some(_) => Some(CallErrorKind::NoCredentials),
        // A client without any provider: its error has no public type.
        None => names_credentials(text).then_some(CallErrorKind::NoCredentials),
    }
}

fn kind_of(code: &str) -> CallErrorKind {
    match code {
        "ProvisionedThroughputExceededException"
        | "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded"
        | "LimitExceededException" => CallErrorKind::Throttled,
        "ResourceNotFoundException" => CallErrorKind::NotFound,
        "AccessDeniedException" | "KMSAccessDeniedException" => CallErrorKind::AccessDenied,
        "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "ExpiredTokenException"
        | "MissingAuthenticationTokenException"
        | "MissingAuthenticationToken"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "IncompleteSignatureException"
        | "OptInRequired" => CallErrorKind::CredentialsRefused,
        // Control-plane changes and conflicts pass by themselves, and a listing whose token has
        // expired is begun again; no code: no AWS answer at all.
        "InternalServerError"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "TransactionConflictException"
        | "ResourceInUseException"
        | "ExpiredNextTokenException"
        | "" => CallErrorKind::Internal,
        _ => CallErrorKind::Refused,
    }
}

fn names_credentials(text: &str) -> bool {
    let text = text.to_lowercase();
    ["credential", "identity resolver", "auth scheme"].iter().any(|word| text.contains(word))
}
