//! Hash keys: where a record lands in a stream.

use std::fmt;
use std::str::FromStr;

use crate::md5::{md5, md5_each};

/// A hash key: the 128-bit number by which Kinesis chooses the shard of a record.
///
/// It is the MD5 of the partition key (UTF-8 bytes, digest read as a big-endian number) unless the
/// producer gives an explicit hash key. On the wire it is written in decimal, which is what
/// [`Display`](fmt::Display) prints and [`FromStr`] reads.
///
/// ```
/// use kinesis_aggregation::HashKey;
///
/// let key: HashKey = "42".parse()?;
/// assert_eq!(key, HashKey::new(42));
/// assert_eq!(HashKey::MAX.to_string(), "340282366920938463463374607431768211455");
/// assert!("340282366920938463463374607431768211456".parse::<HashKey>().is_err());
/// # Ok::<(), kinesis_aggregation::ParseHashKeyError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashKey(u128);

impl HashKey {
    /// The lowest hash key, 0.
    pub const MIN: Self = Self(0);
    /// The highest hash key, 2^128 - 1.
    pub const MAX: Self = Self(u128::MAX);

    /// The hash key of this number.
    pub const fn new(value: u128) -> Self {
        Self(value)
    }

    /// The number.
    pub const fn get(self) -> u128 {
        self.0
    }

    /// The hash key Kinesis derives from a partition key: its MD5 as a big-endian number.
    ///
    /// For many keys at a time, [`hash_partition_keys`] takes about a quarter of the time.
    pub fn of_partition_key(key: &str) -> Self {
        Self(u128::from_be_bytes(md5(key.as_bytes())))
    }
}

impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Reads ASCII decimal digits, 0 to 2^128 - 1. Leading zeros are allowed (and are gone when the key
/// is printed); a sign or a space is not.
impl FromStr for HashKey {
    type Err = ParseHashKeyError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        // `u128` reads a leading plus sign too, which Kinesis refuses.
        if s.starts_with('+') {
            return Err(ParseHashKeyError(()));
        }
        s.parse().map(Self).map_err(|_| ParseHashKeyError(()))
    }
}

impl From<u128> for HashKey {
    fn from(value: u128) -> Self {
        Self(value)
    }
}

impl From<HashKey> for u128 {
    fn from(key: HashKey) -> Self {
        key.0
    }
}

/// The text is not a hash key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a hash key: give decimal digits, a number from 0 to 2^128 - 1")]
pub struct ParseHashKeyError(());

/// The hash keys of many partition keys at a time.
///
/// `out` is cleared, then holds one hash key for each partition key, in the same order. Equal to
/// [`HashKey::of_partition_key`] for each, but eight keys are hashed at a time.
pub fn hash_partition_keys<'a>(
    keys: impl IntoIterator<IntoIter: ExactSizeIterator<Item = &'a str>>,
    out: &mut Vec<HashKey>,
) {
    let keys = keys.into_iter();
    out.clear();
    out.resize(keys.len(), HashKey::MIN);
    md5_each(keys.map(str::as_bytes), |index, digest| {
        out[index] = HashKey(u128::from_be_bytes(digest));
    });
}

/// A range of hash keys, both ends inclusive: what a shard owns.
///
/// ```
/// use kinesis_aggregation::{HashKey, HashKeyRange};
///
/// let range = HashKeyRange::new(HashKey::new(10), HashKey::new(20))?;
/// assert!(range.contains(HashKey::new(20)));
/// assert!(!range.contains(HashKey::new(21)));
/// assert!(HashKeyRange::FULL.contains(HashKey::MAX));
/// # Ok::<(), kinesis_aggregation::InvalidHashKeyRange>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashKeyRange {
    start: HashKey,
    end: HashKey,
}

impl HashKeyRange {
    /// Every hash key.
    pub const FULL: Self = Self { start: HashKey::MIN, end: HashKey::MAX };

    /// The range from `start` to `end`, both included.
    ///
    /// # Errors
    /// [`InvalidHashKeyRange`] if `start` is above `end`.
    pub fn new(start: HashKey, end: HashKey) -> Result<Self, InvalidHashKeyRange> {
        if start <= end { Ok(Self { start, end }) } else { Err(InvalidHashKeyRange { start, end }) }
    }

    /// The first hash key of the range.
    pub const fn start(self) -> HashKey {
        self.start
    }

    /// The last hash key of the range.
    pub const fn end(self) -> HashKey {
        self.end
    }

    /// Whether `key` lies in the range.
    pub fn contains(self, key: HashKey) -> bool {
        self.start <= key && key <= self.end
    }
}

impl fmt::Display for HashKeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.start, self.end)
    }
}

/// The start of a hash-key range is above its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a hash-key range needs a start at or below its end, and {start} is above {end}")]
pub struct InvalidHashKeyRange {
    start: HashKey,
    end: HashKey,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn md5_of_a_partition_key_is_read_big_endian() {
        // The digest is from RFC 1321, appendix A.5.
        let abc = HashKey::of_partition_key("abc");
        assert_eq!(abc.get(), 0x9001_5098_3cd2_4fb0_d696_3f7d_28e1_7f72);
    }

    #[test]
    fn text_that_is_no_hash_key_is_refused() {
        let over = "340282366920938463463374607431768211456";
        for text in ["", "+1", "-1", " 1", "1 ", "0x1", "1.0", "\u{661}", over] {
            assert_eq!(text.parse::<HashKey>(), Err(ParseHashKeyError(())), "{text:?}");
        }
        assert_eq!("007".parse(), Ok(HashKey::new(7)));
        assert_eq!(format!("{}000{}", "0", HashKey::MAX).parse(), Ok(HashKey::MAX));
    }

    #[test]
    fn a_range_upside_down_is_refused() {
        let error = HashKeyRange::new(HashKey::new(2), HashKey::new(1)).unwrap_err();
        assert!(error.to_string().contains("2 is above 1"));
        assert!(HashKeyRange::new(HashKey::MAX, HashKey::MAX).unwrap().contains(HashKey::MAX));
    }

    proptest! {
        #[test]
        fn decimal_round_trip(value: u128) {
            let key = HashKey::new(value);
            prop_assert_eq!(key.to_string().parse(), Ok(key));
        }

        #[test]
        fn batch_equals_one_at_a_time(keys: Vec<String>) {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            let mut out = vec![HashKey::MAX];
            hash_partition_keys(keys.iter().copied(), &mut out);
            let single: Vec<_> = keys.iter().map(|key| HashKey::of_partition_key(key)).collect();
            prop_assert_eq!(out, single);
        }

        /// Cuts partition the key space: the range found by binary search over the ends is the one
        /// and only range that contains the key.
        #[test]
        fn lookup_by_end_equals_linear_search(mut cuts: Vec<u128>, key: u128, at_cut: bool) {
            cuts.retain(|cut| *cut != u128::MAX);
            cuts.sort_unstable();
            cuts.dedup();
            let mut ranges = Vec::new();
            let mut start = 0;
            for cut in cuts.iter().copied().chain([u128::MAX]) {
                ranges.push(HashKeyRange::new(HashKey::new(start), HashKey::new(cut)).unwrap());
                start = cut.wrapping_add(1);
            }
            let key = HashKey::new(if at_cut && !cuts.is_empty() {
                cuts[key as usize % cuts.len()].wrapping_add(key >> 127)
            } else {
                key
            });
            let linear: Vec<_> = (0..ranges.len()).filter(|i| ranges[*i].contains(key)).collect();
            let found = ranges.partition_point(|range| range.end() < key);
            prop_assert_eq!(linear, vec![found]);
        }
    }
}
