//! Errors of the start of a worker.

use std::time::Duration;

use crate::lease::TableProblem;
use crate::sequence::SequenceNumber;

/// Error of the start of a worker. The start changed nothing that another worker relies on.
///
/// The text of each error contains its cause, so [`source`](std::error::Error::source) does not
/// repeat it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The stream does not exist in this account and region. The start does not wait for its creation.
    #[error(
        "stream {stream} does not exist: create it, or check its name, the account and the region"
    )]
    StreamNotFound {
        /// Name or ARN, as given.
        stream: String,
    },
    /// The stream is being deleted. (The start waits for a stream that is being created.)
    #[error("stream {stream} is {status}: create it again, or check its name")]
    StreamNotActive {
        /// Name or ARN, as given.
        stream: String,
        /// Status of the stream.
        status: String,
    },
    /// The consumer for enhanced fan-out is not registered, and the settings say not to register it.
    #[error(
        "stream {stream} has no consumer {consumer}: register it, or set FanOutConsumer::Register"
    )]
    ConsumerNotFound {
        /// Name of the consumer.
        consumer: String,
        /// Name or ARN of the stream, as given.
        stream: String,
    },
    /// The consumer for enhanced fan-out is one of another stream, or of a former stream of the name.
    #[error("consumer {consumer} is not one of stream {stream}: give the ARN of its own consumer")]
    ConsumerOfAnotherStream {
        /// ARN of the consumer.
        consumer: String,
        /// ARN of the stream.
        stream: String,
    },
    /// The SDK configuration names no region.
    #[error(
        "no AWS region is set for {service}: set AWS_REGION, a region in the profile, or one in the SdkConfig"
    )]
    NoRegion {
        /// `Kinesis` or `DynamoDB`.
        service: &'static str,
    },
    /// No credentials were found.
    #[error(
        "no AWS credentials were found for {service} ({cause}): configure a role, a profile or the \
         environment, and load the SdkConfig with aws_config"
    )]
    NoCredentials {
        /// `Kinesis` or `DynamoDB`.
        service: &'static str,
        /// Error of the credentials providers.
        cause: String,
    },
    /// AWS does not accept the credentials.
    #[error(
        "AWS refused the credentials for {service} ({cause}): check that they are current and belong \
         to the right account"
    )]
    CredentialsRefused {
        /// `Kinesis` or `DynamoDB`.
        service: &'static str,
        /// Error code and message of the service.
        cause: String,
    },
    /// The credentials do not permit a call.
    #[error(
        "the worker may not call {action} on {resource} ({cause}): allow it in the policy of its role"
    )]
    AccessDenied {
        /// Action as a policy names it, for example `dynamodb:PutItem`.
        action: String,
        /// Stream or table.
        resource: String,
        /// Error code and message of the service.
        cause: String,
    },
    /// The service did not answer within
    /// [`startup_timeout`](crate::ConsumerConfig::startup_timeout), on any try.
    #[error(
        "{service} did not answer {operation} in {tries} tries within {elapsed:.1?} ({cause}): check \
         the endpoint, the region and the network, or raise startup_timeout"
    )]
    NoAnswer {
        /// `Kinesis` or `DynamoDB`.
        service: &'static str,
        /// API call.
        operation: &'static str,
        /// Attempts of this step of the start, without the retries of the client.
        tries: u32,
        /// Time since the start began.
        elapsed: Duration,
        /// Last error.
        cause: String,
    },
    /// A step of the start did not succeed within
    /// [`startup_timeout`](crate::ConsumerConfig::startup_timeout): the service throttled or
    /// failed, or the stream, the table or its leases were not ready.
    #[error(
        "the start was given up at {operation} of {service}, after {tries} tries within {elapsed:.1?} \
         ({cause}): start again, or raise startup_timeout"
    )]
    TimedOut {
        /// `Kinesis` or `DynamoDB`.
        service: &'static str,
        /// API call.
        operation: &'static str,
        /// Attempts of this step of the start, without the retries of the client.
        tries: u32,
        /// Time since the start began.
        elapsed: Duration,
        /// Last error, or what was not ready.
        cause: String,
    },
    /// The service refused a call for another reason. It would refuse it again.
    #[error("{service} refused {operation} ({cause}): check the settings and the version")]
    Service {
        /// `Kinesis` or `DynamoDB`.
        service: &'static str,
        /// API call.
        operation: &'static str,
        /// Error code and message of the service.
        cause: String,
    },
    /// A table exists and cannot be used as it is.
    #[error("table {table} cannot be used: {problem}")]
    TableUnusable {
        /// Name of the table.
        table: String,
        /// What is wrong with the table, and what to do.
        problem: TableProblem,
    },
    /// The lease table belongs to an application on another stream.
    #[error(
        "table {table} holds the leases of stream {found}, not of {wanted}: \
         give each stream an application name of its own"
    )]
    TableOfAnotherStream {
        /// Name of the table.
        table: String,
        /// Stream whose leases it holds.
        found: String,
        /// Stream of this application.
        wanted: String,
    },
    /// The lease table belongs to a Java application on several streams.
    #[error(
        "table {table} holds the leases of an application on several streams, {found} among them: \
         give this application a name of its own, or set table.name"
    )]
    MultiStreamTable {
        /// Name of the table.
        table: String,
        /// One of those streams, as account:name:creation time.
        found: String,
    },
    /// The stream was deleted and created again since the leases were created.
    #[error(
        "stream {stream} was created again since table {table} was filled: its checkpoints do not \
         apply to the new stream; delete the table, take a new application name, or set \
         on_recreated_stream to start_over"
    )]
    StreamRecreated {
        /// ARN of the stream.
        stream: String,
        /// Name of the table.
        table: String,
    },
    /// [`initial_position`](crate::ConsumerConfig::initial_position) names shards that the stream does not list, and the
    /// application has no leases yet.
    #[error(
        "initial_position names shards that stream {stream} does not list: {}; correct or remove their names",
        .shard_ids.join(", ")
    )]
    UnknownShards {
        /// Name or ARN of the stream, as given.
        stream: String,
        /// The names.
        shard_ids: Vec<String>,
    },
    /// [`initial_position`](crate::ConsumerConfig::initial_position) has a sequence number that is before the first one
    /// of its shard, and the application has no leases yet.
    #[error(
        "initial_position has sequence number {position} for shard {shard_id}, whose records begin at {first}: \
         give a number of this shard"
    )]
    PositionNotInShard {
        /// The shard.
        shard_id: String,
        /// The sequence number.
        position: SequenceNumber,
        /// The first sequence number of the shard.
        first: SequenceNumber,
    },
    /// This version cannot take part in the fleet's mode, or does not know it.
    #[error("the fleet of table {table} is in state {state}: {what_to_do}")]
    UnsupportedFleet {
        /// Table that holds the state.
        table: String,
        /// State that was found.
        state: String,
        /// What to do.
        what_to_do: &'static str,
    },
    /// The thread of the coordination could not be started, or the runtime that was given for it
    /// has ended.
    #[error(
        "coordination has no runtime ({cause}): check the limits on threads and open files, and that a \
         runtime given to coordination_on() still runs"
    )]
    NoRuntime {
        /// What failed.
        cause: String,
    },
    /// An item that the start depends on cannot be read.
    #[error("table {table} cannot be used: {problem}")]
    CorruptItem {
        /// Name of the table.
        table: String,
        /// The item, what is wrong with it, and what to do.
        problem: String,
    },
}
