//! Numbers of DynamoDB: decimals of up to 38 digits, exact.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::refusal::Refusal;

const MAX_DIGITS: usize = 38;
/// The power of ten of the first digit lies within these.
const MAX_MAGNITUDE: i32 = 125;
const MIN_MAGNITUDE: i32 = -130;

/// A decimal: `mantissa * 10^exponent`, with no zero at the end of the mantissa.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub(crate) struct Number {
    negative: bool,
    mantissa: u128,
    exponent: i16,
}

impl Number {
    /// Reads a number as a request writes it.
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        if text.is_empty() {
            return Err(Refusal::validation(
                "The parameter cannot be converted to a numeric value",
            ));
        }
        let no_number = || {
            Refusal::validation(format!(
                "The parameter cannot be converted to a numeric value: {text}"
            ))
        };
        let (negative, rest) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (digits, exponent) = match rest.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse::<i32>().map_err(|_| no_number())?),
            None => (rest, 0),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || !are_digits(whole) || !are_digits(fraction) {
            return Err(no_number());
        }
        let digits: Vec<u8> =
            (whole.bytes().chain(fraction.bytes())).map(|byte| byte - b'0').collect();
        let fraction = i32::try_from(fraction.len()).map_err(|_| no_number())?;
        Self::from_digits(negative, &digits, exponent.saturating_sub(fraction))
    }

    /// The number with these digits, most significant first, times a power of ten.
    fn from_digits(negative: bool, digits: &[u8], exponent: i32) -> Result<Self, Refusal> {
        let first = digits.iter().position(|digit| *digit != 0);
        let Some(first) = first else {
            return Ok(Self::default());
        };
        let last = digits.iter().rposition(|digit| *digit != 0).unwrap_or(first);
        let significant = &digits[first..=last];
        let dropped = i32::try_from(digits.len() - 1 - last).unwrap_or(i32::MAX);
        let exponent = exponent.saturating_add(dropped);
        let length = i32::try_from(significant.len()).unwrap_or(i32::MAX);
        let magnitude = exponent.saturating_add(length - 1);
        if magnitude > MAX_MAGNITUDE {
            return Err(Refusal::validation(
                "Number overflow. Attempting to store a number with magnitude larger than supported \
                 range",
            ));
        }
        if magnitude < MIN_MAGNITUDE {
            return Err(Refusal::validation(
                "Number underflow. Attempting to store a number with magnitude smaller than \
                 supported range",
            ));
        }
        if significant.len() > MAX_DIGITS {
            return Err(Refusal::validation(
                "Attempting to store more than 38 significant digits in a Number",
            ));
        }
        let mantissa = (significant.iter()).fold(0, |sum, digit| sum * 10 + u128::from(*digit));
        Ok(Self {
            negative,
            mantissa,
            // It is within the magnitudes above, less 38 digits.
            exponent: i16::try_from(exponent).unwrap_or(i16::MAX),
        })
    }

    /// The mantissa's digits, most significant first.
    fn digits(self) -> Vec<u8> {
        self.mantissa.to_string().bytes().map(|byte| byte - b'0').collect()
    }

    /// The power of ten of the first digit.
    fn magnitude(self) -> i32 {
        let digits = self.mantissa.checked_ilog10().unwrap_or(0);
        i32::from(self.exponent) + i32::try_from(digits).unwrap_or(0)
    }

    pub(super) fn plus(self, other: Self) -> Result<Self, Refusal> {
        let exponent = i32::from(self.exponent.min(other.exponent));
        let aligned = |number: Self| {
            let mut digits = number.digits();
            let zeros = usize::try_from(i32::from(number.exponent) - exponent).unwrap_or(0);
            digits.extend(std::iter::repeat_n(0, zeros));
            digits
        };
        let (a, b) = (aligned(self), aligned(other));
        let length = a.len().max(b.len()) + 1;
        let padded = |digits: Vec<u8>| {
            let mut all = vec![0; length - digits.len()];
            all.extend(digits);
            all
        };
        let (a, b) = (padded(a), padded(b));
        if self.negative == other.negative {
            return Self::from_digits(self.negative, &sum(&a, &b), exponent);
        }
        match a.cmp(&b) {
            Ordering::Less => Self::from_digits(other.negative, &difference(&b, &a), exponent),
            _ => Self::from_digits(self.negative, &difference(&a, &b), exponent),
        }
    }

    pub(super) fn minus(self, other: Self) -> Result<Self, Refusal> {
        self.plus(Self { negative: !other.negative && other.mantissa != 0, ..other })
    }

    pub(super) fn from_count(count: usize) -> Self {
        let digits: Vec<u8> = count.to_string().bytes().map(|byte| byte - b'0').collect();
        Self::from_digits(false, &digits, 0).unwrap_or_default()
    }

    /// What it counts as in the size of an item: a byte for two digits and one more.
    pub(super) fn size(self) -> usize {
        let digits = self.mantissa.checked_ilog10().map_or(1, |log| log as usize + 1);
        digits.div_ceil(2) + 1 + usize::from(self.negative)
    }
}

