//! Sender: the calls a producer makes, in its own types. `sdk.rs` makes them with the AWS SDK; tests script them.

pub(crate) mod connections;
pub(crate) mod sdk;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use kinesis_aggregation::{HashKey, HashKeyRange};
use kinesis_common::error_text::quotes_nothing;

use crate::error::Source;
use crate::retry::{self, ErrorClass};

/// One entry of a PutRecords request.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) data: Bytes,
    pub(crate) partition_key: Cow<'static, str>,
    pub(crate) explicit_hash_key: Option<HashKey>,
}

/// Which shards are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listing {
    /// Those that are open: one page for each thousand, however many closed ones the stream still has.
    Open,
    /// The closed ones as well.
    All,
}

/// A shard as ListShards tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shard {
    pub(crate) id: Arc<str>,
    pub(crate) range: HashKeyRange,
    pub(crate) is_open: bool,
}

/// What became of one entry.
#[derive(Debug, Clone)]
pub(crate) enum EntryOutcome {
    Written { shard_id: String, sequence_number: String },
    Refused { code: String, message: String },
}

/// A call that failed as a whole.
#[derive(Debug, Clone)]
pub(crate) struct CallError {
    pub(crate) kind: CallErrorKind,
    /// The service's code, or the name of the kind.
    pub(crate) code: Arc<str>,
    pub(crate) message: Arc<str>,
    pub(crate) may_have_been_written: bool,
    pub(crate) source: Option<Source>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallErrorKind {
    /// The service answered with an error whose code is known.
    Service,
    /// The answer is an error whose code is not known: of a proxy, a gateway or a firewall, or a new code of the service.
    Unknown {
        /// The HTTP status.
        status: u16,
        /// Whether the answer has an error code.
        has_code: bool,
    },
    /// There was nothing to sign the request with.
    NoCredentials,
    /// The source of the credentials failed.
    CredentialsUnavailable,
    /// No answer in time.
    Timeout,
    /// The connection could not be opened, or broke.
    Connection,
    /// An answer that makes no sense.
    Unusable,
}

impl CallError {
    pub(crate) fn unusable(message: &str) -> Self {
        Self {
            kind: CallErrorKind::Unusable,
            code: "UnusableAnswer".into(),
            message: message.into(),
            may_have_been_written: true,
            source: None,
        }
    }

    /// A call that was given up after `limit`.
    pub(crate) fn timed_out(limit: Duration) -> Self {
        Self {
            kind: CallErrorKind::Timeout,
            code: "Timeout".into(),
            message: format!("no answer within {limit:.1?}").into(),
            may_have_been_written: true,
            source: None,
        }
    }

    /// The message for a log: left out where it may quote what is in the request.
    pub(crate) fn message_for_log(&self) -> &str {
        match self.kind {
            CallErrorKind::Service if !quotes_nothing(&self.code) => "",
            _ => &self.message,
        }
    }

    /// Whether there is no stream of the name.
    pub(crate) fn is_stream_missing(&self) -> bool {
        retry::is_stream_missing(&self.code)
    }

    /// Whether the request was too large, for a proxy or the service.
    pub(crate) fn is_too_large(&self) -> bool {
        match self.kind {
            CallErrorKind::Service => {
                matches!(&*self.code, "RequestEntityTooLarge" | "RequestEntityTooLargeException")
            }
            CallErrorKind::Unknown { status, .. } => status == 413,
            _ => false,
        }
    }

    pub(crate) fn class(&self) -> ErrorClass {
        match self.kind {
            CallErrorKind::Service => retry::classify(&self.code),
            CallErrorKind::Unknown { status, .. } => retry::classify_status(status),
            _ => ErrorClass::Transient,
        }
    }

    /// Whether the call may have failed for what the request holds.
    pub(crate) fn may_be_for_content(&self) -> bool {
        match self.kind {
            // These tell of the moment, whatever the code.
            CallErrorKind::Unknown { status, .. } if retry::is_of_the_moment(status) => false,
            CallErrorKind::Service | CallErrorKind::Unknown { .. } => {
                retry::may_be_for_content(&self.code)
            }
            CallErrorKind::Unusable => true,
            // Without a connection, nothing of the request was seen.
            CallErrorKind::Timeout | CallErrorKind::Connection => self.may_have_been_written,
            CallErrorKind::NoCredentials | CallErrorKind::CredentialsUnavailable => false,
        }
    }
}

/// What DescribeStreamSummary tells.
#[derive(Debug, Clone)]
pub(crate) struct StreamDescription {
    pub(crate) status: String,
    pub(crate) is_usable: bool,
    /// Key and data, in bytes; never 0.
    pub(crate) max_record_size: Option<usize>,
    /// Whether the service chooses each record's shard, whatever its key.
    pub(crate) service_places_records: bool,
    /// Differs between streams of one name that follow each other; empty where that is not known.
    pub(crate) incarnation: String,
}

pub(crate) trait Service: Send + Sync {
    /// One attempt, which fails as timed out after `limit`. As many outcomes as entries.
    fn put_records(
        &self,
        entries: Vec<Entry>,
        limit: Duration,
    ) -> BoxFuture<'static, Result<Vec<EntryOutcome>, CallError>>;

    /// The shards of the stream that `listing` names.
    fn list_shards(&self, listing: Listing) -> BoxFuture<'static, Result<Vec<Shard>, CallError>>;

    fn describe(&self) -> BoxFuture<'static, Result<StreamDescription, CallError>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_failures_cannot_be_for_the_content() {
        let unknown = |status, has_code| CallErrorKind::Unknown { status, has_code };
        for (kind, may_have_been_written, may_be_for_content) in [
            (unknown(408, true), false, false),
            (unknown(425, false), false, false),
            (unknown(429, true), false, false),
            (unknown(400, true), false, true),
            (unknown(502, false), true, true),
            (CallErrorKind::Timeout, true, true),
            // The connection was not opened in time.
            (CallErrorKind::Timeout, false, false),
            (CallErrorKind::Connection, true, true),
            (CallErrorKind::Connection, false, false),
            (CallErrorKind::NoCredentials, false, false),
        ] {
            let error = CallError {
                kind,
                code: "SomethingNew".into(),
                message: "".into(),
                may_have_been_written,
                source: None,
            };
            assert_eq!(error.may_be_for_content(), may_be_for_content, "{error:?}");
        }
    }
}
