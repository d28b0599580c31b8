//! Detects that a stream was deleted or created again, that a shard is gone, and that retention deleted records
//! that were not read.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::failure::{Failure, FailureKind};
use super::stream_check::{StreamCheck, Unconfirmed};
use super::trimmed::{Gap, Seen, TrimCheck, Trimmed};
use super::{Position, RawRecords, Start};
use crate::clock::Clock;
use crate::config::{OnRecreatedStream, OnTrimmedGap};
use crate::error::WorkerError;
use crate::health::ProblemKind;
use crate::lease::StreamIdentity;
use crate::metrics::Metric;
use crate::sequence::SequenceNumber;
use crate::snapshot::ShardStatus;

/// Time over which every answer must say that the stream does not exist before it counts as deleted. It covers
/// the time between the deletion and the new creation of a stream, and wrong answers.
const STREAM_IS_GONE: Duration = Duration::from_secs(10);
/// Time for which a gap is reported as a problem of a shard that is read on.
const GAP_IS_SHOWN: Duration = Duration::from_secs(3600);

const MISSING: &str = "the stream does not exist";
const RECREATED: &str =
    "the stream was deleted and created again, and the lease is not of the present stream";

/// Whether a shard may be read.
#[derive(Debug)]
pub(super) enum Standing {
    /// It may be read.
    Sound,
    /// It must not be read before the service has answered. The reader asks again after a pause.
    NotKnown(Failure),
    /// The stream exists and does not list the shard.
    ShardIsGone,
}

