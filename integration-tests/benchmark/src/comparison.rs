//! Sides that do the same work in turn, and the ratios of their CPU time.

use std::fmt::Display;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::statistics::median;
use crate::usage::Used;

/// The figures of one side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Name of the side.
    pub name: String,
    /// CPU time in microseconds for each record, the median of the rounds.
    pub cpu_micros: f64,
    /// Its CPU time over that of the first side in the same round, the median of the rounds.
    pub ratio: f64,
    /// Records per second, the median of the rounds.
    pub rate: f64,
}

/// Runs all `sides` in each round, prints their figures, and returns them in the order of `sides`.
///
/// The first side is the yardstick. Each round begins with another side, because the machine may get slower or faster
/// meanwhile. `records`: the records of one run.
///
/// # Errors
/// The first error of `run`.
pub fn compare<S: Display>(
    rounds: usize,
    records: u64,
    sides: &[S],
    mut run: impl FnMut(&S) -> Result<Used, Error>,
) -> Result<Vec<Measured>, Error> {
    let records = records as f64;
    let micros = |used: &Used| used.cpu_seconds * 1e6 / records;
    let names: String = sides.iter().map(|side| format!("{:>16}", side.to_string())).collect();
    println!("round {names}");
    let mut all = Vec::new();
    for round in 0..rounds {
        let used = turns(round, sides, &mut run)?;
        let line: String = used.iter().map(|used| format!("{:>16.3}", micros(used))).collect();
        println!("{:>5} {line}", round + 1);
        all.push(used);
    }
    println!("{:<16} {:>11} {:>14} {:>11}", "median", "us a record", "over the first", "records/s");
    let measured = sides.iter().enumerate().map(|(place, side)| {
        let measured = Measured {
            name: side.to_string(),
            cpu_micros: median(all.iter().map(|round| micros(&round[place]))),
            ratio: median(all.iter().map(|round| micros(&round[place]) / micros(&round[0]))),
            rate: records / median(all.iter().map(|round| round[place].wall_seconds)),
        };
        let Measured { name, cpu_micros, ratio, rate } = &measured;
        println!("{name:<16} {cpu_micros:>11.3} {ratio:>14.2} {rate:>11.0}");
        measured
    });
    Ok(measured.collect())
}

/// Runs all `sides` once, and returns their figures in the order of `sides`.
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
    fn ratios_are_those_of_one_round() {
        // The machine is slower in the second and third round.
        let mut seconds = [1.0, 3.0, 2.0, 6.0, 4.0, 8.0].into_iter();
        let measured = compare(3, 1_000_000, &["floor", "ours"], |_| {
            let cpu_seconds = seconds.next().unwrap();
            Ok(Used { cpu_seconds, wall_seconds: 2.0, peak_resident_bytes: 0 })
        });
        let [floor, ours] = measured.unwrap().try_into().unwrap();
        assert_eq!((floor.cpu_micros, floor.ratio, floor.rate), (4.0, 1.0, 500_000.0));
        // Rounds of 1 and 3, 6 and 2 (it began), 4 and 8.
        assert_eq!((ours.cpu_micros, ours.ratio), (3.0, 2.0));
    }
}
