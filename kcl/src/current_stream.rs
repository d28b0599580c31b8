//! The identity of the stream that a worker reads. A stream that was deleted and created again under its name is
//! another stream: its shard ids may be the same, and checkpoints of the former stream do not apply to it.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::StreamStatus;
use kinesis_common::protocol;
use kinesis_common::stream_name::StreamName;
use kinesis_common::sync::Mutex;
use kinesis_common::timestamp::whole_millis;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::config::OnRecreatedStream;
use crate::lease::{CallError, CallErrorKind, StreamIdentity, classify};

/// Time for which shard syncs rely on a comparison that confirmed the stream. Comparisons of readers count, too.
/// If a reader has found another stream since, the next shard sync compares again.
///
/// The service answers 20 DescribeStreamSummary calls a second to the whole account.
const CHECK_LASTS: Duration = Duration::from_secs(10);

/// The stream that a worker reads, shared by all its tasks.
#[derive(Debug)]
pub(crate) struct CurrentStream {
    clock: Arc<dyn Clock>,
    /// The setting for a stream that was created again.
    pub(crate) on_recreated: OnRecreatedStream,
    known: Mutex<Known>,
    /// Notified when a task has reason to believe that the stream is another one now.
    doubted: Notify,
}

#[derive(Debug)]
struct Known {
    identity: StreamIdentity,
    /// When the service last confirmed it.
    checked: Duration,
    /// Leases of the stream before it may be left, of which some do not name their stream.
    is_starting_over: bool,
}

impl CurrentStream {
    /// `identity`: as the service has just reported it.
    pub(crate) fn new(
        identity: StreamIdentity,
        on_recreated: OnRecreatedStream,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            known: Mutex::new(Known { identity, checked: clock.now(), is_starting_over: false }),
            on_recreated,
            clock,
            doubted: Notify::new(),
        }
    }

    pub(crate) fn identity(&self) -> StreamIdentity {
        self.known.lock().identity.clone()
    }

    /// Changes the stream that the worker reads. Until [`started_over`](Self::started_over), its leases are not complete.
    pub(crate) fn replace(&self, identity: StreamIdentity) {
        let checked = self.clock.now();
        *self.known.lock() = Known { identity, checked, is_starting_over: true };
    }

    /// Notes that no lease of an earlier stream is left.
    pub(crate) fn started_over(&self) {
        self.known.lock().is_starting_over = false;
    }

    /// Whether leases of an earlier stream may be left.
    pub(crate) fn is_starting_over(&self) -> bool {
        self.known.lock().is_starting_over
    }

    /// Asks the shard sync to compare the stream at once.
    pub(crate) fn doubt(&self) {
        self.known.lock().checked = Duration::ZERO;
        self.doubted.notify_one();
    }

    /// Waits until a task asks for a comparison before the next shard sync is due.
    pub(crate) async fn doubted(&self) {
        self.doubted.notified().await;
    }

    /// True if the service confirmed the identity recently.
    pub(crate) fn is_fresh(&self) -> bool {
        let checked = self.known.lock().checked;
        !checked.is_zero() && self.clock.now().saturating_sub(checked) < CHECK_LASTS
    }

    /// Compares the stream that the service reports with the known one. Returns true if it is another one. An
    /// older stream comes from an answer that lags, and does not count.
    pub(crate) fn is_replaced_by(&self, found: &StreamIdentity) -> bool {
        let now = self.clock.now();
        let mut known = self.known.lock();
        let is_another = found.created > known.identity.created;
        if !is_another {
            known.checked = now;
        }
        is_another
    }
}

/// The stream of a name, as the service describes it now.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) identity: StreamIdentity,
    /// Time for which it keeps its records.
    pub(crate) retention: Duration,
    pub(crate) status: StreamStatus,
}

impl Found {
    pub(crate) fn is_deleting(&self) -> bool {
        self.status == StreamStatus::Deleting
    }
}

/// Asks the service which stream has the name now. `None`: no stream has it.
///
/// # Errors
/// The service did not say.
pub(crate) async fn find_stream(
    client: &Client,
    name: &StreamName,
) -> Result<Option<Found>, CallError> {
    let request =
        client.describe_stream_summary().set_stream_arn(name.arn()).set_stream_name(name.name());
    let output = match protocol::send(|| request.clone().send()).await {
        Ok(output) => output,
        Err(error) => return classify("DescribeStreamSummary", &error).unless_not_found(),
    };
    let Some(summary) = output.stream_description_summary else {
        let (kind, cause) = (CallErrorKind::Internal, "the answer has no summary".to_owned());
        return Err(CallError::new("DescribeStreamSummary", kind, cause));
    };
    let created = whole_millis(&summary.stream_creation_timestamp).unwrap_or_default();
    let hours = u64::try_from(summary.retention_period_hours).unwrap_or_default();
    Ok(Some(Found {
        identity: StreamIdentity {
            arn: summary.stream_arn,
            created: u64::try_from(created).unwrap_or_default(),
        },
        retention: Duration::from_secs(3600 * hours),
        status: summary.stream_status,
    }))
}