/// Watches over one shard for its reader.
///
/// It asks the service about the shard and its stream when a read was refused. The refused iterator may be one of
/// a stream that was deleted and created again. A new iterator at the old position could then read the new stream
/// under the lease of the former one.
///
/// It does not ask before the first iterator of a reader. If the shard got a new owner while the stream was
/// created again, it may be read under its former lease until the next shard sync. Its records are delivered
/// again under the new lease.
#[derive(Debug)]
pub(super) struct ShardWatch {
    /// Shared with the other readers of the worker.
    check: Arc<StreamCheck>,
    status: Arc<ShardStatus>,
    clock: Arc<dyn Clock>,
    /// The stream that the lease names. Leases that Java workers created name none.
    of_lease: Option<StreamIdentity>,
    doubt: Doubt,
    /// Send time of the first request in an unbroken row of "no such stream" answers.
    missing_since: Option<Duration>,
    /// The check for deleted records that is due with the next answer.
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
        // A source before this one, under the same lease, may have reported a gap.
        let problem = start
            .status
            .problems()
            .find(ProblemKind::RecordsTrimmed, Some(start.status.shard_id()));
        let goes_on = on_trimmed_gap == OnTrimmedGap::Continue;
        let gap_reported = problem.filter(|_| goes_on).map(|_| clock.now());
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
                // The shard was not read for a while.
                Position::After(number) => {
                    start.read_to.map(|read_to| TrimCheck::after(number.clone(), read_to))
                }
                _ => None,
            },
            gap_reported,
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

    /// Returns whether the shard may be read. Asks the service only after a failure that leaves a doubt, in one
    /// call with the other readers that have a doubt.
    ///
    /// # Errors
    /// The stream was deleted, or created again.
    pub(super) async fn standing(&mut self) -> Result<Standing, WorkerError> {
        let stream = self.stream_read();
        if !self.is_current(&stream) {
            return self.recreated();
        }
        if self.doubt == Doubt::None {
            return Ok(Standing::Sound);
        }
        let standing = Box::pin(self.ask()).await?;
        // A shard sync may have replaced the stream while this reader waited. Then the answers are about another
        // stream than that of the lease.
        if !self.is_current(&stream) {
            return self.recreated();
        }
        if let Standing::Sound = standing {
            self.doubt = Doubt::None;
        }
        Ok(standing)
    }

    /// Asks the service about what is in doubt.
    async fn ask(&mut self) -> Result<Standing, WorkerError> {
        if let Some(standing) = self.compare().await? {
            return Ok(standing);
        }
        if self.doubt == Doubt::Shard
            && self.check.lists(self.status.shard_id()).await == Some(false)
        {
            // If the listing were that of a stream which was created meanwhile, the shard's end would be
            // checkpointed by mistake.
            return Ok(self.compare().await?.unwrap_or(Standing::ShardIsGone));
        }
        Ok(Standing::Sound)
    }

    /// Asks how long the stream keeps its records.
    pub(super) async fn retention(&self) -> Result<Duration, Failure> {
        let stream = self.stream_read();
        let unconfirmed = match self.check.compare().await {
            Ok(retention) if self.is_current(&stream) => return Ok(retention),
            // A shard sync replaced the stream while this reader waited.
            Ok(_) => Unconfirmed::Recreated,
            Err(unconfirmed) => unconfirmed,
        };
        Err(Failure::unusable(&match unconfirmed {
            Unconfirmed::Recreated => {
                // The shard sync ends the worker, or replaces the lease, by the settings.
                self.check.stream.doubt();
                RECREATED.to_owned()
            }
            Unconfirmed::Deleting | Unconfirmed::Missing { .. } => MISSING.to_owned(),
            Unconfirmed::Failed(cause) => cause,
        }))
    }

    /// The stream that the lease is of. A lease that does not name its stream counts as one of the stream that
    /// the worker reads now.
    fn stream_read(&self) -> StreamIdentity {
        let of_lease = self.of_lease.clone();
        of_lease.unwrap_or_else(|| self.check.stream.identity())
    }

    fn is_current(&self, stream: &StreamIdentity) -> bool {
        self.check.stream.identity() == *stream
    }

    /// Compares the stream with the one that the lease is of. `None`: they are the same.
    async fn compare(&mut self) -> Result<Option<Standing>, WorkerError> {
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

    /// The answer for a lease of a former stream, or of a later one than this worker knows.
    fn recreated(&self) -> Result<Standing, WorkerError> {
        let stream = &self.check.stream;
        // The shard sync ends the worker, or replaces the lease, by the settings.
        stream.doubt();
        match stream.on_recreated {
            OnRecreatedStream::Error if self.is_current(&self.stream_read()) => {
                Err(WorkerError::StreamRecreated { stream: self.check.name.to_string() })
            }
            _ => Ok(not_known(RECREATED)),
        }
    }

    fn stream_deleted(&self) -> WorkerError {
        WorkerError::StreamDeleted { stream: self.check.name.to_string() }
    }

    /// Requests a check of the next answer for records that retention deleted after `last`, the last record
    /// fetched. At `answered`, the service said that there are more records.
    pub(super) fn check_after(&mut self, last: SequenceNumber, answered: SystemTime) {
        self.trim_check = Some(TrimCheck::after(last, answered));
    }

    /// Checks an answer for records that retention deleted before they were read. `is_last`: the answer reached
    /// the tip or the shard's end. `answered`: its time by the service's clock.
    pub(super) async fn check_gap(
        &mut self,
        records: &RawRecords,
        is_last: bool,
        answered: Option<SystemTime>,
    ) -> Result<(), Failure> {
        let Some(check) = &self.trim_check else {
            return Ok(());
        };
        let first = records.first_sequence_number();
        match check.see(first.as_ref(), is_last) {
            Seen::NotYet => return Ok(()),
            Seen::Sound => {}
            Seen::Gone => {
                // Without the service's time, a gap cannot be told from a quiet shard.
                let trimmed = match answered {
                    Some(now) => check.judge(now, self.retention().await?),
                    None => Trimmed::CannotBeTold,
                };
                match trimmed {
                    Trimmed::Nothing => {}
                    Trimmed::CannotBeTold => tracing::warn!(
                        shard_id = self.status.shard_id(),
                        checkpoint = %check.position,
                        "the record of the checkpoint was deleted by retention; whether unread records were deleted, too, \
                         is unknown"
                    ),
                    Trimmed::Unread(until) => {
                        let oldest = first.map(|number| (number, records.arrival(0)));
                        self.report_gap(&check.gap(until, oldest));
                    }
                }
            }
        }
        self.trim_check = None;
        Ok(())
    }

    fn report_gap(&mut self, gap: &Gap) {
        let shard_id = self.status.shard_id();
        let stops = match self.on_trimmed_gap {
            OnTrimmedGap::StopShard => {
                "; the shard stands still: to go on after the gap, seek the trim horizon, or set \
                 on_trimmed_gap to continue and restart the worker"
            }
            OnTrimmedGap::Continue => "",
        };
        let gap = format!("{gap}{stops}");
        tracing::error!(shard_id, gap, "records were lost to retention");
        self.status.measure(Metric::TrimmedGaps, 1.0);
        let problems = self.status.problems();
        problems.failed(ProblemKind::RecordsTrimmed, Some(shard_id), &gap);
        self.gap_reported = Some(self.clock.now());
    }

    /// True if there is a gap, and the settings say that no record after it is delivered.
    pub(super) fn stands_still(&self) -> bool {
        self.gap_reported.is_some() && self.on_trimmed_gap == OnTrimmedGap::StopShard
    }
}

fn not_known(text: &str) -> Standing {
    Standing::NotKnown(Failure::unusable(text))
}
