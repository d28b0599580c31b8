//! A Kinesis record with failed members.
//!
//! Each `Delivery` resolves as soon as its member has failed. What takes time or runs foreign code waits for a later
//! turn of the sender: building the errors, giving room back, waking tasks, calling `on_failure`.

use std::sync::Arc;

use crate::ack::{BitSet, FailedMembers, Notification, Room};
use crate::aggregate::builder::Sealer;
use crate::aggregate::kinesis_record::{KinesisRecord, Members};
use crate::error::{Failure, FailureCause, Source};

/// A Kinesis record with failed members, which are not completed yet.
pub(crate) struct FailedRecord {
    pub(crate) record: KinesisRecord,
    /// Whether it counts as under way in its queue, because of the members that have not failed.
    pub(crate) is_under_way: bool,
    failed: BitSet,
    count: usize,
    /// The groups of members that failed together, by the index of the first one in their slot.
    groups: Vec<u32>,
}

impl FailedRecord {
    pub(crate) fn new(record: KinesisRecord) -> Self {
        let failed = BitSet::default();
        Self { record, is_under_way: false, failed, count: 0, groups: Vec::new() }
    }

    /// Fails the members at these positions: at least one, and none for the second time.
    pub(crate) fn fail(&mut self, places: &[u32], cause: FailureCause, source: Option<Source>) {
        // If a record fails in part, the room of its failed members is known when it is split.
        let room = (places.len() == self.record.members.len())
            .then(|| Box::new(self.record.charge.split(usize::MAX)) as Room);
        let record = &self.record;
        let history = &record.history;
        let failure = Arc::new(Failure {
            cause,
            attempts: history.log.clone(),
            failures: history.failures,
            may_have_been_written: history.may_have_been_written,
            source,
        });
        let indexes: Vec<_> = match &record.members {
            Members::Together(_) => places.to_vec(),
            Members::Each(members) => {
                places.iter().map(|place| members[*place as usize].1).collect()
            }
        };
        let (contents, wanted) = (record.contents(), places.to_vec());
        let unpack = Box::new(move || contents.records_at(&wanted));
        self.groups.extend(indexes.first());
        record.members.completer().fail(FailedMembers::new(failure, indexes, unpack, room));
        places.iter().for_each(|place| self.failed.insert(*place as usize));
        self.count += places.len();
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.count == self.record.members.len()
    }

    pub(crate) fn has_failed(&self, place: usize) -> bool {
        self.failed.contains(place)
    }

    /// Completes the failed members, and returns a record of the others. Do not call it under a lock: it runs foreign
    /// code.
    pub(crate) fn complete(self, sealer: &mut Sealer) -> Option<KinesisRecord> {
        let (failed, left): (Vec<_>, Vec<_>) = match self.is_whole() {
            true => (vec![self.record], Vec::new()),
            false => {
                let parts = sealer.split_failed(self.record, |place| self.failed.contains(place));
                let (failed, left): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| part.0);
                let records = |parts: Vec<_>| parts.into_iter().map(|(_, record)| record).collect();
                (records(failed), records(left))
            }
        };
        // Room of failed members that were split off is given back here.
        let members: Vec<_> = failed.into_iter().map(|record| record.members).collect();
        let notifications: Vec<_> = members.first().map_or_else(Vec::new, |members| {
            let complete = |first: &u32| members.completer().complete_failed(*first);
            self.groups.iter().flat_map(complete).collect()
        });
        drop(members);
        notifications.into_iter().for_each(Notification::send);
        left.into_iter().next()
    }
}
