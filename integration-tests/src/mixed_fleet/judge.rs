//! The oracle of a mixed fleet. It makes no calls.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use kinesis_testkit::{Delivery, Ledger, Position, Verdict};

use super::event::{Event, What};

/// The position of an acknowledged record, as the service named it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Receipt {
    pub(super) key: String,
    pub(super) shard: String,
    pub(super) sequence_number: String,
}

/// A shard was read by one worker, then by another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// The time half-way between the last record of the old worker and the first of the new one.
    pub(super) at: u64,
    pub(super) from: u32,
    pub(super) to: u32,
    /// The time between these two records.
    pub(super) silence: Duration,
}

/// The judgement of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Judgement {
    pub(super) verdict: Verdict,
    /// Records handed to a processor after another one had begun on the same shard.
    pub(super) overlapping: u64,
    /// Processors that began before the shard's parents had ended.
    pub(super) early: u64,
    /// Records that were handed out for a shard that does not hold them.
    pub(super) misplaced: u64,
    pub(super) changes: Vec<Change>,
}

/// Judges a run when it is over. `parents`: the parents of every shard.
pub(super) fn judge(
    events: &[Event],
    receipts: &HashMap<u64, Receipt>,
    parents: &HashMap<String, Vec<String>>,
) -> Judgement {
    let mut events: Vec<&Event> = events.iter().collect();
    // Lines of different processes arrive in any order.
    events.sort_by_key(|event| event.at);
    let mut ledger = Ledger::default();
    receipts.keys().for_each(|id| ledger.acknowledged(*id));
    let mut judgement = Judgement::default();
    let mut ended: HashSet<&str> = HashSet::new();
    let mut ownerships: HashMap<&str, (u32, u32)> = HashMap::new();
    let mut readers: HashMap<&str, (u32, u64)> = HashMap::new();
    for event in events {
        let (shard, ownership) = (event.shard.as_str(), (event.worker, event.ownership));
        match event.what {
            What::Began => {
                let parents = parents.get(shard).into_iter().flatten();
                let mut waiting = parents.filter(|parent| !ended.contains(parent.as_str()));
                judgement.early += u64::from(waiting.next().is_some());
                ownerships.insert(shard, ownership);
            }
            What::Ended => drop(ended.insert(shard)),
            What::Released | What::Lost => {}
            What::Delivered(id) => {
                judgement.overlapping += u64::from(ownerships.get(shard) != Some(&ownership));
                if let Some((from, last)) = readers.insert(shard, (event.worker, event.at))
                    && from != event.worker
                {
                    judgement.changes.push(Change {
                        at: last.midpoint(event.at),
                        from,
                        to: event.worker,
                        silence: Duration::from_micros(event.at - last),
                    });
                }
                let receipt = receipts.get(&id).filter(|receipt| receipt.shard == shard);
                let Some(receipt) = receipt else {
                    judgement.misplaced += 1;
                    continue;
                };
                ledger.delivered(Delivery {
                    ownership: u64::from(event.worker) << 32 | u64::from(event.ownership),
                    id,
                    key: &receipt.key,
                    position: Position {
                        sequence_number: receipt.sequence_number.clone(),
                        sub_sequence_number: 0,
                    },
                });
            }
        }
    }
    judgement.verdict = ledger.verdict();
    judgement
}

#[cfg(test)]
mod tests {
    use super::*;

    const JAVA: (u32, u32) = (1, 1);
    const RUST: (u32, u32) = (2, 1);

    fn event(at: u64, (worker, ownership): (u32, u32), shard: &str, what: What) -> Event {
        Event { at, worker, ownership, shard: shard.into(), what }
    }

    /// Two records in each shard.
    fn receipts() -> HashMap<u64, Receipt> {
        let receipt = |id: u64| Receipt {
            key: "key".into(),
            shard: if id < 2 { "parent" } else { "child" }.into(),
            sequence_number: (50 + id).to_string(),
        };
        (0..4).map(|id| (id, receipt(id))).collect()
    }

    fn parents() -> HashMap<String, Vec<String>> {
        HashMap::from([("parent".into(), Vec::new()), ("child".into(), vec!["parent".into()])])
    }

    fn good() -> Vec<Event> {
        vec![
            event(10, JAVA, "parent", What::Began),
            event(20, JAVA, "parent", What::Delivered(0)),
            event(30, JAVA, "parent", What::Released),
            event(40, RUST, "parent", What::Began),
            event(50, RUST, "parent", What::Delivered(1)),
            event(60, RUST, "parent", What::Ended),
            event(70, JAVA, "child", What::Began),
            event(80, JAVA, "child", What::Delivered(2)),
            event(90, JAVA, "child", What::Delivered(3)),
        ]
    }

    fn counts(events: &[Event]) -> [u64; 6] {
        let judged = judge(events, &receipts(), &parents());
        let verdict = judged.verdict;
        [
            verdict.lost,
            verdict.out_of_order,
            judged.overlapping,
            judged.early,
            judged.misplaced,
            verdict.redelivered,
        ]
    }

    #[test]
    fn a_good_run_is_good_in_whatever_order_its_lines_arrive() {
        let mut events = good();
        assert_eq!(counts(&events), [0; 6]);
        events.reverse();
        assert_eq!(counts(&events), [0; 6]);
        let changes = judge(&events, &receipts(), &parents()).changes;
        let expected = Change { at: 35, from: 1, to: 2, silence: Duration::from_micros(30) };
        assert_eq!(changes, [expected]);
    }

    #[test]
    fn a_record_that_never_came_is_lost() {
        let mut events = good();
        events.pop();
        assert_eq!(counts(&events), [1, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn two_processors_of_a_shard_overlap() {
        let mut events = good();
        // A repetition by the old owner, after the new one has begun.
        events.push(event(45, JAVA, "parent", What::Delivered(0)));
        assert_eq!(counts(&events), [0, 1, 1, 0, 0, 1]);
        // Another ownership of the same worker is another processor.
        let mut events = good();
        events.insert(5, event(55, (2, 2), "parent", What::Began));
        events.push(event(56, RUST, "parent", What::Delivered(1)));
        assert_eq!(counts(&events), [0, 1, 1, 0, 0, 1]);
    }

    #[test]
    fn a_child_that_begins_before_its_parent_ended_is_early() {
        let mut events = good();
        events[5].at = 71;
        assert_eq!(counts(&events), [0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn order_within_an_ownership_counts_and_so_does_the_shard() {
        let mut events = good();
        (events[7].at, events[8].at) = (events[8].at, events[7].at);
        assert_eq!(counts(&events), [0, 1, 0, 0, 0, 0]);
        let mut events = good();
        events.push(event(95, JAVA, "child", What::Delivered(1)));
        events.push(event(96, JAVA, "child", What::Delivered(99)));
        assert_eq!(counts(&events), [0, 0, 0, 0, 2, 0]);
    }
}
