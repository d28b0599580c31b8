//! Errors of sending and delivery.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::record::{InvalidRecord, UserRecord};

/// An error of the AWS SDK or below it, kept as a source without its type.
pub(crate) type Source = Arc<dyn Error + Send + Sync>;

/// Error of [`send`](crate::Producer::send) and [`try_send`](crate::Producer::try_send): the record was not accepted.
///
/// The error holds the record; [`into_record`](Self::into_record) returns it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The buffer has no room now (`try_send` only). Wait for a delivery, or use `send`.
    #[error(
        "the buffer has no room for {needed} bytes now: wait for deliveries, use `send`, or raise `max_buffered_bytes`"
    )]
    Full {
        /// The record.
        record: Box<UserRecord>,
        /// Bytes that the record takes in the buffer.
        needed: usize,
    },
    /// The record is larger than the limit of the stream, or than the whole buffer.
    #[error(
        "the record takes {actual} bytes, the limit is {limit}: split it, or raise the stream's maximum record size or `max_buffered_bytes`"
    )]
    TooLarge {
        /// The record.
        record: Box<UserRecord>,
        /// Most bytes of a record.
        limit: usize,
        /// Bytes of this record.
        actual: usize,
    },
    /// The record has more bytes of key and data than its [`Permit`](crate::Permit) was reserved for.
    #[error("the record takes {actual} bytes, its permit {reserved}: reserve more")]
    PermitTooSmall {
        /// The record.
        record: Box<UserRecord>,
        /// Bytes that were reserved.
        reserved: usize,
        /// Bytes of this record.
        actual: usize,
    },
    /// The record is invalid.
    #[error("{reason}")]
    Invalid {
        /// The record.
        record: Box<UserRecord>,
        /// The reason.
        reason: InvalidRecord,
    },
    /// The producer takes no more records.
    #[error("the producer takes no more records: {reason}")]
    Closed {
        /// The record.
        record: Box<UserRecord>,
        /// Why it stopped.
        reason: StopReason,
    },
}

impl SendError {
    /// The record that was not accepted.
    #[must_use]
    pub fn record(&self) -> &UserRecord {
        match self {
            Self::Full { record, .. }
            | Self::TooLarge { record, .. }
            | Self::PermitTooSmall { record, .. }
            | Self::Invalid { record, .. }
            | Self::Closed { record, .. } => record,
        }
    }

    /// Returns the record that was not accepted.
    #[must_use]
    pub fn into_record(self) -> UserRecord {
        match self {
            Self::Full { record, .. }
            | Self::TooLarge { record, .. }
            | Self::PermitTooSmall { record, .. }
            | Self::Invalid { record, .. }
            | Self::Closed { record, .. } => *record,
        }
    }

    /// Whether the same record may be accepted by this producer later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::PermitTooSmall { .. })
    }
}

/// Error of [`reserve`](crate::Producer::reserve): there is no permit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReserveError {
    /// A record of that size, in bytes of key and data, could not be sent.
    #[error(
        "a record of {actual} bytes could not be sent, the limit is {limit}: reserve less, or raise the stream's maximum record size or `max_buffered_bytes`"
    )]
    TooLarge {
        /// Most bytes of a record.
        limit: usize,
        /// Bytes that were asked for.
        actual: usize,
    },
    /// The producer takes no more records.
    #[error("the producer takes no more records: {reason}")]
    Closed {
        /// Why it stopped.
        reason: StopReason,
    },
}

/// Reason for which a producer stopped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StopReason {
    /// [`close`](crate::Producer::close) was called.
    #[error("it was closed")]
    Closed,
    /// The last handle was dropped without `close`.
    #[error(
        "it was dropped without `close`: call `close` and await it before dropping the last `Producer`"
    )]
    Dropped,
    /// The runtime of the producer's tasks was shut down.
    #[error("its runtime was shut down: close the producer before the runtime ends")]
    RuntimeShutDown,
    /// In ordered mode: the stream started to place records itself, regardless of their keys.
    #[error(
        "order per key cannot be kept: the stream's record distribution strategy is AUTO now: set it back to USER_PARTITION_KEY, or send without `RecordOrdering::PerPartitionKey`"
    )]
    OrderLost,
    /// A task of the producer panicked.
    #[error("a task of the producer panicked: {message}")]
    Panicked {
        /// The message of the panic.
        message: Arc<str>,
    },
}

