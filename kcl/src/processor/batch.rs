//! Batches of user records, as a processor receives them.

mod remaining;

use std::fmt;
use std::ops::Range;
use std::slice;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

pub(crate) use self::remaining::Part;
use self::remaining::Remaining;
use super::failure::{GiveUpReason, Unprocessed};
use super::offer::Answer;
use super::owned_batch::OwnedBatch;
use super::record::Record;
use super::user_records::UserRecords;
use super::{Checkpointer, ShardContext, StopSignals};
use crate::error::{ErrorKind, ProcessorError};
use crate::retrieval::HeldPage;
use crate::sequence::{ExtendedSequenceNumber, Span};

/// The user records of one page, which are delivered in parts until each of them is done.
#[derive(Debug)]
pub(crate) struct Batch {
    page: Arc<UserRecords>,
    remaining: Remaining,
    millis_behind_latest: Option<u64>,
    before: Option<Before>,
    held: HeldPage,
}

/// State before the first delivery of a batch.
#[derive(Debug)]
struct Before {
    delivered: Option<ExtendedSequenceNumber>,
    checkpointed: Option<ExtendedSequenceNumber>,
}

impl Batch {
    /// A batch of all records of a page.
    pub(crate) fn new(
        page: UserRecords,
        millis_behind_latest: Option<u64>,
        held: HeldPage,
    ) -> Self {
        Self {
            remaining: Remaining::all(page.len()),
            page: Arc::new(page),
            millis_behind_latest,
            before: None,
            held,
        }
    }

    /// The page, all of its user records, and the page's place in memory.
    pub(super) fn into_parts(self) -> (Arc<UserRecords>, Range<usize>, HeldPage) {
        let records = 0..self.page.len();
        (self.page, records, self.held)
    }

    #[cfg(feature = "testing")]
    pub(crate) fn set_millis_behind_latest(&mut self, millis: Option<u64>) {
        self.millis_behind_latest = millis;
    }

    /// The number of user records that are not done.
    pub(crate) fn len(&self) -> usize {
        self.remaining.len()
    }

