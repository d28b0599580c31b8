//! The bound of a replay: which records of a shard are within it, and when no more can follow.
//!
//! A shard finishes in one of three ways:
//!
//! * A record is beyond the bound. It is cut off, with all records after it.
//! * The reader finds no further record in the open shard, at a time of the service after the bound.
//! * The shard ends. Its children follow it, and finish by the same rules.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::RawRecords;
use crate::config::Until;
use crate::sequence::SequenceNumber;
use crate::service_time::HOST_SKEW;

/// A `Date` of the service has whole seconds, rounded down.
const SECOND: Duration = Duration::from_secs(1);

/// The bounds of all shards.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// Time of arrival from which on records are beyond the bound.
    before: SystemTime,
    /// The last record of each named shard.
    last: BTreeMap<String, SequenceNumber>,
}

impl Bounds {
    /// `now`: the service's time. Each record that was acknowledged before it has arrived before the tip.
    pub(crate) fn new(until: &Until, now: SystemTime) -> Self {
        let tip = now + SECOND + HOST_SKEW;
        match until {
            Until::Tip => Self { before: tip, last: BTreeMap::new() },
            Until::Timestamp(time) => Self { before: *time, last: BTreeMap::new() },
            Until::SequenceNumbers(last) => Self { before: tip, last: last.clone() },
        }
    }

    /// The bound of one shard.
    pub(crate) fn of(&self, shard_id: &str) -> Bound {
        Bound { before: self.before, last: self.last.get(shard_id).cloned() }
    }
}

/// The bound of one shard.
#[derive(Debug, Clone)]
pub(crate) struct Bound {
    before: SystemTime,
    /// The last record. `None`: the time decides.
    last: Option<SequenceNumber>,
}

impl Bound {
    /// Cuts off the first record beyond the bound, and all records after it. Returns whether there is one.
    pub(crate) fn cut(&self, records: &mut RawRecords) -> bool {
        let is_beyond = |index: &usize| match &self.last {
            Some(last) => records.sequence_number(*index) > *last,
            // A record whose arrival is unknown is delivered.
            None => records.arrival(*index).is_some_and(|arrival| arrival >= self.before),
        };
        let Some(first) = (0..records.len()).find(is_beyond) else {
            return false;
        };
        records.truncate(first);
        true
    }

    /// Whether no record within the bound can follow. `read_to`: all records that arrived before this time were
    /// processed, and the shard was open. `passed`: the last record that was processed.
    pub(crate) fn is_reached(&self, read_to: SystemTime, passed: Option<&SequenceNumber>) -> bool {
        let is_last_passed = || self.last.as_ref().is_some_and(|last| passed >= Some(last));
        read_to >= self.before || is_last_passed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrieval::RawRecord;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    fn number(number: u64) -> SequenceNumber {
        number.to_string().parse().unwrap()
    }

    /// Records with these numbers, each of which arrived at the second of its number.
    fn records(numbers: &[u64]) -> RawRecords {
        let record = |seq: &u64| RawRecord {
            sequence_number: number(*seq),
            partition_key: Some("key".to_owned()),
            data: bytes::Bytes::from_static(b"data"),
            arrival: Some(at(*seq)),
        };
        numbers.iter().map(record).collect()
    }

    /// The numbers that are left, and whether any was cut off.
    fn cut(bound: &Bound, numbers: &[u64]) -> (Vec<String>, bool) {
        let mut records = records(numbers);
        let is_cut = bound.cut(&mut records);
        let left = (0..records.len()).map(|index| records.sequence_number(index).to_string());
        (left.collect(), is_cut)
    }

    #[test]
    fn a_time_cuts_off_the_first_record_that_arrived_then_and_all_after_it() {
        let bound = Bounds::new(&Until::Timestamp(at(5)), at(9)).of("shard");
        assert_eq!(cut(&bound, &[3, 4]), (vec!["3".into(), "4".into()], false));
        assert_eq!(cut(&bound, &[4, 5, 6, 4]), (vec!["4".into()], true));
        assert_eq!(cut(&bound, &[5]), (vec![], true));
        assert_eq!(cut(&bound, &[]), (vec![], false));
    }

    #[test]
    fn the_last_record_of_a_shard_is_within_its_bound() {
        let until = Until::SequenceNumbers([("named".to_owned(), number(5))].into());
        let bounds = Bounds::new(&until, at(100));
        let bound = bounds.of("named");
        assert_eq!(cut(&bound, &[4, 5]), (vec!["4".into(), "5".into()], false));
        assert_eq!(cut(&bound, &[5, 6]), (vec!["5".into()], true));
        let tip = bounds.of("another");
        assert_eq!(cut(&tip, &[102, 103]), (vec!["102".into()], true), "the tip at the start");
    }

    #[test]
    fn a_bound_is_reached_by_time_or_by_the_last_record() {
        let until = Until::SequenceNumbers([("named".to_owned(), number(5))].into());
        let bounds = Bounds::new(&until, at(100));
        for (shard, read_to, passed, is_reached) in [
            ("named", 10, None, false),
            ("named", 10, Some(4), false),
            ("named", 10, Some(5), true),
            ("named", 103, Some(4), true),
            ("another", 10, Some(5), false),
            ("another", 102, None, false),
            ("another", 103, None, true),
        ] {
            let passed = passed.map(number);
            let reached = bounds.of(shard).is_reached(at(read_to), passed.as_ref());
            assert_eq!(reached, is_reached, "{shard} {read_to} {passed:?}");
        }
    }
}
