//! The records of a batch that are not done, and which of them are delivered next. Pure.
//!
//! Records are named by their number in the batch. They are in *parts*, which are delivered one after the other. A batch
//! starts as one part. Parts come from halving, and from failures that name some of the records.

use std::collections::VecDeque;
use std::iter;
use std::ops::Range;

use crate::processor::failure::Failures;

/// The records that are not done. The first part is delivered next.
#[derive(Debug)]
pub(crate) struct Remaining(VecDeque<Part>);

/// Records that are delivered together. There is at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    /// In order, and apart from each other.
    ranges: Vec<Range<usize>>,
    /// The number of deliveries so far, also of larger parts that it comes from.
    pub(crate) deliveries: u32,
    pub(crate) failures: Failures,
    /// Whether the processor named each of the records as failed.
    pub(crate) is_named: bool,
}

impl Remaining {
    /// All records of a batch.
    pub(crate) fn all(records: usize) -> Self {
        let ranges: Vec<_> = iter::once(0..records).filter(|range| !range.is_empty()).collect();
        Self((!ranges.is_empty()).then(|| Part::new(ranges)).into_iter().collect())
    }

    pub(crate) fn part(&self) -> Option<&Part> {
        self.0.front()
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = &Part> {
        self.0.iter()
    }

    pub(crate) fn part_mut(&mut self) -> Option<&mut Part> {
        self.0.front_mut()
    }

    /// The number of records.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(Part::len).sum()
    }

    /// Notes that the first part is done.
    pub(crate) fn part_done(&mut self) {
        self.0.pop_front();
    }

    /// Notes that all records before `record` are done.
    pub(crate) fn done_before(&mut self, record: usize) {
        self.retain(|range| range.start.max(record)..range.end.max(record));
    }

    /// Makes records a part of their own, which comes first. Returns whether any of them is not done.
    pub(crate) fn isolate(&mut self, records: &Range<usize>) -> bool {
        let mut isolated = Part::new(Vec::new());
        for part in &mut self.0 {
            let mut others = Vec::with_capacity(part.ranges.len());
            for range in part.ranges.drain(..) {
                let before = range.start..range.end.min(records.start);
                let within = range.start.max(records.start)..range.end.min(records.end);
                let after = range.start.max(records.end)..range.end;
                others.extend([before, after].into_iter().filter(|range| !range.is_empty()));
                if !within.is_empty() {
                    isolated.ranges.push(within);
                    isolated.deliveries = isolated.deliveries.max(part.deliveries);
                }
            }
            part.ranges = others;
        }
        self.0.retain(|part| !part.ranges.is_empty());
        isolated.ranges.sort_unstable_by_key(|range| range.start);
        let is_any = !isolated.ranges.is_empty();
        if is_any {
            self.0.push_front(isolated);
        }
        is_any
    }

    fn retain(&mut self, cut: impl Fn(&Range<usize>) -> Range<usize>) {
        for part in &mut self.0 {
            for range in &mut part.ranges {
                *range = cut(range);
            }
            part.ranges.retain(|range| !range.is_empty());
        }
        self.0.retain(|part| !part.ranges.is_empty());
    }

    /// Reduces the first part to the records that failed, in order. The others are done. Records that are not in the part
    /// are left out. `class`: 0 to 2. Each class becomes a part of its own, in the order of the classes.
    pub(crate) fn keep(&mut self, failed: &[usize], class: impl Fn(usize) -> usize) {
        let Some(part) = self.0.pop_front() else { return };
        let mut classes = [const { Vec::new() }; 3];
        for record in failed.iter().copied().filter(|record| part.has(*record)) {
            classes[class(record)].push(record);
        }
        for records in classes.into_iter().rev() {
            if !records.is_empty() {
                self.0.push_front(Part {
                    ranges: ranges(&records),
                    is_named: true,
                    ..part.clone()
                });
            }
        }
    }

    /// Halves the first part, if it has more than one record. Neither half has failed yet.
    pub(crate) fn halve(&mut self) {
        let Some(part) = self.0.pop_front() else { return };
        let mut left = part.len() / 2;
        let mut middle = part.first();
        for range in &part.ranges {
            middle = range.start + left.min(range.len());
            left -= left.min(range.len());
            if left == 0 {
                break;
            }
        }
        let fresh = Part { deliveries: part.deliveries, ..Part::new(part.ranges) };
        self.0.push_front(fresh);
        self.part_before(middle);
    }

    /// Makes the records of the first part before `record` a part of their own, which is delivered first.
    pub(crate) fn part_before(&mut self, record: usize) {
        let Some(part) = self.0.pop_front() else { return };
        let before = |range: &Range<usize>| range.start..range.end.min(record);
        let after = |range: &Range<usize>| range.start.max(record)..range.end;
        let [first, second] = [
            part.ranges.iter().map(before).filter(|range| !range.is_empty()).collect::<Vec<_>>(),
            part.ranges.iter().map(after).filter(|range| !range.is_empty()).collect(),
        ];
        for ranges in [second, first] {
            if !ranges.is_empty() {
                self.0.push_front(Part { ranges, ..part.clone() });
            }
        }
    }

