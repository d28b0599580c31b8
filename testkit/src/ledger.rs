//! An oracle for end-to-end runs: which records were acknowledged, which were delivered, in which
//! order. It counts with ids, so it can tell a lost record from a late one.

use std::cmp::Ordering;
use std::collections::HashMap;

/// Where a record stands in its stream.
///
/// Ordered by sequence number as a number, then by sub-sequence number. That also orders a parent
/// shard before its children, whose sequence numbers start above every one of the parent's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position {
    /// Decimal sequence number of the Kinesis record, without leading zeros.
    pub sequence_number: String,
    /// Index of the user record in its aggregate; 0 for a record that came alone.
    pub sub_sequence_number: u64,
}

impl Ord for Position {
    fn cmp(&self, other: &Self) -> Ordering {
        let digits = |p: &Self| p.sequence_number.len();
        digits(self)
            .cmp(&digits(other))
            .then_with(|| self.sequence_number.cmp(&other.sequence_number))
            .then_with(|| self.sub_sequence_number.cmp(&other.sub_sequence_number))
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What a consumer reports for each record it was handed.
#[derive(Debug, Clone)]
pub struct Delivery<'a> {
    /// Identifies one ownership of a lease: every record processor instance has its own.
    pub ownership: u64,
    /// The id that the producer gave the record.
    pub id: u64,
    /// The record's partition key.
    pub key: &'a str,
    /// Where it stood in the stream.
    pub position: Position,
}

#[derive(Debug, Default)]
struct Entry {
    acknowledged: bool,
    /// Positions this id was delivered from, with how often; almost always one.
    delivered: Vec<(Position, u64)>,
}

/// Counts acknowledgements and deliveries, and judges them.
///
/// ```
/// use kinesis_testkit::{Delivery, Ledger, Position};
///
/// let mut ledger = Ledger::default();
/// let at = |n: u64| Position { sequence_number: n.to_string(), sub_sequence_number: 0 };
/// for id in 0..3 {
///     ledger.acknowledged(id);
/// }
/// ledger.delivered(Delivery { ownership: 1, id: 0, key: "a", position: at(10) });
/// ledger.delivered(Delivery { ownership: 1, id: 2, key: "a", position: at(12) });
/// ledger.delivered(Delivery { ownership: 1, id: 2, key: "a", position: at(12) });
///
/// let verdict = ledger.verdict();
/// assert_eq!((verdict.acknowledged, verdict.lost, verdict.redelivered), (3, 1, 1));
/// assert_eq!(ledger.lost_ids(), [1]);
/// ```
#[derive(Debug, Default)]
pub struct Ledger {
    entries: HashMap<u64, Entry>,
    acknowledged: u64,
    delivered: u64,
    /// Acknowledged and delivered.
    seen: u64,
    /// Last first delivery of each key.
    keys: HashMap<String, Position>,
    /// Last delivery of each ownership.
    ownerships: HashMap<u64, Position>,
    redelivered: u64,
    written_twice: u64,
    out_of_order: u64,
}

/// What a [`Ledger`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Verdict {
    /// Records whose receipt the producer got.
    pub acknowledged: u64,
    /// Distinct records that were delivered, acknowledged or not.
    pub delivered: u64,
    /// Acknowledged records that were never delivered.
    pub lost: u64,
    /// Deliveries of a record from a position that had been delivered before: a consumer's
    /// duplicates.
    pub redelivered: u64,
    /// Records that stand at more than one position of the stream: a producer's duplicates.
    pub written_twice: u64,
    /// First deliveries of a key that went back in the stream, and deliveries within one ownership
    /// that did.
    pub out_of_order: u64,
}

impl Ledger {
    /// The producer holds a receipt for this record.
    pub fn acknowledged(&mut self, id: u64) {
        let entry = self.entries.entry(id).or_default();
        if !std::mem::replace(&mut entry.acknowledged, true) {
            self.acknowledged += 1;
            self.seen += u64::from(!entry.delivered.is_empty());
        }
    }

