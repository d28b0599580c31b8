//! How the AWS clients of coordination are set: bounded attempts, a time limit for each, a retry
//! quota that no other client of the process can empty, and credentials that no task on another
//! runtime refreshes for them: who waits for a refresh that a blocked runtime began waits without limit.
//! Made without an HTTP client, each has connections of its own, on the runtime of its first call.

use std::time::Duration;

use crate::config::ConsumerConfig;

const ATTEMPTS: u32 = 3;
const INITIAL_BACKOFF: Duration = Duration::from_millis(25);
const MAX_BACKOFF: Duration = Duration::from_millis(250);
const RETRY_PARTITION: &str = "kcl-coordination";

/// The client of the lease table. Three attempts within a quarter of the failover time each leave
/// room for another renewal before the fence falls.
pub(crate) fn for_leases(
    client: &aws_sdk_dynamodb::Client,
    config: &ConsumerConfig,
) -> aws_sdk_dynamodb::Client {
    use aws_sdk_dynamodb::config::IdentityCache;
    use aws_sdk_dynamodb::config::retry::{RetryConfig, RetryPartition};
    use aws_sdk_dynamodb::config::timeout::TimeoutConfig;

    let attempt = config.dynamodb_attempt_timeout();
    aws_sdk_dynamodb::Client::from_conf(
        client
            .config()
            .to_builder()
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(ATTEMPTS)
                    .with_initial_backoff(INITIAL_BACKOFF)
                    .with_max_backoff(MAX_BACKOFF),
            )
            .retry_partition(RetryPartition::new(RETRY_PARTITION))
            .identity_cache(IdentityCache::lazy().build())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(attempt)
                    .operation_attempt_timeout(attempt)
                    .build(),
            )
            .build(),
    )
}

/// The client that lists shards.
pub(crate) fn for_shards(
    client: &aws_sdk_kinesis::Client,
    config: &ConsumerConfig,
) -> aws_sdk_kinesis::Client {
    use aws_sdk_kinesis::config::IdentityCache;
    use aws_sdk_kinesis::config::retry::{RetryConfig, RetryPartition};
    use aws_sdk_kinesis::config::timeout::TimeoutConfig;

    aws_sdk_kinesis::Client::from_conf(
        client
            .config()
            .to_builder()
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(ATTEMPTS)
                    .with_initial_backoff(INITIAL_BACKOFF * 4)
                    .with_max_backoff(Duration::from_secs(2)),
            )
            .retry_partition(RetryPartition::new(RETRY_PARTITION))
            .identity_cache(IdentityCache::lazy().build())
            .timeout_config(
                TimeoutConfig::builder()
                    .connect_timeout(config.kinesis_request_timeout)
                    .operation_attempt_timeout(config.kinesis_request_timeout)
                    .build(),
            )
            .build(),
    )
}
