//! One fault: what it does, and when it strikes.

use std::time::Duration;

use super::Service;
use super::plan::{Call, Part};
use crate::clock::Timestamp;

/// What a fault does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// The request is refused for its rate: `ProvisionedThroughputExceededException`, or
    /// `LimitExceededException` for the control operations of Kinesis.
    Throttle,
    /// The request fails with HTTP 500, and nothing is done.
    InternalFailure,
    /// The request is refused with HTTP 503 and `ServiceUnavailable`, and nothing is done.
    Unavailable,
    /// The request is refused with HTTP 400 and this code, and nothing is done.
    Refuse {
        /// The error code the client sees.
        code: String,
    },
    /// The request waits this long before it is looked at.
    Delay(Duration),
    /// The connection is closed before the request is looked at: nothing is done.
    CutConnection,
    /// The request is carried out, then the connection is closed without an answer.
    ResponseLost,
    /// The request is carried out, and the connection is closed in the middle of the answer's body.
    CutResponse,
    /// The request is carried out, and what follows the first half of the answer's body is garbage.
    GarbledResponse,
    /// The request is carried out, and the answer's body takes a second for so many bytes.
    SlowResponse {
        /// At least 1.
        bytes_per_second: u64,
    },
    /// Entries of a batch are not carried out; the others are. In PutRecords they get this code; in
    /// BatchWriteItem and BatchGetItem, which have no codes, they come back as unprocessed.
    RefuseEntry {
        /// The error code the entry gets.
        code: String,
    },
    /// A query or scan of an index of DynamoDB sees the index as it was so long ago.
    ///
    /// The index is kept from when the first such fault is added; it never shows an older state than
    /// that, nor an older one than it has shown before.
    StaleIndex(Duration),
    /// An index that UpdateTable adds to a table of DynamoDB is `CREATING` for so long, and cannot be
    /// read before it is `ACTIVE`.
    SlowIndex(Duration),
    /// A write of DynamoDB whose condition fails does not show the item that failed it, though the
    /// request asks for it, as older versions of DynamoDB Local do not.
    NoOldItem,
}

impl FaultKind {
    /// Whether a call is one that this can happen to.
    pub(super) fn applies(&self, call: &Call<'_>) -> bool {
        match self {
            Self::RefuseEntry { .. } => call.batch,
            Self::StaleIndex(_) => call.asks.index_read,
            Self::SlowIndex(_) => call.asks.new_index,
            Self::NoOldItem => call.asks.old_item,
            _ => true,
        }
    }
}

/// A fault and when it strikes. Without conditions it strikes every request.
///
/// ```
/// use kinesis_testkit::Fault;
///
/// // The response to the third PutRecords on this stream is lost after the write.
/// let _ = Fault::response_lost().operation("PutRecords").resource("orders").skip(2).times(1);
/// // A fifth of all entries for one shard are refused.
/// let _ = Fault::refuse_entry("ProvisionedThroughputExceededException")
///     .shard("shardId-000000000001")
///     .probability(0.2);
/// ```
#[derive(Debug, Clone)]
#[must_use = "a fault strikes once it is added with `Faults::add`"]
pub struct Fault {
    pub(super) kind: FaultKind,
    pub(super) message: Option<String>,
    pub(super) service: Option<Service>,
    pub(super) operation: Option<String>,
    pub(super) resource: Option<String>,
    pub(super) shard: Option<String>,
    pub(super) probability: f64,
    pub(super) skip: u64,
    pub(super) times: Option<u64>,
    pub(super) after: Duration,
    pub(super) lasting: Option<Duration>,
}

impl Fault {
    /// A fault of any kind, without conditions.
    pub fn new(kind: FaultKind) -> Self {
        Self {
            kind,
            message: None,
            service: None,
            operation: None,
            resource: None,
            shard: None,
            probability: 1.0,
            skip: 0,
            times: None,
            after: Duration::ZERO,
            lasting: None,
        }
    }

    /// Refuses requests for their rate.
    pub fn throttle() -> Self {
        Self::new(FaultKind::Throttle)
    }

    /// Fails requests with HTTP 500.
    pub fn internal_failure() -> Self {
        Self::new(FaultKind::InternalFailure)
    }

    /// Refuses requests with HTTP 400 and this code.
    pub fn refuse(code: impl Into<String>) -> Self {
        Self::new(FaultKind::Refuse { code: code.into() })
    }

    /// Holds requests back.
    pub fn delay(by: Duration) -> Self {
        Self::new(FaultKind::Delay(by))
    }

    /// Closes the connection before a request is looked at.
    pub fn cut_connection() -> Self {
        Self::new(FaultKind::CutConnection)
    }

