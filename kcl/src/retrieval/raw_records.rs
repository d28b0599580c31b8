//! The Kinesis records of a page, as they were received.

use std::fmt;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use kinesis_common::record_buffer::{RecordBuffer, RecordBufferBuilder};

use crate::sequence::SequenceNumber;

/// A Kinesis record as it was received.
#[derive(Clone)]
pub struct RawRecord {
    pub sequence_number: SequenceNumber,
    /// `None`: the record was put without a key, on a stream whose record distribution strategy is `AUTO`.
    pub partition_key: Option<String>,
    pub data: Bytes,
    pub arrival: Option<SystemTime>,
}

impl fmt::Debug for RawRecord {
    /// Shows neither data nor key, because logs must not hold them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawRecord")
            .field("sequence_number", &self.sequence_number)
            .field("size", &self.data.len())
            .finish_non_exhaustive()
    }
}

/// The Kinesis records of a page, in order. They are pieces of one buffer, and found by their index.
#[derive(Debug, Default)]
pub struct RawRecords(RecordBuffer);

impl RawRecords {
    /// Returns `None` if a record has no usable sequence number.
    pub(crate) fn new(buffer: RecordBuffer) -> Option<Self> {
        buffer.has_sequence_numbers().then_some(Self(buffer))
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there is no record.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Drops the records from `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    pub(crate) fn sequence_number(&self, index: usize) -> SequenceNumber {
        let digits = self.0.sequence_number(index);
        digits.parse().expect("checked when the records were read")
    }

    pub(crate) fn first_sequence_number(&self) -> Option<SequenceNumber> {
        (!self.is_empty()).then(|| self.sequence_number(0))
    }

    pub(crate) fn last_sequence_number(&self) -> Option<SequenceNumber> {
        Some(self.sequence_number(self.len().checked_sub(1)?))
    }

    pub(crate) fn partition_key(&self, index: usize) -> Option<&str> {
        self.0.partition_key(index)
    }

    pub(crate) fn data(&self, index: usize) -> &[u8] {
        self.0.data(index)
    }

    /// The data as a part of the buffer.
    pub(crate) fn data_bytes(&self, index: usize) -> Bytes {
        self.0.data_bytes(index)
    }

    pub(crate) fn arrival(&self, index: usize) -> Option<SystemTime> {
        let millis = self.0.arrival_millis(index)?;
        let since = Duration::from_millis(millis.unsigned_abs());
        if millis < 0 { UNIX_EPOCH.checked_sub(since) } else { UNIX_EPOCH.checked_add(since) }
    }

    /// Time from the arrival of the first record to that of the last one.
    pub(crate) fn spread(&self) -> Duration {
        let arrivals = || Some((self.arrival(0)?, self.arrival(self.len() - 1)?));
        let arrivals = if self.is_empty() { None } else { arrivals() };
        arrivals.and_then(|(first, last)| last.duration_since(first).ok()).unwrap_or_default()
    }

    /// The size that the service counts, in bytes.
    pub(crate) fn payload_len(&self) -> usize {
        self.0.payload_len()
    }

    /// The size of the data of some records, in bytes.
    pub(crate) fn data_len(&self, records: Range<usize>) -> usize {
        self.0.data_len(records)
    }

    /// The memory that the records take, in bytes.
    pub fn memory(&self) -> usize {
        self.0.memory()
    }
}

impl FromIterator<RawRecord> for RawRecords {
    fn from_iter<I: IntoIterator<Item = RawRecord>>(records: I) -> Self {
        let mut builder = RecordBufferBuilder::default();
        for record in records {
            let arrival = record.arrival.and_then(millis);
            let (number, key) = (record.sequence_number.as_str(), record.partition_key.as_deref());
            let pushed = builder.push(number, key, &record.data, arrival);
            pushed.expect("a page has less than 4 GiB");
        }
        Self(builder.build())
    }
}

fn millis(time: SystemTime) -> Option<i64> {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => since.as_millis().try_into().ok(),
        Err(before) => i64::try_from(before.duration().as_millis()).ok().map(|millis| -millis),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(number: &str, arrival: Option<SystemTime>) -> RawRecord {
        RawRecord {
            sequence_number: number.parse().unwrap(),
            partition_key: None,
            data: Bytes::from_static(b"data"),
            arrival,
        }
    }

    #[test]
    fn times_of_arrival_are_kept_to_the_millisecond() {
        let at = |millis| Some(UNIX_EPOCH + Duration::from_millis(millis));
        let before = UNIX_EPOCH.checked_sub(Duration::from_millis(1_500));
        let arrivals = [at(1_767_225_600_123), None, at(0), before];
        let records: RawRecords = arrivals.iter().map(|arrival| raw("1", *arrival)).collect();
        for (index, arrival) in arrivals.iter().enumerate() {
            assert_eq!(records.arrival(index), *arrival);
        }
    }

    #[test]
    fn the_spread_is_that_of_the_first_and_the_last_record() {
        let at = |secs| Some(UNIX_EPOCH + Duration::from_secs(secs));
        for (arrivals, spread) in [
            (vec![], 0),
            (vec![at(5)], 0),
            (vec![at(5), None, at(8)], 3),
            (vec![at(8), at(5)], 0),
            (vec![None, at(5)], 0),
        ] {
            let records = arrivals.iter().map(|arrival| raw("1", *arrival));
            let records = records.collect::<RawRecords>();
            assert_eq!(records.spread(), Duration::from_secs(spread), "{arrivals:?}");
        }
    }

    #[test]
    fn the_first_and_the_last_number() {
        let records = ["1", "2", "3"].map(|number| raw(number, None));
        let records = records.into_iter().collect::<RawRecords>();
        assert_eq!(records.first_sequence_number(), Some("1".parse().unwrap()));
        assert_eq!(records.last_sequence_number(), Some("3".parse().unwrap()));
        assert_eq!(RawRecords::default().first_sequence_number(), None);
        assert_eq!(RawRecords::default().last_sequence_number(), None);
    }

    #[test]
    fn records_without_a_usable_number_are_refused() {
        let mut builder = RecordBufferBuilder::default();
        builder.push("TRIM_HORIZON", None, b"", None).unwrap();
        assert!(RawRecords::new(builder.build()).is_none());
    }
}
