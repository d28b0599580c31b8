//! Errors of the worker and of user code.

mod processor;
mod start;

use kinesis_common::panic_message::panic_message;

pub use self::processor::ProcessorError;
pub(crate) use self::processor::{ErrorKind, FailedRecord};
pub use self::start::StartError;
use crate::config::ConfigError;

/// Error of [`SchedulerBuilder::build`](crate::SchedulerBuilder::build) and
/// [`consume`](crate::SchedulerBuilder::consume).
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The settings are invalid. The error names all problems.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The builder has neither a processor factory nor a handler.
    #[error(
        "the builder has no processor: call processor() or handler() on it, or consume() or consume_records() instead of build()"
    )]
    NoProcessor,
    /// The builder has a processor factory or a handler, which [`consume`](crate::SchedulerBuilder::consume) and
    /// [`consume_records`](crate::SchedulerBuilder::consume_records) do not call.
    #[error(
        "the builder has a processor, which a stream does not call: leave processor() and handler() out, or call build()"
    )]
    UnusedProcessor,
    /// The stream or the lease table cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Reason for which a worker ended without a planned stop.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// The stream was deleted while the worker ran.
    #[error("stream {stream} was deleted: delete its lease table too before it is created again")]
    StreamDeleted {
        /// Name or ARN, as given.
        stream: String,
    },
    /// The stream was deleted and created again while the worker ran.
    #[error(
        "stream {stream} was deleted and created again: its checkpoints do not apply to the new stream; \
         delete the lease table, take a new application name, or set on_recreated_stream to start_over"
    )]
    StreamRecreated {
        /// Name or ARN, as given.
        stream: String,
    },
    /// The lease table or its index was deleted while the worker ran.
    #[error(
        "the lease table or its index is gone ({cause}): restart the workers to create it again"
    )]
    TableDeleted {
        /// Call that failed, and the error code and message of the service.
        cause: String,
    },
    /// The fleet changed to a mode that this version does not support, or its state was moved to another table. The
    /// worker has released its leases or handed them over.
    #[error("the state of the fleet, in table {table}, is {state}: {what_to_do}")]
    FleetChanged {
        /// Table that held the state at the start.
        table: String,
        /// State that was found.
        state: String,
        /// What to do.
        what_to_do: &'static str,
    },
    /// A record processor returned a [fatal](ProcessorError::fatal) error.
    #[error("the processor of {shard_id} returned a fatal error: {cause}")]
    Processor {
        /// Shard whose processor it was.
        shard_id: String,
        /// The error and its causes.
        cause: String,
    },
    /// A task of the library panicked. This is a bug: please report it. Panics of processors are caught and retried.
    #[error("{task} panicked: {message}; this is a bug, please report it")]
    Panicked {
        /// Task that panicked.
        task: &'static str,
        /// Message of the panic.
        message: String,
    },
    /// [`WorkerHandle::abort`](crate::WorkerHandle::abort) was called.
    #[error("the worker was aborted: its leases expire after the failover time")]
    Aborted,
    /// The runtime of the processors or of the coordination ended before the worker did. The next owners of its shards
    /// start after the failover time, because blocking code of a processor may still be at work.
    #[error(
        "the runtime of {task} ended before the worker did: wait for shutdown() before it is dropped"
    )]
    RuntimeEnded {
        /// Task that was running.
        task: &'static str,
    },
}

impl WorkerError {
    /// Error of a task that ended without a result and was not aborted.
    pub(crate) fn from_join(task: &'static str, error: tokio::task::JoinError) -> Self {
        if error.is_cancelled() {
            return Self::RuntimeEnded { task };
        }
        let message = panic_message(&*error.into_panic());
        Self::Panicked { task, message }
    }
}
