//! The stream that is read, and the client that reads it.

use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::{RetryConfig, RetryPartition};
use aws_sdk_kinesis::config::timeout::TimeoutConfig;

/// A stream by its name or its ARN.
#[derive(Debug, Clone)]
pub(super) struct StreamName(String);

impl StreamName {
    pub(super) fn new(name_or_arn: &str) -> Self {
        Self(name_or_arn.to_owned())
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn arn(&self) -> Option<String> {
        self.0.starts_with("arn:").then(|| self.0.clone())
    }

    pub(super) fn name(&self) -> Option<String> {
        self.arn().is_none().then(|| self.0.clone())
    }
}

/// A client like `client` whose every call has a time limit and is attempted once: the retries are
/// ours.
pub(super) fn client_for_reads(client: &Client, timeout: Duration) -> Client {
    let timeouts = TimeoutConfig::builder()
        .operation_attempt_timeout(timeout)
        .operation_timeout(timeout)
        .build();
    let config = client
        .config()
        .to_builder()
        .retry_config(RetryConfig::disabled())
        .retry_partition(RetryPartition::new("kcl-reads"))
        .timeout_config(timeouts)
        .build();
    Client::from_conf(config)
}
