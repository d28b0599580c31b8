//! Gaps: keys of which a record fails, and from which place on their later records fail with it. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use kinesis_aggregation::HashKey;

use crate::error::FailureCause;

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
