//! Whether a shard, and the stream that its lease is of, are still there.

use std::sync::Arc;
use std::time::Duration;

use super::failure::{Failure, FailureKind};
use super::source::RetrievalError;
use super::stream_check::{StreamCheck, Unconfirmed};
use crate::config::OnRecreatedStream;
use crate::current_stream::Retention;
use crate::lease::StreamIdentity;

/// How long the service must say that there is no such stream. A stream that is created again, and one
/// that an answer misses, are there by then.
const STREAM_IS_GONE: Duration = Duration::from_secs(10);

const MISSING: &str = "the stream does not exist";
const RECREATED: &str =
    "the stream was deleted and created again, and the lease is not of the present stream";

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
    /// Shared with the other readers of the worker.
    check: Arc<StreamCheck>,
    shard_id: String,
    /// The stream that the lease is of, if the lease says so. Leases made by Java workers do not.
    of_lease: Option<StreamIdentity>,
    doubt: Doubt,
    /// Send time of the first request in an unbroken row of "no such stream" answers.
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
        check: Arc<StreamCheck>,
        shard_id: &str,
        of_lease: Option<StreamIdentity>,
    ) -> Self {
        Self {
            check,
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

    /// Whether the shard may be read. Asks the service only after a failure that leaves a doubt, and then
    /// together with the other readers that have one.
    ///
    /// # Errors
    /// It will never be read again.
    pub(super) async fn standing(&mut self) -> Result<Standing, RetrievalError> {
        let stream = self.stream_read();
        if !self.is_current(&stream) {
            return self.recreated();
        }
        if self.doubt == Doubt::None {
            return Ok(Standing::Sound);
        }
        let standing = self.ask().await?;
        // A shard sync may have replaced the stream while this reader waited: the answers are then about a
        // stream that the lease is not of.
        if !self.is_current(&stream) {
            return self.recreated();
        }
        if let Standing::Sound = standing {
            self.doubt = Doubt::None;
        }
        Ok(standing)
    }

    /// Asks the service about what is in doubt.
    async fn ask(&mut self) -> Result<Standing, RetrievalError> {
        if let Some(standing) = self.compare().await? {
            return Ok(standing);
        }
        if self.doubt == Doubt::Shard && self.check.lists(&self.shard_id).await == Some(false) {
            // The listing must not be that of a stream which was created meanwhile: the shard's end
            // would be checkpointed.
            return Ok(self.compare().await?.unwrap_or(Standing::ShardIsGone));
        }
        Ok(Standing::Sound)
    }

    /// How long the stream keeps its records.
    pub(super) async fn retention(&self) -> Result<Duration, Failure> {
        let stream = self.stream_read();
        let unconfirmed = match self.check.compare().await {
            Ok(Retention(retention)) if self.is_current(&stream) => return Ok(retention),
            // A shard sync replaced the stream while this reader waited.
            Ok(_) => Unconfirmed::Recreated,
            Err(unconfirmed) => unconfirmed,
        };
        Err(Failure::unusable(&match unconfirmed {
            Unconfirmed::Recreated => {
                // The shard sync ends the worker, or replaces the lease, by the settings.
                self.check.stream().doubt();
                RECREATED.to_owned()
            }
            Unconfirmed::Deleting | Unconfirmed::Missing { .. } => MISSING.to_owned(),
            Unconfirmed::Failed(cause) => cause,
        }))
    }

    /// The stream that the lease is of. If the lease does not say so, it is taken for one of the stream
    /// that the worker reads now.
    fn stream_read(&self) -> StreamIdentity {
        let of_lease = self.of_lease.clone();
        of_lease.unwrap_or_else(|| self.check.stream().identity())
    }

    fn is_current(&self, stream: &StreamIdentity) -> bool {
        self.check.stream().identity() == *stream
    }

    /// Compares the stream with the one that the lease is of. `None`: it is the same.
    async fn compare(&mut self) -> Result<Option<Standing>, RetrievalError> {
        match self.check.compare().await {
            Ok(_) => {
                self.missing_since = None;
                Ok(None)
            }
            Err(Unconfirmed::Recreated) => {
                self.missing_since = None;
                self.recreated().map(Some)
            }
            Err(Unconfirmed::Deleting) => Err(self.stream_deleted()),
            Err(Unconfirmed::Missing { asked }) => {
                let since = *self.missing_since.get_or_insert(asked);
                if asked.saturating_sub(since) >= STREAM_IS_GONE {
                    return Err(self.stream_deleted());
                }
                Ok(Some(not_known(MISSING)))
            }
            Err(Unconfirmed::Failed(cause)) => Ok(Some(not_known(&cause))),
        }
    }

    /// The lease is of a former stream, or of a later one than this worker knows.
    fn recreated(&self) -> Result<Standing, RetrievalError> {
        let stream = self.check.stream();
        // The shard sync ends the worker, or replaces the lease, by the settings.
        stream.doubt();
        match stream.on_recreated() {
            OnRecreatedStream::Error if self.is_current(&self.stream_read()) => {
                Err(RetrievalError::StreamRecreated { stream: self.check.name().to_owned() })
            }
            _ => Ok(not_known(RECREATED)),
        }
    }

    fn stream_deleted(&self) -> RetrievalError {
        RetrievalError::StreamDeleted { stream: self.check.name().to_owned() }
    }
}

fn not_known(text: &str) -> Standing {
    Standing::NotKnown(Failure::unusable(text))
}
