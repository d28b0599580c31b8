//! Ordered mode: what keeps the records of a key in the order of `send`, apart from I/O.
//!
//! Three rules, each in one place:
//! * A queue has at most one Kinesis record under way, from its first attempt to its completion: `Collector::fill`.
//! * A queue goes ahead when no queue that took its keys before has anything under way: [`Predecessors`]. What such a queue had
//!   left stands at the head of the queues that follow it, by the order of sealing.
//! * When a record fails, those of its key that were accepted before anyone could know of it fail in the same instant:
//!   [`Gaps`].

use std::collections::HashMap;
use std::sync::Arc;

use kinesis_aggregation::{HashKey, HashKeyRange};

use crate::buffer::QueueId;
use crate::error::FailureCause;

/// The queues that take nothing more and are not completed yet.
#[derive(Debug, Default)]
pub(crate) struct Predecessors {
    pending: HashMap<QueueId, HashKeyRange>,
}

impl Predecessors {
    /// A queue's shard is closed while something of it is under way.
    pub(crate) fn retire(&mut self, queue_id: QueueId, range: HashKeyRange) {
        self.pending.insert(queue_id, range);
    }

    /// Nothing of a queue is under way any more.
    pub(crate) fn completed(&mut self, queue_id: QueueId) {
        self.pending.remove(&queue_id);
    }

    /// Whether a queue that takes `range` may go ahead.
    pub(crate) fn allows(&self, range: HashKeyRange) -> bool {
        self.pending
            .values()
            .all(|other| other.end() < range.start() || range.end() < other.start())
    }
}

#[derive(Debug, Default)]
pub(crate) struct Gaps {
    /// By key: the place of the first failed record in the order of sealing, and why that failed.
    by_key: HashMap<HashKey, (u64, Arc<FailureCause>)>,
}

impl Gaps {
    /// Records fail, each given by its key and its place in the order of sealing.
    pub(crate) fn open(
        &mut self,
        records: impl IntoIterator<Item = (HashKey, u64)>,
        cause: &FailureCause,
    ) {
        let cause = Arc::new(cause.clone());
        for (key, sequence) in records {
            let gap = || (sequence, Arc::clone(&cause));
            let first = self.by_key.entry(key).or_insert_with(gap);
            if sequence < first.0 {
                *first = gap();
            }
        }
    }

    /// Why a record of `key` at `sequence` fails too, if it does.
    pub(crate) fn cause(&self, key: HashKey, sequence: u64) -> Option<&Arc<FailureCause>> {
        self.by_key.get(&key).filter(|(first, _)| *first <= sequence).map(|(_, cause)| cause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::StopReason;

    fn range(start: u128, end: u128) -> HashKeyRange {
        HashKeyRange::new(HashKey::new(start), HashKey::new(end)).unwrap()
    }

    #[test]
    fn a_child_waits_for_each_parent_and_others_do_not() {
        let mut predecessors = Predecessors::default();
        predecessors.retire(QueueId(1), range(0, 9));
        predecessors.retire(QueueId(2), range(10, 19));
        let merged = range(0, 19);
        assert!(predecessors.allows(range(20, 29)));
        assert!(!predecessors.allows(merged));
        predecessors.completed(QueueId(1));
        assert!(!predecessors.allows(merged) && predecessors.allows(range(0, 9)));
        predecessors.completed(QueueId(2));
        assert!(predecessors.allows(merged));
    }

    #[test]
    fn what_stands_behind_the_first_failed_record_of_its_key_fails() {
        let cause = |reason| FailureCause::Abandoned(reason);
        let mut gaps = Gaps::default();
        gaps.open([(HashKey::MIN, 7)], &cause(StopReason::Closed));
        gaps.open([(HashKey::MIN, 5), (HashKey::MAX, 5)], &cause(StopReason::Dropped));
        gaps.open([(HashKey::MAX, 9)], &cause(StopReason::Closed));
        for key in [HashKey::MIN, HashKey::MAX] {
            assert_eq!(gaps.cause(key, 4), None);
            assert_eq!(gaps.cause(key, 5).map(|c| &**c), Some(&cause(StopReason::Dropped)));
            assert!(gaps.cause(key, 100).is_some());
        }
        assert_eq!(gaps.cause(HashKey::new(3), 100), None);
    }
}