    /// The size of the payloads of the user records that are not done, in bytes.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.remaining.parts().map(|part| self.bytes_of(part)).sum()
    }

    /// What the error says about the records of the part. If the processor named them, each has an error of its own, of one
    /// kind.
    pub(crate) fn error_kind(&self, error: &ProcessorError) -> ErrorKind {
        match self.part().filter(|part| part.is_named) {
            Some(part) => error.of_record(&self.page.position(part.first())).kind(),
            None => error.kind(),
        }
    }

    /// The size of the payloads of the part that is delivered next, in bytes.
    pub(crate) fn part_bytes(&self) -> usize {
        self.part().map_or(0, |part| self.bytes_of(part))
    }

    fn bytes_of(&self, part: &Part) -> usize {
        part.ranges().iter().map(|range| self.page.payload_bytes(range.clone())).sum()
    }

    /// Times of arrival of the page's oldest and newest Kinesis record, or of its only one.
    pub(crate) fn arrivals(&self) -> impl Iterator<Item = SystemTime> + '_ {
        let raw = self.page.raw();
        let newest = (raw.len() > 1).then(|| raw.len() - 1);
        [(!raw.is_empty()).then_some(0), newest]
            .into_iter()
            .flatten()
            .filter_map(move |index| raw.arrival(index))
    }

    /// The records that are delivered next. `None`: all records are done.
    pub(crate) fn part(&self) -> Option<&Part> {
        self.remaining.part()
    }

    pub(crate) fn part_mut(&mut self) -> Option<&mut Part> {
        self.remaining.part_mut()
    }

    /// The number of records of the part that is delivered next.
    pub(crate) fn part_len(&self) -> usize {
        self.part().map_or(0, Part::len)
    }

    /// The end of the part that is delivered next: the number after that of its last record.
    pub(crate) fn part_end(&self) -> usize {
        self.part().map_or(0, |part| part.last() + 1)
    }

    /// The number of deliveries of the part.
    pub(crate) fn attempts(&self) -> u32 {
        self.part().map_or(0, |part| part.deliveries)
    }

    /// The position of the last record of the page.
    pub(crate) fn last(&self) -> Option<ExtendedSequenceNumber> {
        self.page.len().checked_sub(1).map(|last| self.page.position(last))
    }

    /// The records of the part that is delivered next, in order.
    pub(crate) fn records(&self) -> Records<'_> {
        Records::new(&self.page, self.part().map_or(&[], Part::ranges))
    }

    /// The positions of the first and the last record of the part that is delivered next.
    pub(crate) fn span(&self) -> Option<Span> {
        let part = self.part()?;
        Some((self.page.position(part.first()), self.page.position(part.last())))
    }

    /// The positions of the records of the part that is delivered next, as spans of records that follow each other.
    fn spans(&self) -> Vec<Span> {
        let ranges = self.part().map_or(&[][..], Part::ranges).iter();
        ranges
            .map(|range| (self.page.position(range.start), self.page.position(range.end - 1)))
            .collect()
    }

    /// The records of the part that is delivered next, to be given up.
    pub(crate) fn unprocessed<'a>(
        &'a self,
        reason: GiveUpReason,
        error: Option<&'a ProcessorError>,
    ) -> Unprocessed<'a> {
        Unprocessed {
            records: self.records(),
            spans: self.spans(),
            reason,
            error,
            attempts: self.attempts(),
            failing_since: self.part().and_then(|part| part.failures.since),
        }
    }

    /// Begins the next delivery. From now on, the processor may checkpoint within the part, if all records before it are
    /// done.
    pub(crate) fn attempt<'a>(
        &'a mut self,
        checkpointer: &'a Checkpointer,
        tokens: &'a StopSignals,
    ) -> RecordBatch<'a> {
        self.begin(checkpointer);
        if let Some(part) = self.remaining.part_mut() {
            part.deliveries += 1;
        }
        let mark = self.mark(self.remaining.first_after_part());
        checkpointer.progress().delivered(mark);
        RecordBatch { batch: self, checkpointer, tokens }
    }

    /// Notes the state before the first delivery.
    fn begin(&mut self, checkpointer: &Checkpointer) {
        let progress = checkpointer.progress();
        self.before.get_or_insert_with(|| Before {
            delivered: progress.last_delivered().cloned(),
            checkpointed: progress.checkpointed(),
        });
    }

    /// The position before the record `next`: all records up to it are done if `next` is the first one that is not.
    /// `None` for `next`: all records of the batch are done.
    fn mark(&self, next: Option<usize>) -> Option<ExtendedSequenceNumber> {
        match next.unwrap_or(self.page.len()).checked_sub(1) {
            Some(last) => Some(self.page.position(last)),
            None => self.before.as_ref()?.delivered.clone(),
        }
    }

    /// Notes that the records of the part are done: the processor took them, or they are given up.
    pub(crate) fn part_done(&mut self, checkpointer: &Checkpointer) {
        self.begin(checkpointer);
        self.remaining.part_done();
        self.note(checkpointer);
    }

    /// Notes that the processor failed on the part. Records that were checkpointed since the first delivery are done. If
    /// the error names records, the others are done. Those that it calls poison become the first part, and those that it
    /// calls retryable one of their own. Returns whether there is poison.
    pub(crate) fn failed(&mut self, checkpointer: &Checkpointer, error: &ProcessorError) -> bool {
        let named = error.failed_records();
        let kind = |record: usize| error.of_record(&self.page.position(record)).kind();
        let found: Vec<_> =
            named.iter().filter_map(|failed| self.page.find(&failed.position)).collect();
        // An error that names only records of other batches is one of the whole part.
        let is_in_part = |record: &usize| self.part().is_some_and(|part| part.has(*record));
        if found.iter().any(is_in_part) {
            self.remaining.keep(&found, |record| match kind(record) {
                ErrorKind::Poison => 0,
                ErrorKind::Retryable => 2,
                _ => 1,
            });
        }
        if let (Some(checkpointed), Some(before)) =
            (checkpointer.progress().checkpointed(), &self.before)
            // Without a new checkpoint, no record is removed: a frame that cannot be decompressed was perhaps delivered
            // although its position is not after the checkpoint.
            && before.checkpointed.as_ref().is_none_or(|before| *before < checkpointed)
        {
            self.remaining.done_before(self.page.first_after(&checkpointed));
        }
        self.note(checkpointer);
        self.part().is_some_and(|part| part.is_named && kind(part.first()) == ErrorKind::Poison)
    }

    /// Halves the part, if it has more than one record.
    pub(crate) fn halve(&mut self) {
        self.remaining.halve();
    }

    /// Makes the records between two positions a part of their own, which comes first. Returns whether there are any that
    /// are not done.
    pub(crate) fn isolate(&mut self, (first, last): &Span) -> bool {
        let start = self.page.find(first).unwrap_or_else(|| self.page.first_after(first));
        self.remaining.isolate(&(start..self.page.first_after(last)))
    }

    /// Makes the first records of the part a part of their own if they arrived before `time`. Returns whether there are any.
    pub(crate) fn isolate_older(&mut self, time: SystemTime) -> bool {
        let Some(part) = self.part() else { return false };
        let is_young =
            |record: &usize| self.page.arrival(*record).is_none_or(|arrival| arrival >= time);
        let first_young = part.ranges().iter().cloned().flatten().find(is_young);
        let Some(first_young) = first_young else { return true };
        if first_young == part.first() {
            return false;
        }
        self.remaining.part_before(first_young);
        true
    }

    /// Notes up to where all records are done.
    fn note(&self, checkpointer: &Checkpointer) {
        let mark = self.mark(self.remaining.first());
        checkpointer.progress().delivered(mark);
    }
}

