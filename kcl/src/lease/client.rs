//! The AWS clients of coordination: bounded attempts, a time limit for each attempt, and a retry quota that no other
//! client of the process can empty.
//!
//! Each client refreshes its credentials itself. If it shared them with a client on another runtime, it could wait
//! without limit for a refresh that a blocked runtime began. Each client also makes its own HTTP client, so its
//! connections are on the runtime of its first call.
//!
//! The time limit of an attempt covers the body of its answer, so the protection against stalled streams is off. It would
//! be one more timer for each call.

use std::time::Duration;

use aws_sdk_kinesis::config::retry::{RetryConfig, RetryPartition};
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{IdentityCache, StalledStreamProtectionConfig};

use crate::config::ConsumerConfig;

const RETRY_PARTITION: &str = "kcl-coordination";

/// The client of the lease table. Its three attempts may each take a quarter of the failover time, which leaves time
/// for another renewal before the fence falls.
pub(crate) fn for_leases(
    client: &aws_sdk_dynamodb::Client,
    config: &ConsumerConfig,
) -> aws_sdk_dynamodb::Client {
    let config = client
        .config()
        .to_builder()
        .retry_config(retries(Duration::from_millis(25), Duration::from_millis(250)))
        .retry_partition(RetryPartition::new(RETRY_PARTITION))
        .identity_cache(IdentityCache::lazy().build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(timeouts(config.dynamodb_attempt_timeout()));
    aws_sdk_dynamodb::Client::from_conf(config.build())
}

/// The client that lists shards.
pub(crate) fn for_shards(
    client: &aws_sdk_kinesis::Client,
    config: &ConsumerConfig,
) -> aws_sdk_kinesis::Client {
    let config = client
        .config()
        .to_builder()
        .retry_config(retries(Duration::from_millis(100), Duration::from_secs(2)))
        .retry_partition(RetryPartition::new(RETRY_PARTITION))
        .identity_cache(IdentityCache::lazy().build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .timeout_config(timeouts(config.kinesis_request_timeout));
    aws_sdk_kinesis::Client::from_conf(config.build())
}

/// Three attempts, with pauses that grow from `first` to `longest`.
fn retries(first: Duration, longest: Duration) -> RetryConfig {
    RetryConfig::standard()
        .with_max_attempts(3)
        .with_initial_backoff(first)
        .with_max_backoff(longest)
}

/// One time limit for each attempt, and for opening its connection.
fn timeouts(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(attempt).operation_attempt_timeout(attempt).build()
}
