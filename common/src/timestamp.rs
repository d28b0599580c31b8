//! Times in the answers of Kinesis.

use aws_smithy_types::DateTime;

/// Returns a time in milliseconds since 1970, which is as exact as Kinesis tells times. `None` if it is no such number.
///
/// In JSON a time is a float of seconds, which the SDK reads up to a microsecond early. Rounding gives the same
/// millisecond as CBOR; cutting off would often give the one before.
pub fn whole_millis(time: &DateTime) -> Option<i64> {
    i64::try_from((time.as_nanos() + 500_000).div_euclid(1_000_000)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_millisecond_survives_as_a_float_of_seconds() {
        for millis in (1_767_225_600_000..1_767_225_602_000).chain([0, 1, -1, -1500]) {
            let of_json = DateTime::from_secs_f64(millis as f64 / 1000.0);
            assert_eq!(whole_millis(&of_json), Some(millis), "{of_json:?}");
            assert_eq!(whole_millis(&DateTime::from_millis(millis)), Some(millis));
        }
        assert_eq!(whole_millis(&DateTime::from_secs(i64::MAX)), None);
    }
}
