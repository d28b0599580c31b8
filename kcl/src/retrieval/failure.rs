//! Classification of failed reads, with advice for the operator.

use std::error::Error;
use std::fmt;

use aws_sdk_kinesis::config::http::HttpResponse;
use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};
use kinesis_common::error_text::{Request, error_text};
use kinesis_common::retry_class::RetryClass;

use crate::health::ProblemKind;
use crate::metrics::Metric;
use crate::snapshot::ShardStatus;

const GET_RECORDS: &str = "GetRecords";
const SUBSCRIBE: &str = "SubscribeToShard";
const OWN_CONSUMER: &str =
    "if this lasts, another application uses the same consumer, and needs one of its own";

/// A read that failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    /// The call, the error of the service, and what to do.
    pub(super) text: String,
}

/// What to do after a failed read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// The iterator cannot be used any more. A new one is needed, at the last position.
    NewIterator,
    /// The read exceeded the limits of the shard.
    Throttled,
    /// Another subscription of the same consumer to the shard began a moment ago.
    InUse,
    /// Another subscription of the same consumer to the shard took this one over.
    TakenOver,
    /// The stream or the shard does not exist.
    NotFound,
    /// The page did not arrive completely. A smaller one may.
    DidNotArrive,
    /// The service does not accept the position for this shard.
    PositionRefused,
    /// The service refuses the read until an operator has changed something.
    Refused,
    /// The service did not answer, or failed.
    Failed,
}

impl Failure {
    /// Classifies a failed GetRecords call.
    pub(super) fn of_records<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        Self::new(GET_RECORDS, error, kind_of(error))
    }

    /// Classifies a failed GetShardIterator call. An invalid argument is the position itself, so a new iterator
    /// would be refused for the same reason.
    pub(super) fn of_iterator<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let kind = match kind_of(error) {
            FailureKind::NewIterator => FailureKind::PositionRefused,
            // There is no page that could be smaller.
            FailureKind::DidNotArrive => FailureKind::Failed,
            kind => kind,
        };
        Self::new("GetShardIterator", error, kind)
    }

    /// Classifies a failed SubscribeToShard call.
    pub(super) fn of_subscribe<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let kind = match error {
            SdkError::ServiceError(service) => of_subscription(service.err().code()),
            error => kind_of(error),
        };
        Self::new(SUBSCRIBE, error, kind)
    }

    /// Classifies the end of a subscription.
    pub(super) fn of_event<E, R>(error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
        R: fmt::Debug + 'static,
    {
        let (kind, cause) = match error {
            SdkError::ServiceError(service) => {
                let error = service.err();
                let code = error.code().unwrap_or("an unknown error");
                let message = error.message().map(|text| format!(": {text}")).unwrap_or_default();
                match of_subscription(error.code()) {
                    FailureKind::InUse => {
                        (FailureKind::TakenOver, format!("{code}{message}: {OWN_CONSUMER}"))
                    }
                    kind => (kind, format!("{code}{message}")),
                }
            }
            // The frame may hold records, so it is not shown.
            SdkError::ResponseError(_) | SdkError::ConstructionFailure(_) => {
                (FailureKind::Failed, "an event cannot be read".to_owned())
            }
            _ => (FailureKind::Failed, "the connection broke".to_owned()),
        };
        Self { kind, text: format!("the subscription ended: {cause}") }
    }

    /// The failure of a read that an operator has to make possible.
    pub(super) fn refused(text: &str) -> Self {
        Self { kind: FailureKind::Refused, text: text.to_owned() }
    }

    /// The failure of an answer that cannot be used.
    pub(super) fn unusable(text: &str) -> Self {
        Self { kind: FailureKind::Failed, text: text.to_owned() }
    }

    /// True if an operator has to change something before the read can succeed.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.kind, FailureKind::Refused | FailureKind::PositionRefused)
    }

    /// Counts, logs and shows the failure of a read of a shard.
    pub(super) fn note(&self, status: &ShardStatus) {
        if self.kind != FailureKind::Throttled {
            status.measure(Metric::FailedReads, 1.0);
        }
        let shard_id = status.shard_id();
        let noted = status.problems().failed(ProblemKind::ReadsFailing, Some(shard_id), &self.text);
        if noted.log {
            let (failures, cause) = (noted.failures, &self.text);
            if self.is_refusal() {
                tracing::error!(
                    shard_id,
                    failures,
                    cause,
                    "the shard cannot be read; trying again"
                );
            } else {
                tracing::warn!(shard_id, failures, cause, "a read failed; trying again");
            }
        }
    }

    /// Notes that the shard is read again.
    pub(super) fn is_over(status: &ShardStatus) {
        let shard_id = status.shard_id();
        if status.problems().recovered(ProblemKind::ReadsFailing, Some(shard_id)) {
            tracing::info!(shard_id, "the shard is read again");
        }
    }

    fn new<E>(operation: &'static str, error: &SdkError<E, HttpResponse>, kind: FailureKind) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let code = match error {
            SdkError::ServiceError(service) => service.err().code(),
            _ => None,
        };
        let text = format!("{operation} failed: {}", error_text(error, Request::WithoutRecords));
        let mut failure = Self { kind, text };
        if failure.is_refusal()
            && let Some(advice) = advice(operation, code.unwrap_or_default())
        {
            failure.text.push_str(": ");
            failure.text.push_str(&advice);
        }
        failure
    }
}

fn kind_of<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> FailureKind {
    match error {
        SdkError::ServiceError(service) => of_code(service.err().code()),
        SdkError::TimeoutError(_) | SdkError::ResponseError(_) => FailureKind::DidNotArrive,
        // A request that cannot be built fails the same way the next time.
        SdkError::ConstructionFailure(_) => FailureKind::Refused,
        _ => FailureKind::Failed,
    }
}

fn of_code(code: Option<&str>) -> FailureKind {
    let Some(code) = code else {
        // A proxy in between answered, not AWS.
        return FailureKind::Failed;
    };
    match RetryClass::of(code) {
        Some(RetryClass::TokenExpired) => FailureKind::NewIterator,
        // The service no longer accepts the iterator for the shard.
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

/// A subscription has no iterator, so an invalid argument is the position itself.
fn of_subscription(code: Option<&str>) -> FailureKind {
    match of_code(code) {
        FailureKind::NewIterator => FailureKind::PositionRefused,
        FailureKind::Failed if code == Some("ResourceInUseException") => FailureKind::InUse,
        kind => kind,
    }
}

/// Returns what an operator can do about a refusal.
fn advice(operation: &str, code: &str) -> Option<String> {
    match RetryClass::of(code) {
        Some(RetryClass::AccessDenied) => {
            let resource = if operation == SUBSCRIBE { "consumer" } else { "stream" };
            return Some(format!("allow the worker's role kinesis:{operation} on the {resource}"));
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
        "InvalidArgumentException" if operation != GET_RECORDS => {
            "the service does not accept the lease's checkpoint for this shard: correct the checkpoint, or \
             delete the lease to start at the initial position"
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
