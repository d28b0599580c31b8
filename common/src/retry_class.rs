//! The one table of AWS error codes.
//!
//! A class says what a code means. What a caller does about it is the caller's business: a throttled write
//! of a record slows down one shard, a throttled write of a lease is tried again before the lease expires.

/// What an error code of AWS means for another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RetryClass {
    /// The throughput of a shard, a stream, a table or an index is exceeded. Nothing was done.
    Throttled,
    /// The account or the stream exceeds the rate or number of calls that AWS allows. Nothing was done.
    RequestThrottled,
    /// AWS KMS throttles the use of the stream's key. Nothing was done.
    KmsThrottled,
    /// AWS KMS failed in a way that is not documented. Nothing was done.
    KmsFailed,
    /// The service failed. The request may have been done.
    ServiceFailed,
    /// Another request is changing the same resource. Nothing was done.
    Conflict,
    /// A shard iterator or a token of a listing has expired. A new one is needed.
    TokenExpired,
    /// The credentials have expired, or the signature does not match them. New credentials, or a corrected
    /// clock, cure it. Nothing was done.
    SignatureExpired,
    /// The clock of the caller differs too much from that of the service. The client corrects it by the
    /// answer's date. Nothing was done.
    ClockSkewed,
    /// AWS does not accept the credentials.
    CredentialsRefused,
    /// The credentials are accepted, and do not permit the call.
    AccessDenied,
    /// The stream's KMS key is disabled, deleted, or not permitted to the caller.
    KmsKeyUnusable,
    /// The stream, shard, table or index does not exist.
    NotFound,
    /// The request is refused for what it holds.
    Rejected,
    /// The endpoint does not know the operation.
    Unsupported,
}

impl RetryClass {
    /// Looks up an error code. `None`: the table does not have it.
    pub fn of(code: &str) -> Option<Self> {
        let class = match code {
            "ProvisionedThroughputExceededException" => Self::Throttled,
            "BandwidthLimitExceeded"
            | "LimitExceededException"
            | "RequestLimitExceeded"
            | "RequestThrottled"
            | "RequestThrottledException"
            | "SlowDown"
            | "ThrottledException"
            | "Throttling"
            | "ThrottlingException"
            | "TooManyRequestsException" => Self::RequestThrottled,
            "InternalFailure"
            | "InternalFailureException"
            | "InternalServerError"
            | "RequestAbortedException"
            | "RequestTimeout"
            | "RequestTimeoutException"
            | "ServiceUnavailable"
            | "ServiceUnavailableException" => Self::ServiceFailed,
            "ReplicatedWriteConflictException"
            | "ResourceInUseException"
            | "TransactionConflictException"
            | "TransactionInProgressException" => Self::Conflict,
            "ExpiredIteratorException" | "ExpiredNextTokenException" => Self::TokenExpired,
            "ExpiredToken"
            | "ExpiredTokenException"
            | "InvalidSignatureException"
            | "SignatureDoesNotMatch" => Self::SignatureExpired,
            "RequestExpired" | "RequestInTheFuture" | "RequestTimeTooSkewed" => Self::ClockSkewed,
            "IncompleteSignature"
            | "IncompleteSignatureException"
            | "InvalidClientTokenId"
            | "MissingAuthenticationToken"
            | "MissingAuthenticationTokenException"
            | "OptInRequired"
            | "UnrecognizedClientException" => Self::CredentialsRefused,
            "AccessDenied"
            | "AccessDeniedException"
            | "NotAuthorized"
            | "UnauthorizedOperation" => Self::AccessDenied,
            "KMSAccessDeniedException"
            | "KMSDisabledException"
            | "KMSInvalidStateException"
            | "KMSNotFoundException"
            | "KMSOptInRequired" => Self::KmsKeyUnusable,
            "KMSThrottlingException" => Self::KmsThrottled,
            code if code.starts_with("KMS") => Self::KmsFailed,
            "ResourceNotFoundException" => Self::NotFound,
            "ConditionalCheckFailedException"
            | "DryRunOperationException"
            | "InvalidArgumentException"
            | "InvalidEndpointException"
            | "ItemCollectionSizeLimitExceededException"
            | "MalformedHttpRequestException"
            | "RequestEntityTooLarge"
            | "RequestEntityTooLargeException"
            | "SerializationException"
            | "ValidationError"
            | "ValidationException" => Self::Rejected,
            "UnknownOperationException" => Self::Unsupported,
            _ => return None,
        };
        Some(class)
    }

    /// Whether the caller asks too much of a shard, a stream, a table, the account or the KMS key.
    pub fn is_throttle(self) -> bool {
        matches!(self, Self::Throttled | Self::RequestThrottled | Self::KmsThrottled)
    }

    /// Whether AWS KMS answered in place of the service.
    pub fn is_kms(self) -> bool {
        matches!(self, Self::KmsThrottled | Self::KmsFailed | Self::KmsKeyUnusable)
    }

