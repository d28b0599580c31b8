//! What a processor gets: a batch of user records.

use std::fmt;
use std::slice;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use kinesis_aggregation::{Aggregate, FrameError, HashKey, Member};
use tokio_util::sync::CancellationToken;

use super::{CallTokens, Checkpointer};
use crate::retrieval::Held;
use crate::sequence::{ExtendedSequenceNumber, SequenceNumber};

/// The user records of one page, until the processor has taken them. Their bytes count against the worker's
/// byte budget until the batch is dropped.
#[derive(Debug)]
pub(crate) struct Batch {
    entries: Vec<Entry>,
    /// User records in `entries`.
    records: usize,
    millis_behind_latest: Option<u64>,
    /// Attempts to have the processor take it.
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

    /// User records in it.
    pub(crate) fn len(&self) -> usize {
        self.records
    }

    /// Bytes of all payloads.
    pub(crate) fn payload_bytes(&self) -> usize {
        self.entries.iter().map(Entry::payload_bytes).sum()
    }

    /// The positions of its first and last record. `None` if it has none.
    pub(crate) fn range(&self) -> Option<(ExtendedSequenceNumber, ExtendedSequenceNumber)> {
        let (first, last) = (self.entries.first()?, self.entries.last()?);
        Some((first.first_position(), last.last_position()))
    }

    /// What the processor is given at the next attempt. From now on it may checkpoint within the batch.
    pub(crate) fn attempt<'a>(
        &'a mut self,
        checkpointer: &'a Checkpointer,
        tokens: &'a CallTokens,
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

    /// Notes that the processor failed on the batch, and leaves out the records that were checkpointed since
    /// the first attempt.
    pub(crate) fn failed(&mut self, checkpointer: &Checkpointer) {
        let checkpointed = {
            let mut progress = checkpointer.progress();
            progress.delivery_failed();
            progress.checkpointed()
        };
        let Some(checkpointed) = checkpointed else { return };
        // Without a new checkpoint nothing is left out: a record was perhaps delivered although its position
        // is not behind the checkpoint (a frame that cannot be opened).
        if self.checkpointed_before.as_ref().is_none_or(|before| *before < checkpointed) {
            self.entries.retain_mut(|entry| entry.trim(&checkpointed));
            self.records = self.entries.iter().map(Entry::len).sum();
        }
    }
}

/// User records of one shard, in order, for one call of
/// [`process_records`](crate::RecordProcessor::process_records). It is never empty.
///
/// Aggregated records come taken apart. Payloads are views into the received bytes, nothing is
/// copied; the bytes count against
/// [`max_buffered_bytes`](crate::ConsumerConfig::max_buffered_bytes) until the call returns `Ok`.
#[derive(Clone, Copy)]
pub struct RecordBatch<'a> {
    batch: &'a Batch,
    checkpointer: &'a Checkpointer,
    tokens: &'a CallTokens,
}

impl<'a> RecordBatch<'a> {
    /// The records, in the order of the shard.
    pub fn records(&self) -> Records<'a> {
        Records { entries: self.batch.entries.iter(), current: None, left: self.batch.records }
    }

    /// How many records there are, at least one.
    pub fn len(&self) -> usize {
        self.batch.records
    }

    /// Always false; a batch without records is not delivered.
    pub fn is_empty(&self) -> bool {
        self.batch.records == 0
    }

    /// How far the end of this batch was behind the tip of the shard when it was read, to the
    /// millisecond; zero at the tip. `None` if the service did not say.
    pub fn millis_behind_latest(&self) -> Option<Duration> {
        self.batch.millis_behind_latest.map(Duration::from_millis)
    }

    /// Writes checkpoints. A clone of it may be kept and used later, from other tasks too.
    pub fn checkpointer(&self) -> &'a Checkpointer {
        self.checkpointer
    }

    /// Cancelled when the lease is lost while the call runs: another worker may process these
    /// records, checkpoints fail from now on, and nothing more is delivered. Stop working and return
    /// soon; the library waits for it. See [`shutdown_token`](Self::shutdown_token) for a shard that is
    /// given up on request.
    pub fn cancellation(&self) -> &'a CancellationToken {
        &self.tokens.lost
    }

    /// Cancelled when the shard is to be given up on request while the call runs: by a planned stop of
    /// the worker, or because the lease moves to another worker. Nothing more is delivered after this
    /// batch.
    ///
    /// The lease is still this worker's, so checkpoints work. A processor that can finish the batch in
    /// time does so, and returns `Ok`. One that waits, for instance for a downstream that does not
    /// answer, checkpoints the records that are done and returns an error: the records after that
    /// checkpoint go to the shard's next owner. Such an error is neither logged as a failure nor counted
    /// as one. In both cases the library calls
    /// [`shutdown_requested`](crate::RecordProcessor::shutdown_requested) next.
    ///
    /// A processor that does not return before the deadline of the planned stop (25 s for a move to
    /// another worker) loses the lease, which cancels [`cancellation`](Self::cancellation), too. That
    /// token alone says that another worker may be at work.
    pub fn shutdown_token(&self) -> &'a CancellationToken {
        &self.tokens.shutdown
    }

    /// Which delivery of this batch to this processor it is: 1, and one more after each error. After an
    /// error the batch begins behind the last checkpoint.
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
                && *nth < entry.len()
            {
                let record = Record { entry, member: entry.member(*nth) };
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

/// One user record: a view into the batch, cheap to copy.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    entry: &'a Entry,
    member: Option<Member<'a>>,
}

