//! What an error of a read means.

use aws_sdk_kinesis::error::{ProvideErrorMetadata, SdkError};

/// What to do after a failed read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The iterator is of no use any more: get a new one from the last position.
    NewIterator,
    /// The service's limits: wait.
    Throttled,
    /// The stream, or the shard, does not exist.
    NotFound,
    /// No answer or a failure: wait, and say so.
    Failed,
}

impl Verdict {
    pub(crate) fn of<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Self {
        match error {
            SdkError::ServiceError(service) => Self::of_code(service.err().code()),
            _ => Self::Failed,
        }
    }

    fn of_code(code: Option<&str>) -> Self {
        match code {
            Some("ExpiredIteratorException" | "InvalidArgumentException") => Self::NewIterator,
            Some(
                "ProvisionedThroughputExceededException"
                | "LimitExceededException"
                | "KMSThrottlingException"
                | "ThrottlingException"
                | "Throttling"
                | "RequestLimitExceeded"
                | "SlowDown",
            ) => Self::Throttled,
            Some("ResourceNotFoundException") => Self::NotFound,
            _ => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        for (code, verdict) in [
            (Some("ExpiredIteratorException"), Verdict::NewIterator),
            (
                Some("ProvisionedThroughputExceededException"),
                Verdict::Throttled,
            ),
            (Some("KMSThrottlingException"), Verdict::Throttled),
            (Some("ResourceNotFoundException"), Verdict::NotFound),
            (Some("InternalFailure"), Verdict::Failed),
            (Some("AccessDeniedException"), Verdict::Failed),
            (None, Verdict::Failed),
        ] {
            assert_eq!(Verdict::of_code(code), verdict, "{code:?}");
        }
    }
}
