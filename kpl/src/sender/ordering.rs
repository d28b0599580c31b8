//! Ordered mode: how the records of a key stay in the order of `send`. Pure.
//!
//! Three rules:
//! * A queue has at most one Kinesis record under way, from its first attempt until it is completed. See
//!   `Collector::may_go`.
//! * After a split or merge, the queue of a new shard sends nothing while a closed shard of its key range has a record
//!   under way: [`Predecessors`]. The waiting records of the closed shards are at the head of the new queue, in the
//!   order of sealing.
//! * If a record fails, later records of its key that were accepted before the failure was visible fail in the same
//!   instant: [`Gaps`].

use std::collections::HashMap;
use std::sync::Arc;

use kinesis_aggregation::{HashKey, HashKeyRange};

use crate::buffer::QueueId;
use crate::error::FailureCause;

/// Queues of closed shards that have records under way, with their key ranges.
#[derive(Debug, Default)]
pub(crate) struct Predecessors {
    under_way: HashMap<QueueId, HashKeyRange>,
}

impl Predecessors {
    /// Adds the queue of a closed shard, which has records under way.
    pub(crate) fn add(&mut self, queue_id: QueueId, range: HashKeyRange) {
        self.under_way.insert(queue_id, range);
    }

    /// Removes a queue that has no record under way.
    pub(crate) fn remove(&mut self, queue_id: QueueId) {
        self.under_way.remove(&queue_id);
    }

    /// Whether the queue of a shard that takes `range` may send.
    pub(crate) fn allows(&self, range: HashKeyRange) -> bool {
        self.under_way
            .values()
            .all(|other| other.end() < range.start() || range.end() < other.start())
    }
}

/// Keys of which a record failed, and from which sequence on their later records fail with it.
#[derive(Debug, Default)]
pub(crate) struct Gaps {
    /// By key: the sequence of the first failed record, and why it failed.
    by_key: HashMap<HashKey, (u64, Arc<FailureCause>)>,
}

impl Gaps {
    /// Adds failed records, each given by its key and its sequence.
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

    /// Why the record of `key` at `sequence` fails too, if it does.
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
        predecessors.add(QueueId(1), range(0, 9));
        predecessors.add(QueueId(2), range(10, 19));
        let merged = range(0, 19);
        assert!(predecessors.allows(range(20, 29)));
        assert!(!predecessors.allows(merged));
        predecessors.remove(QueueId(1));
        assert!(!predecessors.allows(merged) && predecessors.allows(range(0, 9)));
        predecessors.remove(QueueId(2));
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
