//! The order in which the records of a shard start. Pure.
//!
//! Of each partition key, one record at a time is *in hand*: it may start, runs, or waits for its next attempt. The
//! next record of the key follows when it is done. Records without a key wait for none. Of the records that may start,
//! the oldest comes first, because the low-water mark waits for it.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BinaryHeap, HashMap, VecDeque};

/// A partition key, as its hash. Two keys of one hash wait for each other, which breaks no promise.
pub(super) type Key = u64;

/// Decides which record starts next. Records are known by their number, in the order of the shard.
#[derive(Debug)]
pub(super) struct Schedule {
    /// The most records that run at a time.
    concurrency: usize,
    /// The number of records that run.
    running: usize,
    /// The number of records that wait for their next attempt.
    waiting: usize,
    /// Records that may start, the oldest first.
    ready: BinaryHeap<Reverse<u64>>,
    /// The keys with a record in hand, and the records that follow it.
    keys: HashMap<Key, VecDeque<u64>>,
    /// The key of each record in hand that has one.
    in_hand: HashMap<u64, Key>,
    /// The newest record that was begun.
    newest_begun: Option<u64>,
    /// Records from this number on do not start any more.
    until: Option<u64>,
}

impl Schedule {
    pub(super) fn new(concurrency: usize) -> Self {
        Self {
            concurrency,
            running: 0,
            waiting: 0,
            ready: BinaryHeap::new(),
            keys: HashMap::new(),
            in_hand: HashMap::new(),
            newest_begun: None,
            until: None,
        }
    }

    /// Adds the next record of the shard.
    pub(super) fn add(&mut self, number: u64, key: Option<Key>) {
        if let Some(key) = key {
            match self.keys.entry(key) {
                Entry::Occupied(mut followers) => return followers.get_mut().push_back(number),
                Entry::Vacant(key) => key.insert(VecDeque::new()),
            };
            self.in_hand.insert(number, key);
        }
        self.ready.push(Reverse(number));
    }

    /// The next record to start, which then runs. `None`: none may start now.
    pub(super) fn start(&mut self) -> Option<u64> {
        let Reverse(next) = *self.ready.peek()?;
        if self.running >= self.concurrency || !self.may_begin(next) {
            return None;
        }
        self.ready.pop();
        self.running += 1;
        Some(next)
    }

    /// True if a record that was started, but has not begun, may still begin.
    pub(super) fn may_begin(&self, number: u64) -> bool {
        self.until.is_none_or(|until| number < until)
    }

    /// Notes that a record that was started is at work.
    pub(super) fn begun(&mut self, number: u64) {
        self.newest_begun = self.newest_begun.max(Some(number));
    }

    /// Notes that a record that ran is done.
    pub(super) fn done(&mut self, number: u64) {
        self.running -= 1;
        let Some(key) = self.in_hand.remove(&number) else { return };
        let Entry::Occupied(mut followers) = self.keys.entry(key) else { return };
        match followers.get_mut().pop_front() {
            Some(next) => {
                self.in_hand.insert(next, key);
                self.ready.push(Reverse(next));
            }
            None => {
                followers.remove();
            }
        }
    }

    /// Notes that a record that ran waits for its next attempt. Its key waits for it.
    pub(super) fn wait(&mut self) {
        self.running -= 1;
        self.waiting += 1;
    }

    /// Notes that a record that waited may start.
    pub(super) fn retry(&mut self, number: u64) {
        self.waiting -= 1;
        self.ready.push(Reverse(number));
    }

    /// Notes that a record that ran is given up. It is not done, so no later record is started: the next owner of the
    /// shard would process it again.
    pub(super) fn give_up(&mut self, number: u64) {
        self.running -= 1;
        self.start_none_from(number);
    }

    /// As [`give_up`](Self::give_up), of a record that waited for its next attempt.
    pub(super) fn give_up_waiting(&mut self, number: u64) {
        self.waiting -= 1;
        self.start_none_from(number);
    }

    /// From now on, starts only records before the newest one that was begun. When they are done, no record is done
    /// after one that is not.
    pub(super) fn finish_begun(&mut self) {
        self.start_none_from(self.newest_begun.map_or(0, |newest| newest + 1));
    }

    fn start_none_from(&mut self, number: u64) {
        self.until = Some(self.until.map_or(number, |until| until.min(number)));
    }

    /// True if no record runs or waits, and none may start.
    pub(super) fn is_at_rest(&self) -> bool {
        let may_start = self.ready.peek().is_some_and(|Reverse(next)| self.may_begin(*next));
        self.running == 0 && self.waiting == 0 && !may_start
    }

