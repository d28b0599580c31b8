//! Batches of user records, as a processor receives them.

use std::fmt;
use std::slice;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kinesis_aggregation::{Aggregate, FrameError, HashKey, Member};
use tokio_util::sync::CancellationToken;

use super::{Checkpointer, StopSignals};
use crate::retrieval::Held;
use crate::sequence::{ExtendedSequenceNumber, SequenceNumber};

/// The user records of one page. Their bytes count against the worker's byte budget until the batch is dropped.
#[derive(Debug)]
pub(crate) struct Batch {
    entries: Vec<Entry>,
    /// The number of user records in `entries`.
    records: usize,
    millis_behind_latest: Option<u64>,
    /// The number of deliveries so far.
    attempts: u32,
    /// The checkpoint before the first attempt.
    checkpointed_before: Option<ExtendedSequenceNumber>,
    _held: Held,
}

impl Batch {
    pub(crate) fn new(entries: Vec<Entry>, millis_behind_latest: Option<u64>, held: Held) -> Self {
        Self {
            records: entries.iter().map(Entry::len).sum(),
            entries,
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
        self.records
    }

    /// The size of all payloads, in bytes.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.entries.iter().map(Entry::payload_bytes).sum()
    }

    /// The positions of the first and the last record. `None`: there is no record.
    pub(crate) fn range(&self) -> Option<(ExtendedSequenceNumber, ExtendedSequenceNumber)> {
        let (first, last) = (self.entries.first()?, self.entries.last()?);
        Some((first.position(0), last.last_position()))
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
            self.entries.retain_mut(|entry| entry.trim(&checkpointed));
            self.records = self.entries.iter().map(Entry::len).sum();
        }
    }
}

/// User records of one shard, in order, for one call of
/// [`process_records`](crate::RecordProcessor::process_records). It is never empty.
///
/// Aggregates are split into user records. Payloads are views into the received bytes, without a copy. The bytes count
/// against [`max_buffered_bytes`](crate::ConsumerConfig::max_buffered_bytes) until the call returns `Ok`.
#[derive(Clone, Copy)]
pub struct RecordBatch<'a> {
    batch: &'a Batch,
    checkpointer: &'a Checkpointer,
    tokens: &'a StopSignals,
}

impl<'a> RecordBatch<'a> {
    /// The records, in the order of the shard.
    pub fn records(&self) -> Records<'a> {
        Records { entries: self.batch.entries.iter(), current: None, left: self.batch.records }
    }

    /// The number of records, at least one.
    pub fn len(&self) -> usize {
        self.batch.records
    }

    /// Always false, because a batch without records is not delivered.
    pub fn is_empty(&self) -> bool {
        self.batch.records == 0
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
    entries: slice::Iter<'a, Entry>,
    current: Option<(&'a Entry, usize)>,
    left: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        loop {
            if let Some((entry, nth)) = &mut self.current
                && let Some(record) = entry.record(*nth)
            {
                *nth += 1;
                self.left -= 1;
                return Some(record);
            }
            self.current = Some((self.entries.next()?, 0));
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Records<'_> {}

/// One user record. It is a view into the batch, and cheap to copy.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    entry: &'a Entry,
    source: Source<'a>,
}

#[derive(Clone, Copy)]
enum Source<'a> {
    Plain(&'a Plain),
    Member(Member<'a>),
}

impl<'a> Record<'a> {
    /// The partition key, never empty. `None`: the record was put without a key, on a stream whose record distribution
    /// strategy is `AUTO`. A record of an aggregate always has a key.
    pub fn partition_key(&self) -> Option<&'a str> {
        match &self.source {
            Source::Plain(plain) => plain.partition_key.as_deref(),
            Source::Member(member) => Some(member.partition_key()),
        }
    }

    /// The explicit hash key of an aggregated record. Kinesis does not return that of other records.
    pub fn explicit_hash_key(&self) -> Option<HashKey> {
        match &self.source {
            Source::Plain(_) => None,
            Source::Member(member) => member.explicit_hash_key(),
        }
    }

    /// The sequence number of the Kinesis record. All records of an aggregate share it.
    pub fn sequence_number(&self) -> &'a SequenceNumber {
        &self.entry.sequence_number
    }

    /// Index in the aggregate, counted before any filtering. 0 for a record that was not aggregated.
    pub fn sub_sequence_number(&self) -> u64 {
        match &self.source {
            Source::Plain(plain) => plain.sub_sequence_number,
            Source::Member(member) => member.index(),
        }
    }

    /// Sequence and sub-sequence number: unique and rising within the shard.
    pub fn position(&self) -> ExtendedSequenceNumber {
        ExtendedSequenceNumber::new(self.sequence_number().clone(), self.sub_sequence_number())
    }

    /// The payload.
    pub fn data(&self) -> &'a [u8] {
        match &self.source {
            Source::Plain(plain) => &plain.data,
            Source::Member(member) => member.data(),
        }
    }

    /// The payload, to keep. It shares the memory of the whole Kinesis record, up to 10 MiB, so copy a payload that is
    /// kept for long.
    pub fn bytes(&self) -> Bytes {
        match &self.source {
            Source::Plain(plain) => plain.data.clone(),
            Source::Member(member) => member.data_bytes(),
        }
    }

    /// Time of arrival of the Kinesis record by the service's clock, to the millisecond. `None` if the service did not
    /// report it.
    pub fn approximate_arrival(&self) -> Option<SystemTime> {
        self.entry.arrival
    }

    /// True if the record was part of an aggregate.
    pub fn is_aggregated(&self) -> bool {
        matches!(self.source, Source::Member(_))
    }

    /// Error of a compressed aggregate that could not be decompressed. [`data`](Self::data) is then the frame as
    /// received. No record was skipped. The processor decides what to do with the frame.
    pub fn frame_error(&self) -> Option<&'a FrameError> {
        match &self.source {
            Source::Plain(plain) => plain.frame_error.as_ref(),
            Source::Member(_) => None,
        }
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("sequence_number", self.sequence_number())
            .field("sub_sequence_number", &self.sub_sequence_number())
            .field("size", &self.data().len())
            .finish_non_exhaustive()
    }
}