/// A failed attempt to write a record. KPL: `Attempt`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// Time from the end of the previous attempt, or from acceptance, to the start of this one.
    pub delay: Duration,
    /// Duration of the request.
    pub duration: Duration,
    /// The service's error code, or `Timeout`, `Connection`, `NoCredentials`, `WrongShard`, `UnknownShard`. A code such
    /// as `Http403` is the status of an answer without an error code, for instance of a proxy.
    pub code: Arc<str>,
    /// The service's message.
    pub message: Arc<str>,
}

/// Reason for which a record failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FailureCause {
    /// The time to live passed before the record was delivered: its own, or `record_ttl`. The attempts say what stood
    /// in the way.
    #[error(
        "the time to live of {ttl:?} passed before the record was delivered (last: {last}): raise it or `record_ttl`, or see the attempts"
    )]
    Expired {
        /// The time to live that passed.
        ttl: Duration,
        /// Code and message of the last attempt, or what the record waited for.
        last: Arc<str>,
    },
    /// The service refused the record for its content, or a proxy refused it as too large: the request was split until
    /// the record was alone in it. Sending it again does not help unless the limit of the stream or the proxy is
    /// raised.
    #[error("the service refuses the record ({code}: {message})")]
    Rejected {
        /// The service's error code.
        code: Arc<str>,
        /// The service's message.
        message: Arc<str>,
    },
    /// The shard, or the stream, was full, and `fail_if_throttled` is set.
    #[error(
        "the stream has no room for the record now ({code}: {message}): send it again later, or unset `fail_if_throttled`"
    )]
    Throttled {
        /// The service's error code.
        code: Arc<str>,
        /// The service's message.
        message: Arc<str>,
    },
    /// An error that waiting does not cure: no such stream, no permission, refused credentials, a disabled KMS key.
    ///
    /// The producer believes such an answer if PutRecords has given no other answer for 10 s, or for half of
    /// `record_ttl` if that is less. It does not believe that the stream is missing while DescribeStreamSummary finds
    /// it. Until then the records are retried, and those whose time to live ends fail as [`Expired`](Self::Expired).
    /// Afterwards all sealed records that wait fail, and later records fail with the first such answer, until
    /// PutRecords answers otherwise.
    #[error(
        "the stream cannot be written to ({code}: {message}): check the stream, the role's kinesis:PutRecords, and the KMS key"
    )]
    Fatal {
        /// The service's error code.
        code: Arc<str>,
        /// The service's message.
        message: Arc<str>,
    },
    /// A [`Droppable`](crate::Priority::Droppable) record found the buffer too full, and gave way; or a
    /// `RecordSink` was dropped while its record waited for room. It was not sent.
    #[error(
        "the buffer was too full for a record that does not wait: send it again later, or raise `droppable_limit` or `max_buffered_bytes`"
    )]
    Dropped,
    /// Ordered mode: an earlier record of the same key failed after this one was accepted.
    #[error(
        "an earlier record of its key failed ({cause}): send that again, and this one after it"
    )]
    PredecessorFailed {
        /// Why the earlier one failed.
        cause: Arc<Self>,
    },
    /// The stream's record distribution strategy changed after the record was accepted, and the stream no longer
    /// accepts it.
    #[error("the stream's record distribution strategy changed: {0}")]
    StrategyChanged(InvalidRecord),
    /// The producer stopped before the record had an outcome.
    #[error("the producer stopped before the record had an outcome: {0}")]
    Abandoned(StopReason),
}

impl FailureCause {
    /// Name in metrics and logs: the service's code, or the kind of failure.
    pub(crate) fn code(&self) -> Arc<str> {
        match self {
            Self::Rejected { code, .. }
            | Self::Throttled { code, .. }
            | Self::Fatal { code, .. } => Arc::clone(code),
            Self::Expired { .. } => "Expired".into(),
            Self::Dropped => "Dropped".into(),
            Self::StrategyChanged(_) => "StrategyChanged".into(),
            Self::PredecessorFailed { .. } => "PredecessorFailed".into(),
            Self::Abandoned(_) => "Abandoned".into(),
        }
    }
}

