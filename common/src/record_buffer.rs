//! The records of a page, as pieces of one buffer.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;

/// Longest text that is accepted as a sequence number. Kinesis assigns 56 digits. The Java library accepts any length.
pub const MAX_SEQUENCE_DIGITS: usize = 128;

/// Stands for a record whose time of arrival is unknown.
const NO_ARRIVAL: i64 = i64::MIN;

/// Returns the digits of a sequence number without leading zeros. `None`: the text is no decimal integer of 1 to 128
/// digits.
pub fn sequence_digits(text: &str) -> Option<&str> {
    // Looks at every digit: without an early end, the check is a few vector instructions.
    let is_decimal = || text.bytes().fold(true, |all, byte| all & byte.is_ascii_digit());
    if !(1..=MAX_SEQUENCE_DIGITS).contains(&text.len()) || !is_decimal() {
        return None;
    }
    Some(match text.trim_start_matches('0') {
        "" => &text[text.len() - 1..],
        digits => digits,
    })
}

/// Records as the service returned them, in order: one buffer, and an index of its pieces.
///
/// **Memory.** The buffer, and 32 bytes for each record.
#[derive(Clone, Default)]
pub struct RecordBuffer {
    bytes: Bytes,
    index: Vec<RecordPieces>,
}

/// Where the parts of one record are.
#[derive(Clone, Copy)]
pub(crate) struct RecordPieces {
    /// Without leading zeros. Empty: the record has no usable number.
    pub(crate) sequence_number: Piece,
    /// Empty: the record has no key.
    pub(crate) partition_key: Piece,
    pub(crate) data: Piece,
    arrival: i64,
}

/// A part of a buffer.
#[derive(Clone, Copy, Default)]
pub(crate) struct Piece {
    start: u32,
    len: u32,
}

impl Piece {
    /// The `len` bytes before `end`. A buffer is not longer than 4 GiB, so that both numbers fit.
    pub(crate) fn before(end: usize, len: usize) -> Self {
        Self { start: (end - len) as u32, len: len as u32 }
    }

    fn range(self) -> Range<usize> {
        let start = self.start as usize;
        start..start + self.len as usize
    }
}

impl Default for RecordPieces {
    fn default() -> Self {
        Self {
            sequence_number: Piece::default(),
            partition_key: Piece::default(),
            data: Piece::default(),
            arrival: NO_ARRIVAL,
        }
    }
}

impl RecordPieces {
    pub(crate) fn arrived(&mut self, millis: Option<i64>) {
        self.arrival = millis.unwrap_or(NO_ARRIVAL);
    }
}

impl RecordBuffer {
    /// Longest buffer, in bytes. A page of Kinesis has about 10 MiB.
    pub(crate) const MAX_LEN: usize = u32::MAX as usize;

    /// `index`: pieces of `bytes`, which are at most [`MAX_LEN`](Self::MAX_LEN).
    pub(crate) fn new(bytes: Bytes, mut index: Vec<RecordPieces>) -> Self {
        // The number of records is not always known before the last one.
        index.shrink_to_fit();
        Self { bytes, index }
    }

    /// Drops the records from `len` on. The buffer stays as long as it is.
    pub fn truncate(&mut self, len: usize) {
        self.index.truncate(len);
    }

    /// The number of records.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// True if there is no record.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// True if each record has a usable sequence number.
    pub fn has_sequence_numbers(&self) -> bool {
        self.index.iter().all(|pieces| pieces.sequence_number.len > 0)
    }

    /// The digits of the sequence number, without leading zeros. Empty if the number is not usable.
    ///
    /// # Panics
    /// There is no such record, as in the methods below.
    pub fn sequence_number(&self, record: usize) -> &str {
        self.text(self.index[record].sequence_number)
    }

    /// The partition key. `None`: the record has no key, or an empty one, which means the same.
    pub fn partition_key(&self, record: usize) -> Option<&str> {
        let key = self.index[record].partition_key;
        (key.len > 0).then(|| self.text(key))
    }

    /// The data.
    pub fn data(&self, record: usize) -> &[u8] {
        &self.bytes[self.index[record].data.range()]
    }

    /// The data, as a part of the buffer that keeps the whole buffer.
    pub fn data_bytes(&self, record: usize) -> Bytes {
        self.bytes.slice(self.index[record].data.range())
    }

    /// Time of arrival in milliseconds since 1970. `None` if it is unknown.
    pub fn arrival_millis(&self, record: usize) -> Option<i64> {
        Some(self.index[record].arrival).filter(|arrival| *arrival != NO_ARRIVAL)
    }

    /// The size of all data and keys in bytes, as the service counts it.
    pub fn payload_len(&self) -> usize {
        let sizes =
            self.index.iter().map(|it| it.data.len as usize + it.partition_key.len as usize);
        sizes.sum()
    }

