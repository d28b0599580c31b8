//! What Kinesis and DynamoDB do, as far as a producer or consumer relies on it: a table of cases that
//! runs on any endpoint.
//!
//! A case knows nothing of who answers it: it gets a client of the SDK and a way to name streams or
//! tables that no one else has. So that our own fake stays honest, the same cases run on testkit and
//! on fakes that others wrote.

mod capacity;
mod case;
mod check;
mod consumers;
mod dynamodb;
mod fan_out;
mod filters;
mod hash_keys;
mod index;
mod items;
mod iterators;
mod kinesis;
mod known;
mod legacy;
mod list_shards;
mod put;
mod put_limits;
mod query;
mod read;
mod report;
mod reshard;
mod retention;
mod scaling;
mod scan;
mod streams;
mod tables;
mod tags;
mod transactions;
mod values;
mod write_conditions;

use std::process::ExitCode;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_kinesis::config::retry::RetryConfig;
use aws_sdk_kinesis::config::timeout::TimeoutConfig;
use aws_sdk_kinesis::config::{BehaviorVersion, Region};
use aws_types::SdkConfig;
use clap::{Parser, ValueEnum};
use kinesis_common::protocol::Wire;

use self::case::{Case, Targets};
use self::known::Emulator;
use self::report::Report;

/// Runs the conformance suite on an endpoint of Kinesis, of DynamoDB, or both, and ends with
/// `N passed, N failed`; the exit status is 1 if a case failed.
///
/// Region and credentials are made up: it is meant for emulators. A case gets streams and tables of
/// its own, and deletes them at its end.
#[derive(Debug, Parser)]
struct Args {
    /// Where Kinesis is; without it, its cases are not run.
    #[arg(long, value_name = "URL")]
    kinesis: Option<String>,
    /// Where DynamoDB is; without it, its cases are not run.
    #[arg(long, value_name = "URL")]
    dynamodb: Option<String>,
    /// How requests to Kinesis are written.
    #[arg(long, value_enum, default_value = "json")]
    wire: Encoding,
    /// Expect the known differences of this emulator: a case that is listed for it must fail, or is
    /// not run where it takes too long. Can be given more than once.
    #[arg(long, value_name = "EMULATOR")]
    known: Vec<Emulator>,
    /// Run only the cases whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Seconds a case may take before it fails.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    limit: u64,
    /// How many cases run at once.
    #[arg(long, value_name = "CASES", default_value_t = 8)]
    jobs: usize,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Encoding {
    /// In JSON, as the AWS SDK for Rust does it.
    Json,
    /// In CBOR, as `kpl` and `kcl` do it. Operations that they do not call are in JSON.
    Cbor,
}

impl From<Encoding> for Wire {
    fn from(encoding: Encoding) -> Self {
        match encoding {
            Encoding::Json => Self::Json,
            Encoding::Cbor => Self::Cbor,
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let targets = Targets {
        wire: args.wire.into(),
        kinesis: args.kinesis.as_deref().map(config),
        dynamodb: args.dynamodb.as_deref().map(config),
    };
    let known = args.known.iter().flat_map(|emulator| emulator.differences());
    let mut report = Report::new(known.copied().collect());
    let only = args.only.as_deref().unwrap_or_default();
    let mut cases = Vec::new();
    for (service, there, all) in [
        ("Kinesis", targets.kinesis.is_some(), kinesis_cases()),
        ("DynamoDB", targets.dynamodb.is_some(), dynamodb_cases()),
    ] {
        let chosen = all.into_iter().filter(|case| case.name.contains(only));
        if there {
            cases.extend(chosen.filter(|case| report.asks_for(case)));
        } else {
            println!("not run: {} cases of {service}: no URL", chosen.count());
        }
    }
    let limit = Duration::from_secs(args.limit);
    case::run(cases, &targets, limit, args.jobs, |outcome| {
        report.add(outcome);
    })
    .await;
    report.conclude()
}

fn kinesis_cases() -> Vec<Case> {
    [
        streams::cases(),
        retention::cases(),
        tags::cases(),
        list_shards::cases(),
        filters::cases(),
        put::cases(),
        put_limits::cases(),
        hash_keys::cases(),
        iterators::cases(),
        read::cases(),
        reshard::cases(),
        scaling::cases(),
        consumers::cases(),
        fan_out::cases(),
    ]
    .concat()
}

fn dynamodb_cases() -> Vec<Case> {
    [
        tables::cases(),
        values::cases(),
        items::cases(),
        write_conditions::cases(),
        legacy::cases(),
        index::cases(),
        query::cases(),
        scan::cases(),
        capacity::cases(),
        transactions::cases(),
    ]
    .concat()
}

fn config(url: &str) -> SdkConfig {
    let credentials = Credentials::new("any", "any", None, None, "conformance");
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(5))
        .operation_attempt_timeout(Duration::from_secs(30));
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::from_static("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .timeout_config(timeouts.build())
        // A case sees each answer.
        .retry_config(RetryConfig::disabled())
        .endpoint_url(url)
        .build()
}
