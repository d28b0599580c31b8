//! The window of records that are in process, and its low-water mark. Pure.
//!
//! Records are admitted in the order of the shard, page by page, and are done in any order. The mark is the last
//! position up to which every record is done. The window spans the records after the mark.

use std::collections::{BTreeSet, VecDeque};

/// Bounds of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Records after the mark, done or not.
    pub(super) records: usize,
    /// Memory of the pages with a record that is not done. One page is always admitted.
    pub(super) bytes: usize,
}

/// Records of type `R` at positions of type `P`. A record is known by its number, in the order of admission.
#[derive(Debug)]
pub(super) struct Window<P, R> {
    limits: Limits,
    mark: Option<P>,
    /// The number of the first record after the mark.
    first: u64,
    /// The records after the mark.
    records: VecDeque<Slot<P, R>>,
    /// Pages with records after the mark.
    pages: VecDeque<Page>,
    /// The last page may get more records.
    is_page_open: bool,
    /// Memory of the pages with a record that is not done.
    bytes: usize,
    /// The number of records that are not done.
    not_done: usize,
    /// Records after the mark that were done before the window was emptied. They may be read again.
    done_before: BTreeSet<P>,
}

/// What a record is when it is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// Not done, with this number.
    New(u64),
    /// Done before the window was emptied, with this number.
    Done(u64),
    /// Done, and not after the mark.
    BeforeMark,
}

#[derive(Debug)]
enum Slot<P, R> {
    NotDone { position: P, record: R },
    Done { position: P },
}

#[derive(Debug)]
struct Page {
    /// The number after that of its last record.
    end: u64,
    bytes: usize,
    /// The number of its records that are not done.
    not_done: usize,
}