/// User records of one shard, in order, for one call of
/// [`process_records`](crate::RecordProcessor::process_records). It is never empty.
///
/// Aggregates are split into user records. Keys and payloads are views into the answer of the service, without a copy.
/// The answer counts against [`max_buffered_bytes`](crate::ConsumerConfig::max_buffered_bytes) until the call returns
/// `Ok`, and longer if an [`OwnedRecord`](crate::OwnedRecord) keeps it.
#[derive(Clone, Copy)]
pub struct RecordBatch<'a> {
    batch: &'a Batch,
    checkpointer: &'a Checkpointer,
    tokens: &'a StopSignals,
}

impl<'a> RecordBatch<'a> {
    /// The records, in the order of the shard.
    pub fn records(&self) -> Records<'a> {
        self.batch.records()
    }

    /// The number of records, at least one.
    pub fn len(&self) -> usize {
        self.batch.part_len()
    }

    /// Always false, because a batch without records is not delivered.
    pub fn is_empty(&self) -> bool {
        self.batch.part().is_none()
    }

    /// Time by which the end of this batch was behind the tip of the shard when it was read, to the millisecond. Zero
    /// at the tip. `None` if the service did not report it.
    pub fn millis_behind_latest(&self) -> Option<Duration> {
        self.batch.millis_behind_latest.map(Duration::from_millis)
    }

    /// The checkpointer of the shard. A clone may be kept and used later, also from other tasks.
    pub fn checkpointer(&self) -> &'a Checkpointer {
        self.checkpointer
    }

    /// Cancelled when the lease is lost while the call runs. Then another worker may process these records, checkpoints
    /// fail, and nothing more is delivered. Stop working and return soon, because the library waits for the call. See
    /// [`shutdown_token`](Self::shutdown_token) for a shard that is given up on request.
    pub fn cancellation(&self) -> &'a CancellationToken {
        &self.tokens.lost
    }

    /// Cancelled when the shard is to be given up on request while the call runs: by a planned stop of
    /// the worker, or because the lease moves to another worker. Nothing more is delivered after this
    /// batch.
    ///
    /// This worker still holds the lease, so checkpoints work. A processor that can finish the batch in time does so,
    /// and returns `Ok`. A processor that waits, for instance for a downstream system that does not answer, checkpoints
    /// the records that are done and returns an error: the records after that checkpoint go to the next owner of the
    /// shard. Such an error does not count as a failure. In both cases, the library calls
    /// [`shutdown_requested`](crate::RecordProcessor::shutdown_requested) next.
    ///
    /// A processor that does not return before the deadline of the planned stop (25 s for a move to another worker)
    /// loses the lease, which cancels [`cancellation`](Self::cancellation), too. Only after that may another worker be
    /// at work.
    pub fn shutdown_token(&self) -> &'a CancellationToken {
        &self.tokens.shutdown
    }

    /// Number of this delivery of the records: 1, and one more after each error. After an error, the batch has the records
    /// that are not checkpointed, or those that [failed](crate::BatchFailures), or one half of them, as the
    /// [`FailurePolicy`](crate::FailurePolicy) says.
    pub fn attempt(&self) -> u32 {
        self.batch.attempts()
    }

    pub(super) fn tokens(&self) -> &'a StopSignals {
        self.tokens
    }

    /// The batch, to be kept after the call. It shares the page.
    pub(super) fn to_owned_batch(
        self,
        shard: &Arc<ShardContext>,
        answer: oneshot::Sender<Answer>,
    ) -> OwnedBatch {
        OwnedBatch {
            page: Arc::clone(&self.batch.page),
            records: self.batch.part().map_or(&[][..], Part::ranges).into(),
            millis_behind_latest: self.batch.millis_behind_latest,
            attempt: self.attempt(),
            shard: Arc::clone(shard),
            // Its own, so that code of the application which cancels one of them stops nothing else.
            tokens: self.tokens.for_call(),
            answer,
        }
    }
}

