//! Hash keys: where a record falls in `0..=2^128 - 1`, and how shards divide that space.

use md5::{Digest, Md5};

use super::error::ApiError;

/// The hash key of a partition key: its MD5, big-endian.
pub(crate) fn of_partition_key(key: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(key.as_bytes()).into())
}

/// Parses a decimal hash key given as `field`.
pub(crate) fn parse(field: &str, text: &str) -> Result<u128, ApiError> {
    let well_formed = !text.is_empty()
        && text.len() <= 39
        && text.bytes().all(|digit| digit.is_ascii_digit())
        && (text == "0" || !text.starts_with('0'));
    if !well_formed {
        return Err(ApiError::constraint(
            field,
            "Member must satisfy regular expression pattern: 0|([1-9]\\d{0,38})",
        ));
    }
    text.parse().map_err(|_| {
        ApiError::invalid_argument(format!(
            "Invalid {field}. {field} must be in the range: [0, 2^128-1]. Specified value was {text}"
        ))
    })
}

/// Where each of `count` equal shards starts. `count` is 1 or more.
pub(crate) fn uniform_starts(count: u32) -> Vec<u128> {
    let n = u128::from(count.max(1));
    // 2^128 = quotient * n + remainder, in 128 bits.
    let (mut quotient, mut remainder) = (u128::MAX / n, u128::MAX % n + 1);
    if remainder == n {
        quotient = quotient.wrapping_add(1);
        remainder = 0;
    }
    (0..n).map(|i| i.wrapping_mul(quotient) + i * remainder / n).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_divide_the_space_as_aws_does() {
        assert_eq!(uniform_starts(1), [0]);
        assert_eq!(uniform_starts(2), [0, 1 << 127]);
        let third = 113_427_455_640_312_821_154_458_202_477_256_070_485;
        assert_eq!(uniform_starts(3), [0, third, 2 * third]);
        assert_eq!(uniform_starts(4), [0, 1 << 126, 2 << 126, 3 << 126]);
        for count in 1..300 {
            assert!(uniform_starts(count).is_sorted_by(|a, b| a < b), "{count} shards");
        }
    }

    #[test]
    fn hash_keys_are_decimal_and_fit_128_bits() {
        assert_eq!(parse("K", "0"), Ok(0));
        assert_eq!(parse("K", &u128::MAX.to_string()), Ok(u128::MAX));
        let over = "340282366920938463463374607431768211456";
        assert_eq!(parse("K", over).unwrap_err().code, "InvalidArgumentException");
        for bad in ["", "01", "-1", "1e3", " 1", "1234567890123456789012345678901234567890"] {
            assert_eq!(parse("K", bad).unwrap_err().code, "ValidationException", "{bad}");
        }
    }

    #[test]
    fn a_partition_key_hashes_to_its_md5() {
        assert_eq!(of_partition_key(""), 0xd41d_8cd9_8f00_b204_e980_0998_ecf8_427e);
    }
}
