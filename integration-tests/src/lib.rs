//! End to end, on the embedded AWS, with real processes, counted by ids.

pub mod consumer;
pub mod mixed_fleet;
pub mod reshard;
pub mod rolling_stop;
pub mod scenario;
pub mod stopped_server;
mod worker_process;
pub mod workload;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::SdkConfig;

/// Any error; these programs only show it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The README's examples compile.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// Those of testkit's README, which need the consumer too, run.
#[cfg(doctest)]
#[doc = include_str!("../../testkit/README.md")]
struct TestkitReadme;

/// A configuration for the embedded AWS of another process.
pub fn sdk_config(url: &str) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(aws_sdk_kinesis::config::BehaviorVersion::v2026_01_12())
        .region(aws_sdk_kinesis::config::Region::from_static("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::from_keys(
            "test", "test", None,
        )))
        .endpoint_url(url)
        .build()
}