    /// Whether the service's message may quote the request: it does so where it refuses a value.
    pub fn may_quote_request(self) -> bool {
        self == Self::Rejected
    }
}

#[cfg(test)]
mod tests {
    use super::RetryClass::{self, *};

    #[test]
    fn documented_codes_have_their_class() {
        for (code, class) in [
            // Kinesis Data Streams: PutRecords, GetRecords, GetShardIterator.
            ("ProvisionedThroughputExceededException", Throttled),
            ("KMSThrottlingException", KmsThrottled),
            ("KMSAccessDeniedException", KmsKeyUnusable),
            ("KMSDisabledException", KmsKeyUnusable),
            ("KMSInvalidStateException", KmsKeyUnusable),
            ("KMSNotFoundException", KmsKeyUnusable),
            ("KMSOptInRequired", KmsKeyUnusable),
            ("ExpiredIteratorException", TokenExpired),
            ("InvalidArgumentException", Rejected),
            ("ResourceNotFoundException", NotFound),
            ("AccessDeniedException", AccessDenied),
            ("InternalFailureException", ServiceFailed),
            ("DryRunOperationException", Rejected),
            // ListShards, DescribeStreamSummary.
            ("ExpiredNextTokenException", TokenExpired),
            ("LimitExceededException", RequestThrottled),
            ("ResourceInUseException", Conflict),
            // DynamoDB: CreateTable, UpdateTable, DescribeTable, GetItem, PutItem, UpdateItem, DeleteItem, Scan, Query.
            ("ConditionalCheckFailedException", Rejected),
            ("InternalServerError", ServiceFailed),
            ("InvalidEndpointException", Rejected),
            ("ItemCollectionSizeLimitExceededException", Rejected),
            ("ReplicatedWriteConflictException", Conflict),
            ("RequestLimitExceeded", RequestThrottled),
            ("ThrottlingException", RequestThrottled),
            ("TransactionConflictException", Conflict),
            ("TransactionInProgressException", Conflict),
            ("ValidationException", Rejected),
            ("SerializationException", Rejected),
            // The errors that all calls of both services have in common.
            ("InternalFailure", ServiceFailed),
            ("ServiceUnavailable", ServiceFailed),
            ("ServiceUnavailableException", ServiceFailed),
            ("RequestAbortedException", ServiceFailed),
            ("RequestTimeout", ServiceFailed),
            ("RequestTimeoutException", ServiceFailed),
            ("MalformedHttpRequestException", Rejected),
            ("RequestEntityTooLarge", Rejected),
            ("RequestEntityTooLargeException", Rejected),
            ("ValidationError", Rejected),
            ("UnknownOperationException", Unsupported),
            ("AccessDenied", AccessDenied),
            ("NotAuthorized", AccessDenied),
            ("UnauthorizedOperation", AccessDenied),
            // Throttles by other names, which the AWS SDK knows.
            ("BandwidthLimitExceeded", RequestThrottled),
            ("RequestThrottled", RequestThrottled),
            ("RequestThrottledException", RequestThrottled),
            ("SlowDown", RequestThrottled),
            ("ThrottledException", RequestThrottled),
            ("Throttling", RequestThrottled),
            ("TooManyRequestsException", RequestThrottled),
            // Signatures and credentials.
            ("ExpiredToken", SignatureExpired),
            ("ExpiredTokenException", SignatureExpired),
            ("InvalidSignatureException", SignatureExpired),
            ("SignatureDoesNotMatch", SignatureExpired),
            ("IncompleteSignature", CredentialsRefused),
            ("IncompleteSignatureException", CredentialsRefused),
            ("InvalidClientTokenId", CredentialsRefused),
            ("MissingAuthenticationToken", CredentialsRefused),
            ("MissingAuthenticationTokenException", CredentialsRefused),
            ("OptInRequired", CredentialsRefused),
            ("UnrecognizedClientException", CredentialsRefused),
            // The clock.
            ("RequestExpired", ClockSkewed),
            ("RequestInTheFuture", ClockSkewed),
            ("RequestTimeTooSkewed", ClockSkewed),
            // Codes of AWS KMS that are not documented.
            ("KMSSomethingNew", KmsFailed),
        ] {
            assert_eq!(RetryClass::of(code), Some(class), "{code}");
        }
    }

    #[test]
    fn the_code_of_a_proxy_is_not_known() {
        for code in ["", "SomethingNew", "UnknownError", "accessdeniedexception"] {
            assert_eq!(RetryClass::of(code), None, "{code}");
        }
    }

    #[test]
    fn only_a_refused_value_is_quoted() {
        assert!(Rejected.may_quote_request());
        for class in [Throttled, RequestThrottled, ServiceFailed, AccessDenied, NotFound] {
            assert!(!class.may_quote_request(), "{class:?}");
        }
    }
}