/// One Kinesis record, ready to be delivered.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) sequence_number: SequenceNumber,
    pub(crate) arrival: Option<SystemTime>,
    pub(crate) content: Content,
}

pub(crate) enum Content {
    Plain(Plain),
    Aggregate { aggregate: Aggregate, kept: Kept },
}

/// A Kinesis record that was not aggregated, or could not be decompressed.
pub(crate) struct Plain {
    /// `None`: the record was put without one.
    pub(crate) partition_key: Option<String>,
    pub(crate) data: Bytes,
    /// 0, or the checkpoint within a frame that cannot be decompressed.
    pub(crate) sub_sequence_number: u64,
    pub(crate) frame_error: Option<FrameError>,
}

impl fmt::Debug for Content {
    /// Shows neither data nor keys, because logs must not hold them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(plain) => f
                .debug_struct("Plain")
                .field("data_len", &plain.data.len())
                .field("frame_error", &plain.frame_error)
                .finish_non_exhaustive(),
            Self::Aggregate { aggregate, kept } => f
                .debug_struct("Aggregate")
                .field("members", &aggregate.len())
                .field("kept", kept)
                .finish(),
        }
    }
}

/// The members of an aggregate that are delivered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// All from this index on.
    From(usize),
    /// These, in order.
    Only(Vec<u32>),
}

impl Entry {
    /// The number of user records delivered from it.
    pub(crate) fn len(&self) -> usize {
        match &self.content {
            Content::Plain(_) => 1,
            Content::Aggregate { aggregate, kept } => match kept {
                Kept::From(first) => aggregate.len().saturating_sub(*first),
                Kept::Only(members) => members.len(),
            },
        }
    }

    /// The `nth` user record delivered from it.
    pub(crate) fn record(&self, nth: usize) -> Option<Record<'_>> {
        let source = match &self.content {
            Content::Plain(plain) => (nth == 0).then_some(Source::Plain(plain))?,
            Content::Aggregate { aggregate, kept } => {
                Source::Member(aggregate.get(match kept {
                    Kept::From(first) => first + nth,
                    Kept::Only(members) => *members.get(nth)? as usize,
                })?)
            }
        };
        Some(Record { entry: self, source })
    }

    /// The size of the payloads delivered from it, in bytes.
    pub(crate) fn payload_bytes(&self) -> usize {
        let records = (0..self.len()).filter_map(|nth| self.record(nth));
        records.map(|record| record.data().len()).sum()
    }

    /// Removes the user records up to and including `done`. Returns whether any are left.
    pub(crate) fn trim(&mut self, done: &ExtendedSequenceNumber) -> bool {
        if let Content::Aggregate { kept, .. } = &mut self.content
            && self.sequence_number == done.sequence_number
        {
            let first = done.sub_sequence_number.saturating_add(1);
            match kept {
                Kept::From(from) => {
                    *from = (*from).max(usize::try_from(first).unwrap_or(usize::MAX));
                }
                Kept::Only(members) => members.retain(|index| u64::from(*index) >= first),
            }
        }
        self.len() > 0 && self.last_position() > *done
    }

    /// The position of the `nth` user record delivered from it.
    fn position(&self, nth: usize) -> ExtendedSequenceNumber {
        let index = self.record(nth).map_or(0, |record| record.sub_sequence_number());
        ExtendedSequenceNumber::new(self.sequence_number.clone(), index)
    }

    /// The position of the last user record delivered from it.
    pub(crate) fn last_position(&self) -> ExtendedSequenceNumber {
        self.position(self.len().saturating_sub(1))
    }
}
