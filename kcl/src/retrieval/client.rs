//! The client that reads the stream.

use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::config::retry::{RetryConfig, RetryPartition};
use aws_sdk_kinesis::config::timeout::TimeoutConfig;

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