    /// The size of the data of some records, in bytes.
    pub fn data_len(&self, records: Range<usize>) -> usize {
        self.index[records].iter().map(|pieces| pieces.data.len as usize).sum()
    }

    /// The memory that the records take, in bytes.
    pub fn memory(&self) -> usize {
        self.bytes.len() + self.index.capacity() * size_of::<RecordPieces>()
    }

    fn text(&self, piece: Piece) -> &str {
        str::from_utf8(&self.bytes[piece.range()]).expect("checked when it was read")
    }
}

impl fmt::Debug for RecordBuffer {
    /// Shows neither data nor keys, because logs must not hold them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordBuffer")
            .field("records", &self.len())
            .field("size", &self.bytes.len())
            .finish()
    }
}

/// Records that are more than a buffer takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a page of more than 4 GiB")]
pub struct PageTooLarge;

/// Copies records into one buffer.
#[derive(Default)]
pub struct RecordBufferBuilder {
    bytes: Vec<u8>,
    index: Vec<RecordPieces>,
}

impl RecordBufferBuilder {
    /// Creates a builder whose buffer takes `capacity` bytes before it grows.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity), index: Vec::new() }
    }

    /// Adds a record.
    ///
    /// # Errors
    /// The buffer is full. The record was not added.
    pub fn push(
        &mut self,
        sequence_number: &str,
        partition_key: Option<&str>,
        data: &[u8],
        arrival_millis: Option<i64>,
    ) -> Result<(), PageTooLarge> {
        let sequence_number = sequence_digits(sequence_number).unwrap_or_default();
        let partition_key = partition_key.unwrap_or_default();
        let added = sequence_number.len() + partition_key.len() + data.len();
        if added > RecordBuffer::MAX_LEN - self.bytes.len() {
            return Err(PageTooLarge);
        }
        let mut pieces = RecordPieces {
            sequence_number: self.copy(sequence_number.as_bytes()),
            partition_key: self.copy(partition_key.as_bytes()),
            data: self.copy(data),
            ..RecordPieces::default()
        };
        pieces.arrived(arrival_millis);
        self.index.push(pieces);
        Ok(())
    }

    fn copy(&mut self, part: &[u8]) -> Piece {
        self.bytes.extend_from_slice(part);
        Piece::before(self.bytes.len(), part.len())
    }

    /// Returns the records.
    pub fn build(mut self) -> RecordBuffer {
        self.bytes.shrink_to_fit();
        RecordBuffer::new(self.bytes.into(), self.index)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_takes_32_bytes_in_the_index() {
        assert_eq!(size_of::<RecordPieces>(), 32);
    }

    #[test]
    fn a_number_that_is_not_decimal_is_not_usable() {
        for text in ["", "-1", " 1", "1.0", "\u{0661}", &"9".repeat(129)] {
            assert_eq!(sequence_digits(text), None, "{text:?}");
        }
        assert_eq!(sequence_digits("00042"), Some("42"));
        assert_eq!(sequence_digits("000"), Some("0"));
        let mut builder = RecordBufferBuilder::default();
        builder.push("007", None, b"", None).unwrap();
        assert!(builder.build().has_sequence_numbers());
        let mut builder = RecordBufferBuilder::default();
        builder.push("x", Some("k"), b"d", None).unwrap();
        assert!(!builder.build().has_sequence_numbers());
    }

    proptest! {
        #[test]
        fn records_come_back_as_they_were_added(
            records in prop::collection::vec(
                (any::<u64>(), any::<String>(), any::<Vec<u8>>(), any::<Option<i32>>()), 0..20),
        ) {
            let mut builder = RecordBufferBuilder::default();
            for (number, key, data, arrival) in &records {
                let arrival = arrival.map(i64::from);
                builder.push(&number.to_string(), Some(key), data, arrival).unwrap();
            }
            let buffer = builder.build();
            prop_assert_eq!(buffer.len(), records.len());
            let mut size = 0;
            for (at, (number, key, data, arrival)) in records.iter().enumerate() {
                prop_assert_eq!(buffer.sequence_number(at), number.to_string());
                prop_assert_eq!(buffer.partition_key(at).unwrap_or_default(), key);
                prop_assert_eq!(buffer.partition_key(at).is_none(), key.is_empty());
                prop_assert_eq!(buffer.data(at), &data[..]);
                prop_assert_eq!(buffer.data_bytes(at), &data[..]);
                prop_assert_eq!(buffer.arrival_millis(at), arrival.map(i64::from));
                size += key.len() + data.len();
            }
            prop_assert_eq!(buffer.payload_len(), size);
            prop_assert!(buffer.memory() >= size + 32 * records.len());
        }
    }
}
