//! What may have happened to a shard while it was not read: the stream was deleted or created again, the
//! shard is gone, or retention deleted records that were not read.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_smithy_types::DateTime;

use super::failure::{Failure, FailureKind};
use super::stream_check::{StreamCheck, Unconfirmed};
use super::trimmed::{Seen, TrimCheck, Trimmed};
use super::{Position, RawRecord, RetrievalError, Start};
use crate::clock::Clock;
use crate::config::{OnRecreatedStream, OnTrimmedGap};
use crate::current_stream::Retention;
use crate::health::ProblemKind;
use crate::lease::StreamIdentity;
use crate::metrics::Metric;
use crate::sequence::SequenceNumber;
use crate::snapshot::ShardStatus;

/// Time for which the service must say that there is no such stream. It covers the time between the deletion
/// and the new creation of a stream, and answers that miss a stream which exists.
const STREAM_IS_GONE: Duration = Duration::from_secs(10);
/// Time for which a gap is a problem of a shard that is read on.
const GAP_IS_SHOWN: Duration = Duration::from_secs(3600);

const MISSING: &str = "the stream does not exist";
const RECREATED: &str =
    "the stream was deleted and created again, and the lease is not of the present stream";

/// Whether a shard may be read.
#[derive(Debug)]
pub(super) enum Standing {
    /// It may be read.
    Sound,
    /// It must not be read before the service has answered. Ask again after a pause.
    NotKnown(Failure),
    /// The stream exists and does not list the shard.
    ShardIsGone,
}

/// Watches over one shard for its reader.
///
/// It asks the service about the shard and its stream when a read was refused. An iterator that is refused may
/// be one of a stream that was deleted and created again. A new iterator at the old position could then read
/// the new stream under the lease of the former one. A reader's first iterator is not asked about: until the
/// next shard sync, a shard that changed hands while the stream was created again may be read under its former
/// lease. Its records come again under the new one.
#[derive(Debug)]
pub(super) struct ShardWatch {
    /// Shared with the other readers of the worker.
    check: Arc<StreamCheck>,
    status: Arc<ShardStatus>,
    clock: Arc<dyn Clock>,
    /// The stream that the lease is of, if the lease says so. Leases made by Java workers do not.
    of_lease: Option<StreamIdentity>,
    doubt: Doubt,
    /// Send time of the first request in an unbroken row of "no such stream" answers.
    missing_since: Option<Duration>,
    /// What the next answer tells about retention.
    trim_check: Option<TrimCheck>,
    /// Time of the last report of a gap.
    gap_reported: Option<Duration>,
    on_trimmed_gap: OnTrimmedGap,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    None,
    /// The iterator or the position was refused.
    Stream,
    /// The shard, or the stream, was not found.
    Shard,
}

impl ShardWatch {
    pub(super) fn new(
        check: Arc<StreamCheck>,
        start: &Start,
        clock: Arc<dyn Clock>,
        on_trimmed_gap: OnTrimmedGap,
    ) -> Self {
        Self {
            check,
            status: Arc::clone(&start.status),
            clock,
            of_lease: start.stream.clone(),
            doubt: Doubt::None,
            missing_since: None,
            trim_check: match &start.position {
                Position::At(number) => {
                    Some(TrimCheck::at_checkpoint(number.clone(), start.read_to))
                }
                _ => None,
            },
            gap_reported: None,
            on_trimmed_gap,
        }
    }

    /// Notes that a read failed.
    pub(super) fn failed(&mut self, kind: FailureKind) {
        self.doubt = match kind {
            FailureKind::NotFound => Doubt::Shard,
            FailureKind::NewIterator | FailureKind::PositionRefused => Doubt::Stream,
            _ => return,
        };
    }

    /// Notes that a read was answered.
    pub(super) fn succeeded(&mut self) {
        self.missing_since = None;
        let is_old = |reported| self.clock.now().saturating_sub(reported) > GAP_IS_SHOWN;
        if self.gap_reported.is_some_and(is_old) && !self.stands_still() {
            let shard_id = self.status.shard_id();
            self.status.problems().recovered(ProblemKind::RecordsTrimmed, Some(shard_id));
            self.gap_reported = None;
        }
    }