    /// A record processor was handed this record.
    pub fn delivered(&mut self, delivery: Delivery<'_>) {
        let Delivery { ownership, id, key, position } = delivery;
        let entry = self.entries.entry(id).or_default();
        let first = entry.delivered.is_empty();
        if first {
            self.delivered += 1;
            self.seen += u64::from(entry.acknowledged);
        }
        match entry.delivered.iter_mut().find(|(at, _)| *at == position) {
            Some((_, times)) => {
                *times += 1;
                self.redelivered += 1;
            }
            None => {
                self.written_twice += u64::from(!first);
                entry.delivered.push((position.clone(), 1));
            }
        }

        let mut back = false;
        if first {
            match self.keys.get_mut(key) {
                Some(last) if position <= *last => back = true,
                Some(last) => *last = position.clone(),
                None => drop(self.keys.insert(key.to_owned(), position.clone())),
            }
        }
        match self.ownerships.get_mut(&ownership) {
            Some(last) if position <= *last => back = true,
            Some(last) => *last = position,
            None => drop(self.ownerships.insert(ownership, position)),
        }
        self.out_of_order += u64::from(back);
    }

    /// True once every acknowledged record was delivered.
    pub fn is_settled(&self) -> bool {
        self.seen == self.acknowledged
    }

    /// The counts so far.
    pub fn verdict(&self) -> Verdict {
        Verdict {
            acknowledged: self.acknowledged,
            delivered: self.delivered,
            lost: self.acknowledged - self.seen,
            redelivered: self.redelivered,
            written_twice: self.written_twice,
            out_of_order: self.out_of_order,
        }
    }

    /// Ids of the acknowledged records that were not delivered, in order.
    pub fn lost_ids(&self) -> Vec<u64> {
        let lost = |e: &Entry| e.acknowledged && e.delivered.is_empty();
        let mut ids: Vec<u64> =
            self.entries.iter().filter(|(_, e)| lost(e)).map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sequence_number: &str, sub_sequence_number: u64) -> Position {
        Position { sequence_number: sequence_number.into(), sub_sequence_number }
    }

    fn deliver(ledger: &mut Ledger, ownership: u64, id: u64, key: &str, position: Position) {
        ledger.delivered(Delivery { ownership, id, key, position });
    }

    #[test]
    fn positions_compare_as_numbers() {
        assert!(at("9", 0) < at("10", 0));
        assert!(at("10", 1) < at("10", 2));
        assert!(at("10", 7) < at("11", 0));
    }

    #[test]
    fn a_record_that_only_the_producer_saw_is_lost() {
        let mut ledger = Ledger::default();
        ledger.acknowledged(7);
        assert!(!ledger.is_settled());
        assert_eq!(ledger.lost_ids(), [7]);
        deliver(&mut ledger, 1, 7, "k", at("1", 0));
        assert!(ledger.is_settled());
        assert_eq!(ledger.verdict().lost, 0);
    }

    #[test]
    fn a_delivery_before_its_receipt_counts() {
        let mut ledger = Ledger::default();
        deliver(&mut ledger, 1, 7, "k", at("1", 0));
        ledger.acknowledged(7);
        ledger.acknowledged(7);
        assert_eq!((ledger.verdict().acknowledged, ledger.verdict().lost), (1, 0));
    }

    #[test]
    fn duplicates_are_told_apart_by_their_cause() {
        let mut ledger = Ledger::default();
        deliver(&mut ledger, 1, 1, "k", at("5", 0));
        deliver(&mut ledger, 2, 1, "k", at("5", 0));
        deliver(&mut ledger, 2, 1, "k", at("6", 0));
        let verdict = ledger.verdict();
        assert_eq!((verdict.redelivered, verdict.written_twice, verdict.out_of_order), (1, 1, 0));
    }

    #[test]
    fn first_deliveries_of_a_key_must_not_go_back() {
        let mut ledger = Ledger::default();
        deliver(&mut ledger, 1, 1, "k", at("6", 0));
        deliver(&mut ledger, 2, 2, "k", at("5", 0));
        assert_eq!(ledger.verdict().out_of_order, 1);
    }

    #[test]
    fn a_new_ownership_may_go_back_over_what_was_delivered_but_not_within_itself() {
        let mut ledger = Ledger::default();
        deliver(&mut ledger, 1, 1, "k", at("5", 0));
        deliver(&mut ledger, 1, 2, "k", at("6", 0));
        deliver(&mut ledger, 2, 1, "k", at("5", 0));
        deliver(&mut ledger, 2, 2, "k", at("6", 0));
        assert_eq!(ledger.verdict().out_of_order, 0);
        deliver(&mut ledger, 2, 1, "k", at("5", 0));
        assert_eq!(ledger.verdict().out_of_order, 1);
    }
}
