//! Errors of calls to AWS, and of operations on the lease table.

use std::error::Error;
use std::sync::Arc;

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use kinesis_common::error_text::{
    Cause, CredentialsProblem, Request, credentials_problem, error_text,
};
use kinesis_common::retry_class::RetryClass;

use super::item::CorruptItem;
use crate::checkpoint::CheckpointError;

/// A call to AWS that failed after its retries. The types of the AWS client are not part of it.
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

    /// `None` in place of the error that the table or stream does not exist.
    pub(crate) fn unless_not_found<T>(self) -> Result<Option<T>, Self> {
        if self.kind == CallErrorKind::NotFound { Ok(None) } else { Err(self) }
    }
}

/// The kinds of failures that callers treat differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallErrorKind {
    /// The last attempt was throttled. An earlier attempt of the call may have been done.
    Throttled,
    /// There was no answer. The call may have been done.
    NoAnswer,
    /// The service failed. The call may have been done.
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

impl CallErrorKind {
    /// Whether the same call may succeed later.
    pub(crate) fn may_pass(self) -> bool {
        matches!(self, Self::Throttled | Self::NoAnswer | Self::Internal)
    }
}

/// Failure of an operation on the lease table. A condition that did not hold is an
/// [`Outcome`](super::store::Outcome), not an error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeaseStoreError {
    #[error(transparent)]
    Call(#[from] CallError),
    /// An item that the operation needs cannot be decoded.
    #[error(transparent)]
    Corrupt(#[from] CorruptItem),
    /// The lease that the operation is for was lost.
    #[error("the lease is lost: another worker processes the shard")]
    Lost,
    /// A planned stop ran out of time before the answer. The write may have been done.
    #[error("the lease table did not answer before the deadline of the planned stop")]
    OutOfTime,
    /// The shards of the stream, for which leases are created, could not be listed.
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

    /// Whether the operation may succeed later. That includes a table that is not found, because the answer may be a
    /// passing fault: the worker ends only after a confirmation.
    pub fn is_retryable(&self) -> bool {
        self.is_throttled()
            || self.is_ambiguous()
            || self.is_table_missing()
            || matches!(self, Self::Shards(_) | Self::OutOfTime)
    }

    /// Whether a write may have been done although it failed.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self.kind(), Some(CallErrorKind::NoAnswer | CallErrorKind::Internal))
    }

    /// Whether the table or its index is gone.
    pub fn is_table_missing(&self) -> bool {
        self.kind() == Some(CallErrorKind::NotFound)
    }

    /// This failure of a checkpoint of `shard_id`, as the processor sees it.
    pub(super) fn into_checkpoint_error(self, shard_id: String) -> CheckpointError {
        if self.is_throttled() {
            return CheckpointError::Throttled { shard_id, source: Arc::new(self) };
        }
        let retryable = self.is_retryable();
        CheckpointError::Store { shard_id, retryable, source: Arc::new(self) }
    }
}

/// Converts an error of an AWS client.
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
    // An answer without a code is not from AWS, but for example from a proxy.
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
        // These pass: a control-plane change or conflict ends, a listing whose token expired is begun again, and the
        // client corrects its clock.
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
    fn each_code_has_its_kind() {
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