    /// Whether the shard may be read. Asks the service only after a failure that leaves a doubt, in one call
    /// with the other readers that have a doubt.
    ///
    /// # Errors
    /// The shard will never be read again.
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
        if self.doubt == Doubt::Shard
            && self.check.lists(self.status.shard_id()).await == Some(false)
        {
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

    /// The stream that the lease is of. A lease that does not say so is taken for one of the stream that the
    /// worker reads now.
    fn stream_read(&self) -> StreamIdentity {
        let of_lease = self.of_lease.clone();
        of_lease.unwrap_or_else(|| self.check.stream().identity())
    }

    fn is_current(&self, stream: &StreamIdentity) -> bool {
        self.check.stream().identity() == *stream
    }

    /// Compares the stream with the one that the lease is of. `None`: they are the same.
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

    /// Demands that the next answer be checked for records that retention deleted behind `last`, the last
    /// record fetched. At `answered`, the service said that there are more records.
    pub(super) fn check_behind(&mut self, last: SequenceNumber, answered: SystemTime) {
        self.trim_check = Some(TrimCheck::behind(last, answered));
    }

    /// Finds out whether retention deleted records before they were read. `is_last`: the answer reached the
    /// tip, or the shard's end. `answered`: time of the answer by the service's clock.
    pub(super) async fn check_gap(
        &mut self,
        first: Option<&RawRecord>,
        is_last: bool,
        answered: Option<SystemTime>,
    ) -> Result<(), Failure> {
        let Some(check) = &self.trim_check else {
            return Ok(());
        };
        match check.see(first.map(|first| &first.sequence_number), is_last) {
            Seen::NotYet => return Ok(()),
            Seen::Sound => {}
            Seen::Gone => {
                // Without the service's time nothing can be told.
                let trimmed = match answered {
                    Some(now) => check.judge(now, self.retention().await?),
                    None => Trimmed::CannotBeTold,
                };
                match trimmed {
                    Trimmed::Nothing => {}
                    Trimmed::CannotBeTold => tracing::warn!(
                        shard_id = self.status.shard_id(),
                        checkpoint = %check.position(),
                        "the record of the checkpoint was deleted by retention; whether others were deleted before they were read cannot be told"
                    ),
                    Trimmed::Unread => self.report_gap(&check.clone(), first),
                }
            }
        }
        self.trim_check = None;
        Ok(())
    }

    fn report_gap(&mut self, check: &TrimCheck, next: Option<&RawRecord>) {
        let shard_id = self.status.shard_id();
        let since = match check.read_to() {
            Some(time) if time > SystemTime::UNIX_EPOCH => {
                format!(", those that arrived after {}", DateTime::from(time))
            }
            _ => String::new(),
        };
        let goes_on = match next {
            Some(next) => format!("the oldest record there is has number {}", next.sequence_number),
            None => "there is no record now".to_owned(),
        };
        let stops = match self.on_trimmed_gap {
            OnTrimmedGap::StopShard => {
                "; the shard stands still: to go on after the gap, set on_trimmed_gap to continue and \
                 restart the worker"
            }
            OnTrimmedGap::Continue => "",
        };
        let gap = format!(
            "retention deleted the records after number {}{since}, before they were read; {goes_on}{stops}",
            check.position()
        );
        tracing::error!(shard_id, gap, "records were lost to retention");
        self.status.measure(Metric::TrimmedGaps, 1.0);
        let problems = self.status.problems();
        problems.failed(ProblemKind::RecordsTrimmed, Some(shard_id), &gap);
        self.gap_reported = Some(self.clock.now());
    }

    /// There is a gap, and the settings say that no record behind it is delivered.
    pub(super) fn stands_still(&self) -> bool {
        self.gap_reported.is_some() && self.on_trimmed_gap == OnTrimmedGap::StopShard
    }
}

fn not_known(text: &str) -> Standing {
    Standing::NotKnown(Failure::unusable(text))
}
