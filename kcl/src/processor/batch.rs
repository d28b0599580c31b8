//! Batches of user records, as a processor receives them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::owned_batch::{Answer, OwnedBatch};
use super::record::Record;
use super::user_records::UserRecords;
use super::{Checkpointer, ShardContext, StopSignals};
use crate::retrieval::HeldPage;
use crate::sequence::ExtendedSequenceNumber;

/// A range of the user records of one page, which is delivered until the processor has taken it.
#[derive(Debug)]
pub(crate) struct Batch {
    page: Arc<UserRecords>,
    /// The user records that are delivered.
    records: Range<usize>,
    millis_behind_latest: Option<u64>,
    /// The number of deliveries so far.
    attempts: u32,
    /// The checkpoint before the first attempt.
    checkpointed_before: Option<ExtendedSequenceNumber>,
    _held: HeldPage,
}

impl Batch {
    /// A batch of all records of a page.
    pub(crate) fn new(
        page: UserRecords,
        millis_behind_latest: Option<u64>,
        held: HeldPage,
    ) -> Self {
        Self {
            records: 0..page.len(),
            page: Arc::new(page),
            millis_behind_latest,
            attempts: 0,
            checkpointed_before: None,
            _held: held,
        }
    }

    #[cfg(feature = "testing")]
    pub(crate) fn set_millis_behind_latest(&mut self, millis: Option<u64>) {
        self.millis_behind_latest = millis;
    }

    /// The number of user records.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// The size of all payloads, in bytes.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.page.payload_bytes(self.records.clone())
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

    /// The positions of the first and the last record. `None`: there is no record.
    pub(crate) fn range(&self) -> Option<(ExtendedSequenceNumber, ExtendedSequenceNumber)> {
        let Range { start, end } = self.records;
        (start < end).then(|| (self.page.position(start), self.page.position(end - 1)))
    }

    /// Begins the next delivery. From now on, the processor may checkpoint within the batch.
    pub(crate) fn attempt<'a>(
        &'a mut self,
        checkpointer: &'a Checkpointer,
        tokens: &'a StopSignals,
    ) -> RecordBatch<'a> {
        let mut progress = checkpointer.progress();
        if self.attempts == 0 {
            self.checkpointed_before = progress.checkpointed();
        }
        self.attempts += 1;
        if let Some((_, last)) = self.range() {
            progress.delivered(last);
        }
        RecordBatch { batch: self, checkpointer, tokens }
    }

    /// Notes that the processor failed on the batch, and removes the records that were checkpointed since the first
    /// delivery.
    pub(crate) fn failed(&mut self, checkpointer: &Checkpointer) {
        let checkpointed = {
            let mut progress = checkpointer.progress();
            progress.delivery_failed();
            progress.checkpointed()
        };
        let Some(checkpointed) = checkpointed else { return };
        // Without a new checkpoint, no record is removed: a frame that cannot be decompressed was perhaps delivered
        // although its position is not after the checkpoint.
        if self.checkpointed_before.as_ref().is_none_or(|before| *before < checkpointed) {
            let first = self.page.first_after(&checkpointed);
            self.records.start = first.clamp(self.records.start, self.records.end);
        }
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
        Records::new(&self.batch.page, self.batch.records.clone())
    }

    /// The number of records, at least one.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Always false, because a batch without records is not delivered.
    pub fn is_empty(&self) -> bool {
        self.batch.records.is_empty()
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

    /// Number of this delivery of the batch: 1, and one more after each error. After an error, the batch begins after
    /// the last checkpoint.
    pub fn attempt(&self) -> u32 {
        self.batch.attempts
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
            records: self.batch.records.clone(),
            millis_behind_latest: self.batch.millis_behind_latest,
            attempt: self.batch.attempts,
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
            .field("records", &self.batch.records)
            .field("millis_behind_latest", &self.batch.millis_behind_latest)
            .field("attempt", &self.batch.attempts)
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
    run: usize,
    /// The place of the next record in the run.
    nth: usize,
    /// The number of records in the run.
    run_len: usize,
    left: usize,
}

impl<'a> Records<'a> {
    pub(crate) fn new(page: &'a Arc<UserRecords>, records: Range<usize>) -> Self {
        let (run, nth) = page.locate(records.start);
        Self { page, run, nth, run_len: page.records_of(run).len(), left: records.len() }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        self.left = self.left.checked_sub(1)?;
        if self.nth == self.run_len {
            self.run += 1;
            self.nth = 0;
            self.run_len = self.page.records_of(self.run).len();
        }
        let record = Record::new(self.page, self.run, self.nth);
        self.nth += 1;
        Some(record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Records<'_> {}

#[cfg(test)]
mod tests;
