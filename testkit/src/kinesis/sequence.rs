//! Sequence numbers, with the layout Kinesis itself uses: 186 bits, written as 56 decimal digits.
//!
//! From the top: version (2 bits, always 2), the shard's epoch in seconds (36), the low four bits
//! of the shard's index, the record's index in the shard (64), a mark (8), the second of the
//! arrival (36), the shard's index (32), version again (4, always 2). A shard's epoch is later
//! than its parents', so a child's numbers are all greater than its parents'.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Decimal digits of every sequence number.
const DIGITS: usize = 56;

/// The mark and the index of the last number of a closed shard, beyond every record's.
const END_MARK: u8 = 0xff;
const END_INDEX: u64 = i64::MAX as u64;

/// A sequence number. The order of the fields is the order of the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SequenceNumber {
    epoch: u64,
    shard_low: u8,
    index: u64,
    mark: u8,
    second: u64,
    shard: u32,
}

impl SequenceNumber {
    /// The number of record `index` of a shard; records count from 1, the shard's start is 0.
    pub(crate) fn new(epoch: u64, shard: u32, index: u64, second: u64) -> Self {
        Self { epoch, shard_low: low_bits(shard), index, mark: 0, second, shard }
    }

    /// The last number of a shard closed at `second`.
    pub(crate) fn end(epoch: u64, shard: u32, second: u64) -> Self {
        Self { mark: END_MARK, ..Self::new(epoch, shard, END_INDEX, second) }
    }

    /// The record's index, if this number is one of the shard with this epoch and index.
    pub(crate) fn index_in(self, epoch: u64, shard: u32) -> Option<u64> {
        (self.epoch == epoch && self.shard == shard).then_some(self.index)
    }

    /// The record's index in its shard.
    pub(crate) fn index(self) -> u64 {
        self.index
    }

    fn limbs(self) -> [u64; 3] {
        [
            (2 << 56) | (self.epoch << 20) | (u64::from(self.shard_low) << 16) | (self.index >> 48),
            (self.index << 16) | (u64::from(self.mark) << 8) | (self.second >> 28),
            (self.second << 36) | (u64::from(self.shard) << 4) | 2,
        ]
    }
}

fn low_bits(shard: u32) -> u8 {
    (shard & 0xf) as u8
}

impl SequenceNumber {
    /// Its digits, one ASCII character each.
    pub(crate) fn digits(self) -> [u8; DIGITS] {
        const CHUNK: u64 = 10_000_000_000_000_000_000;
        let mut digits = [b'0'; DIGITS];
        let mut limbs = self.limbs();
        for place in digits.rchunks_mut(19) {
            let mut chunk = 0;
            for limb in &mut limbs {
                let dividend = (u128::from(chunk) << 64) | u128::from(*limb);
                *limb = (dividend / u128::from(CHUNK)) as u64;
                chunk = (dividend % u128::from(CHUNK)) as u64;
            }
            for digit in place.iter_mut().rev() {
                *digit = b'0' + (chunk % 10) as u8;
                chunk /= 10;
            }
        }
        digits
    }
}

impl fmt::Display for SequenceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(text(&self.digits()))
    }
}

/// ASCII digits as text.
fn text(digits: &[u8]) -> &str {
    str::from_utf8(digits).expect("digits are ASCII")
}

/// The text is no sequence number of any shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotASequenceNumber;

impl FromStr for SequenceNumber {
    type Err = NotASequenceNumber;

    fn from_str(text: &str) -> Result<Self, NotASequenceNumber> {
        if text.len() != DIGITS || !text.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(NotASequenceNumber);
        }
        let mut limbs = [0u64; 3];
        for digit in text.bytes() {
            let mut carry = u128::from(digit - b'0');
            for limb in limbs.iter_mut().rev() {
                let value = u128::from(*limb) * 10 + carry;
                *limb = value as u64;
                carry = value >> 64;
            }
        }
        let number = Self {
            epoch: (limbs[0] >> 20) & ((1 << 36) - 1),
            shard_low: ((limbs[0] >> 16) & 0xf) as u8,
            index: (limbs[0] << 48) | (limbs[1] >> 16),
            mark: (limbs[1] >> 8) as u8,
            second: ((limbs[1] & 0xff) << 28) | (limbs[2] >> 36),
            shard: (limbs[2] >> 4) as u32,
        };
        let genuine = number.limbs() == limbs && number.shard_low == low_bits(number.shard);
        if genuine { Ok(number) } else { Err(NotASequenceNumber) }
    }
}

impl Serialize for SequenceNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text(&self.digits()))
    }
}

impl<'de> Deserialize<'de> for SequenceNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|_| D::Error::custom(format!("{text} is no sequence number")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_of_the_real_service_is_read_and_written_back() {
        // From AWS's API reference.
        let text = "49543463076548007577105092703039560359975228518395019266";
        let number: SequenceNumber = text.parse().unwrap();
        assert_eq!(number.to_string(), text);
        assert_eq!(number.shard, 0);
    }

    #[test]
    fn what_is_no_sequence_number_is_refused() {
        let number = SequenceNumber::new(1_767_225_600, 3, 7, 1_767_225_601).to_string();
        let mut other_version = number.clone();
        other_version.replace_range(55.., "0");
        for bad in ["", "0", "1", &number[1..], &"9".repeat(56), &"0".repeat(56), &other_version] {
            assert!(bad.parse::<SequenceNumber>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn numbers_round_trip_in_56_digits_and_keep_their_order(
            a in (0..1u64 << 36, any::<u32>(), any::<u64>(), 0..1u64 << 36),
            b in (0..1u64 << 36, any::<u32>(), any::<u64>(), 0..1u64 << 36),
            same_shard in any::<bool>(),
        ) {
            let (first, second) = if same_shard { ((b.0, b.1), (b.0, b.1)) } else { ((a.0, a.1), (b.0, b.1)) };
            let a = SequenceNumber::new(first.0, first.1, a.2, a.3);
            let b = SequenceNumber::new(second.0, second.1, b.2, b.3);
            let (a_text, b_text) = (a.to_string(), b.to_string());
            prop_assert_eq!(a_text.len(), DIGITS);
            prop_assert_eq!(a_text.parse::<SequenceNumber>(), Ok(a));
            prop_assert_eq!(a.cmp(&b), a_text.cmp(&b_text));
        }
    }
}