impl fmt::Debug for RecordBatch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordBatch")
            .field("records", &self.batch.part().map(Part::ranges))
            .field("millis_behind_latest", &self.batch.millis_behind_latest)
            .field("attempt", &self.attempt())
            .finish_non_exhaustive()
    }
}

impl<'a> IntoIterator for RecordBatch<'a> {
    type Item = Record<'a>;
    type IntoIter = Records<'a>;

    fn into_iter(self) -> Records<'a> {
        self.records()
    }
}

/// The records of a batch, in order.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    page: &'a Arc<UserRecords>,
    /// The ranges after the present one.
    ranges: slice::Iter<'a, Range<usize>>,
    /// The number of records that are left in the present range.
    left_in_range: usize,
    run: usize,
    /// The place of the next record in the run.
    nth: usize,
    /// The number of records in the run.
    run_len: usize,
    left: usize,
}

impl<'a> Records<'a> {
    pub(crate) fn new(page: &'a Arc<UserRecords>, ranges: &'a [Range<usize>]) -> Self {
        let left = ranges.iter().map(ExactSizeIterator::len).sum();
        let ranges = ranges.iter();
        Self { page, ranges, left_in_range: 0, run: 0, nth: 0, run_len: 0, left }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.left_in_range == 0 {
            let range = self.ranges.next()?;
            (self.run, self.nth) = self.page.locate(range.start);
            self.run_len = self.page.records_of(self.run).len();
            self.left_in_range = range.len();
        } else if self.nth == self.run_len {
            self.run += 1;
            self.nth = 0;
            self.run_len = self.page.records_of(self.run).len();
        }
        let record = Record::new(self.page, self.run, self.nth);
        self.nth += 1;
        self.left_in_range -= 1;
        self.left -= 1;
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Records<'_> {}

#[cfg(test)]
mod tests;