    /// Removes all records. It must be at rest.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.concurrency);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn started(schedule: &mut Schedule) -> Vec<u64> {
        let started: Vec<_> = std::iter::from_fn(|| schedule.start()).collect();
        started.iter().for_each(|number| schedule.begun(*number));
        started
    }

    #[test]
    fn one_record_of_a_key_at_a_time_and_the_oldest_first() {
        let mut schedule = Schedule::new(3);
        for (number, key) in [(0, 1), (1, 1), (2, 2), (3, 3), (4, 1), (5, 4)] {
            schedule.add(number, Some(key));
        }
        assert_eq!(started(&mut schedule), [0, 2, 3]);
        schedule.done(0);
        assert_eq!(started(&mut schedule), [1], "before the record of another key");
        schedule.done(3);
        assert_eq!(started(&mut schedule), [5]);
        schedule.done(1);
        assert_eq!(started(&mut schedule), [4]);
        for number in [2, 4, 5] {
            schedule.done(number);
        }
        assert!(schedule.is_at_rest());
        assert!(schedule.keys.is_empty() && schedule.in_hand.is_empty());
    }

    #[test]
    fn records_without_a_key_wait_for_none() {
        let mut schedule = Schedule::new(8);
        (0..4).for_each(|number| schedule.add(number, None));
        assert_eq!(started(&mut schedule), [0, 1, 2, 3]);
    }

    #[test]
    fn a_record_that_waits_holds_its_key_and_no_slot() {
        let mut schedule = Schedule::new(1);
        for (number, key) in [(0, 1), (1, 1), (2, 2)] {
            schedule.add(number, Some(key));
        }
        assert_eq!(started(&mut schedule), [0]);
        schedule.wait();
        assert_eq!(started(&mut schedule), [2]);
        schedule.done(2);
        assert!(started(&mut schedule).is_empty() && !schedule.is_at_rest());
        schedule.retry(0);
        assert_eq!(started(&mut schedule), [0]);
        schedule.done(0);
        assert_eq!(started(&mut schedule), [1]);
    }

    #[test]
    fn to_finish_what_was_begun_it_fills_the_gaps_before_it() {
        let mut schedule = Schedule::new(2);
        for (number, key) in [(0, 1), (1, 1), (2, 2), (3, 1), (4, 4)] {
            schedule.add(number, Some(key));
        }
        assert_eq!(started(&mut schedule), [0, 2]);
        schedule.finish_begun();
        schedule.done(2);
        assert!(started(&mut schedule).is_empty(), "4 is after the newest one");
        schedule.done(0);
        assert_eq!(started(&mut schedule), [1]);
        schedule.done(1);
        assert!(schedule.start().is_none() && schedule.is_at_rest());
    }

    #[test]
    fn after_a_record_that_is_given_up_none_is_started() {
        let mut schedule = Schedule::new(2);
        for (number, key) in [(0, 1), (1, 2), (2, 1), (3, 2)] {
            schedule.add(number, Some(key));
        }
        assert_eq!(started(&mut schedule), [0, 1]);
        schedule.finish_begun();
        schedule.give_up(0);
        schedule.done(1);
        assert!(schedule.start().is_none() && schedule.is_at_rest());
    }

    proptest! {
        /// Random keys, ends and failures: each record is done once, in order of its key, within the limit, and
        /// a record waits only for one of its key, or for a slot.
        #[test]
        fn every_record_is_done_once_in_order_of_its_key(
            keys in prop::collection::vec(prop::option::of(0_u64..4), 0..40),
            concurrency in 1_usize..5,
            choices in prop::collection::vec(any::<(u8, usize)>(), 200),
        ) {
            let mut schedule = Schedule::new(concurrency);
            let (mut added, mut done) = (0, Vec::new());
            let (mut running, mut waiting): (Vec<u64>, Vec<u64>) = (Vec::new(), Vec::new());
            let mut choices = choices.into_iter().cycle();
            while done.len() < keys.len() {
                let (what, which) = choices.next().unwrap();
                match what % 4 {
                    0 if added < keys.len() => {
                        schedule.add(added as u64, keys[added]);
                        added += 1;
                    }
                    1 if !running.is_empty() => {
                        waiting.push(running.swap_remove(which % running.len()));
                        schedule.wait();
                    }
                    2 if !waiting.is_empty() => {
                        schedule.retry(waiting.swap_remove(which % waiting.len()));
                    }
                    _ if !running.is_empty() => {
                        let number = running.swap_remove(which % running.len());
                        schedule.done(number);
                        done.push(number);
                    }
                    _ if added < keys.len() => {
                        schedule.add(added as u64, keys[added]);
                        added += 1;
                    }
                    _ => waiting.drain(..).for_each(|number| schedule.retry(number)),
                }
                running.extend(std::iter::from_fn(|| schedule.start()));
                prop_assert!(running.len() <= concurrency);
                let open = (0..added as u64).filter(|number| !done.contains(number));
                let of_key = |number: u64| keys[number as usize];
                for number in open {
                    let is_first = of_key(number).is_none()
                        || !(0..number).any(|earlier| of_key(earlier) == of_key(number) && !done.contains(&earlier));
                    let in_hand = running.contains(&number) || waiting.contains(&number);
                    prop_assert!(is_first || !in_hand, "{number} waits for its key");
                    prop_assert!(in_hand || !is_first || running.len() == concurrency, "{number} may start");
                }
            }
            prop_assert!(schedule.is_at_rest());
            prop_assert!(schedule.keys.is_empty());
        }

        /// After a request to finish what was begun, what is done has no gap.
        #[test]
        fn finishing_leaves_no_gap(
            keys in prop::collection::vec(prop::option::of(0_u64..3), 1..30),
            concurrency in 1_usize..4,
            before in 0_usize..20,
            picks in prop::collection::vec(any::<usize>(), 80),
        ) {
            let mut schedule = Schedule::new(concurrency);
            for (number, key) in keys.iter().enumerate() {
                schedule.add(number as u64, *key);
            }
            let (mut running, mut done) = (started(&mut schedule), Vec::new());
            let mut picks = picks.into_iter().cycle();
            while !running.is_empty() {
                if done.len() == before {
                    schedule.finish_begun();
                }
                let number = running.swap_remove(picks.next().unwrap() % running.len());
                schedule.done(number);
                done.push(number);
                running.extend(started(&mut schedule));
            }
            prop_assert!(done.len() <= before || schedule.is_at_rest());
            done.sort_unstable();
            prop_assert_eq!(&done, &(0..done.len() as u64).collect::<Vec<_>>());
        }
    }
}
