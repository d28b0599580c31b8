//! The class of an error, and the pauses before another attempt.

use std::time::Duration;

use kinesis_common::backoff::BackoffSchedule;
use kinesis_common::retry_class::RetryClass;

/// What an error of PutRecords means for the producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorClass {
    /// The throughput of a shard, the stream or the account is exceeded; see [`is_shard_throttle`].
    Throttled,
    /// It may pass.
    Transient,
    /// The request is refused for its content.
    Rejected,
    /// A proxy, a gateway or a firewall refuses the request, perhaps for its content. It may pass.
    Blocked,
    /// It does not pass by itself. It is believed only if it lasts for 10 s: see `sender::fatal_errors`.
    Fatal,
}

/// Classifies the error code of an entry or of a whole request. An unknown code counts as transient.
pub(crate) fn classify(code: &str) -> ErrorClass {
    match class_of(code) {
        Some(RetryClass::Throttled) => ErrorClass::Throttled,
        Some(RetryClass::Rejected) => ErrorClass::Rejected,
        Some(
            RetryClass::NotFound
            | RetryClass::KmsKeyUnusable
            | RetryClass::AccessDenied
            | RetryClass::CredentialsRefused
            | RetryClass::Unsupported,
        ) => ErrorClass::Fatal,
        // A running producer waits until expired credentials are renewed.
        _ => ErrorClass::Transient,
    }
}

/// The class of a code of AWS, or of an answer without a code.
fn class_of(code: &str) -> Option<RetryClass> {
    match code {
        // Name of an answer with this status and without a code.
        "Http429" => Some(RetryClass::RequestThrottled),
        code => RetryClass::of(code),
    }
}

/// Classifies the HTTP status of an error answer whose code is not known: the answer of a proxy, a gateway or a
/// firewall, or a new code of the service.
pub(crate) fn classify_status(status: u16) -> ErrorClass {
    match status {
        // The request is too large, and would be again.
        413 => ErrorClass::Rejected,
        status if is_of_the_moment(status) => ErrorClass::Transient,
        // A firewall refuses one body with a 400 or a 403. A misconfigured proxy refuses all requests, with any of
        // these. Splitting the request finds the former, and waiting may end the latter.
        400..=499 => ErrorClass::Blocked,
        _ => ErrorClass::Transient,
    }
}

/// Whether an HTTP status says nothing of the request: a timeout of the proxy, or too many requests.
pub(crate) fn is_of_the_moment(status: u16) -> bool {
    matches!(status, 408 | 425 | 429)
}

/// Whether the stream does not exist.
pub(crate) fn is_stream_missing(code: &str) -> bool {
    code == "ResourceNotFoundException"
}

/// Whether the credentials are valid, and do not permit the call.
pub(crate) fn is_access_denied(code: &str) -> bool {
    class_of(code) == Some(RetryClass::AccessDenied)
}

/// Whether AWS refuses the credentials themselves.
pub(crate) fn is_credentials_refused(code: &str) -> bool {
    matches!(class_of(code), Some(RetryClass::CredentialsRefused | RetryClass::SignatureExpired))
}

/// Whether a request that was answered with this HTTP status and code may have been written.
pub(crate) fn answer_may_follow_a_write(status: u16, code: &str) -> bool {
    // With such a status, the request was refused before anything was written.
    !(300..500).contains(&status) && may_have_been_written(code)
}

/// Whether the content of a request may be the cause of this code. Other codes are about the caller or the load.
pub(crate) fn may_be_for_content(code: &str) -> bool {
    matches!(class_of(code), None | Some(RetryClass::Rejected | RetryClass::ServiceFailed))
}

/// Whether an attempt that failed with this code may have been written.
pub(crate) fn may_have_been_written(code: &str) -> bool {
    matches!(class_of(code), None | Some(RetryClass::ServiceFailed))
}

/// Whether a limit of a shard, the stream, the account or the KMS key is exceeded.
pub(crate) fn is_throttle(code: &str) -> bool {
    class_of(code).is_some_and(RetryClass::is_throttle)
}

/// Whether an entry is refused because its shard is full. Then the rate of the shard is cut.
///
/// Kinesis has one code for the limits of a shard, a stream and an account. Its message tells which one: `Rate exceeded
/// for shard shardId-... in stream ...` or `Rate exceeded for stream ...`. Most entries are refused by their shard, so
/// a message that names neither counts as a refusal by the shard.
pub(crate) fn is_shard_throttle(code: &str, message: &str) -> bool {
    class_of(code) == Some(RetryClass::Throttled)
        && !(message.contains("for stream") || message.contains("for account"))
}