/// Digits of the same length, without a carry out of the first.
fn sum(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut digits = vec![0; a.len()];
    let mut carry = 0;
    for nth in (0..a.len()).rev() {
        let digit = a[nth] + b[nth] + carry;
        digits[nth] = digit % 10;
        carry = digit / 10;
    }
    digits
}

/// `a - b`, digits of the same length, where `a` is not less than `b`.
fn difference(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut digits = vec![0; a.len()];
    let mut borrow = 0;
    for nth in (0..a.len()).rev() {
        let taken = b[nth] + borrow;
        borrow = u8::from(a[nth] < taken);
        digits[nth] = a[nth] + 10 * borrow - taken;
    }
    digits
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |number: &Self| match (number.mantissa, number.negative) {
            (0, _) => 0,
            (_, true) => -1,
            (_, false) => 1,
        };
        let absolute = |number: &Self| {
            let missing = MAX_DIGITS as u32 - 1 - number.mantissa.checked_ilog10().unwrap_or(0);
            (number.magnitude(), number.mantissa * 10_u128.pow(missing))
        };
        sign(self).cmp(&sign(other)).then_with(|| match sign(self) {
            0 => Ordering::Equal,
            1 => absolute(self).cmp(&absolute(other)),
            _ => absolute(other).cmp(&absolute(self)),
        })
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Plain digits, never an exponent.
impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negative {
            f.write_str("-")?;
        }
        let digits = self.mantissa.to_string();
        match usize::try_from(-i32::from(self.exponent)) {
            Ok(0) => f.write_str(&digits),
            // A fraction: the point stands before its last digits.
            Ok(fraction) if fraction < digits.len() => {
                let (whole, fraction) = digits.split_at(digits.len() - fraction);
                write!(f, "{whole}.{fraction}")
            }
            Ok(fraction) => write!(f, "0.{digits:0>fraction$}"),
            Err(_) => {
                let zeros = usize::try_from(self.exponent).unwrap_or(0);
                write!(f, "{digits}{}", "0".repeat(zeros))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(text: &str) -> Number {
        Number::parse(text).unwrap()
    }

    #[test]
    fn numbers_are_shown_plain_and_without_idle_zeros() {
        for (text, shown) in [
            ("0", "0"),
            ("-0.00", "0"),
            ("+007", "7"),
            ("1.50", "1.5"),
            ("-.5", "-0.5"),
            ("5.", "5"),
            ("1e3", "1000"),
            ("12.5E-4", "0.00125"),
            ("120e-1", "12"),
        ] {
            assert_eq!(number(text).to_string(), shown, "{text}");
        }
        let wide = "12345678901234567890123456789012345678";
        assert_eq!(number(wide).to_string(), wide);
        assert_eq!(number("1e125").to_string().len(), 126);
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in [
            "",
            "-",
            ".",
            "e5",
            "1e",
            "1e5.0",
            "many",
            "1 ",
            "0x10",
            "1e126",
            "-9.9e125e",
            "1e-131",
            "123456789012345678901234567890123456789",
            "1e99999999999",
            "NaN",
        ] {
            assert!(Number::parse(text).is_err(), "{text}");
        }
        assert!(Number::parse("1e-130").is_ok());
        assert!(number("9e125").plus(number("9e125")).is_err());
        assert!(number("1e40").plus(number("1")).is_err(), "41 digits");
    }

    proptest! {
        #[test]
        fn sums_and_order_are_those_of_integers(
            a in -(1_i128 << 80)..1_i128 << 80,
            b in -(1_i128 << 80)..1_i128 << 80,
            exponent in -40_i32..40,
        ) {
            let scaled = |value: i128| number(&format!("{value}e{exponent}"));
            let (x, y) = (scaled(a), scaled(b));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x.plus(y).unwrap(), scaled(a + b));
            prop_assert_eq!(x.minus(y).unwrap(), scaled(a - b));
            prop_assert_eq!(number(&x.to_string()), x);
        }

        #[test]
        fn garbage_never_panics(text in ".{0,50}", numeric in "[-+0-9.eE]{0,50}") {
            let _ = Number::parse(&text);
            if let Ok(number) = Number::parse(&numeric) {
                prop_assert_eq!(Number::parse(&number.to_string()), Ok(number));
            }
        }
    }
}
