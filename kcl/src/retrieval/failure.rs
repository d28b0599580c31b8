//! What a failed read means, and what an operator can do about it.

use std::error::Error;

use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use kinesis_common::error_text::{Request, error_text};
use kinesis_common::retry_class::RetryClass;

/// A read that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    /// The call, what the service said, and what to do.
    pub(super) text: String,
}

/// What to do after a failed read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The iterator cannot be used any more: get a new one at the last position.
    NewIterator,
    /// The shard's limits: slow down.
    Throttled,
    /// The stream, or the shard, does not exist.
    NotFound,
    /// The page did not arrive whole: ask for a smaller one.
    DidNotArrive,
    /// The service does not take the position for one in the shard.
    PositionRefused,
    /// The same read will be refused until an operator has done something.
    Refused,
    /// No answer, or a failure of the service: try again.
    Failed,
}

impl Failure {
    /// Of GetRecords.
    pub(super) fn of_records<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        Self::new("GetRecords", error, kind_of(error))
    }

    /// Of GetShardIterator. An invalid argument is the position itself: a new iterator would be
    /// refused for the same reason.
    pub(super) fn of_iterator<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let kind = match kind_of(error) {
            FailureKind::NewIterator => FailureKind::PositionRefused,
            // There is no page to make smaller.
            FailureKind::DidNotArrive => FailureKind::Failed,
            kind => kind,
        };
        Self::new("GetShardIterator", error, kind)
    }

    /// An answer that cannot be used.
    pub(super) fn unusable(text: &str) -> Self {
        Self { kind: FailureKind::Failed, text: text.to_owned() }
    }

    /// Whether an operator has to do something before the read can succeed.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.kind, FailureKind::Refused | FailureKind::PositionRefused)
    }

    fn new<E>(operation: &'static str, error: &SdkError<E, HttpResponse>, kind: FailureKind) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let code = match error {
            SdkError::ServiceError(service) => service.err().code(),
            _ => None,
        };
        let mut text =
            format!("{operation} failed: {}", error_text(error, Request::WithoutRecords));
        if matches!(kind, FailureKind::Refused | FailureKind::PositionRefused)
            && let Some(advice) = advice(operation, code.unwrap_or_default())
        {
            text.push_str(": ");
            text.push_str(&advice);
        }
        Self { kind, text }
    }
}

fn kind_of<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> FailureKind {
    match error {
        SdkError::ServiceError(service) => of_code(service.err().code()),
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => FailureKind::DidNotArrive,
        // A request that cannot be built will not be the next time either.
        SdkError::ConstructionFailure(_) => FailureKind::Refused,
        _ => FailureKind::Failed,
    }
}

fn of_code(code: Option<&str>) -> FailureKind {
    let Some(code) = code else {
        // No answer of AWS, but of something in between.
        return FailureKind::Failed;
    };
    match RetryClass::of(code) {
        Some(RetryClass::TokenExpired) => FailureKind::NewIterator,
        // The service no longer takes the iterator for one of the shard.
        Some(RetryClass::Rejected) if code == "InvalidArgumentException" => {
            FailureKind::NewIterator
        }
        Some(class) if class.is_throttle() => FailureKind::Throttled,
        Some(RetryClass::NotFound) => FailureKind::NotFound,
        Some(RetryClass::ServiceFailed | RetryClass::Conflict | RetryClass::ClockSkewed) => {
            FailureKind::Failed
        }
        _ => FailureKind::Refused,
    }
}

/// What an operator can do about a refusal.
fn advice(operation: &str, code: &str) -> Option<String> {
    match RetryClass::of(code) {
        Some(RetryClass::AccessDenied) => {
            return Some(format!("allow the worker's role kinesis:{operation} on the stream"));
        }
        Some(RetryClass::CredentialsRefused | RetryClass::SignatureExpired) => {
            return Some("check the worker's credentials".to_owned());
        }
        _ => {}
    }
    let fixed = match code {
        "KMSAccessDeniedException" => {
            "allow the worker's role kms:Decrypt on the stream's KMS key, in the key's policy too"
        }
        "KMSDisabledException" => "enable the stream's KMS key",
        "KMSInvalidStateException" => {
            "the stream's KMS key is pending deletion or import: make it usable again"
        }
        "KMSNotFoundException" => {
            "the stream's KMS key is gone: its records cannot be read without it"
        }
        "KMSOptInRequired" => "sign the account up for AWS KMS",
        "InvalidArgumentException" if operation == "GetShardIterator" => {
            "the service does not take the lease's checkpoint for a position in this shard: correct \
             the checkpoint, or delete the lease to start at the initial position"
        }
        _ => return None,
    };
    Some(fixed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        for (code, kind) in [
            (Some("ExpiredIteratorException"), FailureKind::NewIterator),
            (Some("ProvisionedThroughputExceededException"), FailureKind::Throttled),
            (Some("KMSThrottlingException"), FailureKind::Throttled),
            (Some("ResourceNotFoundException"), FailureKind::NotFound),
            (Some("InternalFailure"), FailureKind::Failed),
            (Some("RequestTimeTooSkewed"), FailureKind::Failed),
            (Some("InvalidArgumentException"), FailureKind::NewIterator),
            (Some("ValidationException"), FailureKind::Refused),
            (Some("ExpiredTokenException"), FailureKind::Refused),
            (Some("SomethingNew"), FailureKind::Refused),
            (Some("AccessDeniedException"), FailureKind::Refused),
            (Some("KMSDisabledException"), FailureKind::Refused),
            (None, FailureKind::Failed),
        ] {
            assert_eq!(of_code(code), kind, "{code:?}");
        }
    }
}
