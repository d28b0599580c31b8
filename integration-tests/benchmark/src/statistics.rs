//! Rounds in which the sides take turns, and what is computed from their figures.

use crate::Error;

/// Runs all `sides` once, and returns their figures in the order of `sides`.
///
/// Each round (0, 1, ...) begins with another side, because the machine may get slower or faster meanwhile.
///
/// # Errors
/// The first error of `run`.
pub fn turns<S, F>(
    round: usize,
    sides: &[S],
    run: impl FnMut(&S) -> Result<F, Error>,
) -> Result<Vec<F>, Error> {
    let first = round % sides.len();
    let in_turn = sides[first..].iter().chain(&sides[..first]);
    let mut figures = in_turn.map(run).collect::<Result<Vec<_>, _>>()?;
    figures.rotate_right(first);
    Ok(figures)
}

/// The median. Of an even number, the higher one of the two in the middle. Not a number if there are no values.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    quantile(values, 0.5)
}

/// The value below which `share` of the values lie. Not a number if there are no values.
pub fn quantile(values: impl IntoIterator<Item = f64>, share: f64) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let place = (values.len().saturating_sub(1) as f64 * share).round() as usize;
    values.get(place).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_begins_with_another_side_and_keeps_the_order() {
        let mut ran = String::new();
        for round in 0..4 {
            let figures = turns(round, &["a", "b", "c"], |side| {
                ran.push_str(side);
                Ok(*side)
            });
            assert_eq!(figures.unwrap(), ["a", "b", "c"]);
        }
        assert_eq!(ran, "abcbcacababc");
    }

    #[test]
    fn the_first_error_ends_a_round() {
        let figures: Result<Vec<()>, _> = turns(0, &["no", "never"], |side| Err((*side).into()));
        assert_eq!(figures.unwrap_err().to_string(), "no");
    }

    #[test]
    fn quantiles() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 3.0);
        assert_eq!(quantile((0..=100).map(f64::from), 0.99), 99.0);
        assert!(median([]).is_nan());
    }
}