impl<'a> Record<'a> {
    /// The partition key it was put with; never empty. `None`: it was put without one, which a stream
    /// allows whose record distribution strategy is `AUTO`. A record of an aggregate always has a key.
    pub fn partition_key(&self) -> Option<&'a str> {
        match (&self.member, &self.entry.content) {
            (Some(member), _) => Some(member.partition_key()),
            (None, Content::Plain { partition_key, .. }) => partition_key.as_deref(),
            (None, Content::Aggregate { .. }) => None,
        }
    }

    /// The explicit hash key it was put with, if it was aggregated: Kinesis does not return that of
    /// a record on its own.
    pub fn explicit_hash_key(&self) -> Option<HashKey> {
        self.member.and_then(|member| member.explicit_hash_key())
    }

    /// The sequence number of the Kinesis record that carried it; all records of an aggregate share
    /// it.
    pub fn sequence_number(&self) -> &'a SequenceNumber {
        &self.entry.sequence_number
    }

    /// Its index in the aggregate, counted before any filtering; 0 for a record on its own.
    pub fn sub_sequence_number(&self) -> u64 {
        match (&self.member, &self.entry.content) {
            (Some(member), _) => member.index(),
            (None, _) => self.entry.sub_sequence_number(0),
        }
    }

    /// Sequence and sub-sequence number: unique and rising within the shard.
    pub fn position(&self) -> ExtendedSequenceNumber {
        ExtendedSequenceNumber::new(self.sequence_number().clone(), self.sub_sequence_number())
    }

    /// The payload.
    pub fn data(&self) -> &'a [u8] {
        match (&self.member, &self.entry.content) {
            (Some(member), _) => member.data(),
            (None, Content::Plain { data, .. }) => data,
            (None, Content::Aggregate { .. }) => &[],
        }
    }

    /// The payload, to keep. Nothing is copied: it holds the memory of the whole Kinesis record, up
    /// to 10 MiB, so copy what is kept for long.
    pub fn bytes(&self) -> Bytes {
        match (&self.member, &self.entry.content) {
            (Some(member), _) => member.data_bytes(),
            (None, Content::Plain { data, .. }) => data.clone(),
            (None, Content::Aggregate { .. }) => Bytes::new(),
        }
    }

    /// When the Kinesis record arrived, to the millisecond, by the service's clock. `None` if the
    /// service did not say.
    pub fn approximate_arrival(&self) -> Option<SystemTime> {
        self.entry.arrival
    }

    /// It came in an aggregate.
    pub fn is_aggregated(&self) -> bool {
        self.member.is_some()
    }

    /// Set if this is a compressed aggregate that could not be opened: [`data`](Self::data) is the
    /// frame as received. Nothing was skipped; what to do with it is the processor's decision.
    pub fn frame_error(&self) -> Option<&'a FrameError> {
        match &self.entry.content {
            Content::Plain { frame_error, .. } => frame_error.as_ref(),
            Content::Aggregate { .. } => None,
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
    Plain {
        /// `None`: the record was put without one.
        partition_key: Option<String>,
        data: Bytes,
        /// 0; in a frame that cannot be opened, what is checkpointed of it.
        sub_sequence_number: u64,
        frame_error: Option<FrameError>,
    },
    Aggregate {
        aggregate: Aggregate,
        kept: Kept,
    },
}

impl fmt::Debug for Content {
    /// Shows neither data nor keys, which must not land in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain { data, frame_error, .. } => f
                .debug_struct("Plain")
                .field("data_len", &data.len())
                .field("frame_error", frame_error)
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
    /// The user records in it.
    pub(crate) fn len(&self) -> usize {
        match &self.content {
            Content::Plain { .. } => 1,
            Content::Aggregate { aggregate, kept } => match kept {
                Kept::From(first) => aggregate.len().saturating_sub(*first),
                Kept::Only(members) => members.len(),
            },
        }
    }

    /// The `nth` user record delivered from it: a member, or `None` for a plain record.
    pub(crate) fn member(&self, nth: usize) -> Option<Member<'_>> {
        match &self.content {
            Content::Plain { .. } => None,
            Content::Aggregate { aggregate, kept } => aggregate.get(match kept {
                Kept::From(first) => first + nth,
                Kept::Only(members) => *members.get(nth)? as usize,
            }),
        }
    }

    /// The sub-sequence number of the `nth` user record delivered from it.
    pub(crate) fn sub_sequence_number(&self, nth: usize) -> u64 {
        match &self.content {
            Content::Plain { sub_sequence_number, .. } => *sub_sequence_number,
            Content::Aggregate { .. } => self.member(nth).map_or(0, |member| member.index()),
        }
    }

    /// Bytes of the payloads delivered from it.
    pub(crate) fn payload_bytes(&self) -> usize {
        match &self.content {
            Content::Plain { data, .. } => data.len(),
            Content::Aggregate { .. } => {
                (0..self.len()).filter_map(|nth| self.member(nth)).map(|m| m.data().len()).sum()
            }
        }
    }

    /// Leaves out the user records up to and including `done`; whether any are left.
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

    /// The position of the first user record delivered from it.
    pub(crate) fn first_position(&self) -> ExtendedSequenceNumber {
        let first = self.sub_sequence_number(0);
        ExtendedSequenceNumber::new(self.sequence_number.clone(), first)
    }

    /// The position of the last user record delivered from it.
    pub(crate) fn last_position(&self) -> ExtendedSequenceNumber {
        let last = self.sub_sequence_number(self.len().saturating_sub(1));
        ExtendedSequenceNumber::new(self.sequence_number.clone(), last)
    }
}
