//! End to end, on the embedded AWS, with real processes, counted by ids.

pub mod consumer;
pub mod mixed_fleet;
pub mod reshard;
pub mod rolling_stop;
pub mod scenario;
pub mod stopped_server;
mod worker_process;
pub mod workload;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::SdkConfig;
use tracing_subscriber::EnvFilter;

/// Any error; these programs only show it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// Logs to standard error what `RUST_LOG` asks for: by default, errors.
pub fn init_logs() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}

/// The exit code of a program whose run was good, or not, or failed with an error, which is printed.
pub fn exit_code(result: Result<bool, Error>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The examples of the README, of testkit's README and of the book compile. Those that are not `no_run` run.
///
/// `tests/docs.rs` checks that every page with Rust code is here.
#[cfg(doctest)]
mod examples {
    macro_rules! pages {
        ($($name:ident $path:literal;)*) => {
            $(#[doc = include_str!($path)] struct $name;)*
        };
    }

    pages! {
        Readme "../../README.md";
        Testkit "../../testkit/README.md";
        GettingStarted "../../docs/src/getting-started.md";
        Producer "../../docs/src/producer.md";
        Consumer "../../docs/src/consumer.md";
        Testing "../../docs/src/testing.md";
        Operations "../../docs/src/operations.md";
        MigratingFromKpl "../../docs/src/migrating-from-kpl.md";
    }
}

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