impl<P: Ord + Clone, R> Window<P, R> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            mark: None,
            first: 0,
            records: VecDeque::new(),
            pages: VecDeque::new(),
            is_page_open: false,
            bytes: 0,
            not_done: 0,
            done_before: BTreeSet::new(),
        }
    }

    /// The last position up to which every record is done. `None`: there is none yet.
    pub(super) fn mark(&self) -> Option<&P> {
        self.mark.as_ref()
    }

    /// True if every record that was admitted is done.
    pub(super) fn is_all_done(&self) -> bool {
        self.not_done == 0
    }

    /// Opens a page of so many bytes. Returns false if there is no room for it yet.
    pub(super) fn open_page(&mut self, bytes: usize) -> bool {
        if self.bytes > 0 && self.bytes.saturating_add(bytes) > self.limits.bytes {
            return false;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.pages.push_back(Page { end: self.next(), bytes, not_done: 0 });
        self.is_page_open = true;
        true
    }

    /// Notes that the open page has no further record.
    pub(super) fn close_page(&mut self) {
        self.is_page_open = false;
        if let Some(page) = self.pages.back_mut()
            && page.not_done == 0
        {
            self.bytes -= std::mem::take(&mut page.bytes);
        }
        self.forget_pages();
    }

    /// True if another record may be admitted.
    pub(super) fn has_room(&self) -> bool {
        self.records.len() < self.limits.records
    }

    /// Admits the next record of the open page.
    pub(super) fn admit(&mut self, position: P, record: R) -> Admission {
        if self.mark.as_ref().is_some_and(|mark| position <= *mark) {
            return Admission::BeforeMark;
        }
        // Earlier ones are not read again: retention has deleted them.
        while self.done_before.first().is_some_and(|first| *first < position) {
            self.done_before.pop_first();
        }
        let number = self.next();
        let is_done = self.done_before.remove(&position);
        self.records.push_back(match is_done {
            true => Slot::Done { position },
            false => Slot::NotDone { position, record },
        });
        self.not_done += usize::from(!is_done);
        if let Some(page) = self.pages.back_mut() {
            page.end = number + 1;
            page.not_done += usize::from(!is_done);
        }
        if !is_done {
            return Admission::New(number);
        }
        self.advance();
        Admission::Done(number)
    }

    /// True if the record is the first one after the mark.
    pub(super) fn is_next(&self, number: u64) -> bool {
        let mut records = self.records.iter();
        let next = records.position(|slot| matches!(slot, Slot::NotDone { .. }));
        next.is_some() && self.index(number) == next
    }

    /// A record that is not done.
    pub(super) fn record(&self, number: u64) -> Option<&R> {
        match self.records.get(self.index(number)?)? {
            Slot::NotDone { record, .. } => Some(record),
            Slot::Done { .. } => None,
        }
    }

    /// Notes that a record is done. Returns whether the mark has moved.
    pub(super) fn done(&mut self, number: u64) -> bool {
        let Some(slot) = self.index(number).and_then(|index| self.records.get_mut(index)) else {
            return false;
        };
        let Slot::NotDone { position, .. } = slot else { return false };
        *slot = Slot::Done { position: position.clone() };
        self.not_done -= 1;
        let page = self.pages.partition_point(|page| page.end <= number);
        let is_open = self.is_page_open && page + 1 == self.pages.len();
        if let Some(page) = self.pages.get_mut(page) {
            page.not_done -= 1;
            if page.not_done == 0 && !is_open {
                self.bytes -= std::mem::take(&mut page.bytes);
            }
        }
        self.advance()
    }

    /// Removes all records, because the shard will be read again from the mark or before. Records that are done stay
    /// known.
    pub(super) fn empty(&mut self) {
        self.first = self.next();
        for slot in self.records.drain(..) {
            if let Slot::Done { position } = slot {
                self.done_before.insert(position);
            }
        }
        self.pages.clear();
        (self.is_page_open, self.bytes, self.not_done) = (false, 0, 0);
    }

    /// Forgets what is done as well, because the shard will be read from another position.
    pub(super) fn reset(&mut self) {
        self.empty();
        self.done_before.clear();
        self.mark = None;
    }

    /// The number of the next record.
    fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    fn index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.first)?).ok()
    }

    /// Moves the mark past the records that are done.
    fn advance(&mut self) -> bool {
        let mut has_moved = false;
        while let Some(Slot::Done { .. }) = self.records.front() {
            if let Some(Slot::Done { position }) = self.records.pop_front() {
                self.mark = Some(position);
            }
            self.first += 1;
            has_moved = true;
        }
        self.forget_pages();
        has_moved
    }

    /// Forgets the pages before the mark.
    fn forget_pages(&mut self) {
        let open = usize::from(self.is_page_open);
        while self.pages.len() > open
            && self.pages.front().is_some_and(|page| page.end <= self.first)
        {
            self.pages.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Admission::{BeforeMark, Done, New};
    use super::*;

    const LIMITS: Limits = Limits { records: 4, bytes: 100 };

    /// A window with one page of these records.
    fn window(positions: &[u32]) -> (Window<u32, ()>, Vec<Admission>) {
        let mut window = Window::new(LIMITS);
        let numbers = page(&mut window, 10, positions);
        (window, numbers)
    }

    fn page(window: &mut Window<u32, ()>, bytes: usize, positions: &[u32]) -> Vec<Admission> {
        assert!(window.open_page(bytes));
        let numbers = positions.iter().map(|position| window.admit(*position, ())).collect();
        window.close_page();
        numbers
    }

    #[test]
    fn the_mark_waits_for_the_slowest_record() {
        let (mut window, numbers) = window(&[5, 6, 9]);
        assert_eq!(numbers, [New(0), New(1), New(2)]);
        assert!(!window.done(1));
        assert_eq!(window.mark(), None);
        assert!(window.done(0));
        assert_eq!(window.mark(), Some(&6));
        assert!(!window.done(0) && !window.done(1) && !window.done(7), "they are done, or unknown");
        assert!(!window.is_all_done());
        assert!(window.done(2));
        assert_eq!((window.mark(), window.is_all_done()), (Some(&9), true));
    }

    #[test]
    fn done_records_after_the_mark_fill_the_window() {
        let (mut window, _) = window(&[1, 2, 3, 4]);
        for number in 1..4 {
            window.done(number);
            assert!(!window.has_room());
        }
        window.done(0);
        assert!(window.has_room());
    }

    #[test]
    fn bytes_are_those_of_pages_with_a_record_that_is_not_done() {
        let mut window = Window::new(LIMITS);
        page(&mut window, 1_000, &[1]);
        assert!(!window.open_page(1), "the first page is always admitted, and no other then");
        window.done(0);
        page(&mut window, 60, &[2]);
        assert!(!window.open_page(41));
        page(&mut window, 40, &[3]);
        assert!(!window.open_page(1));
        window.done(2);
        assert!(window.open_page(40), "the second one is not kept although the mark is before it");
        assert!(!window.open_page(1), "an open page counts");
        window.close_page();
        assert!(window.open_page(40), "a page without a record does not count");
    }

    #[test]
    fn after_it_was_emptied_it_knows_what_was_done() {
        let (mut window, _) = window(&[1, 2, 3, 4]);
        window.done(0);
        window.done(2);
        window.empty();
        assert!(window.is_all_done());
        assert!(!window.done(1), "a late record has no effect");
        assert_eq!(
            page(&mut window, 10, &[1, 2, 3, 4, 5]),
            [BeforeMark, New(4), Done(5), New(6), New(7)]
        );
        assert_eq!(window.mark(), Some(&1));
        window.done(4);
        assert_eq!(window.mark(), Some(&3));
        window.reset();
        assert_eq!(window.mark(), None);
        assert_eq!(page(&mut window, 10, &[1]), [New(8)]);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Page(usize, u8),
        Done(usize),
        Empty,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            2 => (0_usize..60, 0_u8..5).prop_map(|(bytes, records)| Step::Page(bytes, records)),
            6 => any::<usize>().prop_map(Step::Done),
            1 => Just(Step::Empty),
        ]
    }

    /// What is known of each record: its page, its number, and whether it is done.
    #[derive(Debug, Clone)]
    struct Known {
        page: Option<(usize, usize)>,
        number: Option<u64>,
        is_done: bool,
    }

    proptest! {
        /// Against a list of all records ever read.
        #[test]
        fn it_agrees_with_a_list(steps in prop::collection::vec(step(), 1..80)) {
            let mut window = Window::new(LIMITS);
            let mut model: Vec<Known> = Vec::new();
            let (mut next, mut pages) = (0, 0);
            for step in steps {
                match step {
                    Step::Page(bytes, records) => {
                        if !window.open_page(bytes) {
                            continue;
                        }
                        pages += 1;
                        for _ in 0..records {
                            if !window.has_room() {
                                break;
                            }
                            let number = match window.admit(next, next) {
                                New(number) => Some(number),
                                Done(_) | BeforeMark => None,
                            };
                            let again = next < model.len();
                            if !again {
                                model.push(Known { page: None, number: None, is_done: false });
                            }
                            let known = &mut model[next];
                            prop_assert_eq!(number.is_none(), known.is_done);
                            known.number = number;
                            known.page = number.map(|_| (pages, bytes));
                            next += 1;
                        }
                        window.close_page();
                    }
                    Step::Done(which) => {
                        let is_open = |at: &usize| model[*at].number.is_some() && !model[*at].is_done;
                        let open: Vec<_> = (0..model.len()).filter(is_open).collect();
                        if !open.is_empty() {
                            let at = open[which % open.len()];
                            let number = model[at].number.unwrap();
                            prop_assert_eq!(window.record(number), Some(&at));
                            window.done(number);
                            prop_assert_eq!(window.record(number), None);
                            model[at].is_done = true;
                        }
                    }
                    Step::Empty => {
                        window.empty();
                        next = model.iter().position(|known| !known.is_done).unwrap_or(model.len()).min(next);
                        for known in &mut model {
                            (known.number, known.page) = (None, None);
                        }
                    }
                }
                let done = model[..next].iter().take_while(|known| known.is_done).count();
                prop_assert_eq!(window.mark().copied(), done.checked_sub(1).filter(|_| done > 0));
                let in_window = next - done;
                prop_assert!(in_window <= LIMITS.records);
                prop_assert_eq!(window.has_room(), in_window < LIMITS.records);
                let not_done = |known: &&Known| known.number.is_some() && !known.is_done;
                prop_assert_eq!(window.is_all_done(), !model.iter().any(|known| not_done(&known)));
                let held: BTreeSet<_> = model.iter().filter(not_done).filter_map(|known| known.page).collect();
                let bytes: usize = held.iter().map(|(_, bytes)| bytes).sum();
                prop_assert!(bytes <= LIMITS.bytes);
                prop_assert_eq!(window.bytes, bytes);
            }
        }
    }
}
