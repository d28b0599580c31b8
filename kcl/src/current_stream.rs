//! Which stream a worker reads. A stream that was deleted and created again under its name is another
//! stream: shard ids may be the same, and checkpoints of the former stream mean nothing to it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::{StreamDescriptionSummary, StreamStatus};
use kinesis_common::stream_name::StreamName;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::config::OnRecreatedStream;
use crate::lease::{CallError, CallErrorKind, StreamIdentity, classify};

/// Time for which a comparison that confirmed the stream is enough for shard syncs. Comparisons of readers
/// count, too. A reader that has found another stream since makes the next shard sync compare again.
///
/// The service answers DescribeStreamSummary 20 times a second, to the whole account.
const CHECK_LASTS: Duration = Duration::from_secs(10);

/// The stream that a worker takes for the one of its name, shared by all its tasks.
#[derive(Debug)]
pub(crate) struct CurrentStream {
    clock: Arc<dyn Clock>,
    on_recreated: OnRecreatedStream,
    known: Mutex<Known>,
    /// A task has reason to believe that the stream is another one now.
    doubted: Notify,
}

#[derive(Debug)]
struct Known {
    identity: StreamIdentity,
    /// When the service last confirmed it.
    checked: Duration,
}

impl CurrentStream {
    /// `identity`: as the service has just told it.
    pub(crate) fn new(
        identity: StreamIdentity,
        on_recreated: OnRecreatedStream,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            known: Mutex::new(Known { identity, checked: clock.now() }),
            on_recreated,
            clock,
            doubted: Notify::new(),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is one assignment: a panic elsewhere cannot leave it half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn identity(&self) -> StreamIdentity {
        self.known().identity.clone()
    }

    /// What the settings say about a stream that was created again.
    pub(crate) fn on_recreated(&self) -> OnRecreatedStream {
        self.on_recreated
    }

    /// From now on the worker reads the stream of this identity.
    pub(crate) fn replace(&self, identity: StreamIdentity) {
        let checked = self.clock.now();
        *self.known() = Known { identity, checked };
    }

    /// Asks the shard sync to compare the stream now.
    pub(crate) fn doubt(&self) {
        self.known().checked = Duration::ZERO;
        self.doubted.notify_one();
    }

    /// Resolves when the stream is to be compared before the next shard sync is due.
    pub(crate) async fn doubted(&self) {
        self.doubted.notified().await;
    }

    /// Whether the service confirmed the identity a moment ago.
    pub(crate) fn is_fresh(&self) -> bool {
        let checked = self.known().checked;
        !checked.is_zero() && self.clock.now().saturating_sub(checked) < CHECK_LASTS
    }

    /// Compares what the service says now. A stream that is older than the known one comes from an
    /// answer that lags.
    pub(crate) fn compare(&self, found: &StreamIdentity) -> bool {
        let now = self.clock.now();
        let mut known = self.known();
        let is_another = found.created > known.identity.created;
        if !is_another {
            known.checked = now;
        }
        is_another
    }
}

/// How long a stream keeps its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retention(pub(crate) Duration);

/// The stream of a name, as the service knows it at the moment.
#[derive(Debug)]
pub(crate) enum Found {
    Stream(StreamIdentity, Retention),
    /// It is being deleted.
    Deleting,
    /// There is none.
    Nothing,
}

/// Asks the service which stream has the name now.
///
/// # Errors
/// The service did not say.
pub(crate) async fn find_stream(client: &Client, name: &StreamName) -> Result<Found, CallError> {
    let request =
        client.describe_stream_summary().set_stream_arn(name.arn()).set_stream_name(name.name());
    let output = match request.send().await {
        Ok(output) => output,
        Err(error) => {
            let error = classify("DescribeStreamSummary", &error);
            return match error.kind {
                CallErrorKind::NotFound => Ok(Found::Nothing),
                _ => Err(error),
            };
        }
    };
    Ok(match output.stream_description_summary {
        None => Found::Nothing,
        Some(summary) if summary.stream_status == StreamStatus::Deleting => Found::Deleting,
        Some(summary) => {
            let hours = u64::try_from(summary.retention_period_hours).unwrap_or_default();
            let retention = Retention(Duration::from_secs(3600 * hours));
            Found::Stream(identity_of(&summary), retention)
        }
    })
}

/// What tells a stream from an earlier or later one of its name.
pub(crate) fn identity_of(summary: &StreamDescriptionSummary) -> StreamIdentity {
    let created = summary.stream_creation_timestamp.to_millis();
    StreamIdentity {
        arn: summary.stream_arn.clone(),
        created: u64::try_from(created.unwrap_or_default()).unwrap_or_default(),
    }
}
