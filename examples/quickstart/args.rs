//! The command line.

use std::path::PathBuf;

use clap::Parser;

/// Streams records through Kinesis and counts every one of them on the other side.
///
/// Without options it runs on an embedded AWS in this process: nothing to install, no account.
#[derive(Debug, Parser)]
#[command(name = "quickstart")]
pub(crate) struct Args {
    /// Records to stream: NDJSON (one object a line) or, by its ending, CSV with a header line.
    /// Default: 20,000 real flights that come with the example.
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,

    /// Field whose value is the partition key.
    #[arg(long, value_name = "FIELD", default_value = "origin")]
    pub(crate) key: String,

    /// How many records to send; the input is cycled. Default: each record once.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) records: Option<u64>,

    /// Shards of the stream that the example creates.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=500))]
    pub(crate) shards: i32,

    /// Consumer workers, each with its own clients, as if they were separate machines.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers: u16,

    /// Compress each aggregate with zstd. A Java consumer could not read it.
    #[arg(long)]
    pub(crate) compression: bool,

    /// Do not split a shard half-way.
    #[arg(long)]
    pub(crate) no_split: bool,

    /// Run against this Kinesis endpoint, such as an emulator's.
    #[arg(long, value_name = "URL", conflicts_with = "aws")]
    pub(crate) endpoint_url: Option<String>,

    /// DynamoDB endpoint, where it is not the same as `--endpoint-url`.
    #[arg(long, value_name = "URL", requires = "endpoint_url")]
    pub(crate) dynamodb_endpoint_url: Option<String>,

    /// Run on real AWS, with the default credential chain. It costs money: cents.
    #[arg(long)]
    pub(crate) aws: bool,

    /// Stream to use. One that exists is used as it is, neither split nor deleted; else the
    /// example creates it, and deletes it at the end.
    #[arg(long, value_name = "NAME")]
    pub(crate) stream: Option<String>,
}