/// Whether an entry is refused because of the stream or the account. Then all other entries would be refused, too.
pub(crate) fn is_of_stream(code: &str, message: &str) -> bool {
    match classify(code) {
        ErrorClass::Throttled => !is_shard_throttle(code, message),
        ErrorClass::Fatal => true,
        ErrorClass::Transient => {
            class_of(code).is_some_and(|class| class.is_kms() || class.is_throttle())
        }
        ErrorClass::Rejected | ErrorClass::Blocked => false,
    }
}

/// Pauses before another attempt at a record or a request: 50 ms, doubled up to 5 s.
pub(crate) const PUT_BACKOFF: BackoffSchedule =
    BackoffSchedule::new(Duration::from_millis(50), Duration::from_secs(5));

/// Pauses of the start: 100 ms, doubled up to 2 s. A fleet that exceeds the account's 20 DescribeStreamSummary calls a
/// second spreads out to that rate, and a service that comes up is found soon.
pub(crate) const START_BACKOFF: BackoffSchedule =
    BackoffSchedule::new(Duration::from_millis(100), Duration::from_secs(2));

/// Pauses of the shard map: 1 s, multiplied by 1.5 up to 30 s, as in the KPL.
pub(crate) const SHARD_MAP_BACKOFF: BackoffSchedule =
    BackoffSchedule::new(Duration::from_secs(1), Duration::from_secs(30)).with_factor(1.5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_their_class() {
        for (code, class) in [
            ("ProvisionedThroughputExceededException", ErrorClass::Throttled),
            ("InternalFailure", ErrorClass::Transient),
            ("KMSThrottlingException", ErrorClass::Transient),
            ("LimitExceededException", ErrorClass::Transient),
            ("SomethingNew", ErrorClass::Transient),
            ("ResourceNotFoundException", ErrorClass::Fatal),
            ("AccessDeniedException", ErrorClass::Fatal),
            ("ExpiredTokenException", ErrorClass::Transient),
            ("RequestTimeTooSkewed", ErrorClass::Transient),
            ("UnrecognizedClientException", ErrorClass::Fatal),
            ("KMSDisabledException", ErrorClass::Fatal),
            ("ValidationException", ErrorClass::Rejected),
        ] {
            assert_eq!(classify(code), class, "{code}");
        }
        assert!(may_have_been_written("InternalFailure"));
        assert!(!may_have_been_written("KMSThrottlingException"));
        assert!(!may_have_been_written("ExpiredTokenException"));
        assert!(!may_have_been_written("ProvisionedThroughputExceededException"));
    }

    #[test]
    fn an_answer_without_a_known_code_is_judged_by_its_status() {
        for (status, class) in [
            (413, ErrorClass::Rejected),
            (400, ErrorClass::Blocked),
            (431, ErrorClass::Blocked),
            (401, ErrorClass::Blocked),
            (403, ErrorClass::Blocked),
            (404, ErrorClass::Blocked),
            (408, ErrorClass::Transient),
            (429, ErrorClass::Transient),
            (200, ErrorClass::Transient),
            (302, ErrorClass::Transient),
            (502, ErrorClass::Transient),
        ] {
            assert_eq!(classify_status(status), class, "{status}");
        }
        for (status, code, may_follow) in [
            (403, "Http403", false),
            (400, "SomethingNew", false),
            (302, "Http302", false),
            (502, "Http502", true),
            (200, "Http200", true),
            (500, "InternalFailure", true),
            (503, "ThrottlingException", false),
        ] {
            let answer = answer_may_follow_a_write(status, code);
            assert_eq!(answer, may_follow, "{status} {code}");
        }
    }

    #[test]
    fn a_throttle_is_the_shards_or_the_streams() {
        let code = "ProvisionedThroughputExceededException";
        for (message, is_of_shard) in [
            ("Rate exceeded for shard shardId-000000000000 in stream s under account 1.", true),
            ("", true),
            ("Rate exceeded for stream shard-s under account 1.", false),
            ("Rate exceeded for account 1.", false),
        ] {
            assert_eq!(is_shard_throttle(code, message), is_of_shard, "{message}");
            assert_eq!(is_of_stream(code, message), !is_of_shard, "{message}");
        }
        for (code, is_of_all) in [
            ("InternalFailure", false),
            ("ValidationException", false),
            ("KMSThrottlingException", true),
            ("KMSDisabledException", true),
            ("LimitExceededException", true),
            ("AccessDeniedException", true),
        ] {
            assert!(!is_shard_throttle(code, ""), "{code}");
            assert_eq!(is_of_stream(code, ""), is_of_all, "{code}");
        }
    }
}