/// Error of a [`Delivery`](crate::Delivery): the record was accepted and could not be delivered.
///
/// It is cheap to move. It holds the record, which can be sent again or stored elsewhere.
#[derive(Debug, Clone)]
pub struct DeliveryError(Box<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    record: Option<UserRecord>,
    failure: Arc<Failure>,
}

/// Failure that all members of an aggregate share.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) cause: FailureCause,
    pub(crate) attempts: Vec<Attempt>,
    /// Number of failed attempts, those not kept included.
    pub(crate) failures: u32,
    pub(crate) may_have_been_written: bool,
    pub(crate) source: Option<Source>,
}

impl Failure {
    pub(crate) fn without_attempts(cause: FailureCause) -> Self {
        let attempts = Vec::new();
        Self { cause, attempts, failures: 0, may_have_been_written: false, source: None }
    }
}

impl DeliveryError {
    pub(crate) fn new(record: Option<UserRecord>, failure: Arc<Failure>) -> Self {
        Self(Box::new(Inner { record, failure }))
    }

    /// Error of a record whose task is gone: whether it was written is unknown.
    pub(crate) fn abandoned(reason: StopReason) -> Self {
        let failure = Failure::without_attempts(FailureCause::Abandoned(reason));
        Self::new(None, Arc::new(Failure { may_have_been_written: true, ..failure }))
    }

    /// Error of a droppable record for which the buffer had no room.
    pub(crate) fn dropped(record: UserRecord) -> Self {
        Self::new(Some(record), Arc::new(Failure::without_attempts(FailureCause::Dropped)))
    }

    /// Reason for which the record failed.
    #[must_use]
    pub fn cause(&self) -> &FailureCause {
        &self.0.failure.cause
    }

    /// The record. It is `None` only if a panic, a dropped producer or the end of the runtime destroyed it.
    #[must_use]
    pub fn record(&self) -> Option<&UserRecord> {
        self.0.record.as_ref()
    }

    /// Returns the record; see [`record`](Self::record).
    #[must_use]
    pub fn into_record(self) -> Option<UserRecord> {
        self.0.record
    }

    /// Failed attempts, oldest first: all of them up to three, else the first and the latest two.
    #[must_use]
    pub fn attempts(&self) -> &[Attempt] {
        &self.0.failure.attempts
    }

    /// The error of the AWS SDK in the last attempt, if there was one: it holds the request id. Its debug text may
    /// quote the service's whole answer.
    #[must_use]
    pub fn sdk_error(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.0.failure.source.as_deref()
    }

    /// Whether sending the same record again may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.cause(),
            FailureCause::Expired { .. }
                | FailureCause::Throttled { .. }
                | FailureCause::Dropped
                | FailureCause::Abandoned(_)
                | FailureCause::PredecessorFailed { .. }
        )
    }

    /// Whether an attempt may have been written although it is not acknowledged: sending again may then duplicate.
    #[must_use]
    pub fn may_have_been_written(&self) -> bool {
        self.0.failure.may_have_been_written
    }
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; failed_attempts={} may_have_been_written={}",
            self.cause(),
            self.0.failure.failures,
            self.may_have_been_written()
        )
    }
}

/// The text contains the cause, so `source` does not repeat it.
impl Error for DeliveryError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_small_in_a_result() {
        // The functions of users return them: clippy warns of 128 bytes and more, and a large error slows the good
        // case, too.
        assert!(size_of::<SendError>() <= 64, "{}", size_of::<SendError>());
        assert!(size_of::<ReserveError>() <= 64);
        assert!(size_of::<DeliveryError>() <= 64);
        assert!(size_of::<crate::producer::BuildError>() < 128);
        assert!(size_of::<InvalidRecord>() <= 64);
        #[cfg(feature = "sink")]
        assert!(size_of::<crate::producer::SinkError>() <= 64);
    }
}
