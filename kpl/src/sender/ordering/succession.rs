//! Succession: which lanes still have something under way that goes before the records of others. Pure.

use std::collections::HashMap;

use kinesis_aggregation::HashKeyRange;

use crate::buffer::LaneId;

/// The lanes that take nothing more and are not settled yet.
#[derive(Debug, Default)]
pub(crate) struct Succession {
    unsettled: HashMap<LaneId, HashKeyRange>,
}

impl Succession {
    /// A lane's shard is closed while something of it is under way.
    pub(crate) fn retire(&mut self, lane: LaneId, range: HashKeyRange) {
        self.unsettled.insert(lane, range);
    }

    /// Nothing of a lane is under way any more.
    pub(crate) fn settled(&mut self, lane: LaneId) {
        self.unsettled.remove(&lane);
    }

    /// Whether a lane that takes `range` may go ahead.
    pub(crate) fn allows(&self, range: HashKeyRange) -> bool {
        self.unsettled
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
        succession.retire(LaneId(1), range(0, 9));
        succession.retire(LaneId(2), range(10, 19));
        let merged = range(0, 19);
        assert!(succession.allows(range(20, 29)));
        assert!(!succession.allows(merged));
        succession.settled(LaneId(1));
        assert!(!succession.allows(merged) && succession.allows(range(0, 9)));
        succession.settled(LaneId(2));
        assert!(succession.allows(merged));
    }
}
