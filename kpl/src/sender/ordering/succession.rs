//! Succession: which queues still have something under way that goes before the records of others. Pure.

use std::collections::HashMap;

use kinesis_aggregation::HashKeyRange;

use crate::buffer::QueueId;

/// The queues that take nothing more and are not completed yet.
#[derive(Debug, Default)]
pub(crate) struct Succession {
    pending: HashMap<QueueId, HashKeyRange>,
}

impl Succession {
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

#[cfg(test)]
mod tests {
    use kinesis_aggregation::HashKey;

    use super::*;

    fn range(start: u128, end: u128) -> HashKeyRange {
        HashKeyRange::new(HashKey::new(start), HashKey::new(end)).unwrap()
    }

    #[test]
    fn a_child_waits_for_each_parent_and_others_do_not() {
        let mut succession = Succession::default();
        succession.retire(QueueId(1), range(0, 9));
        succession.retire(QueueId(2), range(10, 19));
        let merged = range(0, 19);
        assert!(succession.allows(range(20, 29)));
        assert!(!succession.allows(merged));
        succession.completed(QueueId(1));
        assert!(!succession.allows(merged) && succession.allows(range(0, 9)));
        succession.completed(QueueId(2));
        assert!(succession.allows(merged));
    }
}
