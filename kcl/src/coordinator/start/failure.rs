//! Why a step of the start failed, and whether it may succeed later.

use std::time::Duration;

use super::{DYNAMODB, KINESIS};
use crate::error::StartError;
use crate::lease::{CallError, CallErrorKind, LeaseStoreError, TableError};
use crate::stream::{ListShardsError, NamedShardsError, SyncError};

/// Why a step of the start failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The step may succeed later.
    #[error("{} of {} failed ({})", .0.operation, .0.service, .0.cause)]
    Transient(TransientFailure),
    /// The step would fail again.
    #[error(transparent)]
    Final(#[from] StartError),
}

/// A failure after which the step is tried again.
#[derive(Debug, Clone)]
pub(crate) struct TransientFailure {
    pub(crate) service: &'static str,
    pub(crate) operation: &'static str,
    pub(crate) cause: String,
    /// True if the service did not answer at all.
    pub(crate) no_answer: bool,
}

impl TransientFailure {
    /// The error of a start whose deadline is over, and whose last step failed this way.
    pub(super) fn at_deadline(self, tries: u32, elapsed: Duration) -> StartError {
        let Self { service, operation, cause, no_answer } = self;
        if no_answer {
            StartError::NoAnswer { service, operation, tries, elapsed, cause }
        } else {
            StartError::TimedOut { service, operation, tries, elapsed, cause }
        }
    }
}

impl Failure {
    /// The failure of a resource that is not ready yet.
    pub(crate) fn not_ready(
        service: &'static str,
        operation: &'static str,
        cause: impl Into<String>,
    ) -> Self {
        Self::Transient(TransientFailure {
            service,
            operation,
            cause: cause.into(),
            no_answer: false,
        })
    }

    /// The failure of a call. `resource`: the stream or table of the call.
    pub(crate) fn of_call(service: &'static str, resource: &str, error: &CallError) -> Self {
        let operation = error.operation;
        let cause = error.source.to_string();
        Self::Final(match error.kind {
            kind @ (CallErrorKind::Throttled
            | CallErrorKind::NoAnswer
            | CallErrorKind::Internal) => {
                return Self::Transient(TransientFailure {
                    service,
                    operation,
                    cause,
                    no_answer: kind == CallErrorKind::NoAnswer,
                });
            }
            CallErrorKind::AccessDenied => StartError::AccessDenied {
                action: action(service, operation),
                resource: resource.to_owned(),
                cause,
            },
            CallErrorKind::NoCredentials => StartError::NoCredentials { service, cause },
            CallErrorKind::CredentialsRefused => StartError::CredentialsRefused { service, cause },
            CallErrorKind::NotFound | CallErrorKind::Refused => {
                StartError::Service { service, operation, cause }
            }
        })
    }
}

/// An API call as a policy names it, for example `dynamodb:PutItem`.
fn action(service: &str, operation: &str) -> String {
    // Some operations carry their purpose: `UpdateItem (renew)`.
    let call = operation.split(' ').next().unwrap_or_default();
    format!("{}:{call}", service.to_lowercase())
}

/// The failure of a call to the table `table`.
///
/// Each table was found before its items are read. So a table that this call does not find was
/// deleted since, and the step is tried again: the start creates a lease table again, and another
/// table may be created again by its owner.
pub(in crate::coordinator) fn call_failed(table: &str, error: &CallError) -> Failure {
    if error.kind == CallErrorKind::NotFound {
        let cause = format!("table {table}: {}", error.source);
        return Failure::not_ready(DYNAMODB, error.operation, cause);
    }
    Failure::of_call(DYNAMODB, &format!("table {table}"), error)
}

/// The failure to find or to create the table `table`.
pub(super) fn table_failed(table: &str, error: TableError) -> Failure {
    match error {
        TableError::Unusable(problem) => {
            Failure::Final(StartError::TableUnusable { table: table.to_owned(), problem })
        }
        TableError::NotReady(text) => {
            let cause = format!("table {table}: {text}");
            Failure::not_ready(DYNAMODB, "DescribeTable", cause)
        }
        TableError::Call(error) => call_failed(table, &error),
    }
}

/// The failure of a call about `stream`.
pub(super) fn stream_failed(stream: &str, error: &CallError) -> Failure {
    match error.kind {
        CallErrorKind::NotFound => {
            Failure::Final(StartError::StreamNotFound { stream: stream.to_owned() })
        }
        _ => Failure::of_call(KINESIS, &format!("stream {stream}"), error),
    }
}

/// The failure of a call to the lease table `table`.
pub(super) fn store_failed(table: &str, error: LeaseStoreError) -> Failure {
    match error {
        LeaseStoreError::Call(error) => call_failed(table, &error),
        other => Failure::Final(StartError::CorruptItem {
            table: table.to_owned(),
            problem: other.to_string(),
        }),
    }
}

/// The failure of a shard sync between `stream` and the lease table `table`.
pub(super) fn sync_failed(stream: &str, table: &str, error: SyncError) -> Failure {
    match error {
        SyncError::Store(error) => store_failed(table, error),
        SyncError::List(ListShardsError::Call(error)) => stream_failed(stream, &error),
        // There are more leases than could be created from one reading of the table, or the owner of a lease of a
        // former stream writes it too often. Another sync goes on with the rest.
        error @ (SyncError::Stale | SyncError::StillWritten { .. }) => {
            Failure::not_ready(DYNAMODB, "PutItem", error.to_string())
        }
        SyncError::StreamRecreated { stream } => {
            Failure::Final(StartError::StreamRecreated { stream, table: table.to_owned() })
        }
        SyncError::NamedShards(NamedShardsError::Unknown { shard_ids }) => {
            let stream = stream.to_owned();
            Failure::Final(StartError::UnknownShards { stream, shard_ids })
        }
        SyncError::NamedShards(NamedShardsError::NotInShard { shard_id, position, first }) => {
            Failure::Final(StartError::PositionNotInShard { shard_id, position, first })
        }
        error @ (SyncError::List(ListShardsError::Malformed { .. } | ListShardsError::NoStream)
        | SyncError::StillOpen { .. }
        | SyncError::Incomplete) => Failure::not_ready(KINESIS, "ListShards", error.to_string()),
    }
}
