//! Why a worker cannot start, or cannot go on.

use std::error::Error;
use std::sync::Arc;

/// Why a worker could not start. Nothing that another worker relies on was changed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The stream does not exist, in this account and region.
    #[error(
        "stream {stream} does not exist: create it, or check its name, the account and the region"
    )]
    StreamNotFound {
        /// Name or ARN, as given.
        stream: String,
    },
    /// The stream is being created or deleted.
    #[error("stream {stream} is {status}: wait until it is ACTIVE")]
    StreamNotActive {
        /// Name or ARN, as given.
        stream: String,
        /// Its status.
        status: String,
    },
    /// The credentials do not allow an operation.
    #[error("{service} refused {operation}: give the worker's role permission for it")]
    AccessDenied {
        /// `Kinesis` or `DynamoDB`.
        service: &'static str,
        /// The API call.
        operation: &'static str,
        /// What the client said.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// No credentials were found, or they could not be loaded.
    #[error(
        "no usable AWS credentials for {service}: configure a role, a profile or the environment"
    )]
    NoCredentials {
        /// `Kinesis` or `DynamoDB`.
        service: &'static str,
        /// What the client said.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The endpoint did not answer within the time limit, on any attempt.
    #[error("{service} did not answer {operation}: check the endpoint, the region and the network")]
    NoAnswer {
        /// `Kinesis` or `DynamoDB`.
        service: &'static str,
        /// The API call.
        operation: &'static str,
        /// What the client said.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The service answered with another error.
    #[error(
        "{service} failed {operation}: see the source; a retry may help if it is throttling or an internal failure"
    )]
    Service {
        /// `Kinesis` or `DynamoDB`.
        service: &'static str,
        /// The API call.
        operation: &'static str,
        /// What the client said.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The lease table exists and is not one, or cannot be used as it is.
    #[error("table {table} cannot be used: {problem}")]
    TableUnusable {
        /// The table.
        table: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The lease table belongs to an application on another stream.
    #[error(
        "table {table} holds the leases of stream {found}, not of {wanted}: \
         give each stream an application name of its own"
    )]
    TableOfAnotherStream {
        /// The table.
        table: String,
        /// The stream whose leases it holds.
        found: String,
        /// The stream asked for.
        wanted: String,
    },
    /// The lease table belongs to a Java application on several streams.
    #[error(
        "table {table} holds the leases of an application on several streams, {found} among them: \
         give this application a name of its own, or set table.name"
    )]
    MultiStreamTable {
        /// The table.
        table: String,
        /// One of its streams, as account:name:creation time.
        found: String,
    },
    /// The stream was deleted and created again since the leases were made.
    #[error(
        "stream {stream} was created again since table {table} was filled: its checkpoints mean \
         nothing to the new stream; delete the table, or take a new application name"
    )]
    StreamRecreated {
        /// The stream.
        stream: String,
        /// The table.
        table: String,
    },
    /// The fleet's mode is one that this version cannot take part in, or does not know.
    #[error("the fleet of table {table} is in state {state}: {what_to_do}")]
    UnsupportedFleet {
        /// The table that holds the state.
        table: String,
        /// The state found.
        state: String,
        /// What to do.
        what_to_do: &'static str,
    },
    /// The shards that the stream lists leave a gap in the hash key space.
    #[error(
        "the shards of stream {stream} do not cover all hash keys: a reshard may be in progress, start again"
    )]
    IncompleteShardList {
        /// Name or ARN, as given.
        stream: String,
    },
    /// Coordination's own thread, or the runtime given for it, cannot run.
    #[error(
        "coordination has no runtime: check the limits on threads and open files, and that a \
         runtime given to coordination_on() still runs"
    )]
    NoRuntime {
        /// What failed.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// An item that the start depends on cannot be read.
    #[error("an item of table {table} cannot be read: see the source, repair or delete the item")]
    CorruptItem {
        /// The table.
        table: String,
        /// Which item, and what is wrong with it.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
}

/// Why a running worker cannot go on.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerFailure {
    /// The lease table was deleted, or its index.
    #[error(
        "the lease table or its index is gone: it was deleted while workers run; restart them to create it anew"
    )]
    TableDeleted {
        /// What the client said.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The stream was deleted.
    #[error("the stream is gone: it was deleted while workers run")]
    StreamDeleted {
        /// What the client said.
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The fleet's mode changed to one that this version cannot take part in, or its state was moved to
    /// another table. The worker released its leases, or handed them over.
    #[error("the state of the fleet, in table {table}, is {state}: {what_to_do}")]
    FleetChanged {
        /// The table that held the state at the start.
        table: String,
        /// What was found.
        state: String,
        /// What to do.
        what_to_do: &'static str,
    },
    /// The runtime that coordination runs on ended: the one that was given to the builder was shut
    /// down, or the worker's own panicked.
    #[error("the runtime of the task {task} ended before the worker did: keep it running")]
    RuntimeEnded {
        /// Which task was under way.
        task: &'static str,
    },
    /// A task of the library panicked: a bug, please report it.
    #[error("the task {task} panicked: {message}; this is a bug, please report it")]
    Panicked {
        /// Which task.
        task: &'static str,
        /// The panic's message.
        message: String,
    },
}
