//! One user record: a view into its page, and a record that keeps its page.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use kinesis_aggregation::{FrameError, HashKey};

use super::user_records::{Run, UserRecords};
use crate::dead_letter::REDRIVES_TAG;
use crate::sequence::{ExtendedSequenceNumber, SequenceNumber};

/// Smallest part of a page that [`Record::bytes`] shares, as a divisor: one eighth.
const SHARED_PART: usize = 8;

/// One user record. It is a view into its page, and cheap to copy.
///
/// To keep a record after the call, take an [`OwnedRecord`] of it, or copy what is needed.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    page: &'a Arc<UserRecords>,
    run: usize,
    nth: usize,
}

impl<'a> Record<'a> {
    /// `nth`: the place of the record in the run.
    pub(super) fn new(page: &'a Arc<UserRecords>, run: usize, nth: usize) -> Self {
        Self { page, run, nth }
    }

    fn run(&self) -> &'a Run {
        self.page.run(self.run)
    }

    fn raw_index(&self) -> usize {
        self.run().raw_index(self.nth)
    }

    /// The partition key, never empty. `None`: the record was put without a key, on a stream whose record distribution
    /// strategy is `AUTO`. A record of an aggregate always has a key.
    pub fn partition_key(&self) -> Option<&'a str> {
        match self.run().member(self.nth) {
            Some(member) => Some(member.partition_key()),
            None => self.page.raw().partition_key(self.raw_index()),
        }
    }

    /// The explicit hash key of an aggregated record. Kinesis does not return that of other records.
    pub fn explicit_hash_key(&self) -> Option<HashKey> {
        self.run().member(self.nth)?.explicit_hash_key()
    }

    /// The sequence number of the Kinesis record. All records of an aggregate share it.
    pub fn sequence_number(&self) -> SequenceNumber {
        self.page.raw().sequence_number(self.raw_index())
    }

    /// Index in the aggregate, counted before any filtering. 0 for a record that was not aggregated.
    pub fn sub_sequence_number(&self) -> u64 {
        self.run().sub_sequence_number(self.nth)
    }

    /// Sequence and sub-sequence number: unique and rising within the shard.
    pub fn position(&self) -> ExtendedSequenceNumber {
        ExtendedSequenceNumber::new(self.sequence_number(), self.sub_sequence_number())
    }

    /// The payload.
    pub fn data(&self) -> &'a [u8] {
        match self.run().member(self.nth) {
            Some(member) => member.data(),
            None => self.page.raw().data(self.raw_index()),
        }
    }

    /// The payload, to keep.
    ///
    /// A payload that is less than an eighth of its page is copied, and the copy is not counted. A larger one is
    /// shared: as an [`OwnedRecord`], it keeps its page, which counts against the byte budget until the last clone is
    /// dropped. So a payload never keeps more than eight times its size.
    pub fn bytes(&self) -> Bytes {
        let data = self.data();
        if data.len() < self.page.memory() / SHARED_PART {
            return Bytes::copy_from_slice(data);
        }
        Bytes::from_owner(Payload(self.to_owned_record()))
    }

    /// The record, to keep after the call. Nothing is copied.
    pub fn to_owned_record(&self) -> OwnedRecord {
        OwnedRecord { page: Arc::clone(self.page), run: self.run, nth: self.nth }
    }

    /// Time of arrival of the Kinesis record by the service's clock, to the millisecond. `None` if the service did not
    /// report it.
    pub fn approximate_arrival(&self) -> Option<SystemTime> {
        self.page.raw().arrival(self.raw_index())
    }

    /// True if the record was part of an aggregate.
    pub fn is_aggregated(&self) -> bool {
        self.run().member(self.nth).is_some()
    }

    /// How often the record was put into the stream again by a redrive of dead letters. 0: it is an original record.
    ///
    /// A redrive puts each record as an aggregate of one, which holds the number. Each call reads it anew.
    pub fn redrives(&self) -> u32 {
        let member = self.run().member(self.nth);
        let redrives = member.and_then(|member| member.tag(REDRIVES_TAG)?.parse().ok());
        redrives.unwrap_or(0)
    }

    /// Error of a compressed aggregate that could not be decompressed. [`data`](Self::data) is then the frame as
    /// received. No record was skipped. The processor decides what to do with the frame.
    pub fn frame_error(&self) -> Option<&'a FrameError> {
        self.run().frame_error()
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("sequence_number", &self.sequence_number())
            .field("sub_sequence_number", &self.sub_sequence_number())
            .field("size", &self.data().len())
            .finish_non_exhaustive()
    }
}

/// A user record that outlives its batch: from [`Record::to_owned_record`]. It may be sent to other tasks, and is cheap
/// to clone.
///
/// **Memory.** It keeps the whole page that it came in, up to about 10 MiB of records. The page counts against
/// [`max_buffered_bytes`](crate::ConsumerConfig::max_buffered_bytes) until the last of its records is dropped, so that
/// a worker reads less ahead while many records are kept. Its shards still get one page each, however much is kept.
/// Copy the payload if the record is kept for long.
///
/// It keeps no lease: after the lease of the shard is lost, another worker may process the record, too.
#[derive(Clone)]
pub struct OwnedRecord {
    page: Arc<UserRecords>,
    run: usize,
    nth: usize,
}

impl OwnedRecord {
    /// Its page, and its number there as a range of one.
    pub(super) fn range(&self) -> (&Arc<UserRecords>, Range<usize>) {
        let number = self.page.records_of(self.run).start + self.nth;
        (&self.page, number..number + 1)
    }

    /// The record as a view.
    pub fn as_record(&self) -> Record<'_> {
        Record::new(&self.page, self.run, self.nth)
    }
}

impl From<Record<'_>> for OwnedRecord {
    fn from(record: Record<'_>) -> Self {
        record.to_owned_record()
    }
}

impl fmt::Debug for OwnedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_record().fmt(f)
    }
}

/// The payload of a record that keeps its page.
struct Payload(OwnedRecord);

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self.0.as_record().data()
    }
}
