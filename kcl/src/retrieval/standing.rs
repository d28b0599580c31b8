//! Whether a shard, and the stream that its lease is of, are still there.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kinesis::Client;

use super::failure::{Failure, FailureKind};
use super::source::RetrievalError;
use crate::clock::Clock;
use crate::config::OnRecreatedStream;
use crate::current_stream::{CurrentStream, Found, Retention, find_stream};
use crate::lease::StreamIdentity;
use crate::stream_name::StreamName;

/// How long the service must say that there is no such stream. A stream that is created again, and one
/// that an answer misses, are there by then.
const STREAM_IS_GONE: Duration = Duration::from_secs(10);

/// What is known of a shard before it is read.
#[derive(Debug)]
pub(super) enum Standing {
    /// Nothing speaks against a read.
    Sound,
    /// It must not be read now: ask again later.
    NotKnown(Failure),
    /// The stream exists and does not list the shard.
    ShardIsGone,
}

/// Asks the service about a shard and its stream when a read was refused.
///
/// An iterator that is refused may be one of a stream that was deleted and created again. A new iterator
/// at the old position could then read the new stream under the lease of the former one. A reader's first
/// iterator is not asked about: until the next shard sync, a shard that changed hands while the stream was
/// created again may be read under its former lease. Its records come again under the new one.
#[derive(Debug)]
pub(super) struct StreamWatch {
    client: Client,
    name: StreamName,
    stream: Arc<CurrentStream>,
    clock: Arc<dyn Clock>,
    shard_id: String,
    /// The stream that the lease is of, if the lease says so.
    of_lease: Option<StreamIdentity>,
    doubt: Doubt,
    /// Since when the service has said that there is no such stream.
    missing_since: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    None,
    /// The iterator or the position was refused.
    Stream,
    /// The shard, or the stream, was not found.
    Shard,
}

impl StreamWatch {
    pub(super) fn new(
        client: Client,
        name: StreamName,
        stream: Arc<CurrentStream>,
        clock: Arc<dyn Clock>,
        shard_id: &str,
        of_lease: Option<StreamIdentity>,
    ) -> Self {
        Self {
            client,
            name,
            stream,
            clock,
            shard_id: shard_id.to_owned(),
            of_lease,
            doubt: Doubt::None,
            missing_since: None,
        }
    }

    /// A read failed.
    pub(super) fn failed(&mut self, kind: FailureKind) {
        self.doubt = match kind {
            FailureKind::NotFound => Doubt::Shard,
            FailureKind::NewIterator | FailureKind::PositionRefused => Doubt::Stream,
            _ => return,
        };
    }

    /// A read was answered.
    pub(super) fn succeeded(&mut self) {
        self.missing_since = None;
    }

    /// Whether the shard may be read. Makes a call only after a failure that leaves a doubt.
    ///
    /// # Errors
    /// It will never be read again.
    pub(super) async fn standing(&mut self) -> Result<Standing, RetrievalError> {
        if !self.stream.has(self.of_lease.as_ref()) {
            return self.recreated();
        }
        if self.doubt == Doubt::None {
            return Ok(Standing::Sound);
        }
        if let Some(standing) = self.compare().await? {
            return Ok(standing);
        }
        if self.doubt == Doubt::Shard && self.is_listed().await == Some(false) {
            // The listing must not be that of a stream which was created meanwhile: the shard's end
            // would be checkpointed.
            return Ok(self.compare().await?.unwrap_or(Standing::ShardIsGone));
        }
        self.doubt = Doubt::None;
        Ok(Standing::Sound)
    }

    /// How long the stream keeps its records.
    pub(super) async fn retention(&self) -> Result<Duration, Failure> {
        match find_stream(&self.client, &self.name).await {
            Ok(Found::Stream(_, Retention(retention))) => Ok(retention),
            Ok(Found::Deleting | Found::Nothing) => {
                Err(Failure::unusable("the stream does not exist"))
            }
            Err(error) => Err(Failure::unusable(&error.to_string())),
        }
    }

    /// Compares the stream with the one that the lease is of. `None`: it is the same.
    async fn compare(&mut self) -> Result<Option<Standing>, RetrievalError> {
        match find_stream(&self.client, &self.name).await {
            Ok(Found::Stream(found, _)) => {
                self.missing_since = None;
                if self.stream.compare(&found) {
                    return self.recreated().map(Some);
                }
                Ok(None)
            }
            Ok(Found::Deleting) => Err(self.stream_deleted()),
            Ok(Found::Nothing) => {
                let now = self.clock.now();
                let since = *self.missing_since.get_or_insert(now);
                if now.saturating_sub(since) >= STREAM_IS_GONE {
                    return Err(self.stream_deleted());
                }
                Ok(Some(not_known("the stream does not exist")))
            }
            Err(error) => Ok(Some(not_known(&error.to_string()))),
        }
    }

    /// The lease is of a former stream, or of a later one than this worker knows.
    fn recreated(&self) -> Result<Standing, RetrievalError> {
        // The shard sync ends the worker, or replaces the lease, by the settings.
        self.stream.doubt();
        match self.stream.on_recreated() {
            OnRecreatedStream::Error if self.stream.has(self.of_lease.as_ref()) => {
                Err(RetrievalError::StreamRecreated {
                    stream: self.name.as_str().to_owned(),
                })
            }
            _ => Ok(not_known(
                "the stream was deleted and created again, and the lease is not of the present stream",
            )),
        }
    }

    fn stream_deleted(&self) -> RetrievalError {
        RetrievalError::StreamDeleted {
            stream: self.name.as_str().to_owned(),
        }
    }

    /// Whether the stream lists the shard; `None`: not known. A shard must not be taken for gone
    /// because one call said so: its end would be checkpointed.
    async fn is_listed(&self) -> Option<bool> {
        let mut next_token = None;
        loop {
            let request = self.client.list_shards().set_stream_arn(self.name.arn());
            let request = match next_token {
                None => request.set_stream_name(self.name.name()),
                token => request.set_next_token(token),
            };
            let output = request.send().await.ok()?;
            let mut shards = output.shards().iter();
            if shards.any(|shard| shard.shard_id() == self.shard_id) {
                return Some(true);
            }
            next_token = output.next_token;
            if next_token.is_none() {
                return Some(false);
            }
        }
    }
}

fn not_known(text: &str) -> Standing {
    Standing::NotKnown(Failure::unusable(text))
}