    /// The first record that is not done. `None`: all are.
    pub(crate) fn first(&self) -> Option<usize> {
        self.0.iter().map(Part::first).min()
    }

    /// The first record that is not done after the first part is. `None`: all are.
    pub(crate) fn first_after_part(&self) -> Option<usize> {
        self.0.iter().skip(1).map(Part::first).min()
    }
}

impl Part {
    fn new(ranges: Vec<Range<usize>>) -> Self {
        Self { ranges, deliveries: 0, failures: Failures::default(), is_named: false }
    }

    pub(crate) fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }

    pub(crate) fn len(&self) -> usize {
        self.ranges.iter().map(ExactSizeIterator::len).sum()
    }

    pub(crate) fn first(&self) -> usize {
        self.ranges.first().map_or(0, |range| range.start)
    }

    pub(crate) fn last(&self) -> usize {
        self.ranges.last().map_or(0, |range| range.end - 1)
    }

    /// Whether the record is one of the part.
    pub(super) fn has(&self, record: usize) -> bool {
        let begun = self.ranges.partition_point(|range| range.start <= record);
        begun.checked_sub(1).is_some_and(|range| record < self.ranges[range].end)
    }
}

/// Joins records that follow each other.
fn ranges(records: &[usize]) -> Vec<Range<usize>> {
    records.chunk_by(|a, b| a + 1 == *b).map(|chunk| chunk[0]..chunk[chunk.len() - 1] + 1).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn records(part: &Part) -> Vec<usize> {
        part.ranges.iter().cloned().flatten().collect()
    }

    #[test]
    fn a_batch_is_halved_until_a_record_stands_alone() {
        let mut remaining = Remaining::all(5);
        let mut lens = Vec::new();
        while remaining.part().unwrap().len() > 1 {
            remaining.halve();
            lens.push(remaining.part().unwrap().len());
        }
        assert_eq!(lens, [2, 1]);
        assert_eq!(remaining.first_after_part(), Some(1));
        let parts: Vec<_> = remaining.0.iter().map(records).collect();
        assert_eq!(parts, [vec![0], vec![1], vec![2, 3, 4]]);
    }

    #[test]
    fn records_that_failed_come_again_and_the_others_are_done() {
        let mut remaining = Remaining::all(10);
        remaining.keep(&[3, 4, 8, 99], |record| usize::from(record == 4));
        let parts: Vec<_> = remaining.0.iter().map(records).collect();
        assert_eq!(parts, [vec![3, 8], vec![4]]);
        assert_eq!((remaining.first(), remaining.first_after_part()), (Some(3), Some(4)));
        remaining.part_done();
        assert_eq!((remaining.first(), remaining.first_after_part()), (Some(4), None));
    }

    proptest! {
        /// Whatever happens to the parts: no record is lost or doubled, and none before `first` is left.
        #[test]
        fn the_parts_hold_what_is_not_done(
            len in 0usize..40,
            steps in prop::collection::vec((0u8..5, 0usize..40, 0usize..40), 0..40),
        ) {
            let mut remaining = Remaining::all(len);
            let mut model: BTreeSet<usize> = (0..len).collect();
            for (step, a, b) in steps {
                let part: BTreeSet<_> = remaining.part().map(records).into_iter().flatten().collect();
                match step {
                    0 => remaining.halve(),
                    1 => {
                        remaining.part_done();
                        model.retain(|record| !part.contains(record));
                    }
                    2 => {
                        remaining.done_before(a);
                        model.retain(|record| *record >= a);
                    }
                    3 => {
                        let records = a.min(b)..a.max(b);
                        let is_any = remaining.isolate(&records);
                        prop_assert_eq!(is_any, model.range(records).next().is_some());
                        if is_any {
                            remaining.part_done();
                        }
                        model.retain(|record| !(a.min(b)..a.max(b)).contains(record));
                    }
                    _ => {
                        let failed: Vec<_> = (0..40).filter(|record| (record * 7 + a) % 3 == 0).collect();
                        remaining.keep(&failed, |record| (record + b) % 3);
                        model.retain(|record| !part.contains(record) || failed.contains(record));
                    }
                }
                let mut held: Vec<_> = remaining.0.iter().flat_map(records).collect();
                held.sort_unstable();
                prop_assert!(held.iter().eq(&model), "{held:?} and {model:?}");
                prop_assert_eq!(remaining.first(), model.first().copied());
                prop_assert_eq!(remaining.len(), model.len());
                for part in &remaining.0 {
                    prop_assert!(!part.ranges.is_empty());
                    prop_assert!(records(part).is_sorted_by(|a, b| a < b));
                }
            }
        }
    }
}
