//! Errors of building a producer.

use std::time::Duration;

use crate::config::InvalidConfig;

/// Error of building a producer.
///
/// The text of each error contains its cause, so `source` does not repeat it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The configuration is wrong; all problems are listed.
    #[error(transparent)]
    InvalidConfig(#[from] InvalidConfig),
    /// The stream does not exist in this account and region. A stream that is created a moment later is not waited for.
    #[error(
        "stream {stream:?} does not exist: create it, or check the name, the region and the account"
    )]
    StreamNotFound {
        /// The name or ARN asked for.
        stream: String,
    },
    /// The stream is being deleted. (One that is being created is waited for.)
    #[error("stream {stream:?} is {status}: create it again, or check the name")]
    StreamNotActive {
        /// The name or ARN asked for.
        stream: String,
        /// Its status.
        status: String,
    },
    /// The SDK configuration names no region.
    #[error(
        "no AWS region is set: set AWS_REGION, a region in the profile, or one in the `SdkConfig`"
    )]
    NoRegion,
    /// No credentials were found.
    #[error(
        "no AWS credentials were found ({cause}): configure a role, a profile or the environment, and load the `SdkConfig` with `aws_config`"
    )]
    NoCredentials {
        /// The error of the credential providers.
        cause: String,
    },
    /// Credentials were found, and AWS does not accept them.
    #[error(
        "AWS refused the credentials ({cause}): check that they are current and belong to the right account"
    )]
    CredentialsRefused {
        /// The service's error code.
        code: String,
        /// Code and message.
        cause: String,
    },
    /// The endpoint did not answer within [`startup_timeout`](crate::ProducerConfig::startup_timeout), on any try.
    #[error(
        "Kinesis did not answer {operation} in {tries} tries within {elapsed:.1?} ({cause}): check the endpoint, the region and the network, or raise `startup_timeout`"
    )]
    EndpointUnreachable {
        /// The API call.
        operation: &'static str,
        /// Number of tries, without the client's own retries.
        tries: u32,
        /// Time since the start began.
        elapsed: Duration,
        /// The last error.
        cause: String,
    },
    /// The start did not succeed within [`startup_timeout`](crate::ProducerConfig::startup_timeout):
    /// Kinesis throttled or failed, or the stream was being created.
    #[error(
        "the start was given up at {operation} of Kinesis, after {tries} tries within {elapsed:.1?} ({cause}): start again, or raise `startup_timeout`"
    )]
    TimedOut {
        /// The API call.
        operation: &'static str,
        /// Number of tries, without the client's own retries.
        tries: u32,
        /// Time since the start began.
        elapsed: Duration,
        /// The last error, or the state of the stream.
        cause: String,
    },
    /// [`RecordOrdering::PerPartitionKey`](crate::RecordOrdering::PerPartitionKey) cannot be kept.
    #[error("ordered mode is not possible on stream {stream:?}: {reason}")]
    OrderingUnavailable {
        /// The name or ARN asked for.
        stream: String,
        /// The reason.
        reason: &'static str,
    },
    /// Kinesis refused a call for another reason, and would again.
    #[error("Kinesis refused {operation} ({code}: {message}): check the stream and the version")]
    Service {
        /// The API call.
        operation: &'static str,
        /// The service's error code.
        code: String,
        /// The service's message.
        message: String,
    },
}

impl BuildError {
    /// Whether building again later may succeed without a change.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::StreamNotActive { .. } | Self::EndpointUnreachable { .. } | Self::TimedOut { .. }
        )
    }
}
