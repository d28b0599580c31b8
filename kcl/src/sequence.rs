//! Positions in a shard: the sequence number of a Kinesis record, and the index of a user record in an aggregate.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Sequence number that Kinesis assigned to a record: a decimal integer of up to about 56 digits, which rises within a
/// shard.
///
/// It is compared and ordered as a number, and leading zeros are dropped. A clone is cheap.
///
/// ```
/// use kcl::SequenceNumber;
/// let early: SequenceNumber = "999".parse()?;
/// let late: SequenceNumber = "1000".parse()?;
/// assert!(early < late);
/// # Ok::<(), kcl::InvalidSequenceNumber>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SequenceNumber(Arc<str>);

/// Longest text that is accepted as a sequence number. Kinesis assigns 56 digits. The Java library accepts any length.
const MAX_DIGITS: usize = 128;

impl SequenceNumber {
    /// The number in decimal, without leading zeros.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SequenceNumber {
    type Err = InvalidSequenceNumber;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = (1..=MAX_DIGITS).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_digit());
        if !valid {
            return Err(InvalidSequenceNumber { _private: () });
        }
        let digits = text.trim_start_matches('0');
        Ok(Self(Arc::from(if digits.is_empty() { "0" } else { digits })))
    }
}

impl Ord for SequenceNumber {
    fn cmp(&self, other: &Self) -> Ordering {
        // Without leading zeros, the longer text is the larger number.
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for SequenceNumber {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for SequenceNumber {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Debug for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SequenceNumber({})", self.0)
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