    /// Closes the connection after a request has been carried out.
    pub fn response_lost() -> Self {
        Self::new(FaultKind::ResponseLost)
    }

    /// Closes the connection in the middle of an answer, after the request has been carried out.
    pub fn cut_response() -> Self {
        Self::new(FaultKind::CutResponse)
    }

    /// Spoils the second half of an answer, after the request has been carried out.
    pub fn garbled_response() -> Self {
        Self::new(FaultKind::GarbledResponse)
    }

    /// Sends answers as a slow link does, after the request has been carried out.
    pub fn slow_response(bytes_per_second: u64) -> Self {
        Self::new(FaultKind::SlowResponse { bytes_per_second })
    }

    /// Refuses single entries of batches with this code.
    pub fn refuse_entry(code: impl Into<String>) -> Self {
        Self::new(FaultKind::RefuseEntry { code: code.into() })
    }

    /// Refuses everything with HTTP 503 for so long, on the clock of the services.
    ///
    /// With [`service`](Self::service) or [`operation`](Self::operation) it is kept to these, with
    /// [`after`](Self::after) it comes later.
    pub fn brownout(lasting: Duration) -> Self {
        Self::new(FaultKind::Unavailable).lasting(lasting)
    }

    /// Shows readers of indexes of DynamoDB the state of so long ago.
    pub fn stale_index(by: Duration) -> Self {
        Self::new(FaultKind::StaleIndex(by))
    }

    /// Makes a new index of DynamoDB take so long to become `ACTIVE`.
    pub fn slow_index(by: Duration) -> Self {
        Self::new(FaultKind::SlowIndex(by))
    }

    /// Hides the item that failed a condition of DynamoDB.
    pub fn no_old_item() -> Self {
        Self::new(FaultKind::NoOldItem)
    }

    /// The message of a [`Refuse`](FaultKind::Refuse) or [`RefuseEntry`](FaultKind::RefuseEntry), in place
    /// of testkit's own. Other kinds ignore it.
    pub fn message(self, message: impl Into<String>) -> Self {
        Self { message: Some(message.into()), ..self }
    }

    /// Only in this service.
    pub fn service(self, service: Service) -> Self {
        Self { service: Some(service), ..self }
    }

    /// Only in this operation, such as `PutRecords`.
    ///
    /// Each event that a subscription sends after SubscribeToShard is a call of its own here, of the
    /// operation `SubscribeToShardEvent`.
    pub fn operation(self, operation: impl Into<String>) -> Self {
        Self { operation: Some(operation.into()), ..self }
    }

    /// Only where this stream or table is touched, by name.
    pub fn resource(self, name: impl Into<String>) -> Self {
        Self { resource: Some(name.into()), ..self }
    }

    /// Only where this shard is touched. A PutRecords touches the shard of each of its entries.
    pub fn shard(self, shard_id: impl Into<String>) -> Self {
        Self { shard: Some(shard_id.into()), ..self }
    }

    /// Strikes with this probability, 0 to 1, drawn from the seed of the
    /// [builder](crate::LocalAwsBuilder::seed) for each request (or entry) that matches. Default: 1.
    pub fn probability(self, probability: f64) -> Self {
        Self { probability, ..self }
    }

    /// Lets the first `n` matching requests (or entries) pass. Default: 0.
    pub fn skip(self, n: u64) -> Self {
        Self { skip: n, ..self }
    }

    /// Strikes at most `n` times. Default: without end.
    pub fn times(self, n: u64) -> Self {
        Self { times: Some(n), ..self }
    }

    /// Strikes only once so much time has passed since it was added, on the clock of the services.
    /// Default: at once.
    pub fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }

    /// Strikes only for so long, from when it was added or from [`after`](Self::after). Default: without
    /// end.
    pub fn lasting(self, lasting: Duration) -> Self {
        Self { lasting: Some(lasting), ..self }
    }

    /// Whether it is to strike at all at this time.
    pub(super) fn is_due(&self, added: Timestamp, now: Timestamp) -> bool {
        let from = added.plus(self.after);
        from <= now && self.lasting.is_none_or(|lasting| now < from.plus(lasting))
    }

    pub(super) fn matches(&self, call: &Call<'_>, part: &Part) -> bool {
        fn met<T: PartialEq<U>, U>(condition: &Option<T>, value: Option<&U>) -> bool {
            condition.as_ref().is_none_or(|wanted| value.is_some_and(|value| wanted == value))
        }
        met(&self.service, Some(&call.service))
            && self.operation.as_deref().is_none_or(|wanted| wanted == call.operation)
            && met(&self.resource, part.resource.as_ref())
            && met(&self.shard, part.shard.as_ref())
    }
}
