//! Positions in a shard: the sequence number of a Kinesis record, and the index of a user record in an aggregate.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use kinesis_common::record_buffer::sequence_digits;

/// Positions of the first and the last of some records.
pub(crate) type Span = (ExtendedSequenceNumber, ExtendedSequenceNumber);

/// Sequence number that Kinesis assigned to a record: a decimal integer of up to about 56 digits, which rises within a
/// shard.
///
/// It is compared and ordered as a number, and leading zeros are dropped. A clone is cheap, and allocates nothing.
///
/// ```
/// use kcl::SequenceNumber;
/// let early: SequenceNumber = "999".parse()?;
/// let late: SequenceNumber = "1000".parse()?;
/// assert!(early < late);
/// # Ok::<(), kcl::InvalidSequenceNumber>(())
/// ```
#[derive(Clone)]
pub struct SequenceNumber(Digits);

/// The number in decimal, without leading zeros.
#[derive(Clone)]
enum Digits {
    /// The first `len` bytes.
    Inline { len: u8, bytes: [u8; MAX_INLINE] },
    /// A longer number than Kinesis issues.
    Long(Arc<str>),
}

/// Digits of a number that is kept without an allocation: with them, the type has the size of a cache line.
const MAX_INLINE: usize = 62;

impl SequenceNumber {
    /// The number in decimal, without leading zeros.
    pub fn as_str(&self) -> &str {
        str::from_utf8(self.digits()).expect("digits are UTF-8")
    }

    fn digits(&self) -> &[u8] {
        match &self.0 {
            Digits::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Digits::Long(text) => text.as_bytes(),
        }
    }
}

impl FromStr for SequenceNumber {
    type Err = InvalidSequenceNumber;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = sequence_digits(text).ok_or(InvalidSequenceNumber { _private: () })?;
        if digits.len() > MAX_INLINE {
            return Ok(Self(Digits::Long(Arc::from(digits))));
        }
        let mut bytes = [0; MAX_INLINE];
        bytes[..digits.len()].copy_from_slice(digits.as_bytes());
        Ok(Self(Digits::Inline { len: digits.len() as u8, bytes }))
    }
}

impl PartialEq for SequenceNumber {
    fn eq(&self, other: &Self) -> bool {
        self.digits() == other.digits()
    }
}

impl Eq for SequenceNumber {}

impl Hash for SequenceNumber {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.digits().hash(state);
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        let (digits, others) = (self.digits(), other.digits());
        // Without leading zeros, the longer text is the larger number.
        digits.len().cmp(&others.len()).then_with(|| digits.cmp(others))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for SequenceNumber {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for SequenceNumber {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SequenceNumber({self})")
    }
}

/// Error of a text that is not a sequence number, a decimal integer of 1 to 128 digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a sequence number: give a decimal integer of 1 to 128 digits, as Kinesis returned it")]
pub struct InvalidSequenceNumber {
    _private: (),
}

/// Position of a user record: the sequence number of its Kinesis record, and its index in the aggregate (0 if the record
/// was not aggregated).
///
/// It corresponds to the Java library's `ExtendedSequenceNumber`. The sentinels of that class are variants of
/// [`Checkpoint`](crate::Checkpoint) instead.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct ExtendedSequenceNumber {
    /// Sequence number of the Kinesis record.
    pub sequence_number: SequenceNumber,
    /// Index of the user record in the aggregate, counted before any filtering.
    pub sub_sequence_number: u64,
}

impl ExtendedSequenceNumber {
    /// Creates the position of a user record.
    pub fn new(sequence_number: SequenceNumber, sub_sequence_number: u64) -> Self {
        Self { sequence_number, sub_sequence_number }
    }
}

impl fmt::Display for ExtendedSequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence_number, self.sub_sequence_number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kinesis_common::record_buffer::MAX_SEQUENCE_DIGITS;
    use proptest::prelude::*;

    #[test]
    fn rejects_what_is_no_decimal_integer() {
        for text in ["", "-1", "+1", " 1", "1.0", "TRIM_HORIZON", "\u{0661}"] {
            assert!(text.parse::<SequenceNumber>().is_err(), "{text:?}");
        }
        assert!("9".repeat(129).parse::<SequenceNumber>().is_err());
    }

    #[test]
    fn leading_zeros_do_not_count() {
        let canonical: SequenceNumber = "42".parse().unwrap();
        assert_eq!("00042".parse::<SequenceNumber>().unwrap(), canonical);
        assert_eq!("000".parse::<SequenceNumber>().unwrap().as_str(), "0");
    }

    #[test]
    fn a_number_takes_a_cache_line() {
        assert_eq!(size_of::<SequenceNumber>(), 64);
    }

    #[test]
    fn numbers_of_every_length_are_kept_and_ordered() {
        let number = |len: usize| "1".repeat(len).parse::<SequenceNumber>().unwrap();
        for len in 1..MAX_SEQUENCE_DIGITS {
            assert_eq!(number(len).as_str().len(), len);
            assert_eq!(number(len), number(len));
            assert!(number(len) < number(len + 1));
        }
    }

    proptest! {
        #[test]
        fn orders_as_numbers(a: u128, b: u128, sub_a: u64, sub_b: u64) {
            let position = |number: u128, sub| {
                ExtendedSequenceNumber::new(number.to_string().parse().unwrap(), sub)
            };
            prop_assert_eq!(
                position(a, sub_a).cmp(&position(b, sub_b)),
                (a, sub_a).cmp(&(b, sub_b))
            );
        }
    }
}
