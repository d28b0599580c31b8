//! Why a call to AWS, or an operation on the lease table, failed.

use std::error::Error;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use kinesis_common::error_text::{
    Cause, CredentialsProblem, Request, credentials_problem, error_text,
};
use kinesis_common::retry_class::RetryClass;

use super::item::CorruptItem;

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
    let text = error_text(error, Request::WithoutRecords);
    let kind = match error {
        SdkError::ServiceError(service) => kind_of(service.err().code().unwrap_or_default()),
        other => match (credentials_problem(other), other) {
            (Some(CredentialsProblem::Missing), _) => CallErrorKind::NoCredentials,
            (Some(CredentialsProblem::Unavailable), _) => CallErrorKind::NoAnswer,
            (None, SdkError::ConstructionFailure(_)) => CallErrorKind::Refused,
            (None, SdkError::ResponseError(_)) => CallErrorKind::Internal,
            (None, _) => CallErrorKind::NoAnswer,
        },
    };
    CallError::new(operation, kind, text)
}

fn kind_of(code: &str) -> CallErrorKind {
    // No code: not an answer of AWS.
    if code.is_empty() {
        return CallErrorKind::Internal;
    }
    match RetryClass::of(code) {
        Some(class) if class.is_throttle() => CallErrorKind::Throttled,
        Some(RetryClass::NotFound) => CallErrorKind::NotFound,
        Some(RetryClass::AccessDenied) => CallErrorKind::AccessDenied,
        Some(RetryClass::CredentialsRefused | RetryClass::SignatureExpired) => {
            CallErrorKind::CredentialsRefused
        }
        // Control-plane changes and conflicts pass by themselves, a listing whose token has expired is begun
        // again, and the client corrects its clock.
        Some(
            RetryClass::ServiceFailed
            | RetryClass::Conflict
            | RetryClass::TokenExpired
            | RetryClass::ClockSkewed,
        ) => CallErrorKind::Internal,
        _ => CallErrorKind::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_decides_what_is_done() {
        for (code, kind) in [
            ("ProvisionedThroughputExceededException", CallErrorKind::Throttled),
            ("LimitExceededException", CallErrorKind::Throttled),
            ("TooManyRequestsException", CallErrorKind::Throttled),
            ("KMSThrottlingException", CallErrorKind::Throttled),
            ("ResourceNotFoundException", CallErrorKind::NotFound),
            ("AccessDeniedException", CallErrorKind::AccessDenied),
            ("ExpiredTokenException", CallErrorKind::CredentialsRefused),
            ("UnrecognizedClientException", CallErrorKind::CredentialsRefused),
            ("InternalFailureException", CallErrorKind::Internal),
            ("ReplicatedWriteConflictException", CallErrorKind::Internal),
            ("RequestTimeTooSkewed", CallErrorKind::Internal),
            ("", CallErrorKind::Internal),
            ("ValidationException", CallErrorKind::Refused),
            ("SomethingNew", CallErrorKind::Refused),
        ] {
            assert_eq!(kind_of(code), kind, "{code}");
        }
    }
}
