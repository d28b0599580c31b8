//! Why a call to AWS, or an operation on the lease table, failed.

use std::error::Error;
use std::sync::Arc;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use super::item::CorruptItem;

/// A call to AWS that failed after its retries. The client's own types stay inside.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} failed: {source}")]
pub(crate) struct CallError {
    pub(crate) operation: &'static str,
    pub(crate) kind: CallErrorKind,
    pub(crate) source: Cause,
}

#[cfg(any(test, feature = "simulation"))]
impl CallError {
    /// For services that are simulated.
    pub(crate) fn simulated(operation: &'static str, kind: CallErrorKind) -> Self {
        Self {
            operation,
            kind,
            source: Cause("simulated".into()),
        }
    }
}

/// What went wrong, as far as it decides what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallErrorKind {
    /// Refused for now; an earlier attempt of the call may have been done.
    Throttled,
    /// No answer: it may have been done.
    NoAnswer,
    /// The service failed: it may have been done.
    Internal,
    /// The table or stream does not exist.
    NotFound,
    AccessDenied,
    NoCredentials,
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
pub(crate) enum LeaseStoreError {
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

    pub(crate) fn is_throttled(&self) -> bool {
        self.kind() == Some(CallErrorKind::Throttled)
    }

    /// What passes by itself, perhaps. A table that is not found may be a passing fault too: it ends
    /// the worker once that is confirmed.
    pub(crate) fn is_retryable(&self) -> bool {
        self.is_throttled()
            || self.is_ambiguous()
            || self.is_table_missing()
            || matches!(self, Self::Shards(_) | Self::OutOfTime)
    }

    /// A write may have been done although it failed.
    pub(crate) fn is_ambiguous(&self) -> bool {
        matches!(
            self.kind(),
            Some(CallErrorKind::NoAnswer | CallErrorKind::Internal)
        )
    }

    /// The table or its index is gone.
    pub(crate) fn is_table_missing(&self) -> bool {
        self.kind() == Some(CallErrorKind::NotFound)
    }
}

/// Sorts an error of an AWS client.
pub(crate) fn classify<E, R>(operation: &'static str, error: &SdkError<E, R>) -> CallError
where
    E: ProvideErrorMetadata + Error + 'static,
    R: std::fmt::Debug + 'static,
{
    let text = chain(error, error.message());
    let kind = match error {
        SdkError::ServiceError(service) => kind_of(service.err().code().unwrap_or_default()),
        // Credentials are looked for within the call; the client has no variant for that.
        _ if names_credentials(&text) => CallErrorKind::NoCredentials,
        SdkError::ConstructionFailure(_) => CallErrorKind::Refused,
        SdkError::ResponseError(_) => CallErrorKind::Internal,
        _ => CallErrorKind::NoAnswer,
    };
    CallError {
        operation,
        kind,
        source: Cause(text.into()),
    }
}

/// The error and its causes, and the service's message; not the client's debug output, which shows
/// whole requests.
fn chain(error: &(dyn Error + 'static), message: Option<&str>) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    if let Some(message) = message {
        text.push_str(": ");
        text.push_str(message);
    }
    text
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
        | "InvalidClientTokenId" => CallErrorKind::NoCredentials,
        // Control-plane changes and conflicts pass by themselves; no code: no AWS answer at all.
        "InternalServerError"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "TransactionConflictException"
        | "ResourceInUseException"
        | "" => CallErrorKind::Internal,
        _ => CallErrorKind::Refused,
    }
}

fn names_credentials(text: &str) -> bool {
    let text = text.to_lowercase();
    ["credential", "identity resolver", "auth scheme"]
        .iter()
        .any(|word| text.contains(word))
}
